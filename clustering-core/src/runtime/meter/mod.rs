//! Measuring what goes in and out of the machine: with feature `metrics`, and nothing without it.

#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(feature = "metrics")]
mod on;

#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::{Meter, missed};
#[cfg(feature = "metrics")]
pub(crate) use self::on::{Meter, missed};
