//! Metrics of a node, derived from the inputs and outputs of its machine. Without the feature `metrics`, the meter does
//! nothing.

#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(feature = "metrics")]
mod on;

#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::{Meter, missed};
#[cfg(feature = "metrics")]
pub(crate) use self::on::{Meter, missed};
