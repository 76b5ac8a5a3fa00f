//! The database of the sample service: state outside the cluster, which mistakes in the service would corrupt.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clustering_core::store::Revision;

/// Network delay of a call, in each direction.
const WAY: Duration = Duration::from_millis(10);

/// Counts per meter. Clones refer to the same database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Database {
    rows: Arc<Mutex<BTreeMap<String, Row>>>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    count: u64,
    /// Highest fence of all calls so far.
    fence: Revision,
    /// Number of accepted saves, each of which stands for one pulse.
    pulses: u64,
}

/// Error of a call with an older fence than an earlier call: its caller no longer owns the meter.
#[derive(Debug)]
pub(crate) struct Fenced;

impl Database {
    /// Returns the count of a meter. With a fence, later calls with an older fence are refused.
    pub(crate) async fn load(&self, meter: &str, fence: Option<Revision>) -> Result<u64, Fenced> {
        tokio::time::sleep(WAY).await;
        let count = {
            let mut rows = self.rows();
            let row = rows.entry(meter.to_owned()).or_default();
            row.check(fence)?;
            row.count
        };
        tokio::time::sleep(WAY).await;
        Ok(count)
    }

    /// Saves the count of a meter after one more pulse.
    pub(crate) async fn save(&self, meter: &str, count: u64, fence: Option<Revision>) -> Result<(), Fenced> {
        tokio::time::sleep(WAY).await;
        {
            let mut rows = self.rows();
            let row = rows.entry(meter.to_owned()).or_default();
            row.check(fence)?;
            row.count = count;
            row.pulses += 1;
        }
        tokio::time::sleep(WAY).await;
        Ok(())
    }

    /// Returns a message for each meter whose count differs from its number of pulses because writers overwrote each
    /// other. For tests.
    pub(crate) fn miscounted(&self) -> Vec<String> {
        let wrong = |(meter, row): (&String, &Row)| {
            let Row { count, pulses, .. } = row;
            (count != pulses).then(|| format!("{meter} counts {count} of {pulses} pulses"))
        };
        self.rows().iter().filter_map(wrong).collect()
    }

    /// Returns the number of saved pulses per meter. For tests.
    pub(crate) fn pulses(&self) -> BTreeMap<String, u64> {
        self.rows().iter().map(|(meter, row)| (meter.clone(), row.pulses)).collect()
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<String, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn check(&mut self, fence: Option<Revision>) -> Result<(), Fenced> {
        let Some(fence) = fence else { return Ok(()) };
        if fence < self.fence {
            return Err(Fenced);
        }
        self.fence = fence;
        Ok(())
    }
}
