//! The sample service: its instances count the pulses of meters, each meter on one instance. It is correct unless it is
//! told to make a mistake.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use clustering_core::{
    Clustering, Stabilization, StartError, View, WeakClustering,
    placement::{Placement, Weight},
    store::{CoordinationStore, Revision},
};
use tokio::sync::Mutex;

use crate::database::Database;

/// Interval between the pulses of a meter.
const PULSE: Duration = Duration::from_millis(100);

/// Mistakes that the service can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Placing meters by the nodes that are visible at the moment instead of by the view of the version. Two instances
    /// that see different nodes may both take a meter, or neither.
    OwnList,
    /// Counting the held meters regardless of the session. An instance that is cut off keeps counting beside the one
    /// that replaced it.
    KeepsGoing,
    /// Checking that a meter is its own and then writing without a fence. An instance that is stopped in between
    /// (SIGSTOP, or a long pause of a virtual machine) writes when it resumes, over what others wrote in the meantime.
    Unfenced,
}

impl Mistake {
    /// All mistakes.
    pub(crate) const ALL: [Mistake; 3] = [Mistake::OwnList, Mistake::KeepsGoing, Mistake::Unfenced];
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mistake::OwnList => "places meters by the current node list instead of the view",
            Mistake::KeepsGoing => "keeps counting after its session has ended",
            Mistake::Unfenced => "writes without a fence",
        })
    }
}

/// One instance of the service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    cluster: Clustering,
    database: Database,
    mistake: Option<Mistake>,
    /// Locked while a meter is being counted.
    held: Arc<Mutex<Held>>,
}

/// Meters that the instance owns, with the counts of those that it has loaded.
type Held = BTreeMap<String, Option<u64>>;

impl Service {
    /// Starts an instance. It counts nothing until the future of [`work`](Self::work) is polled.
    pub(crate) async fn start(
        store: impl CoordinationStore,
        name: &str,
        database: Database,
        meters: Arc<[String]>,
        mistake: Option<Mistake>,
    ) -> Result<Self, StartError> {
        let held = Arc::<Mutex<Held>>::default();
        let adapting = held.clone();
        let me = Arc::<OnceLock<WeakClustering>>::default();
        let node = me.clone();
        let stabilize = move |change: Stabilization| {
            let (held, meters, node) = (adapting.clone(), meters.clone(), node.clone());
            async move {
                // Taking the lock waits for a write in progress. Once this returns, the instance writes no meter that
                // it has lost.
                let mut held = held.lock().await;
                let node = node
                    .get()
                    .and_then(WeakClustering::upgrade)
                    .filter(|_| mistake == Some(Mistake::OwnList));
                let is_own = |meter: &str| match &node {
                    Some(node) => is_own_by_current_nodes(node, meter),
                    None => change.view().owns(meter),
                };
                // Load all counts again: other instances may have counted while this one was away.
                *held =
                    meters.iter().filter(|meter| is_own(meter)).map(|meter| (meter.clone(), None)).collect();
            }
        };
        let builder = Clustering::builder(store).name(name).uri(format!("http://{name}:8080"));
        let cluster = builder.ttl(Duration::from_secs(5)).stabilize(stabilize).start().await?;
        // This is the only place that sets it.
        let _ = me.set(cluster.downgrade());
        Ok(Service { cluster, database, mistake, held })
    }

    /// Returns the instance's work, a future that counts pulses until it is dropped.
    pub(crate) fn work(&self) -> impl Future<Output = ()> + Send + 'static {
        let service = self.clone();
        async move {
            loop {
                tokio::time::sleep(PULSE).await;
                let meters: Vec<_> = service.held.lock().await.keys().cloned().collect();
                for meter in meters {
                    service.count(&meter).await;
                }
            }
        }
    }

    /// Returns true if the instance answers a client that was sent here by the newest version recorded as stable, and
    /// false if it wrongly refuses. Returns `None` if that version does not assign the meter to this instance, or if the
    /// instance is busy, adapting or without a session.
    pub(crate) fn answers_for(&self, meter: &str) -> Option<bool> {
        let status = self.cluster.status().get();
        // The instance keeps answering from the newest version that is recorded as stable while the next one is pending.
        let newest = status.newest.as_ref().map(View::version);
        let is_recorded = status.stable == newest && status.cluster_version() == newest;
        let says_so = is_recorded && self.cluster.is_member();
        let view = status.acknowledged.as_ref().filter(|_| says_so)?;
        let held = self.held.try_lock().ok()?;
        view.owns(meter).then(|| held.contains_key(meter))
    }

    /// Counts one pulse of a meter if this instance may do so.
    async fn count(&self, meter: &str) {
        // While this lock is held, no stabilize accepts, so that no other instance takes the meter by a newer version.
        let mut held = self.held.lock().await;
        let (Some(known), Some(fence)) = (held.get(meter), self.may_count()) else { return };
        let fence = match self.mistake {
            Some(Mistake::KeepsGoing | Mistake::Unfenced) => None,
            _ => Some(fence),
        };
        let known = match known {
            Some(count) => Ok(*count),
            None => self.database.load(meter, fence).await,
        };
        let counted = match known {
            Ok(count) => self.database.save(meter, count + 1, fence).await.map(|()| count + 1),
            Err(fenced) => Err(fenced),
        };
        // Fenced: another instance owns the meter. Should it come back, its count is loaded again.
        held.insert(meter.to_owned(), counted.ok());
    }

    /// Returns the fence with which this instance may count the meters that it holds now: the revision of its version,
    /// which is higher for each later owner.
    fn may_count(&self) -> Option<Revision> {
        let status = self.cluster.status().get();
        if self.mistake == Some(Mistake::KeepsGoing) {
            return Some(status.revision);
        }
        // Only once all instances have released the meters that they lost, and while this instance's session lasts.
        let may = status.is_stable() && self.cluster.is_member();
        status.acknowledged.as_ref().filter(|_| may).map(View::revision)
    }
}

/// Makes the mistake [`Mistake::OwnList`].
fn is_own_by_current_nodes(cluster: &Clustering, meter: &str) -> bool {
    let nodes = cluster.nodes();
    let places = Placement::new(nodes.iter().map(|node| (node.name.as_str(), Weight::default())));
    places.find(meter.as_bytes()).is_some_and(|place| nodes[place].name == *cluster.name())
}
