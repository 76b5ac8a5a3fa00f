//! A cluster handled from outside: what operators and tools ask of it.
//!
//! ```
//! use clustering_memory::{MemoryStore, operator::Operator};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let store = MemoryStore::new();
//! # let cluster = clustering_memory::Clustering::builder(store.clone()).uri("http://h:1").start().await?;
//! let operator = Operator::new(store, cluster.namespace().clone(), "ops@host");
//! let seen = operator.change(Some("a rebalance by hand")).await?;
//! let version = operator.published_after(seen).await?;
//! println!("{version} is out");
//! # Ok(())
//! # }
//! ```
//!
//! Each verb is one commit of the [protocol](crate::docs::protocol), under guards: what was decided by an older look
//! changes nothing. One whose reply is lost is repeated, safely, until it is known what became of it.

mod error;
mod purge;

use std::sync::Arc;

pub use self::{
    error::OperatorError,
    purge::{Purge, Purged},
};
use crate::{
    keyspace::Keyspace,
    name::{Namespace, NodeName},
    record::{Departure, DepartureRecord, RequestRecord, encode, shorten},
    report::{Monitor, Report},
    store::{CoordinationStore, CoordinationStoreExt, ErrorKind, Guard, Revision, StoreError, Txn},
    version::{Term, Version},
};

/// How often what was decided by a look is decided anew, because the cluster changed meanwhile.
const TRIES: u32 = 8;

/// How often a commit is repeated whose reply was lost.
const REPEATS: u32 = 5;

/// Somebody who handles a cluster from outside. Cheap to clone; holds no lease.
#[derive(Clone)]
pub struct Operator {
    store: Arc<dyn CoordinationStore>,
    keyspace: Keyspace,
    by: String,
}

/// What became of a commit.
enum Done {
    Yes,
    /// Its guards did not hold. Whether they may have held for a try before, whose reply was lost.
    Refused {
        unsure: bool,
    },
}

impl Operator {
    /// Creates an operator for the cluster in that namespace. `by` names the requester in the causes of versions. It is
    /// cut off after 1 KiB, and so are the reasons that are passed to the methods.
    pub fn new(store: impl CoordinationStore, namespace: Namespace, by: impl Into<String>) -> Self {
        Operator { store: Arc::new(store), keyspace: Keyspace::new(namespace), by: by.into() }
    }

    /// The cluster's keys.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// A look at the cluster; `None` if there is none.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn report(&self) -> Result<Option<Report>, StoreError> {
        Report::read(&self.store, self.keyspace.namespace()).await
    }

    /// Follows the cluster.
    ///
    /// # Errors
    ///
    /// What the store says to the first reads.
    pub async fn monitor(&self) -> Result<Monitor, StoreError> {
        Monitor::start(self.store.clone(), self.keyspace.namespace()).await
    }

    /// Asks for a new version. Returns the revision of the version that was the newest then: one that is published
    /// [after](Self::published_after) it is what was asked for. Many who ask at once get one version.
    ///
    /// The leader publishes it; if nobody leads, whoever is elected next.
    ///
    /// # Errors
    ///
    /// [`OperatorError::NoCluster`], [`OperatorError::Store`].
    pub async fn change(&self, why: Option<&str>) -> Result<Revision, OperatorError> {
        let report = self.existing().await?;
        let seen = version_revision(&report);
        let txn = Txn::new().guard(Guard::modified_at(self.keyspace.version_key().clone(), seen)).put(
            self.keyspace.request_key().clone(),
            self.wish(why, None),
            None,
        );
        // A guard that does not hold says that a newer version was published since: that is what was asked for.
        self.commit(txn).await?;
        Ok(seen)
    }

    /// Waits until a version is published whose revision is larger than `seen`, and returns its label.
    ///
    /// Cancel safe, and without a limit of its own.
    ///
    /// # Errors
    ///
    /// What the store says to the first reads.
    pub async fn published_after(&self, seen: Revision) -> Result<Version, StoreError> {
        let newer = move |report: &Report| {
            let version = report.version.as_ref()?;
            version.version.filter(|_| version.revision > seen)
        };
        self.wait_for(newer).await
    }

    /// Waits until the newest version, written after the revision `seen`, is stable, and returns the report that says so.
    /// [`Revision::ZERO`] is before all versions.
    ///
    /// Cancel safe, and without a limit of its own.
    ///
    /// # Errors
    ///
    /// What the store says to the first reads.
    pub async fn stable_after(&self, seen: Revision) -> Result<Report, StoreError> {
        let stable = move |report: &Report| {
            let newer = report.version.as_ref().is_some_and(|version| version.revision > seen);
            (newer && report.condition.is_stable()).then(|| report.clone())
        };
        self.wait_for(stable).await
    }

    /// Waits until the report has something to say.
    async fn wait_for<T>(&self, what: impl Fn(&Report) -> Option<T>) -> Result<T, StoreError> {
        let mut monitor = self.monitor().await?;
        loop {
            if let Some(said) = monitor.report().as_ref().and_then(&what) {
                return Ok(said);
            }
            monitor.next().await;
        }
    }

    /// Makes the leader step down, and returns the term that ended. From the moment in which the log tells it, it does not
    /// act as leader, and it lets others go first for one TTL; what it wrote in between is refused by its guards (P5).
    ///
    /// With `in_favour_of`, that node goes first in the election that follows, half a second before the others: it leads
    /// unless it is in no state to, and then the oldest does, as ever. It is a wish to the nodes, and no guard; releases
    /// that do not know it elect as ever.
    ///
    /// # Errors
    ///
    /// [`OperatorError::NoCluster`], [`OperatorError::NoLeader`]; [`OperatorError::NotPresent`] and
    /// [`OperatorError::LeadsAlready`] for the node in favour; [`OperatorError::Alone`] if no other node is there to lead.
    pub async fn resign(
        &self,
        in_favour_of: Option<&NodeName>,
        why: Option<&str>,
    ) -> Result<Term, OperatorError> {
        for _ in 0..TRIES {
            let report = self.existing().await?;
            let leader = report.leader.as_ref().ok_or(OperatorError::NoLeader)?;
            if let Some(node) = in_favour_of {
                self.present(&report, node)?;
                if leader.name.as_ref() == Some(node) {
                    return Err(OperatorError::LeadsAlready(node.clone()));
                }
            }
            if !report.nodes.iter().any(|node| !node.leads) {
                return Err(OperatorError::Alone);
            }
            let term = leader.term;
            let election = self.keyspace.election_key().clone();
            let mut txn =
                Txn::new().guard(Guard::created_at(election.clone(), term.revision())).delete(election);
            if in_favour_of.is_some() || why.is_some() {
                // A wish that is older than the version would count for nothing.
                let version = self.keyspace.version_key().clone();
                txn = txn.guard(Guard::modified_at(version, version_revision(&report))).put(
                    self.keyspace.request_key().clone(),
                    self.wish(why, in_favour_of),
                    None,
                );
            }
            match self.commit(txn).await? {
                Done::Yes => return Ok(term),
                Done::Refused { unsure } => {
                    let now = self.report().await?;
                    let stands =
                        now.and_then(|report| report.leader).is_some_and(|leader| leader.term == term);
                    if unsure && !stands {
                        return Ok(term);
                    }
                }
            }
        }
        Err(OperatorError::Contended)
    }

    /// Waits until somebody leads under a term after `term`, and returns who; `None` if that cannot be read.
    ///
    /// Cancel safe, and without a limit of its own.
    ///
    /// # Errors
    ///
    /// What the store says to the first reads.
    pub async fn led_after(&self, term: Term) -> Result<(Option<NodeName>, Term), StoreError> {
        let newer = move |report: &Report| {
            let leader = report.leader.as_ref().filter(|leader| leader.term > term)?;
            Some((leader.name.clone(), leader.term))
        };
        self.wait_for(newer).await
    }

    /// Removes a node from the cluster: deletes its record and acknowledgement, and the election key if it leads. Returns
    /// the revision of the newest version then, after which one without the node follows; its causes tell who did it.
    ///
    /// A node that is alive rejoins by itself, after a pause that grows each time. To keep it out, stop it.
    ///
    /// # Errors
    ///
    /// [`OperatorError::NoCluster`], [`OperatorError::NotPresent`].
    pub async fn evict(&self, name: &NodeName) -> Result<Revision, OperatorError> {
        let mut unsure = false;
        let record = self.keyspace.node_key(name);
        for _ in 0..TRIES {
            let report = self.existing().await?;
            let seen = version_revision(&report);
            let node = report.node(name);
            // One that cannot be read is nobody's either.
            let modified = match node {
                Some(node) => node.modified,
                None => match self.store.get(&record).await? {
                    Some(entry) => entry.modified,
                    None if unsure => return Ok(seen),
                    None => return Err(self.not_present(&report, name)),
                },
            };
            let election = self.keyspace.election_key().clone();
            let term = report.leader.as_ref().map_or(Revision::ZERO, |leader| leader.term.revision());
            let mut txn = Txn::new()
                .guard(Guard::modified_at(record.clone(), modified))
                // Whoever leads goes on to, and this node does not come to lead meanwhile.
                .guard(Guard::created_at(election.clone(), term))
                .delete(record.clone())
                .delete(self.keyspace.readiness_key(name))
                .put(
                    self.keyspace.request_key().clone(),
                    self.wish(Some(&format!("evicted {name}")), None),
                    None,
                );
            if let Some(node) = node {
                txn = DepartureRecord::add_to(txn, &self.keyspace, node, Departure::Evicted);
            }
            if report.leader_name() == Some(name) {
                txn = txn.delete(election);
            }
            match self.commit(txn).await? {
                Done::Yes => return Ok(seen),
                Done::Refused { unsure: this } => unsure |= this,
            }
        }
        Err(OperatorError::Contended)
    }

    async fn existing(&self) -> Result<Report, OperatorError> {
        let none = || OperatorError::NoCluster(self.keyspace.namespace().clone());
        self.report().await?.ok_or_else(none)
    }

    fn present(&self, report: &Report, name: &NodeName) -> Result<(), OperatorError> {
        report.node(name).map(drop).ok_or_else(|| self.not_present(report, name))
    }

    fn not_present(&self, report: &Report, name: &NodeName) -> OperatorError {
        let present = report.nodes.iter().map(|node| node.name.clone()).collect();
        OperatorError::NotPresent { name: name.clone(), present }
    }

    fn wish(&self, why: Option<&str>, leader: Option<&NodeName>) -> bytes::Bytes {
        let by = Some(shorten(self.by.clone()));
        let why = why.map(|why| shorten(why.to_owned()));
        encode(&RequestRecord { by, why, leader: leader.cloned() })
    }

    /// Commits, and repeats it while it is not known what became of it: its guards make that safe.
    async fn commit(&self, txn: Txn) -> Result<Done, StoreError> {
        let mut unsure = false;
        let mut repeats = 0;
        loop {
            match self.store.commit(txn.clone()).await {
                Ok(_) => return Ok(Done::Yes),
                Err(error) => match error.kind() {
                    ErrorKind::GuardFailed { .. } => return Ok(Done::Refused { unsure }),
                    ErrorKind::OutcomeUnknown if repeats < REPEATS => {
                        unsure = true;
                        repeats += 1;
                    }
                    _ => return Err(error),
                },
            }
        }
    }
}

fn version_revision(report: &Report) -> Revision {
    report.version.as_ref().map_or(Revision::ZERO, |version| version.revision)
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator")
            .field("namespace", self.keyspace.namespace())
            .field("by", &self.by)
            .finish_non_exhaustive()
    }
}
