//! Statistics of durations, shared by the benches.

use std::time::Duration;

use serde_json::{Value, json};

/// Statistics of some durations, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    min: f64,
    max: f64,
}

impl Summary {
    pub(crate) fn of(durations: impl Iterator<Item = Duration>) -> Self {
        let mut all: Vec<f64> = durations.map(|duration| duration.as_secs_f64() * 1e3).collect();
        all.sort_by(f64::total_cmp);
        let middle = all.len() / 2;
        let median = if all.len() % 2 == 1 { all[middle] } else { (all[middle - 1] + all[middle]) / 2.0 };
        Summary { median, min: all[0], max: all[all.len() - 1] }
    }

    pub(crate) fn json(self) -> Value {
        json!({ "median_ms": round(self.median), "min_ms": round(self.min), "max_ms": round(self.max) })
    }

    pub(crate) fn text(self) -> String {
        format!("{:8.2} ({:.1} to {:.1})", self.median, self.min, self.max)
    }
}

pub(crate) fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
