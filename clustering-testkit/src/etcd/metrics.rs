use std::collections::BTreeMap;

/// Metrics of a server at one time, parsed from its Prometheus endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Samples by name, then by labels.
    samples: BTreeMap<String, BTreeMap<Labels, f64>>,
}

type Labels = BTreeMap<String, String>;

impl Metrics {
    /// Returns the value of the metric with this name and all of these labels, if there is exactly one.
    ///
    /// For example: `metrics.get("grpc_server_handled_total", &[("grpc_method", "Txn"), ("grpc_code", "OK")])`
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut matching = self.matching(name, labels);
        let first = matching.next()?;
        matching.next().is_none().then_some(first)
    }

    /// Returns the sum of all metrics with this name and these labels, or 0 if there are none.
    ///
    /// Counters with labels do not exist before their first event.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).sum()
    }

    fn matching<'a>(&'a self, name: &str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = f64> + 'a {
        let has = |all: &Labels, (name, value): &(&str, &str)| {
            all.get(*name).is_some_and(|is| is.as_str() == *value)
        };
        let of_name = self.samples.get(name).into_iter().flatten();
        of_name.filter(move |(all, _)| labels.iter().all(|label| has(all, label))).map(|(_, value)| *value)
    }

    /// Returns all metrics as (name, labels, value).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, String>, f64)> {
        self.samples
            .iter()
            .flat_map(|(name, all)| all.iter().map(move |(labels, value)| (name.as_str(), labels, *value)))
    }

    /// Parses Prometheus' text format.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, labels, value) =
                sample(line).ok_or_else(|| format!("not a metric in Prometheus' text format: {line:?}"))?;
            metrics.samples.entry(name.to_owned()).or_default().insert(labels, value);
        }
        Ok(metrics)
    }
}

/// Parses a line such as `name{label="value",...} 1.5 [timestamp]`.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(after) = rest.strip_prefix('{') {
        rest = after;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// Returns the unescaped text up to the closing quote, and the rest after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP calls_total How many.
# TYPE calls_total counter
calls_total{code="OK",method="Txn"} 17
calls_total{code="OK",method="Range"} 2
calls_total{code="Un\"known\\",method="Txn"} 1
leader 1
sum{le="+Inf"} 1.5e+06 1700000000000
"#;

    #[test]
    fn reads_names_labels_and_values() {
        let metrics = Metrics::parse(TEXT).unwrap();
        assert_eq!(metrics.get("leader", &[]), Some(1.0));
        assert_eq!(metrics.get("calls_total", &[("method", "Range")]), Some(2.0));
        assert_eq!(metrics.get("calls_total", &[("method", "Txn"), ("code", "OK")]), Some(17.0));
        assert_eq!(metrics.get("calls_total", &[("code", "Un\"known\\")]), Some(1.0));
        assert_eq!(metrics.get("sum", &[("le", "+Inf")]), Some(1.5e6));
        assert_eq!(metrics.iter().count(), 5);
    }

    #[test]
    fn get_needs_a_unique_match_and_sum_adds_all_matches() {
        let metrics = Metrics::parse(TEXT).unwrap();
        assert_eq!(metrics.get("calls_total", &[("code", "OK")]), None);
        assert_eq!(metrics.sum("calls_total", &[("code", "OK")]), 19.0);
        assert_eq!((metrics.get("none", &[]), metrics.sum("none", &[])), (None, 0.0));
    }

    #[test]
    fn text_that_is_not_a_metric_is_reported() {
        let error = Metrics::parse("<html>").unwrap_err();
        assert!(error.contains("<html>"), "{error}");
    }
}
