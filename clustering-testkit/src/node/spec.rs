use std::{path::PathBuf, time::Duration};

use clustering_core::NameConflict;
use serde::{Deserialize, Serialize};

/// The variable that makes a test binary a node.
pub(super) const VARIABLE: &str = "CLUSTERING_TEST_NODE";

/// What a node is and does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Which life of it.
    pub life: String,
    /// Where it is reached; nobody does.
    pub uri: String,
    /// The cluster.
    pub namespace: String,
    /// The store, in whatever words the test binary's `main` understands.
    pub endpoints: Vec<String>,
    /// How long its lease lives without a renewal.
    pub ttl: Duration,
    /// What to do if its name is taken.
    pub name_conflict: Conflict,
    /// The file of its journal.
    pub journal: PathBuf,
    /// How long a stabilize takes.
    pub stabilize_takes: Duration,
    /// How often a stabilize says no to each version, before it says yes.
    pub stabilize_refuses: u32,
    /// How long `on_stable` takes.
    pub on_stable_takes: Duration,
    /// How often it makes a fenced write as leader, if at all.
    pub write_every: Option<Duration>,
    /// After how long a version that is not stable is reported.
    pub warn_after: Duration,
    /// After how long it evicts laggards as leader, if at all.
    pub evict_after: Option<Duration>,
    /// How often its health is checked, if at all. A check has a second to answer, and two failures in a row are enough.
    #[serde(default)]
    pub check_every: Option<Duration>,
    /// Whether its reads and commits are taken down, to be
    /// [judged](crate::linearizability::History::of_journals).
    #[serde(default)]
    pub record_calls: bool,
    /// What it does wrong with its writes, to see that it is found.
    #[serde(default)]
    pub breach: Option<Breach>,
}

/// What a node's writes lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Breach {
    /// They are not fenced by the term, and go on when it is over.
    Unfenced,
    /// They go on from what their node last knew, and do not look whether another write came between.
    LastWriteWins,
    /// One whose reply was lost is made again, as if it had not happened.
    RepeatsLost,
}

/// What to do if a name is taken.
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
    /// A node with a TTL of 3 s that says yes at once and writes every 100 ms.
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
            breach: None,
        }
    }

    /// What this process is to be, if it was started as a node.
    ///
    /// # Panics
    ///
    /// If the variable holds something else.
    pub fn from_env() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        Some(
            serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{VARIABLE} is no node: {error}: {text}")),
        )
    }

    pub(super) fn to_env(&self) -> String {
        serde_json::to_string(self).expect("a plain object")
    }
}
