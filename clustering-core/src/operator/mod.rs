//! Operations on a cluster from outside, for operators and tools.
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
//! Each operation is a commit of the [protocol](crate::docs::protocol) with guards, so that a decision based on
//! outdated data has no effect. A commit whose reply is lost is repeated until its outcome is known, which the guards
//! make safe.

mod error;
mod purge;
mod slots;

use std::{sync::Arc, time::Duration};

pub use self::{
    error::OperatorError,
    purge::{Purge, Purged},
    slots::{Cordoned, Draining},
};
use crate::{
    keyspace::Keyspace,
    name::{Namespace, NodeName},
    record::{Departure, DepartureRecord, RequestRecord, encode, shorten},
    report::{Monitor, Report},
    store::{CoordinationStore, CoordinationStoreExt, ErrorKind, Guard, Revision, StoreError, Txn},
    version::{Term, Version},
};

/// Maximum number of attempts if the cluster changes between the read and the commit.
const TRIES: u32 = 8;

/// Maximum number of times that a commit is repeated after a lost reply.
const REPEATS: u32 = 5;

/// Operates a cluster from outside. Cheap to clone, and holds no lease.
#[derive(Clone)]
pub struct Operator {
    store: Arc<dyn CoordinationStore>,
    keyspace: Keyspace,
    by: String,
}

/// The outcome of a commit.
enum Done {
    Yes,
    /// A guard failed. `unsure` is true if an earlier attempt, whose reply was lost, may have succeeded.
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

    /// Returns the keys of the cluster.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Reads the state of the cluster. Returns `None` if there is no cluster.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if a read fails.
    pub async fn report(&self) -> Result<Option<Report>, StoreError> {
        Report::read(&self.store, self.keyspace.namespace()).await
    }

    /// Starts to follow the cluster.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if one of the first reads fails.
    pub async fn monitor(&self) -> Result<Monitor, StoreError> {
        Monitor::start(self.store.clone(), self.keyspace.namespace()).await
    }

    /// Requests a new version. Returns the revision of the newest version at that time: the version that is published
    /// [after](Self::published_after) it fulfills the request. Requests at the same time are fulfilled by one version.
    ///
    /// The leader publishes the version; without a leader, the next leader does.
    ///
    /// # Errors
    ///
    /// [`OperatorError::NoCluster`], [`OperatorError::Store`].
    pub async fn change(&self, why: Option<&str>) -> Result<Revision, OperatorError> {
        let report = self.existing().await?;
        let seen = version_revision(&report);
        let txn = Txn::new().guard(Guard::modified_at(self.keyspace.version_key().clone(), seen)).put(
            self.keyspace.request_key().clone(),
            self.request(why, None),
            None,
        );
        // If the guard fails, a newer version was published since, which fulfills the request.
        self.commit(txn).await?;
        Ok(seen)
    }

    /// Waits until a version is published whose revision is larger than `seen`, and returns its label.
    ///
    /// Cancel safe. There is no time limit.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if one of the first reads fails.
    pub async fn published_after(&self, seen: Revision) -> Result<Version, StoreError> {
        let newer = move |report: &Report| {
            let version = report.version.as_ref()?;
            version.version.filter(|_| version.revision > seen)
        };
        self.wait_for(newer).await
    }

    /// Waits until the newest version is stable and was written after the revision `seen`, and returns the report.
    /// [`Revision::ZERO`] is before all versions.
    ///
    /// Cancel safe. There is no time limit.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if one of the first reads fails.
    pub async fn stable_after(&self, seen: Revision) -> Result<Report, StoreError> {
        let stable = move |report: &Report| {
            let newer = report.version.as_ref().is_some_and(|version| version.revision > seen);
            (newer && report.condition.is_stable()).then(|| report.clone())
        };
        self.wait_for(stable).await
    }

    /// Waits until `condition` returns a value for the report.
    async fn wait_for<T>(&self, condition: impl Fn(&Report) -> Option<T>) -> Result<T, StoreError> {
        let mut monitor = self.monitor().await?;
        loop {
            if let Some(value) = monitor.report().as_ref().and_then(&condition) {
                return Ok(value);
            }
            monitor.next().await;
        }
    }

    /// Makes the leader step down, and returns the term that ended. The leader stops acting as leader when it sees
    /// the change in the log, and lets other nodes campaign first for one TTL. Its writes in between are refused by
    /// their guards (P5).
    ///
    /// With `in_favour_of`, that node campaigns half a second before the others, so that it becomes the leader if it
    /// can. Otherwise the candidates campaign in their usual order; see
    /// [`Config::priority`](crate::Config::priority). This is a hint to the nodes, not a guard; older releases ignore
    /// it.
    ///
    /// # Errors
    ///
    /// [`OperatorError::NoCluster`], [`OperatorError::NoLeader`]; [`OperatorError::NotPresent`] and
    /// [`OperatorError::LeadsAlready`] for the node `in_favour_of`; [`OperatorError::Alone`] if no other node is
    /// present.
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
                // A request that is older than the version has no effect.
                let version = self.keyspace.version_key().clone();
                txn = txn.guard(Guard::modified_at(version, version_revision(&report))).put(
                    self.keyspace.request_key().clone(),
                    self.request(why, in_favour_of),
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

    /// Waits until a node leads in a later term than `term`, and returns its name and its term. The name is `None` if
    /// the leader's record is malformed.
    ///
    /// Cancel safe. There is no time limit.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if one of the first reads fails.
    pub async fn led_after(&self, term: Term) -> Result<(Option<NodeName>, Term), StoreError> {
        let newer = move |report: &Report| {
            let leader = report.leader.as_ref().filter(|leader| leader.term > term)?;
            Some((leader.name.clone(), leader.term))
        };
        self.wait_for(newer).await
    }

    /// Removes a node from the cluster: deletes its record and its acknowledgement, and the election key if it is the
    /// leader. Returns the revision of the newest version at that time. The next version does not contain the node, and
    /// its causes name the requester.
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
            // A malformed record is evicted too.
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
                // The leader must not change: if the evicted node became the leader, its election key would remain.
                .guard(Guard::created_at(election.clone(), term))
                .delete(record.clone())
                .delete(self.keyspace.readiness_key(name))
                .put(
                    self.keyspace.request_key().clone(),
                    self.request(Some(&format!("evicted {name}")), None),
                    None,
                );
            if let Some(node) = node {
                txn = DepartureRecord::add_to(txn, &self.keyspace, node, Departure::Evicted, Duration::ZERO);
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

    fn request(&self, why: Option<&str>, leader: Option<&NodeName>) -> bytes::Bytes {
        let by = Some(shorten(self.by.clone()));
        let why = why.map(|why| shorten(why.to_owned()));
        encode(&RequestRecord { by, why, leader: leader.cloned() })
    }

    /// Commits, and repeats the commit while its outcome is unknown, which its guards make safe.
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
