//! The node's own record (P7).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    facts::{Facts, Identity, Intent},
    in_flight::InFlight,
    log::Log,
    outbox::Outbox,
    output::{Purpose, RequestError},
    session::{Epoch, Session, SessionChange, SessionEnd},
    timers::Timers,
    token::{RequestId, Token},
};
use crate::{
    config::{Backoff, NameConflict},
    event::{Event, LostReason, StopReason},
    fold::Changed,
    name::Incarnation,
    node::{Endpoint, Node},
    record::{
        Departure, DepartureRecord, DrainRecord, HoldsRecord, NodeRecord, PROTOCOL, StoredRecord, encode,
    },
    slots::SlotCount,
    store::{Guard, LeaseId, Revision, StoreError, Txn},
    time::Timestamp,
    version::Version,
    view::View,
};

/// Backoff between corrections of the node's record, in case another client keeps overwriting it.
const CORRECTIONS: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(600));

/// Keeps the node's record in the log.
///
/// A record is the node's own if it is stored under the lease of the current session and has an incarnation that this
/// process generated. The node is a member while its own record is in the log, and no longer, whatever a reply said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Membership {
    epoch: Epoch,
    /// The commit that registers: join, or take over.
    join: InFlight,
    /// The commit that changes the record.
    rewrite: InFlight,
    member: Option<Member>,
    /// The incarnation that the record should have. It is kept while the same commit is repeated.
    wanted: Option<Incarnation>,
    /// The newest version that the process had seen when it generated that incarnation. Stored in the record.
    seen: Option<Version>,
    /// True once a commit that writes the wanted incarnation has been sent.
    is_written: bool,
    /// Incarnations of this process that may be stored under its name.
    generated: Vec<Incarnation>,
    correction: Correction,
    /// True if this process has been a member: then it no longer takes the name over from others.
    joined_before: bool,
    /// The other holder of the name that was reported last.
    reported_holder: Option<Incarnation>,
    /// True if another node removed the record of this session because it mistook this process for crashed.
    taken_for_gone: bool,
    /// True if this process no longer publishes its endpoint, because others do not find it alive there.
    hides_endpoint: bool,
    waiting: Waiting,
}

/// The node's own record, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    /// Revision at which the record was last put.
    modified: Revision,
    incarnation: Incarnation,
}

/// Corrections of a record that another client overwrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Correction {
    /// Number of corrections in a row.
    times: u32,
    /// Time of the last one, done or due.
    last: Timestamp,
    /// Time of the next one, if one is due.
    due: Option<Timestamp>,
}

/// Requests that wait for a change of the membership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Waiting {
    /// Requests to change the metadata, and the incarnation under which they are granted.
    updates: Vec<(RequestId, Incarnation)>,
    /// Requests to register, granted when the node is a member.
    registers: Vec<RequestId>,
    /// Requests to unregister, granted when the lease is given back.
    unregisters: Vec<RequestId>,
    /// True while the node is unregistering, whether or not a caller waits for it.
    is_unregistering: bool,
}

/// The record under the node's name.
enum Stored {
    Absent,
    Own(Member),
    /// A leftover: a record that cannot be read, or that this process wrote under a lease that it no longer has.
    Leftover {
        modified: Revision,
    },
    /// A record of another process.
    Foreign(Arc<Node>),
}

impl Membership {
    pub(crate) fn is_member(&self) -> bool {
        self.member.is_some()
    }

    /// Returns the revision at which the node's record was last put.
    pub(crate) fn modified(&self) -> Option<Revision> {
        self.member.as_ref().map(|member| member.modified)
    }

    /// Returns the record of this node in the log, if the node is a member.
    pub(crate) fn own<'a>(&self, facts: &'a Facts) -> Option<&'a Arc<Node>> {
        self.is_member().then(|| facts.fold.node(facts.name()?)).flatten()
    }

    /// Returns the incarnation in the node's record.
    pub(crate) fn incarnation(&self) -> Option<&Incarnation> {
        self.member.as_ref().map(|member| &member.incarnation)
    }

    /// Returns the view to which the node has to adapt: the newest, if it contains the node's current record.
    pub(crate) fn target<'a>(&self, facts: &'a Facts) -> Option<&'a View> {
        let modified = self.modified()?;
        let view = facts.fold.newest()?;
        (view.own()?.modified == modified).then_some(view)
    }

    pub(crate) fn fails_to_join(&self, facts: &Facts) -> bool {
        self.join.is_failing(facts)
    }

    pub(crate) fn fails_to_rewrite(&self, facts: &Facts) -> bool {
        self.rewrite.is_failing(facts)
    }

    pub(crate) fn timers(&self, facts: &Facts, timers: &mut Timers) {
        timers.maybe(self.join.due(facts));
        timers.maybe(self.rewrite.due(facts));
        timers.maybe(self.correction.due);
    }

    /// Registers the node, keeps its record up to date, and ends the session if the record is gone. Returns the reason
    /// to stop the node if its name belongs to another process.
    #[must_use]
    pub(crate) fn reconcile(
        &mut self,
        facts: &Facts,
        session: &mut Session,
        log: &Log,
        out: &mut Outbox,
    ) -> Option<StopReason> {
        self.follow_session(facts, session, log, out);
        self.grant_unregisters(facts, session, out);
        let lease = session.lease()?;
        if let Some(reason) = self.reason_to_stop(facts, lease) {
            self.end(facts, session, SessionEnd::GivenUp, out);
            return Some(reason);
        }
        if self.is_up_to_date(facts) {
            return None;
        }
        if self.was_removed(facts, lease) {
            self.end(facts, session, SessionEnd::Lost(self.removal()), out);
            return None;
        }
        match (self.stored(facts, lease), self.member.is_some()) {
            (Stored::Own(member), was_member) => {
                let incarnation = member.incarnation.clone();
                self.member = Some(member);
                if !was_member {
                    self.joined(&incarnation, out);
                }
                self.keep_record(facts, log, lease, &incarnation, out);
            }
            (Stored::Foreign(node), true) => {
                self.end(facts, session, SessionEnd::GivenUp, out);
                return Some(StopReason::TakenOver { by: node.uri.clone() });
            }
            (Stored::Absent | Stored::Leftover { .. }, true) => {
                self.end(facts, session, SessionEnd::Lost(self.removal()), out);
            }
            (Stored::Absent, false) => self.join(facts, session, log, lease, None, out),
            (Stored::Leftover { modified }, false) => {
                self.join(facts, session, log, lease, Some(modified), out);
            }
            (Stored::Foreign(node), false) => {
                let reason = self.resolve_conflict(facts, session, log, lease, &node, out)?;
                self.end(facts, session, SessionEnd::GivenUp, out);
                return Some(reason);
            }
        }
        None
    }

    /// Returns the reason to stop the node, if there is one: the cluster has another number of slots, or an operator
    /// asked this session to leave.
    fn reason_to_stop(&self, facts: &Facts, lease: LeaseId) -> Option<StopReason> {
        if let Some(configured) = facts.config.exclusive
            && let Some(cluster) = self.cluster_slots(facts).filter(|cluster| *cluster != configured)
        {
            return Some(StopReason::SlotCount { configured, cluster });
        }
        let stored = facts.fold.drain(facts.name()?)?;
        let request = stored.record.as_ref()?;
        // Compare the lease too: the record may have been rewritten with another incarnation since the request.
        let is_meant = stored.lease == Some(lease) || self.incarnation() == Some(&request.incarnation);
        let DrainRecord { by, why, .. } = request.clone();
        is_meant.then_some(StopReason::Drained { by, why })
    }

    /// Returns the number of slots of the cluster. Before slots are first assigned, this is the number of the oldest
    /// session.
    fn cluster_slots(&self, facts: &Facts) -> Option<SlotCount> {
        if let Some(slots) = facts.fold.slots() {
            return slots.record.as_ref().map(|assignment| assignment.count());
        }
        if self.is_member() {
            return None;
        }
        let witnesses = facts.fold.holds().values();
        let oldest = witnesses.min_by_key(|witness| witness.created)?.record.as_ref()?;
        SlotCount::new(oldest.slots).ok()
    }

    /// True if the session was registered and removed before this node saw its record: the witness stands, without the
    /// record that was put with it. A session is registered only once.
    fn was_removed(&self, facts: &Facts, lease: LeaseId) -> bool {
        !self.is_member()
            && facts.fold.holds().contains_key(&lease)
            && !matches!(self.stored(facts, lease), Stored::Own(_))
    }

    /// Returns the reason why the session is lost if its record was removed.
    fn removal(&self) -> LostReason {
        match self.taken_for_gone {
            true => LostReason::FalselyRemoved,
            false => LostReason::Removed,
        }
    }

    /// Handles a change of the log. If another node removed this one because it took its process to be gone, the node
    /// no longer publishes its endpoint. Connections to it may still be refused, and the node would be removed again and
    /// again.
    pub(crate) fn on_change(
        &mut self,
        facts: &Facts,
        session: &Session,
        log: &Log,
        change: &Changed,
        out: &mut Outbox,
    ) {
        let Changed::Departed(DepartureRecord { node, incarnation, how: Departure::Crashed, .. }) = change
        else {
            return;
        };
        let Some(identity) = facts.identity.as_ref().filter(|identity| identity.name == *node) else {
            return;
        };
        if !self.generated.contains(incarnation) {
            return;
        }
        self.taken_for_gone |= [self.incarnation(), self.wanted.as_ref()].contains(&Some(incarnation));
        if let Some(endpoint) = &identity.endpoint
            && !std::mem::replace(&mut self.hides_endpoint, true)
        {
            out.emit(Event::FalselyRemoved { address: endpoint.address.clone() });
            if session.held().is_some() {
                self.want_incarnation(facts, log, out);
            }
        }
    }

    /// Generates a new incarnation when a session begins, and forgets the record when it ends.
    fn follow_session(&mut self, facts: &Facts, session: &Session, log: &Log, out: &mut Outbox) {
        match session.change_since(&mut self.epoch) {
            Some(SessionChange::Began) => {
                self.wanted = None;
                self.want_incarnation(facts, log, out);
                self.reported_holder = None;
                self.taken_for_gone = false;
            }
            Some(SessionChange::Ended) => self.leave(),
            None => {}
        }
    }

    fn end(&mut self, facts: &Facts, session: &mut Session, end: SessionEnd, out: &mut Outbox) {
        session.end(facts, end, out);
        session.change_since(&mut self.epoch);
        self.leave();
    }

    /// Forgets the record, because the session is over.
    pub(crate) fn leave(&mut self) {
        self.member = None;
        self.join.reset();
        self.rewrite.reset();
        self.correction.due = None;
    }

    /// Returns the incarnation for the record's current contents. An incarnation that was never sent is reused;
    /// otherwise a new one is generated.
    fn want_incarnation(&mut self, facts: &Facts, log: &Log, out: &mut Outbox) -> Incarnation {
        self.seen = log.newest_seen();
        if let Some(wanted) = self.wanted.clone().filter(|_| !self.is_written) {
            return wanted;
        }
        self.is_written = false;
        let incarnation = Incarnation::from(out.ids.ulid(facts.now).to_string());
        self.generated.push(incarnation.clone());
        // Updates that wait for the log are granted with this record too, since it has the newest metadata.
        for update in &mut self.waiting.updates {
            update.1 = incarnation.clone();
        }
        self.wanted = Some(incarnation.clone());
        incarnation
    }

    /// True if the record is stored as it was last seen and as it should be, which is the case at nearly every input.
    fn is_up_to_date(&self, facts: &Facts) -> bool {
        let (Some(member), Some(stored)) = (&self.member, facts.fold.own()) else { return false };
        // A second incarnation is one that is wanted and not stored yet.
        let single = self.generated.len() == 1;
        stored.modified == member.modified && single && self.correction.due.is_none()
    }

    fn stored(&self, facts: &Facts, lease: LeaseId) -> Stored {
        let Some(stored) = facts.fold.own() else { return Stored::Absent };
        let StoredRecord { modified, .. } = *stored;
        let Some(node) = &stored.record else { return Stored::Leftover { modified } };
        let is_generated = self.generated.contains(&node.incarnation);
        match (is_generated, stored.lease == Some(lease)) {
            (true, true) => Stored::Own(Member { modified, incarnation: node.incarnation.clone() }),
            // Another process would have its own lease, so this record was written by hand.
            (true, false) | (false, true) => Stored::Leftover { modified },
            (false, false) => Stored::Foreign(node.clone()),
        }
    }

    /// Decides what to do about another process that has this node's name: wait, take the name over, or stop for the
    /// reason that is returned.
    fn resolve_conflict(
        &mut self,
        facts: &Facts,
        session: &Session,
        log: &Log,
        lease: LeaseId,
        node: &Node,
        out: &mut Outbox,
    ) -> Option<StopReason> {
        match facts.config.name_conflict {
            NameConflict::Fail => return Some(StopReason::NameTaken { by: node.uri.clone() }),
            NameConflict::TakeOver if self.joined_before => {
                return Some(StopReason::TakenOver { by: node.uri.clone() });
            }
            NameConflict::TakeOver => self.join(facts, session, log, lease, Some(node.modified), out),
            NameConflict::Wait => {
                if self.reported_holder.as_ref() != Some(&node.incarnation) {
                    self.reported_holder = Some(node.incarnation.clone());
                    let (incarnation, uri) = (node.incarnation.clone(), node.uri.clone());
                    out.emit(Event::NameHeld { incarnation, uri });
                }
            }
        }
        None
    }

    /// Registers the node. Replaces the record that was put at `replaced`, if that is given.
    fn join(
        &mut self,
        facts: &Facts,
        session: &Session,
        log: &Log,
        lease: LeaseId,
        replaced: Option<Revision>,
        out: &mut Outbox,
    ) {
        // Only once the watch is open: the node's own registration reaches it as an event like any other.
        if !log.is_open() || !self.join.is_free(facts) {
            return;
        }
        let Some((identity, record)) = self.own_record(facts) else { return };
        let own = facts.keys().node_key(&identity.name);
        let ttl = session.ttl(facts);
        let (purpose, txn) = match replaced {
            None => (Purpose::Join, Txn::new().guard(Guard::absent(own.clone())).put(own, record, lease)),
            Some(seen) => {
                let txn = Txn::new()
                    .guard(Guard::modified_at(own.clone(), seen))
                    .put(own, record, lease)
                    .delete(facts.keys().readiness_key(&identity.name));
                (Purpose::TakeOver, depose(facts, txn))
            }
        };
        let txn = match self.witness(facts, ttl) {
            // A late retry must not register a session that has been removed: a leader may have detached its witness
            // from the lease, so that the witness outlives the lease, and the retry would attach it again.
            Some(witness) => {
                let key = facts.keys().holds_key(lease);
                txn.guard(Guard::absent(key.clone())).put(key, encode(&witness), lease)
            }
            None => txn,
        };
        self.is_written = true;
        self.join.sent(facts, out.commit(purpose, txn, facts.now));
    }

    /// Returns the witness of an exclusive session: as long as it exists, the process may hold keys. It is put with the
    /// record, but deleted only with the lease, so it outlives a record that others remove.
    fn witness(&self, facts: &Facts, ttl: Duration) -> Option<HoldsRecord> {
        let (identity, slots) = (facts.identity.as_ref()?, facts.config.exclusive?);
        Some(HoldsRecord {
            node: identity.name.clone(),
            incarnation: self.wanted.clone()?,
            uri: identity.uri.to_string(),
            ttl_ms: ttl.as_millis() as u64,
            slots: slots.get(),
            left: false,
        })
    }

    /// Returns the identity and the record to store.
    fn own_record<'a>(&self, facts: &'a Facts) -> Option<(&'a Identity, Bytes)> {
        let identity = facts.identity.as_ref()?;
        let record = NodeRecord {
            uri: &identity.uri,
            incarnation: self.wanted.as_ref()?,
            metadata: &identity.metadata,
            protocol: PROTOCOL,
            priority: Some(facts.config.priority),
            restart_grace: restart_grace(facts),
            endpoint: self.endpoint(identity),
            seen: self.seen,
        };
        Some((identity, encode(&record)))
    }

    /// Returns the endpoint to publish.
    fn endpoint<'a>(&self, identity: &'a Identity) -> Option<&'a Endpoint> {
        identity.endpoint.as_ref().filter(|_| !self.hides_endpoint)
    }

    /// True if the stored record has the contents that this process wrote.
    fn has_own_contents(&self, facts: &Facts) -> bool {
        let (Some(identity), Some(own)) = (&facts.identity, facts.fold.own()) else { return true };
        own.record.as_ref().is_some_and(|node| {
            node.uri.as_str() == identity.uri.as_str()
                && node.metadata == identity.metadata
                && node.protocol == PROTOCOL
                && node.priority == Some(facts.config.priority)
                && node.restart_grace == Duration::from_millis(restart_grace(facts).unwrap_or_default())
                && node.endpoint.as_ref() == self.endpoint(identity)
                && node.seen == self.seen
        })
    }

    fn joined(&mut self, incarnation: &Incarnation, out: &mut Outbox) {
        let again = std::mem::replace(&mut self.joined_before, true);
        let incarnation = incarnation.clone();
        out.emit(match again {
            false => Event::Joined { incarnation },
            true => Event::Rejoined { incarnation },
        });
        std::mem::take(&mut self.waiting.registers).into_iter().for_each(|id| out.done(id));
    }

    /// Rewrites the record if it is not the wanted one, or if another client overwrote it.
    fn keep_record(
        &mut self,
        facts: &Facts,
        log: &Log,
        lease: LeaseId,
        stored: &Incarnation,
        out: &mut Outbox,
    ) {
        if self.wanted.as_ref() == Some(stored) {
            if self.has_own_contents(facts) {
                return self.settled(stored, out);
            }
            self.correct(facts, log, out);
            if self.correction.due.is_some() {
                return;
            }
        }
        self.rewrite(facts, lease, out);
    }

    /// Grants the updates that the stored record contains. Called when the stored record is the wanted one.
    fn settled(&mut self, stored: &Incarnation, out: &mut Outbox) {
        self.correction.due = None;
        self.generated.retain(|generated| generated == stored);
        self.waiting.updates.retain(|(id, incarnation)| {
            let granted = incarnation == stored;
            if granted {
                out.done(*id);
            }
            !granted
        });
    }

    /// Prepares the correction of a record that another client overwrote: under a new incarnation, once it is due. The
    /// first correction is immediate; later ones back off exponentially, so that two clients that correct each other do
    /// not cause endless new versions.
    fn correct(&mut self, facts: &Facts, log: &Log, out: &mut Outbox) {
        let correction = &mut self.correction;
        let due = correction.due.unwrap_or_else(|| {
            if facts.now.since(correction.last) > CORRECTIONS.max {
                correction.times = 0;
            }
            let pause = match correction.times {
                0 => Duration::ZERO,
                times => CORRECTIONS.after(times),
            };
            correction.times += 1;
            correction.last = facts.now + pause;
            if let Some(name) = facts.name() {
                out.emit(Event::Overwritten { key: facts.keys().node_key(name) });
            }
            correction.last
        });
        correction.due = Some(due);
        if facts.now >= due {
            self.correction.due = None;
            self.want_incarnation(facts, log, out);
        }
    }

    fn rewrite(&mut self, facts: &Facts, lease: LeaseId, out: &mut Outbox) {
        let Some(modified) = self.modified().filter(|_| self.rewrite.is_free(facts)) else { return };
        let Some((identity, record)) = self.own_record(facts) else { return };
        let own = facts.keys().node_key(&identity.name);
        // The acknowledgement is deleted with the record under which it was given. The two prefixes are watched
        // separately: if it were left, a leader that has not seen the new record yet could count it together with
        // acknowledgements given after the change, and record as stable a version that was not stable at any revision.
        let txn = Txn::new()
            .guard(Guard::modified_at(own.clone(), modified))
            .put(own, record, lease)
            .delete(facts.keys().readiness_key(&identity.name));
        self.is_written = true;
        self.rewrite.sent(facts, out.commit(Purpose::Rewrite, txn, facts.now));
    }

    /// Handles the reply to a commit. Returns false if it is no longer awaited.
    #[must_use]
    pub(crate) fn on_committed(
        &mut self,
        facts: &Facts,
        purpose: Purpose,
        token: Token,
        result: &Result<Revision, StoreError>,
    ) -> bool {
        match purpose {
            Purpose::Rewrite => self.rewrite.take(facts, token, result),
            _ => self.join.take(facts, token, result),
        }
    }

    /// Writes metadata that has just been changed. Without a session, the next one registers with it.
    pub(crate) fn update(
        &mut self,
        facts: &Facts,
        session: &Session,
        log: &Log,
        id: RequestId,
        out: &mut Outbox,
    ) {
        if session.held().is_none() {
            return out.done(id);
        }
        let incarnation = self.want_incarnation(facts, log, out);
        self.waiting.updates.push((id, incarnation));
    }

    /// Answers a request to register once the node is a member.
    pub(crate) fn register(&mut self, id: RequestId, out: &mut Outbox) {
        match self.is_member() {
            true => out.done(id),
            false => self.waiting.registers.push(id),
        }
    }

    /// Answers a request to unregister once the lease is given back.
    pub(crate) fn unregister(&mut self, facts: &Facts, id: RequestId, out: &mut Outbox) {
        self.waiting.unregisters.push(id);
        self.waiting.is_unregistering = true;
        if facts.intent != Intent::Observe {
            return;
        }
        for id in std::mem::take(&mut self.waiting.registers) {
            out.refuse(id, RequestError::Unregistered);
        }
        // New metadata is kept for the next registration, as if it had been given after this request.
        std::mem::take(&mut self.waiting.updates).into_iter().for_each(|(id, _)| out.done(id));
    }

    fn grant_unregisters(&mut self, facts: &Facts, session: &Session, out: &mut Outbox) {
        let is_done = match facts.intent {
            Intent::Observe => session.is_given_back(),
            // The node is already registering again, but the session that it gave up is over in any case.
            Intent::Register => session.ended().is_none(),
            Intent::Stop { .. } | Intent::Stopped { .. } => false,
        };
        if is_done && std::mem::take(&mut self.waiting.is_unregistering) {
            out.emit(Event::Unregistered);
            std::mem::take(&mut self.waiting.unregisters).into_iter().for_each(|id| out.done(id));
        }
    }

    /// Drops requests whose callers are no longer waiting.
    pub(crate) fn abandon(&mut self, ids: &BTreeSet<RequestId>) {
        self.waiting.updates.retain(|(id, _)| !ids.contains(id));
        self.waiting.registers.retain(|id| !ids.contains(id));
        self.waiting.unregisters.retain(|id| !ids.contains(id));
    }

    /// Refuses all requests, because the node ends.
    pub(crate) fn refuse_all(&mut self, reason: &StopReason, out: &mut Outbox) {
        let Waiting { updates, registers, unregisters, .. } = std::mem::take(&mut self.waiting);
        let updates = updates.into_iter().map(|(id, _)| id);
        for id in updates.chain(registers).chain(unregisters) {
            out.refuse(id, RequestError::Stopped(reason.clone()));
        }
    }
}

/// Returns the restart grace to record, in milliseconds.
fn restart_grace(facts: &Facts) -> Option<u64> {
    let grace = facts.config.restart_grace.as_millis() as u64;
    (grace > 0).then_some(grace)
}

/// Adds to a commit that takes the name over: if its holder leads, the election key is deleted, because that process
/// must not lead under a name that it no longer holds. The lease identifies the holder, whose incarnation may differ
/// from the elected one.
fn depose(facts: &Facts, txn: Txn) -> Txn {
    let holder = facts.fold.own().and_then(|stored| stored.lease);
    let leader = facts.fold.leader().filter(|leader| holder.is_some() && leader.lease == holder);
    let Some(leader) = leader else { return txn };
    let election = facts.keys().election_key().clone();
    txn.guard(Guard::created_at(election.clone(), leader.created)).delete(election)
}
