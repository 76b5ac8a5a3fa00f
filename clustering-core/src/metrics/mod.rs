//! What a node measures, for Prometheus and the like: feature `metrics`.
//!
//! Nodes write to the [`metrics`](https://docs.rs/metrics) facade; a recorder that the service installs takes it from
//! there, such as `metrics-exporter-prometheus`. Without one nothing is kept, and without the feature nothing of this is
//! compiled. What only observes a cluster is not measured.
//!
//! [`ALL`] has every metric with its labels and unit; the table in [`docs::operating`](crate::docs::operating) is the
//! same. Names follow Prometheus: base units, `_total` for what only grows. Histograms are best given the buckets
//! [`SECONDS`]. Labels take few values, whatever happens: `namespace` is what the process itself gave.

mod names;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub use self::names::*;

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What kind of metric it is.
    pub kind: Kind,
    /// The labels that it has.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows: how often something happened.
    Counter,
    /// A number that is so now.
    Gauge,
    /// How long something took, in seconds, each time.
    Seconds,
}

impl Kind {
    /// In words, as the documentation has it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Seconds => "histogram, seconds",
        }
    }
}

/// Buckets for all histograms here, in seconds: from a round trip to a stabilize that takes its time.
pub const SECONDS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0,
    600.0,
];

/// Tells the recorder of these metrics. Each node does so for its own at its start.
pub fn describe(metrics: &[Metric]) {
    for Metric { name, kind, help, .. } in metrics {
        match kind {
            Kind::Counter => describe_counter!(*name, Unit::Count, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Seconds => describe_histogram!(*name, Unit::Seconds, *help),
        }
    }
}
