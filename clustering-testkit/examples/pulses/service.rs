//! The sample service: its instances count the pulses of meters, each meter on one instance (P12). The service is
//! correct unless a deliberate [`Mistake`] is switched on.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clustering_core::{
    Clustering, Hold, NotHeld, Outcome, Release, Stabilization, StartError, View,
    placement::{Placement, Weight},
    slots::SlotSet,
    store::{CoordinationStore, Revision},
};
use clustering_testkit::cluster::{Process, Working};

use crate::database::Database;

/// Interval between the pulses of a meter.
const PULSE: Duration = Duration::from_millis(100);

/// Number of pulses after which a report of a meter is sent to the archive, if the service makes
/// [`Mistake::Detached`].
const REPORT: u64 = 20;

/// Time that the archive takes for a report.
const ARCHIVE: Duration = Duration::from_secs(8);

/// Number of slots.
const SLOTS: u16 = 16;

/// Mistakes that the service can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Places meters by the nodes that are visible at the moment, instead of holding them. Two instances that see
    /// different nodes may both take a meter, or neither.
    OwnList,
    /// Counts the meters of the slots that `stabilize` is called with, without holding them. The slots are acquired
    /// only when `stabilize` has succeeded, and not at all if a newer version gives them to another instance.
    IgnoresPhase,
    /// Takes a hold of each meter once, and never checks it again. The instance continues to work when the hold is
    /// lost: the slot cannot be handed over, and after the session has ended, the instance works at the same time as
    /// the next holder.
    IgnoresLost,
    /// Keeps a hold in a detached task that sends a report. The task continues when the hold is lost, although the rest
    /// of the instance is correct.
    Detached,
    /// Writes to the database without the hold's token. A write that an instance began before it was paused (by
    /// SIGSTOP, or by a long pause of a virtual machine) takes effect when the instance is resumed, and overwrites what
    /// others wrote in the meantime.
    Unfenced,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mistake::OwnList => "places meters by the current node list instead of holding them",
            Mistake::IgnoresPhase => "counts the meters of stabilize's view before it holds them",
            Mistake::IgnoresLost => "continues to work when its hold is lost",
            Mistake::Detached => "keeps a hold in a detached task",
            Mistake::Unfenced => "writes without the hold's token",
        })
    }
}

/// One instance of the service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    cluster: Clustering,
    database: Database,
    meters: Arc<[String]>,
    mistake: Option<Mistake>,
    counts: Counts,
    /// Holds that are never dropped, for [`Mistake::IgnoresLost`].
    kept: Arc<Mutex<BTreeMap<String, Arc<Hold>>>>,
}

/// Counts of the meters that the instance has loaded.
#[derive(Clone, Debug, Default)]
struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, meter: &str) -> Option<u64> {
        self.lock().get(meter).copied()
    }

    /// Sets the count of a meter. `None` means that the count is unknown and is loaded before the next pulse.
    fn set(&self, meter: &str, count: Option<u64>) {
        match count {
            Some(count) => self.lock().insert(meter.to_owned(), count),
            None => self.lock().remove(meter),
        };
    }
}

impl Service {
    /// Starts an instance. It counts nothing until the future of [`work`](Self::work) is polled.
    pub(crate) async fn start(
        store: impl CoordinationStore,
        name: &str,
        database: Database,
        meters: Arc<[String]>,
        mistake: Option<Mistake>,
    ) -> Result<Self, StartError> {
        let counts = Counts::default();
        let (loader, forgetter) = (counts.clone(), counts.clone());
        let (rows, all) = (database.clone(), meters.clone());
        let cluster = Clustering::builder(store)
            .name(name)
            .uri(format!("http://{name}:8080"))
            .ttl(Duration::from_secs(5))
            .exclusive(SLOTS)
            .release_timeout(Duration::from_secs(20))
            .stabilize(move |change: Stabilization| load(change, loader.clone(), rows.clone(), all.clone()))
            .release(move |change: Release| {
                // The library waits until the holds are dropped, and therefore until the writes in progress have ended.
                forget(&forgetter, change.lost(), change.cluster().upgrade().as_ref());
                async {}
            })
            .start()
            .await?;
        Ok(Service { cluster, database, meters, mistake, counts, kept: Arc::default() })
    }

    /// Returns the instance's work, a future that counts pulses until it is dropped.
    pub(crate) fn work(&self) -> impl Future<Output = ()> + Send + 'static {
        let service = self.clone();
        async move {
            loop {
                tokio::time::sleep(PULSE).await;
                for meter in service.meters.iter() {
                    service.count(meter).await;
                }
            }
        }
    }

    /// Returns true if the instance answers a client that was sent here by the newest version recorded as stable, and
    /// false if it wrongly refuses. Returns `None` if that version does not assign the meter to this instance, or if
    /// the instance is adapting, stopping or without a session.
    pub(crate) fn answers_for(&self, meter: &str) -> Option<bool> {
        let status = self.cluster.status().get();
        let newest = status.newest.as_ref().map(View::version);
        let is_recorded = status.stable == newest && status.cluster_version() == newest;
        let view = status.acknowledged.as_ref().filter(|_| is_recorded)?;
        if !view.owns(meter) {
            return None;
        }
        match self.cluster.hold(meter) {
            Ok(_) => Some(self.may_count(meter).is_some()),
            Err(NotHeld::NoSession | NotHeld::Stopping) => None,
            Err(_) => Some(false),
        }
    }

    /// Counts one pulse of a meter if this instance may do so.
    async fn count(&self, meter: &str) {
        let Some(right) = self.may_count(meter) else { return };
        let _working = working_on(meter);
        let fence = (self.mistake != Some(Mistake::Unfenced)).then_some(right.token);
        // After an aborted or refused write, the count is not known.
        let counted = tokio::select! {
            biased;
            () = self.lost(&right) => None,
            counted = self.count_with(meter, fence) => counted,
        };
        self.counts.set(meter, counted.filter(|_| !right.hold.as_ref().is_some_and(|hold| hold.is_lost())));
        if self.mistake == Some(Mistake::Detached)
            && counted.is_some_and(|count| count.is_multiple_of(REPORT))
        {
            self.report(meter);
        }
    }

    /// Adds one to the count in the database. Returns the new count, or `None` if another instance may have changed it.
    async fn count_with(&self, meter: &str, fence: Option<Revision>) -> Option<u64> {
        let known = match self.counts.get(meter) {
            Some(count) => count,
            None => self.database.load(meter, fence).await.ok()?,
        };
        self.database.save(meter, known + 1, fence).await.ok()?;
        Some(known + 1)
    }

    /// Returns the right to count the meter now, if this instance has it.
    fn may_count(&self, meter: &str) -> Option<Right> {
        let without_hold = |token| Right { hold: None, token };
        let status = self.cluster.status().get();
        match self.mistake {
            Some(Mistake::OwnList) => {
                is_own_by_current_nodes(&self.cluster, meter).then(|| without_hold(status.revision))
            }
            Some(Mistake::IgnoresPhase) => {
                let newest = status.newest.as_ref()?;
                self.counts.get(meter).map(|_| without_hold(newest.revision()))
            }
            _ => {
                let hold = self.hold(meter)?;
                Some(Right { token: hold.token(), hold: Some(hold) })
            }
        }
    }

    fn hold(&self, meter: &str) -> Option<Arc<Hold>> {
        if self.mistake != Some(Mistake::IgnoresLost) {
            return self.cluster.hold(meter).ok().map(Arc::new);
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hold) = kept.get(meter) {
            return Some(hold.clone());
        }
        let hold = Arc::new(self.cluster.hold(meter).ok()?);
        kept.insert(meter.to_owned(), hold.clone());
        Some(hold)
    }

    /// Waits until work under this right must end.
    async fn lost(&self, right: &Right) {
        match &right.hold {
            Some(hold) if self.mistake != Some(Mistake::IgnoresLost) => hold.lost().await,
            _ => std::future::pending().await,
        }
    }

    /// Sends a report in a detached task: the mistake [`Mistake::Detached`].
    fn report(&self, meter: &str) {
        let Ok(hold) = self.cluster.hold(meter) else { return };
        let working = working_on(meter);
        spawn(async move {
            tokio::time::sleep(ARCHIVE).await;
            drop(working);
            drop(hold);
        });
    }
}

/// The right to count a meter.
struct Right {
    /// The hold that gives the right, unless the service makes a mistake.
    hold: Option<Arc<Hold>>,
    /// Fencing token for the database. Each later holder has a larger token.
    token: Revision,
}

/// Loads the counts of the meters that the instance is about to acquire. All former holders have let go of them.
async fn load(change: Stabilization, counts: Counts, database: Database, meters: Arc<[String]>) -> Outcome {
    let view = change.view();
    let is_gained = |meter: &&String| view.slot_of(meter).is_some_and(|slot| change.gained().contains(slot));
    for meter in meters.iter().filter(is_gained) {
        match database.load(meter, Some(view.revision())).await {
            Ok(count) => counts.set(meter, Some(count)),
            // A later version has given the meter to another instance.
            Err(_) => return Outcome::refused(format!("{meter} is fenced")),
        }
    }
    Outcome::Ready
}

/// Forgets the counts of lost slots.
fn forget(counts: &Counts, lost: &SlotSet, cluster: Option<&Clustering>) {
    let is_lost = |meter: &str| {
        let slot = cluster.and_then(|cluster| cluster.slot_of(meter));
        slot.is_none_or(|slot| lost.contains(slot))
    };
    counts.lock().retain(|meter, _| !is_lost(meter));
}

/// Reports to the test that this instance works on the meter. In a real service, this is under `#[cfg(test)]`.
fn working_on(meter: &str) -> Option<Working> {
    Process::current().map(|process| process.working_on(meter))
}

/// Spawns a task. In a real service, this is `tokio::spawn`; here the task must belong to the process.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Some(process) = Process::current() {
        process.spawn(task);
    }
}

/// Makes the mistake [`Mistake::OwnList`].
fn is_own_by_current_nodes(cluster: &Clustering, meter: &str) -> bool {
    let nodes = cluster.nodes();
    let places = Placement::new(nodes.iter().map(|node| (node.name.as_str(), Weight::default())));
    places.find(meter.as_bytes()).is_some_and(|place| nodes[place].name == *cluster.name())
}
