//! Removing nodes whose processes are gone.

use std::{collections::BTreeMap, time::Duration};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    facts::Facts, in_flight::InFlight, membership::Membership, outbox::Outbox, output::Purpose,
    session::Session, timers::Timers, token::Token,
};
use crate::{
    config::{RETRY, STAGGER},
    event::{Event, Evidence, StoreCall},
    name::NodeName,
    node::{Endpoint, Node, ProcessId},
    record::{Departure, DepartureRecord},
    store::{ErrorKind, Guard, LeaseId, Revision, StoreError, Txn},
    time::Timestamp,
    view::View,
};

/// Number of nodes that watch the process of a node.
const WATCHERS: usize = 3;

/// Watches the processes of other nodes, and removes a node whose process is gone.
///
/// ```text
///   reported gone ──its turn──▶ remove the record ──only if trusted──▶ revoke the lease
/// ```
///
/// The nodes with an endpoint form a ring, sorted by the hashes of their names. Each watches the three before it, and so
/// it has three watchers. They remove it one stagger apart, the nearest first, each only if its record is still there.
///
/// A report may be wrong. So the removal only deletes the record, as an eviction does: the witness of an exclusive session
/// stays until its lease ends (P12). A node whose user trusts refused connections also revokes the lease, which deletes
/// the witness. It does so only once the record is gone, so that the log shows why the node departed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Crashes {
    /// Revision of the version from which the watched nodes were chosen; `None` while no nodes are watched.
    chosen_from: Option<Revision>,
    /// The nodes whose processes are watched, the nearest first.
    watched: Vec<Watched>,
    /// The nodes whose processes were reported as gone and that are not dealt with yet.
    gone: BTreeMap<NodeName, Gone>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Watched {
    name: NodeName,
    endpoint: Endpoint,
}

/// A node whose process is gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Gone {
    process: ProcessId,
    /// The lease of the node's record.
    lease: Option<LeaseId>,
    evidence: Evidence,
    /// Time of the report.
    since: Timestamp,
    /// Time at which it is this node's turn to act.
    due: Timestamp,
    removal: InFlight,
    revocation: Revocation,
    /// Number of revocations that failed in a row.
    failures: u32,
    /// True once an event reported it.
    reported: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Revocation {
    Due(Timestamp),
    Sent(Token),
    Done,
}

impl Crashes {
    pub(crate) fn fails_to_remove(&self, facts: &Facts) -> bool {
        self.gone.values().any(|gone| gone.removal.is_failing(facts) || gone.failures > 0)
    }

    pub(crate) fn timers(&self, facts: &Facts, timers: &mut Timers) {
        for gone in self.gone.values() {
            timers.at(gone.due);
            timers.maybe(gone.removal.due(facts));
            if let Revocation::Due(at) = gone.revocation {
                timers.at(at);
            }
        }
    }

    /// Handles a report that a process is gone. Ignores it if the process is not watched. The next reconciliation drops it
    /// if the record of the node no longer names that process.
    pub(crate) fn on_gone(&mut self, facts: &Facts, process: ProcessId, evidence: Evidence) {
        for Watched { name, endpoint } in &self.watched {
            let is_known = self.gone.get(name).is_some_and(|gone| gone.process == process);
            if endpoint.process == process && !is_known {
                self.gone.insert(name.clone(), Gone::new(process, evidence, facts.now));
            }
        }
    }

    /// Chooses the processes to watch, and removes nodes whose processes are gone.
    pub(crate) fn reconcile(
        &mut self,
        facts: &Facts,
        session: &Session,
        membership: &Membership,
        out: &mut Outbox,
    ) {
        self.choose(facts, membership, out);
        let Crashes { watched, gone, .. } = self;
        gone.retain(|name, gone| gone.is_needed(facts, name, watched));
        let stagger = STAGGER.max(session.round_trip() * 2);
        // A nearer watcher that is gone too does not act, so this node does not wait for it.
        let mut nearer = 0;
        for Watched { name, .. } in watched {
            match gone.get_mut(name) {
                Some(gone) => gone.due = gone.since + stagger * nearer,
                None => nearer += 1,
            }
        }
        for (name, gone) in gone {
            gone.proceed(facts, name, out);
        }
    }

    /// Chooses the processes to watch: whenever there is a new version, and when one of the watched nodes has departed.
    fn choose(&mut self, facts: &Facts, membership: &Membership, out: &mut Outbox) {
        let watches = membership.is_member() && !facts.is_ending() && facts.config.crash_detection.is_some();
        let view = facts.fold.newest().filter(|_| watches);
        let version = view.map(View::revision);
        let has_departed = |watched: &Watched| facts.fold.node(&watched.name).is_none();
        if version == self.chosen_from && !self.watched.iter().any(has_departed) {
            return;
        }
        self.chosen_from = version;
        if !watches {
            self.gone.clear();
        }
        let chosen = view.map(|view| predecessors(facts, view)).unwrap_or_default();
        let endpoints = endpoints(&chosen);
        if endpoints != self::endpoints(&self.watched) {
            out.watch_processes(endpoints);
        }
        self.watched = chosen;
    }

    /// Handles the reply to a commit. Returns false if it is no longer awaited.
    #[must_use]
    pub(crate) fn on_committed(
        &mut self,
        facts: &Facts,
        token: Token,
        result: &Result<Revision, StoreError>,
    ) -> bool {
        self.gone.values_mut().any(|gone| gone.removal.take(facts, token, result))
    }

    /// Handles the reply to a revocation.
    pub(crate) fn on_revoked(
        &mut self,
        facts: &Facts,
        token: Token,
        result: Result<(), StoreError>,
        out: &mut Outbox,
    ) {
        let is_it = |gone: &&mut Gone| gone.revocation == Revocation::Sent(token);
        let Some(gone) = self.gone.values_mut().find(is_it) else { return };
        match result {
            Err(error) if error.kind() != ErrorKind::LeaseNotFound => {
                gone.failures += 1;
                gone.revocation = Revocation::Due(facts.now + RETRY.after(gone.failures));
                out.call_failed(StoreCall::RemoveCrashed, &error, facts.now);
            }
            _ => {
                gone.failures = 0;
                gone.revocation = Revocation::Done;
            }
        }
    }
}

impl Gone {
    fn new(process: ProcessId, evidence: Evidence, now: Timestamp) -> Self {
        Gone {
            process,
            lease: None,
            evidence,
            since: now,
            due: now,
            removal: InFlight::default(),
            revocation: Revocation::Due(now),
            failures: 0,
            reported: false,
        }
    }

    /// True if the node is to be removed, or its lease is to be revoked.
    fn is_needed(&self, facts: &Facts, name: &NodeName, watched: &[Watched]) -> bool {
        match running(facts, name, self.process) {
            Some(_) => watched.iter().any(|it| it.name == *name),
            None => self.witness(facts).is_some(),
        }
    }

    /// Returns the lease to revoke once the record is gone: that of an exclusive session, if refused connections are
    /// trusted.
    fn witness(&self, facts: &Facts) -> Option<LeaseId> {
        let is_trusted =
            facts.config.crash_detection.as_ref().is_some_and(|detection| detection.trust_refused);
        self.lease.filter(|lease| is_trusted && facts.fold.holds().contains_key(lease))
    }

    /// Takes the next step if it is due.
    fn proceed(&mut self, facts: &Facts, name: &NodeName, out: &mut Outbox) {
        let node = running(facts, name, self.process);
        if let Some(node) = node {
            self.lease = node.lease;
        }
        if facts.now < self.due {
            return;
        }
        match node {
            Some(node) if self.removal.is_free(facts) => {
                if !std::mem::replace(&mut self.reported, true) {
                    out.emit(Event::ProcessGone { name: name.clone(), evidence: self.evidence });
                }
                self.removal.sent(facts, out.commit(Purpose::RemoveCrashed, removal(facts, node), facts.now));
            }
            Some(_) => {}
            None => self.revoke(facts, out),
        }
    }

    fn revoke(&mut self, facts: &Facts, out: &mut Outbox) {
        if let Some(lease) = self.witness(facts)
            && matches!(self.revocation, Revocation::Due(at) if facts.now >= at)
        {
            self.revocation = Revocation::Sent(out.revoke_crashed(lease, facts.now));
        }
    }
}

/// Returns the node if its record names that process.
fn running<'a>(facts: &'a Facts, name: &NodeName, process: ProcessId) -> Option<&'a Node> {
    let node = facts.fold.node(name)?;
    node.endpoint.as_ref().is_some_and(|endpoint| endpoint.process == process).then_some(node)
}

/// Returns the nodes before this one in the ring, the nearest first. The ring consists of the nodes of the view that have
/// an endpoint and have not departed since.
fn predecessors(facts: &Facts, view: &View) -> Vec<Watched> {
    let present = view.iter().filter_map(|node| facts.fold.node(&node.name));
    let mut ring: Vec<(u64, &NodeName, &Endpoint)> = present
        .filter_map(|node| {
            Some((xxh3_64(node.name.as_str().as_bytes()), &node.name, node.endpoint.as_ref()?))
        })
        .collect();
    ring.sort_unstable();
    let Some(own) = ring.iter().position(|(_, name, _)| Some(*name) == facts.name()) else {
        return Vec::new();
    };
    let (after, before) = (&ring[own + 1..], &ring[..own]);
    let backwards = before.iter().rev().chain(after.iter().rev()).take(WATCHERS);
    backwards
        .map(|(_, name, endpoint)| Watched { name: (*name).clone(), endpoint: (*endpoint).clone() })
        .collect()
}

/// Returns the endpoints of these nodes, sorted.
fn endpoints(watched: &[Watched]) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = watched.iter().map(|watched| watched.endpoint.clone()).collect();
    endpoints.sort_unstable();
    endpoints
}

/// Builds the commit that removes a node. It must know who leads, because a leader's election key is deleted too:
/// otherwise there would be no other leader until the lease ends.
fn removal(facts: &Facts, node: &Node) -> Txn {
    let keys = facts.keys();
    let (record, election) = (keys.node_key(&node.name), keys.election_key().clone());
    let leader = facts.fold.leader();
    let elected = leader.map_or(Revision::ZERO, |leader| leader.created);
    let leads = leader.is_some_and(|leader| leader.lease.is_some() && leader.lease == node.lease);
    let txn = Txn::new()
        .guard(Guard::modified_at(record.clone(), node.modified))
        .guard(Guard::created_at(election.clone(), elected))
        .delete(record)
        .delete(keys.readiness_key(&node.name));
    let txn = DepartureRecord::add_to(txn, keys, node, Departure::Crashed, Duration::ZERO);
    if leads { txn.delete(election) } else { txn }
}
