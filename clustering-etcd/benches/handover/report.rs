//! Prints the results as text or as JSON objects.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Sample;

/// Prints the samples of one case from both clusters.
pub(crate) fn print(
    as_json: bool,
    case: &str,
    nodes: usize,
    slots: u16,
    exclusive: &[Sample],
    plain: &[Sample],
) {
    let commits = exclusive.iter().map(|sample| sample.commits).max();
    let gaps: Vec<_> = exclusive.iter().filter_map(|sample| sample.gaps.moved).collect();
    let gap = (!gaps.is_empty()).then(|| median(gaps));
    let kept = exclusive.iter().map(|sample| milliseconds(sample.gaps.kept)).fold(0.0, f64::max);
    let stable = median(plain.iter().map(|sample| sample.stable).collect());
    let own_stable = median(exclusive.iter().map(|sample| sample.stable).collect());
    let ratio = gap.map(|gap| gap / stable);
    if as_json {
        let line = json!({
            "case": case, "nodes": nodes, "slots": slots, "commits": commits, "gap_ms": number(gap),
            "stable_ms": number(Some(stable)), "gap_ratio": number(ratio), "kept_gap_ms": number(Some(kept)),
            "own_stable_ms": number(Some(own_stable)), "rounds": exclusive.len(),
        });
        return println!("{line}");
    }
    let text = |number: Option<f64>| number.map_or("-".to_owned(), |number| format!("{number:.2}"));
    println!(
        "{nodes:4} nodes, {slots:4} slots, {case:17} {:4} commits  gap {:>7}  stable {stable:7.2} (exclusive \
         {own_stable:7.2})  ratio {:>5}  gap of kept slots {kept:.2}",
        commits.unwrap_or_default(),
        text(gap),
        text(ratio),
    );
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn median(durations: Vec<Duration>) -> f64 {
    let mut all: Vec<f64> = durations.into_iter().map(milliseconds).collect();
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    if all.len() % 2 == 1 { all[middle] } else { (all[middle - 1] + all[middle]) / 2.0 }
}

fn number(number: Option<f64>) -> Value {
    number.map_or(Value::Null, |number| json!((number * 1000.0).round() / 1000.0))
}
