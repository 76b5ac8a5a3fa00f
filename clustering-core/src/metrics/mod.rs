//! Metrics of nodes, for Prometheus and similar systems (feature `metrics`).
//!
//! Nodes report to the [`metrics`](https://docs.rs/metrics) facade. The service installs a recorder, such as
//! `metrics-exporter-prometheus`; without one, nothing is kept. Observers are not measured.
//!
//! [`ALL`] lists every metric with its labels and unit, like the table in [`docs::operating`](crate::docs::operating).
//! Names follow the conventions of Prometheus: base units, and `_total` for counters. Use the buckets [`SECONDS`] for
//! histograms. Every label has a small, fixed set of values, except `namespace`, which the service chooses.

mod names;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub use self::names::*;

/// Description of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name of the metric.
    pub name: &'static str,
    /// Kind of the metric.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One-line description, for the recorder and for the documentation.
    pub help: &'static str,
}

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that only increases.
    Counter,
    /// A current value.
    Gauge,
    /// A histogram of durations in seconds.
    Seconds,
}

impl Kind {
    /// Returns the kind in words, as in the documentation's table.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Seconds => "histogram, seconds",
        }
    }
}

/// Buckets for all histograms of this library, in seconds: from a store round trip to a long `stabilize`.
pub const SECONDS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0,
    600.0,
];

/// Describes metrics to the recorder. Each node does this for [`ALL`] at its start.
pub fn describe(metrics: &[Metric]) {
    for Metric { name, kind, help, .. } in metrics {
        match kind {
            Kind::Counter => describe_counter!(*name, Unit::Count, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Seconds => describe_histogram!(*name, Unit::Seconds, *help),
        }
    }
}
