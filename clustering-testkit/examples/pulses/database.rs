//! The database of the sample service: what lies outside the cluster, and what its mistakes would spoil.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clustering_core::store::Revision;

/// How long a call is on its way, there and back.
const WAY: Duration = Duration::from_millis(10);

/// Counts by meter. Clones are the same database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Database {
    rows: Arc<Mutex<BTreeMap<String, Row>>>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    count: u64,
    /// The newest fence that a writer came with.
    fence: Revision,
    /// How many saves were accepted: each stands for one pulse.
    pulses: u64,
}

/// A call came with an older fence than another before it: its caller is no longer the one to write.
#[derive(Debug)]
pub(crate) struct Fenced;

impl Database {
    /// The count of a meter. With a fence: from now on nobody with an older one can write it.
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

    /// Writes the count of a meter, after one more pulse.
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

    /// For tests: the meters whose count is not that of their pulses, since writers overwrote each other.
    pub(crate) fn miscounted(&self) -> Vec<String> {
        let wrong = |(meter, row): (&String, &Row)| {
            let Row { count, pulses, .. } = row;
            (count != pulses).then(|| format!("{meter} counts {count} of {pulses} pulses"))
        };
        self.rows().iter().filter_map(wrong).collect()
    }

    /// For tests: how many pulses of each meter were saved.
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
