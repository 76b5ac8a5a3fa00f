//! The devices that this instance owns, in memory and in the store.

use std::{collections::BTreeMap, sync::Arc};

use clustering_core::{
    Clustering, Hold, Release, RequestError,
    slots::{Slot, SlotSet},
    store::{CoordinationStore, CoordinationStoreExt, Entry, ErrorKind, Guard, Revision, StoreError, Txn},
};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// A device as it is stored. A write is stored before it is acknowledged. Reads are counted in memory. The count is
/// stored with the next write or before the device moves, so a crash loses the newest reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) state: String,
    pub(crate) writes: u64,
    pub(crate) reads: u64,
}

/// A device in memory.
#[derive(Clone, Default)]
struct Loaded {
    device: Device,
    /// Revision of the stored device; `None` if it is not stored yet.
    revision: Option<Revision>,
    has_unsaved_reads: bool,
}

impl Loaded {
    fn parse(entry: &Entry) -> Result<Self, StoreError> {
        let device = serde_json::from_slice(&entry.value);
        let device = device.map_err(|error| StoreError::invalid(format!("{}: {error}", entry.key)))?;
        Ok(Loaded { device, revision: Some(entry.modified), has_unsaved_reads: false })
    }

    /// Returns the transaction that stores the device. Its guard fails if the stored device has changed since this
    /// instance read it, so that a write with an unknown outcome cannot be applied after a later write.
    fn txn(&self, key: &str) -> Txn {
        let unchanged = match self.revision {
            Some(revision) => Guard::modified_at(key, revision),
            None => Guard::absent(key),
        };
        Txn::new().guard(unchanged).put(key, serde_json::json!(self.device).to_string(), None)
    }
}

/// A device is `None` while a request works on it, and after a failed request. The next request then reads the device
/// from the store.
type BySlot = BTreeMap<Slot, BTreeMap<String, Arc<Mutex<Option<Loaded>>>>>;

pub(crate) struct Devices {
    store: Arc<dyn CoordinationStore>,
    by_slot: Mutex<BySlot>,
}

fn prefix(slot: Slot) -> String {
    format!("devices/{slot}/")
}

impl Devices {
    pub(crate) fn new(store: Arc<dyn CoordinationStore>) -> Self {
        Devices { store, by_slot: Mutex::default() }
    }

    /// Loads the devices of slots that this instance is about to hold. Their former owners have let go of them.
    pub(crate) async fn load(&self, gained: &SlotSet) -> Result<(), StoreError> {
        let snapshots =
            try_join_all(gained.iter().map(async |slot| self.store.read(&prefix(slot)).await)).await?;
        for (slot, snapshot) in gained.iter().zip(snapshots) {
            let parse = |entry: &Entry| {
                Ok((entry.key.to_string(), Arc::new(Mutex::new(Some(Loaded::parse(entry)?)))))
            };
            let devices = snapshot.entries.iter().map(parse).collect::<Result<_, StoreError>>()?;
            self.by_slot.lock().await.insert(slot, devices);
        }
        Ok(())
    }

    /// Stores the unsaved reads of devices in lost slots, and removes these devices from memory.
    pub(crate) async fn flush(&self, change: &Release) -> Result<(), StoreError> {
        let mut lost = self.by_slot.lock().await.clone();
        lost.retain(|slot, _| change.lost().contains(*slot));
        for (key, device) in lost.values().flatten() {
            // Waits for the request that works on the device. Later requests find that their hold is lost.
            let mut device = device.lock().await;
            let unsaved = device.as_ref().filter(|device| device.has_unsaved_reads && change.still_held());
            if let Some(unsaved) = unsaved
                && let Err(error) = self.store.commit(unsaved.txn(key)).await
                // If the guard failed, an earlier write of this instance with an unknown outcome was applied.
                && !matches!(error.kind(), ErrorKind::GuardFailed { .. })
            {
                return Err(error);
            }
            *device = None;
        }
        self.by_slot.lock().await.retain(|slot, _| !lost.contains_key(slot));
        Ok(())
    }

    /// Reads a device, or sets its state. Requests for the same device wait for each other.
    pub(crate) async fn work(
        &self,
        cluster: &Clustering,
        hold: &Hold,
        id: &str,
        new_state: Option<&str>,
    ) -> Result<Device, RequestError> {
        let key = prefix(hold.slot()) + id;
        let device =
            self.by_slot.lock().await.entry(hold.slot()).or_default().entry(key.clone()).or_default().clone();
        let mut device = device.lock().await;
        if hold.is_lost() {
            return Err(RequestError::NotHeld);
        }
        let _work = tracing::info_span!("work", device = id, instance = %cluster.name());
        // Take the device out of memory, so that it is reloaded if the request is cancelled or fails.
        let mut loaded = match device.take() {
            Some(loaded) => loaded,
            None => self.read(&key).await.map_err(RequestError::Store)?,
        };
        let Some(state) = new_state else {
            loaded.device.reads += 1;
            loaded.has_unsaved_reads = true;
            return Ok(device.insert(loaded).device.clone());
        };
        let before = loaded.clone();
        loaded.device.state = state.to_owned();
        loaded.device.writes += 1;
        match cluster.commit_as_owner(hold, loaded.txn(&key)).await {
            Ok(revision) => {
                (loaded.revision, loaded.has_unsaved_reads) = (Some(revision), false);
                Ok(device.insert(loaded).device.clone())
            }
            Err(error) => {
                // No write succeeded, so the reads are still unsaved.
                *device = Some(before).filter(|_| error == RequestError::NotHeld);
                Err(error)
            }
        }
    }

    async fn read(&self, key: &str) -> Result<Loaded, StoreError> {
        self.store.get(key).await?.map_or_else(|| Ok(Loaded::default()), |stored| Loaded::parse(&stored))
    }
}
