//! Metrics of the store, with the feature `metrics`. Nodes have metrics of their own.

#[cfg(feature = "metrics")]
use clustering_core::metrics::{Kind, Metric};

/// Number of watches that were lost and resumed, which nodes do not notice.
#[cfg(feature = "metrics")]
pub const WATCH_RESUMES: Metric = Metric {
    name: "clustering_etcd_watch_resumes_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Watches that were lost and resumed at etcd without the node noticing.",
};

/// All metrics of the store. Those of nodes are in [`metrics::ALL`](clustering_core::metrics::ALL).
#[cfg(feature = "metrics")]
pub const METRICS: &[Metric] = &[WATCH_RESUMES];

/// Describes the metrics to the recorder.
pub(crate) fn describe() {
    #[cfg(feature = "metrics")]
    clustering_core::metrics::describe(METRICS);
}

/// Counts a watch that was resumed.
pub(crate) fn watch_resumed() {
    #[cfg(feature = "metrics")]
    metrics::counter!(WATCH_RESUMES.name).increment(1);
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use std::collections::BTreeSet;

    use clustering_core::metrics::ALL;
    use serde_json::Value;

    use super::*;

    const DASHBOARD: &str = include_str!("../dashboards/clustering.json");

    /// Collects all strings under this key, at any depth.
    fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if name == key => found.push(text),
                        other => texts(other, key, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| texts(value, key, found)),
            _ => {}
        }
    }

    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
    }

    /// Returns the metric of that name, or the one with a histogram series of that name.
    fn metric(word: &str) -> Option<Metric> {
        let all = || ALL.iter().chain(METRICS);
        let part = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        let histogram = |metric: &&Metric| metric.kind == Kind::Seconds;
        match part.and_then(|base| all().filter(histogram).find(|metric| metric.name == base)) {
            Some(whole) => Some(*whole),
            None => all().filter(|metric| !histogram(metric)).find(|metric| metric.name == word).copied(),
        }
    }

    #[test]
    fn the_dashboard_uses_exactly_the_metrics_and_labels_that_exist() {
        let dashboard: Value = serde_json::from_str(DASHBOARD).expect("it is JSON");
        let (mut asked, mut shown) = (Vec::new(), BTreeSet::new());
        texts(&dashboard, "expr", &mut asked);
        texts(&dashboard, "query", &mut asked);
        // This query lists data sources, and is not PromQL.
        asked.retain(|expression| *expression != "prometheus");
        assert!(asked.len() > 15, "{asked:?}");
        for expression in asked {
            let here: Vec<Metric> = words(expression)
                .filter(|word| word.starts_with("clustering_"))
                .map(|word| metric(word).unwrap_or_else(|| panic!("no metric {word}: {expression}")))
                .collect();
            assert!(!here.is_empty(), "{expression}");
            // Labels in matchers, and labels of aggregations.
            let compared = expression
                .split(['{', ','])
                .filter_map(|part| part.split_once(['=', '!']))
                .map(|(label, _)| label.trim());
            let kept = expression
                .split("by (")
                .skip(1)
                .filter_map(|rest| rest.split(')').next())
                .flat_map(|labels| labels.split(',').map(str::trim));
            for label in compared.chain(kept) {
                let from_prometheus = ["le", "instance", "job"].contains(&label);
                let known = here.iter().any(|metric| metric.labels.contains(&label));
                assert!(known || from_prometheus, "no label {label:?}: {expression}");
            }
            shown.extend(here.iter().map(|metric| metric.name));
        }
        let all: BTreeSet<_> = ALL.iter().chain(METRICS).map(|metric| metric.name).collect();
        let missing: Vec<_> = all.difference(&shown).collect();
        assert!(missing.is_empty(), "the dashboard does not show {missing:?}");
    }

    #[test]
    fn panels_do_not_overlap() {
        let dashboard: Value = serde_json::from_str(DASHBOARD).expect("it is JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
        assert_eq!(ids.len(), panels.len());
        let mut taken = BTreeSet::new();
        for panel in panels {
            let at = |field: &str| panel["gridPos"][field].as_u64().expect("a place");
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(x < 24 && taken.insert((x, y)), "{} overlaps another panel", panel["title"]);
                }
            }
        }
    }
}
