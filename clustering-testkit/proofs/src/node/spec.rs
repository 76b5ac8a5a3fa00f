use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clustering_core::{CrashDetection, NameConflict};
use clustering_testkit::faults::Breach;
use serde::{Deserialize, Serialize};

use crate::work::WorkSpec;

/// Environment variable with the specification that makes a test binary run as a node.
pub(super) const VARIABLE: &str = "CLUSTERING_TEST_NODE";

/// Specification of a test node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Name of the node.
    pub name: String,
    /// Name of this life (run) of the node. It distinguishes the life from earlier ones in journals and histories.
    pub life: String,
    /// URI of the node. Nothing connects to it.
    pub uri: String,
    /// Namespace of the cluster.
    pub namespace: String,
    /// Endpoints of the store, in the format that the test binary's `main` expects.
    pub endpoints: Vec<String>,
    /// TTL of the node's lease.
    pub ttl: Duration,
    /// Behaviour if the name is taken.
    pub name_conflict: Conflict,
    /// Path of the journal file.
    pub journal: PathBuf,
    /// Duration of each `stabilize` callback.
    pub stabilize_takes: Duration,
    /// Number of `stabilize` attempts that are refused for each version before one succeeds.
    pub stabilize_refuses: u32,
    /// Duration of the `on_stable` callback.
    pub on_stable_takes: Duration,
    /// Interval of the leader commits that the node makes as leader. `None` means no writes.
    pub write_every: Option<Duration>,
    /// Time after which a version that is not stable is reported.
    pub warn_after: Duration,
    /// Time after which the node, as leader, evicts laggards. `None` means never.
    pub evict_after: Option<Duration>,
    /// Interval of the health checks, if there are any. A check may take one second, and two consecutive failures make
    /// the node unhealthy.
    #[serde(default)]
    pub check_every: Option<Duration>,
    /// True if reads and commits are recorded, so that they can be
    /// [judged](clustering_testkit::linearizability::History::of_journals).
    #[serde(default)]
    pub record_calls: bool,
    /// Work on exclusive keys. `None` means that the node is not exclusive.
    #[serde(default)]
    pub work: Option<WorkSpec>,
    /// Detection of crashes by connections between the nodes, if it is on.
    #[serde(default)]
    pub detects_crashes: Option<DetectionSpec>,
    /// Deliberate fault in the node's writes, to test that it is detected.
    #[serde(default)]
    pub breach: Option<Breach>,
}

/// Settings of a node's [`CrashDetection`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectionSpec {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Host that other nodes connect to.
    pub advertise: IpAddr,
    /// True if a refused connection is proof of death.
    pub trust_refused: bool,
}

impl DetectionSpec {
    /// Listens on a free port of this address, which other nodes connect to.
    pub fn at(address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        DetectionSpec { listen: (address, 0).into(), advertise: address, trust_refused: false }
    }

    pub(super) fn detection(&self) -> CrashDetection {
        let detection = CrashDetection::new().listen(self.listen).advertise(self.advertise.to_string());
        if self.trust_refused { detection.trust_refused() } else { detection }
    }
}

/// Behaviour of a node whose name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conflict {
    /// [`NameConflict::Wait`]
    Wait,
    /// [`NameConflict::TakeOver`]
    TakeOver,
    /// [`NameConflict::Fail`]
    Fail,
}

impl From<Conflict> for NameConflict {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Wait => NameConflict::Wait,
            Conflict::TakeOver => NameConflict::TakeOver,
            Conflict::Fail => NameConflict::Fail,
        }
    }
}

impl NodeSpec {
    /// Creates a node with a TTL of 3 s whose `stabilize` succeeds at once and that writes every 100 ms as leader.
    pub fn new(
        name: impl Into<String>,
        life: impl Into<String>,
        namespace: impl Into<String>,
        endpoints: Vec<String>,
        journal: impl Into<PathBuf>,
    ) -> Self {
        let name = name.into();
        NodeSpec {
            uri: format!("http://{name}.test:80"),
            name,
            life: life.into(),
            namespace: namespace.into(),
            endpoints,
            ttl: Duration::from_secs(3),
            name_conflict: Conflict::Wait,
            journal: journal.into(),
            stabilize_takes: Duration::ZERO,
            stabilize_refuses: 0,
            on_stable_takes: Duration::ZERO,
            write_every: Some(Duration::from_millis(100)),
            warn_after: Duration::from_secs(30),
            evict_after: None,
            check_every: None,
            record_calls: false,
            work: None,
            detects_crashes: None,
            breach: None,
        }
    }

    /// Returns the specification from the environment if this process was started as a node.
    ///
    /// # Panics
    ///
    /// Panics if the environment variable does not hold a specification.
    pub fn from_env() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        Some(
            serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{VARIABLE} is not a node specification: {error}: {text}")),
        )
    }

    pub(super) fn to_env(&self) -> String {
        serde_json::to_string(self).expect("a specification can be serialized")
    }
}
