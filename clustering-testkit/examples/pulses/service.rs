//! The sample service: its instances count the pulses of meters, each meter at one of them. It is right, unless it is told
//! to make a mistake.

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

/// How often a meter has a pulse.
const PULSE: Duration = Duration::from_millis(100);

/// What the service does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// It places meters by the nodes that it sees at the moment, instead of by the view that it is given. Two instances
    /// that see different nodes both take a meter, or none does.
    OwnList,
    /// It goes on with the meters that it holds, whatever became of its session. One that is cut off counts on beside the
    /// one that took its place.
    KeepsGoing,
    /// It asks whether a meter is its own, and then writes without a fence. One that is stopped in between (SIGSTOP, a
    /// long pause of a virtual machine) writes when it goes on, over what others wrote meanwhile.
    Unfenced,
}

impl Mistake {
    /// All of them.
    pub(crate) const ALL: [Mistake; 3] = [Mistake::OwnList, Mistake::KeepsGoing, Mistake::Unfenced];
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mistake::OwnList => "places meters by the nodes at hand, not by the view",
            Mistake::KeepsGoing => "goes on after its session",
            Mistake::Unfenced => "writes without a fence",
        })
    }
}

/// One instance.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    cluster: Clustering,
    database: Database,
    mistake: Option<Mistake>,
    /// Locked while a meter is worked on.
    held: Arc<Mutex<Held>>,
}

/// The meters that an instance adapted to, and the counts of those that it has loaded.
type Held = BTreeMap<String, Option<u64>>;

impl Service {
    /// Starts an instance. It counts nothing until its [`work`](Self::work) is polled.
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
                // What is being written is written before this says yes, and nothing is written after it for others.
                let mut held = held.lock().await;
                let node = node
                    .get()
                    .and_then(WeakClustering::upgrade)
                    .filter(|_| mistake == Some(Mistake::OwnList));
                let is_own = |meter: &str| match &node {
                    Some(node) => is_own_by_the_nodes_at_hand(node, meter),
                    None => change.view().owns(meter),
                };
                // All are loaded again: others may have counted while this instance was away.
                *held =
                    meters.iter().filter(|meter| is_own(meter)).map(|meter| (meter.clone(), None)).collect();
            }
        };
        let builder = Clustering::builder(store).name(name).uri(format!("http://{name}:8080"));
        let cluster = builder.ttl(Duration::from_secs(5)).stabilize(stabilize).start().await?;
        // It is set once.
        let _ = me.set(cluster.downgrade());
        Ok(Service { cluster, database, mistake, held })
    }

    /// The instance's work, until the node ends.
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

    /// Whether a client that was sent here, by the version that this instance says is recorded as stable, is answered. `None` if it
    /// says nothing, since it is adapting or out of its session; or is busy.
    pub(crate) fn answers_for(&self, meter: &str) -> Option<bool> {
        let status = self.cluster.status().get();
        // It answers on while the next version is due, by the newest one that is recorded as stable.
        let newest = status.newest.as_ref().map(View::version);
        let is_recorded = status.stable == newest && status.cluster_version() == newest;
        let says_so = is_recorded && self.cluster.is_member();
        let view = status.acknowledged.as_ref().filter(|_| says_so)?;
        let held = self.held.try_lock().ok()?;
        view.owns(meter).then(|| held.contains_key(meter))
    }

    /// Counts one pulse of a meter, if that is this instance's to do.
    async fn count(&self, meter: &str) {
        // While this is held, no stabilize says yes: nobody else takes the meter by a newer version.
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
        // Fenced: somebody else has it. If it is to come back, it is loaded again.
        held.insert(meter.to_owned(), counted.ok());
    }

    /// The fence under which this instance may count pulses of what it holds at this moment: the revision of its version,
    /// which is newer for each owner that comes after.
    fn may_count(&self) -> Option<Revision> {
        let status = self.cluster.status().get();
        if self.mistake == Some(Mistake::KeepsGoing) {
            return Some(status.revision);
        }
        // Only when all have let go of what is theirs no more, and as long as this one's session lasts.
        let may = status.is_stable() && self.cluster.is_member();
        status.acknowledged.as_ref().filter(|_| may).map(View::revision)
    }
}

/// The mistake [`Mistake::OwnList`].
fn is_own_by_the_nodes_at_hand(cluster: &Clustering, meter: &str) -> bool {
    let nodes = cluster.nodes();
    let places = Placement::new(nodes.iter().map(|node| (node.name.as_str(), Weight::default())));
    places.find(meter.as_bytes()).is_some_and(|place| nodes[place].name == *cluster.name())
}
