use std::{
    collections::BTreeSet,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use clustering_core::{
    NodeName, Term, View,
    machine::{Machine, Purpose, Token},
    store::{Key, LeaseId, Revision, StoreError, Txn},
    time::Timestamp,
};

use super::{Bounds, judge::Breach};
use crate::{history::Ledger, sim::Store};

/// A state of the whole: the store, all processes, and what is on its way between them.
///
/// Two states are the same if the store went through the same history, all machines are equal to the last bit and the same
/// is on its way. Parts that one step does not change are shared between the states before and after it.
#[derive(Clone)]
pub struct State {
    pub(super) shared: Arc<Shared>,
    pub(super) nodes: Vec<Arc<Node>>,
    /// What may still happen.
    pub(super) left: Bounds,
    /// The versions for which `on_stable` was called, by the revisions that wrote them.
    pub(super) announced: Vec<Revision>,
    /// What was reached on the way here, and cannot be seen by the state alone.
    pub(super) reached: u32,
    /// The first promise that was broken. Nothing follows.
    pub(super) breach: Option<Arc<Breach>>,
}

/// The store, and what its history comes to.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) ledger: Ledger,
    /// To which life of which node each lease was granted: the first at 0.
    pub(super) owners: Vec<(usize, u32)>,
    /// A hash of the whole history.
    pub(super) history: u64,
    /// A hash of all of this.
    pub(super) digest: u64,
}

/// A node, and the process that is it at present.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) name: NodeName,
    /// How often a process was started for it.
    pub(super) life: u32,
    /// `None`: no process runs.
    pub(super) machine: Option<Machine>,
    /// What the clock of the process shows. Clocks of different processes have nothing to do with each other.
    pub(super) now: Timestamp,
    pub(super) calls: Vec<Call>,
    /// Calls that nobody waits for, which may still arrive.
    pub(super) orphans: Vec<(u32, Request)>,
    pub(super) watches: Vec<Watch>,
    pub(super) stabilizing: Vec<Run>,
    pub(super) announcing: Vec<Run>,
    pub(super) lease: Option<Held>,
    /// The newest version that it saw.
    pub(super) newest: Option<Revision>,
    /// What it answers when it is asked whether it leads, and until when: by its own clock.
    pub(super) claim: Option<(Term, Timestamp)>,
    pub(super) requests: u64,
    digest: u64,
}

/// A call whose caller waits for the reply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) token: Token,
    pub(super) request: Request,
    /// When it was sent.
    pub(super) sent: Timestamp,
    /// It took effect, and this is the reply.
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

/// A callback that runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub(super) token: Token,
    pub(super) view: View,
    /// Whether it was told that it is superseded.
    pub(super) told: bool,
}

/// A lease, by what its process was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) id: LeaseId,
    pub(super) ttl: Duration,
    /// When the last renewal was sent that succeeded.
    pub(super) renewed: Timestamp,
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

    /// Takes the last revision into the history.
    pub(super) fn turn(&mut self) {
        if let Some(batch) = self.store.history().last() {
            self.history = digest((self.history, batch));
        }
    }

    pub(super) fn seal(&mut self) {
        let leases: BTreeSet<LeaseId> = self.store.leases().collect();
        self.digest = digest((self.history, leases, &self.owners));
    }

    /// Whether the lease was granted to that life.
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
            stabilizing: Vec::new(),
            announcing: Vec::new(),
            lease: None,
            newest: None,
            claim: None,
            requests: 0,
            digest: 0,
        }
    }

    pub(super) fn seal(&mut self) {
        let process = (self.life, &self.machine, self.now, self.newest, self.requests);
        let on_its_way = (&self.calls, &self.orphans, &self.watches);
        self.digest = digest((process, on_its_way, &self.stabilizing, &self.announcing, self.lease));
    }

    /// The process is gone, and what it held in memory. What it sent is still on its way.
    pub(super) fn end(&mut self) {
        let life = self.life;
        let sent = self.calls.drain(..).filter(|call| call.reply.is_none()).map(|call| (life, call.request));
        self.orphans.extend(sent.filter(|(_, request)| request.has_effect()));
        self.machine = None;
        self.watches.clear();
        self.stabilizing.clear();
        self.announcing.clear();
        (self.lease, self.newest, self.claim) = (None, None, None);
    }
}

impl Request {
    /// Whether it changes anything in the store, apart from the time of a lease.
    pub(super) fn has_effect(&self) -> bool {
        matches!(self, Request::Revoke(_) | Request::Commit(..))
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shared.digest.hash(state);
        self.nodes.iter().for_each(|node| node.digest.hash(state));
        (&self.left, &self.announced, self.reached, self.breach.is_some()).hash(state);
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
