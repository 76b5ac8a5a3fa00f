use std::time::Duration;

use clustering_core::store::StoreError;

/// Returns a random number.
pub(crate) fn number() -> Result<u64, StoreError> {
    getrandom::u64()
        .map_err(|error| StoreError::busy(format!("cannot read entropy from the operating system: {error}")))
}

/// Returns a random time between half of `time` and `time`, so that processes that wait for the same event do not act
/// at the same moment.
pub(crate) fn spread(time: Duration) -> Duration {
    let share = number().map_or(1.0, |number| number as f64 / u64::MAX as f64);
    time.mul_f64(0.5 + share / 2.0)
}
