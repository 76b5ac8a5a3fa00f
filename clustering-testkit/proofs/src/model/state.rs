use std::{
    collections::BTreeSet,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use clustering_core::{
    NodeName, ProcessId, Term, View,
    machine::{Machine, Purpose, Token},
    store::{Key, LeaseId, Revision, StoreError, Txn},
    time::Timestamp,
};
use clustering_testkit::history::Ledger;

use super::{
    Bounds,
    holds::{Acquired, Hold},
    judge::Breach,
};
use crate::sim::Store;

/// State of the model: the store, all processes, and everything in flight between them.
///
/// Two states are equal if the store has the same history, all machines are equal and the same calls, watches and
/// callbacks are in flight. Parts that a step does not change are shared between the states before and after it.
#[derive(Clone)]
pub struct State {
    pub(super) shared: Arc<Shared>,
    pub(super) nodes: Vec<Arc<Node>>,
    /// Limited actions that may still happen.
    pub(super) left: Bounds,
    /// Versions for which `on_stable` was called, by the revisions that published them.
    pub(super) announced: Vec<Revision>,
    /// The process that acquired each slot last.
    pub(super) acquired: Vec<Acquired>,
    /// Situations reached in the last step that the state itself does not show.
    pub(super) reached: u32,
    /// The first violation of a promise. The state then has no successors.
    pub(super) breach: Option<Arc<Breach>>,
}

/// The store, and everything derived from its history.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) ledger: Ledger,
    /// Owner of each lease, as node and life: lease 1 at index 0.
    pub(super) owners: Vec<(usize, u32)>,
    /// Hash of the whole history.
    pub(super) history: u64,
    /// Hash of this struct.
    pub(super) digest: u64,
}

/// A node and its current process.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) name: NodeName,
    /// Number of processes started for the node so far.
    pub(super) life: u32,
    /// The process's machine, or `None` if no process is running.
    pub(super) machine: Option<Machine>,
    /// Time on the process's clock. The clocks of different processes are unrelated.
    pub(super) now: Timestamp,
    pub(super) calls: Vec<Call>,
    /// Calls that their callers have abandoned and that may still take effect, with the life that sent them.
    pub(super) orphans: Vec<(u32, Request)>,
    pub(super) watches: Vec<Watch>,
    /// The processes that the node watches.
    pub(super) watched: Vec<ProcessId>,
    pub(super) stabilizing: Vec<Run>,
    pub(super) announcing: Vec<Run>,
    pub(super) lease: Option<Held>,
    /// Holds that the user keeps.
    pub(super) holds: Vec<Hold>,
    /// Revision of the newest version that the process has seen.
    pub(super) newest: Option<Revision>,
    /// Term under which the process claims to lead, and the end of the claim on its own clock.
    pub(super) claim: Option<(Term, Timestamp)>,
    pub(super) requests: u64,
    digest: u64,
}

/// A call whose caller is waiting for the reply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) token: Token,
    pub(super) request: Request,
    /// Time at which the call was sent, on the sender's clock.
    pub(super) sent: Timestamp,
    /// The reply in flight, if the call has taken effect.
    pub(super) reply: Option<Result<Revision, StoreError>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Request {
    Renew(LeaseId),
    Revoke(LeaseId),
    Read(Key),
    Commit(Purpose, Txn),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Watch {
    pub(super) token: Token,
    pub(super) prefix: Key,
    pub(super) seen: Revision,
}

/// A running callback.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub(super) token: Token,
    pub(super) view: View,
    /// True if the callback was told that it is superseded.
    pub(super) told: bool,
}

/// A lease, as its process knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) id: LeaseId,
    pub(super) ttl: Duration,
    /// Time at which the last successful renewal was sent.
    pub(super) renewed: Timestamp,
}

/// Returns the identity of a node's process.
pub(super) fn identity(place: usize, life: u32) -> ProcessId {
    ProcessId::from_u128((place as u128) << 64 | u128::from(life))
}

fn digest(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl Shared {
    pub(super) fn new(namespace: &str) -> Self {
        Shared {
            store: Store::default(),
            ledger: Ledger::new(namespace),
            owners: Vec::new(),
            history: 0,
            digest: 0,
        }
    }

    /// Adds the last revision to the hash of the history.
    pub(super) fn turn(&mut self) {
        if let Some(batch) = self.store.history().last() {
            self.history = digest((self.history, batch));
        }
    }

    pub(super) fn seal(&mut self) {
        let leases: BTreeSet<LeaseId> = self.store.leases().collect();
        self.digest = digest((self.history, leases, &self.owners));
    }

    /// True if the node's record is stored.
    pub(super) fn has_record(&self, name: &NodeName) -> bool {
        self.store.get(&format!("{}/view/nodes/{name}", super::NAMESPACE)).is_some()
    }

    /// True if the lease was granted to this life of the node.
    pub(super) fn is_owner(&self, lease: LeaseId, node: usize, life: u32) -> bool {
        lease.get().checked_sub(1).and_then(|place| self.owners.get(place as usize)) == Some(&(node, life))
    }
}

impl Node {
    pub(super) fn new(name: NodeName) -> Self {
        Node {
            name,
            life: 0,
            machine: None,
            now: Timestamp::ZERO,
            calls: Vec::new(),
            orphans: Vec::new(),
            watches: Vec::new(),
            watched: Vec::new(),
            stabilizing: Vec::new(),
            announcing: Vec::new(),
            lease: None,
            holds: Vec::new(),
            newest: None,
            claim: None,
            requests: 0,
            digest: 0,
        }
    }

    pub(super) fn seal(&mut self) {
        let process = (self.life, &self.machine, self.now, self.newest, self.requests);
        let on_its_way = (&self.calls, &self.orphans, &self.watches, &self.watched);
        let callbacks = (&self.stabilizing, &self.announcing, &self.holds);
        self.digest = digest((process, on_its_way, callbacks, self.lease));
    }

    /// Ends the process and discards its memory. Calls that it has sent remain in flight.
    pub(super) fn end(&mut self) {
        let life = self.life;
        let sent = self.calls.drain(..).filter(|call| call.reply.is_none()).map(|call| (life, call.request));
        self.orphans.extend(sent.filter(|(_, request)| request.has_effect()));
        self.machine = None;
        self.watches.clear();
        self.watched.clear();
        self.stabilizing.clear();
        self.announcing.clear();
        self.holds.clear();
        (self.lease, self.newest, self.claim) = (None, None, None);
    }
}

impl Request {
    /// True if the request may change the store's keys. Renewals only extend a lease.
    pub(super) fn has_effect(&self) -> bool {
        matches!(self, Request::Revoke(_) | Request::Commit(..))
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shared.digest.hash(state);
        self.nodes.iter().for_each(|node| node.digest.hash(state));
        (&self.left, &self.announced, &self.acquired, self.reached, self.breach.is_some()).hash(state);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        digest(self) == digest(other)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}", self.shared.store.revision())?;
        for node in &self.nodes {
            let up = if node.machine.is_some() { "up" } else { "down" };
            write!(f, "; {} {up}, {} calls", node.name, node.calls.len())?;
        }
        self.breach.as_ref().map_or(Ok(()), |breach| write!(f, "; {breach}"))
    }
}
