use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    InFlight, Intent, Machine, Output, Purpose, Reply, RequestError, RequestId, Timers,
    session::{Held, SessionEnd},
};
use crate::{
    config::{Backoff, NameConflict},
    event::{Event, LostReason, StopReason},
    name::Incarnation,
    node::{Metadata, Node},
    record::{NodeRecord, PROTOCOL, StoredRecord, encode},
    store::{Guard, LeaseId, Revision, Txn},
    time::Timestamp,
    version::Version,
};

/// Backoff between corrections of the node's record, in case another client keeps overwriting it.
const CORRECTIONS: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(600));

/// The node's own record in the log.
///
/// A record is *mine* if it stands under the lease of the present session, with an incarnation that this process
/// minted. Whatever a reply said, the node is a member while its record so stands, and no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Membership {
    /// Registering: join, or take over.
    pub(crate) join: InFlight,
    /// Changing the record.
    pub(crate) rewrite: InFlight,
    member: Option<Member>,
    /// The incarnation that the record should bear: kept over repeats of the same commit.
    wanted: Option<Incarnation>,
    /// The newest version that the process had seen when it minted that incarnation. Stored in the record.
    seen: Option<Version>,
    /// Number of consecutive times that another client overwrote the record.
    overwritten: u32,
    /// Time of the last correction, done or due.
    overwritten_at: Timestamp,
    /// Time at which to rewrite the record, since its contents are not what this process wrote.
    correct_at: Option<Timestamp>,
    /// True once a commit that writes the wanted incarnation has been sent.
    is_written: bool,
    /// Incarnations of this process that may still stand under its name.
    minted: Vec<Incarnation>,
    /// Whether this process has been a member: then taking the name over is no longer a matter of starting up.
    joined_before: bool,
    /// The holder of the name of which was told.
    told_of: Option<Incarnation>,
    /// Requests to change the metadata, and the incarnation under which they are granted.
    updates: Vec<(RequestId, Incarnation)>,
    /// Requests to register, granted with the next membership.
    registers: Vec<RequestId>,
    /// Requests to unregister, granted once the lease is given back.
    unregisters: Vec<RequestId>,
    /// True while the node is unregistering, whether or not a caller waits for it.
    is_unregistering: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    /// When the own record was last put, and when it was created.
    modified: Revision,
    created: Revision,
    /// The incarnation that it bears.
    incarnation: Incarnation,
}

/// What stands under the node's own name.
enum Slot {
    Absent,
    Mine {
        modified: Revision,
        created: Revision,
        incarnation: Incarnation,
    },
    /// What nobody holds: it cannot be read, or this process wrote it under a lease that it no longer has.
    Leftover {
        modified: Revision,
    },
    Foreign(Arc<Node>),
}

impl Membership {
    pub(crate) fn is_member(&self) -> bool {
        self.member.is_some()
    }

    /// Drops requests whose callers no longer wait.
    pub(crate) fn abandon(&mut self, ids: &BTreeSet<RequestId>) {
        self.updates.retain(|(id, _)| !ids.contains(id));
        self.registers.retain(|id| !ids.contains(id));
        self.unregisters.retain(|id| !ids.contains(id));
    }

    /// When the own record was last put.
    pub(crate) fn modified(&self) -> Option<Revision> {
        self.member.as_ref().map(|member| member.modified)
    }

    /// When the own record was created: the node's age among candidates.
    pub(crate) fn created(&self) -> Option<Revision> {
        self.member.as_ref().map(|member| member.created)
    }

    /// The incarnation that the own record bears.
    pub(crate) fn incarnation(&self) -> Option<&Incarnation> {
        self.member.as_ref().map(|member| &member.incarnation)
    }
}

impl Machine {
    pub(super) fn membership_timers(&self, timers: &mut Timers) {
        timers.maybe(self.membership.join.due(self.fold.revision()));
        timers.maybe(self.membership.rewrite.due(self.fold.revision()));
        timers.maybe(self.membership.correct_at);
    }

    /// A session began: one incarnation for it.
    pub(super) fn begin_membership(&mut self, now: Timestamp) {
        self.membership.wanted = None;
        self.want_incarnation(now);
        self.membership.told_of = None;
    }

    /// Returns the incarnation for the record's current contents. An incarnation that was never sent is reused;
    /// otherwise a new one is minted.
    fn want_incarnation(&mut self, now: Timestamp) -> Incarnation {
        if let Some(wanted) = self.membership.wanted.clone().filter(|_| !self.membership.is_written) {
            self.membership.seen = self.newest_seen;
            return wanted;
        }
        self.membership.is_written = false;
        let incarnation = Incarnation::from(self.ids.ulid(now).to_string());
        self.membership.minted.push(incarnation.clone());
        // Changes that wait for the log are granted with this record too: it has the newest metadata.
        for update in &mut self.membership.updates {
            update.1 = incarnation.clone();
        }
        self.membership.wanted = Some(incarnation.clone());
        self.membership.seen = self.newest_seen;
        incarnation
    }

    /// The session is over.
    pub(super) fn leave_membership(&mut self) {
        self.membership.member = None;
        self.membership.join.reset();
        self.membership.rewrite.reset();
        self.membership.correct_at = None;
    }

    pub(super) fn reconcile_membership(&mut self, now: Timestamp) {
        self.grant_unregisters();
        let Some(lease) = self.session.held().map(|held: &Held| held.lease) else { return };
        if self.is_settled() {
            return;
        }
        match (self.own_slot(lease), self.membership.is_member()) {
            (Slot::Mine { modified, created, incarnation }, was) => {
                let member = Member { modified, created, incarnation: incarnation.clone() };
                let before = self.membership.member.replace(member);
                if before.is_some_and(|before| before.modified != modified) {
                    self.acknowledgement.record_changed();
                }
                if !was {
                    self.joined(&incarnation);
                }
                self.rewrite(now, modified, lease, &incarnation);
            }
            (Slot::Foreign(node), true) => self.stop(now, StopReason::TakenOver { by: node.uri.clone() }),
            (Slot::Absent | Slot::Leftover { .. }, true) => {
                self.end_session(now, SessionEnd::Lost(LostReason::Removed));
            }
            (Slot::Absent, false) => self.join(now, lease, None),
            (Slot::Leftover { modified }, false) => self.join(now, lease, Some(modified)),
            (Slot::Foreign(node), false) => self.meet(now, lease, &node),
        }
    }

    /// Whether the record stands as it was last seen and as it should: so it is at nearly every input.
    fn is_settled(&self) -> bool {
        let (Some(member), Some(standing)) = (&self.membership.member, self.fold.own()) else { return false };
        // One that is wanted and does not stand yet is a second one.
        let single = self.membership.minted.len() == 1;
        standing.modified == member.modified && single && self.membership.correct_at.is_none()
    }

    fn own_slot(&self, lease: LeaseId) -> Slot {
        let Some(standing) = self.fold.own() else { return Slot::Absent };
        let StoredRecord { created, modified, .. } = *standing;
        match &standing.record {
            None => Slot::Leftover { modified },
            Some(node) => {
                let minted = self.membership.minted.contains(&node.incarnation);
                match (minted, standing.lease == Some(lease)) {
                    (true, true) => Slot::Mine { modified, created, incarnation: node.incarnation.clone() },
                    // Another process would have its own lease, so this record was written by hand.
                    (true, false) | (false, true) => Slot::Leftover { modified },
                    (false, false) => Slot::Foreign(node.clone()),
                }
            }
        }
    }

    /// The name is held by an incarnation that this process never minted.
    fn meet(&mut self, now: Timestamp, lease: LeaseId, node: &Arc<Node>) {
        match self.config.name_conflict {
            NameConflict::Fail => self.stop(now, StopReason::NameTaken { by: node.uri.clone() }),
            NameConflict::TakeOver if self.membership.joined_before => {
                self.stop(now, StopReason::TakenOver { by: node.uri.clone() });
            }
            NameConflict::TakeOver => self.join(now, lease, Some(node.modified)),
            NameConflict::Wait => {
                if self.membership.told_of.as_ref() != Some(&node.incarnation) {
                    self.membership.told_of = Some(node.incarnation.clone());
                    self.emit(Event::NameHeld {
                        incarnation: node.incarnation.clone(),
                        uri: node.uri.clone(),
                    });
                }
            }
        }
    }

    /// Registers, in place of what was put at the revision given, if anything.
    fn join(&mut self, now: Timestamp, lease: LeaseId, instead_of: Option<Revision>) {
        // Only once the watch is open: the node's own registration reaches it as an event like any other.
        let folded = self.fold.revision();
        if !self.log.follow.is_open() || !self.membership.join.is_free(now, folded) {
            return;
        }
        let Some((identity, record)) = self.own_record() else { return };
        let keys = self.fold.keyspace();
        let own = keys.node_key(&identity.name);
        let (purpose, txn) = match instead_of {
            None => (Purpose::Join, Txn::new().guard(Guard::absent(own.clone())).put(own, record, lease)),
            Some(seen) => {
                let mut txn = Txn::new()
                    .guard(Guard::modified_at(own.clone(), seen))
                    .put(own, record, lease)
                    .delete(keys.readiness_key(&identity.name));
                // If the other one leads, its lead goes with its name: nobody leads under a name that is another's. The
                // lease tells: the incarnation may be another than the one that was elected.
                let holder = self.fold.own().and_then(|standing| standing.lease);
                if let Some(leader) = self.fold.leader().filter(|leader| leader.lease == holder)
                    && holder.is_some()
                {
                    let election = keys.election_key().clone();
                    txn = txn.guard(Guard::created_at(election.clone(), leader.created)).delete(election);
                }
                (Purpose::TakeOver, txn)
            }
        };
        let token = self.commit(purpose, txn);
        self.membership.is_written = true;
        self.membership.join.sent(token, now, folded);
    }

    fn own_record(&self) -> Option<(&super::Identity, bytes::Bytes)> {
        let identity = self.identity.as_ref()?;
        let incarnation = self.membership.wanted.as_ref()?;
        let record = NodeRecord {
            uri: &identity.uri,
            incarnation,
            metadata: &identity.metadata,
            protocol: PROTOCOL,
            seen: self.membership.seen,
        };
        Some((identity, encode(&record)))
    }

    /// True if the stored record has the contents that this process wrote.
    fn says_what_was_written(&self) -> bool {
        let (Some(identity), Some(own)) = (&self.identity, self.fold.own()) else { return true };
        own.record.as_ref().is_some_and(|node| {
            node.uri.as_str() == identity.uri.as_str()
                && node.metadata == identity.metadata
                && node.protocol == PROTOCOL
                && node.seen == self.membership.seen
        })
    }

    /// Rewrites a record that another client overwrote, under a new incarnation. The first correction is immediate;
    /// later ones back off exponentially, so that two clients that correct each other do not cause endless new
    /// versions.
    fn correct(&mut self, now: Timestamp) {
        let at = match self.membership.correct_at {
            Some(at) => at,
            None => {
                if now.since(self.membership.overwritten_at) > CORRECTIONS.max {
                    self.membership.overwritten = 0;
                }
                let pause = match self.membership.overwritten {
                    0 => Duration::ZERO,
                    times => CORRECTIONS.after(times),
                };
                self.membership.overwritten += 1;
                self.membership.overwritten_at = now + pause;
                self.membership.correct_at = Some(now + pause);
                let own =
                    self.identity.as_ref().map(|identity| self.fold.keyspace().node_key(&identity.name));
                self.outputs.extend(own.map(|key| Output::Event(Event::Overwritten { key })));
                now + pause
            }
        };
        if now >= at {
            self.membership.correct_at = None;
            self.want_incarnation(now);
        }
    }

    fn joined(&mut self, incarnation: &Incarnation) {
        let again = std::mem::replace(&mut self.membership.joined_before, true);
        let incarnation = incarnation.clone();
        self.emit(match again {
            false => Event::Joined { incarnation },
            true => Event::Rejoined { incarnation },
        });
        for id in std::mem::take(&mut self.membership.registers) {
            self.outputs.push_back(Output::Reply { id, result: Ok(Reply::Done) });
        }
    }

    /// Changes the record if it is not the one wanted.
    fn rewrite(&mut self, now: Timestamp, modified: Revision, lease: LeaseId, standing: &Incarnation) {
        if self.membership.wanted.as_ref() == Some(standing) && !self.says_what_was_written() {
            self.correct(now);
            if self.membership.correct_at.is_some() {
                return;
            }
        } else if self.membership.wanted.as_ref() == Some(standing) {
            self.membership.correct_at = None;
            // No other incarnation of this process stands, and none is on its way.
            self.membership.minted.retain(|minted| minted == standing);
            let (granted, open) = std::mem::take(&mut self.membership.updates)
                .into_iter()
                .partition::<Vec<_>, _>(|(_, incarnation)| incarnation == standing);
            self.membership.updates = open;
            for (id, _) in granted {
                self.outputs.push_back(Output::Reply { id, result: Ok(Reply::Done) });
            }
            return;
        }
        let folded = self.fold.revision();
        if !self.membership.rewrite.is_free(now, folded) {
            return;
        }
        let Some((identity, record)) = self.own_record() else { return };
        let keys = self.fold.keyspace();
        let own = keys.node_key(&identity.name);
        // The acknowledgement goes with the record that it was given under. The two prefixes are watched apart: were it
        // left standing, a leader that has not seen the new record yet could count it as if the old one still stood,
        // together with acknowledgements given after the change, and record as stable what never was so at any revision.
        let txn = Txn::new()
            .guard(Guard::modified_at(own.clone(), modified))
            .put(own, record, lease)
            .delete(keys.readiness_key(&identity.name));
        let token = self.commit(Purpose::Rewrite, txn);
        self.membership.is_written = true;
        self.membership.rewrite.sent(token, now, folded);
    }

    pub(super) fn on_update(&mut self, now: Timestamp, id: RequestId, metadata: Metadata) {
        let Some(identity) = &mut self.identity else {
            return self.outputs.push_back(Output::Reply { id, result: Err(RequestError::Observer) });
        };
        identity.metadata = metadata;
        if self.session.held().is_none() {
            // The next session registers with it.
            return self.outputs.push_back(Output::Reply { id, result: Ok(Reply::Done) });
        }
        let incarnation = self.want_incarnation(now);
        self.membership.updates.push((id, incarnation));
    }

    pub(super) fn on_register(&mut self, id: RequestId) {
        if self.identity.is_none() {
            return self.outputs.push_back(Output::Reply { id, result: Err(RequestError::Observer) });
        }
        if self.membership.is_member() {
            return self.outputs.push_back(Output::Reply { id, result: Ok(Reply::Done) });
        }
        self.membership.registers.push(id);
        if self.intent == Intent::Observe {
            self.intent = Intent::Register;
        }
    }

    pub(super) fn on_unregister(&mut self, now: Timestamp, id: RequestId) {
        if self.identity.is_none() {
            return self.outputs.push_back(Output::Reply { id, result: Err(RequestError::Observer) });
        }
        self.membership.unregisters.push(id);
        self.membership.is_unregistering = true;
        if self.intent != Intent::Register {
            return;
        }
        self.intent = Intent::Observe;
        // These wait for what does not come now. New metadata is kept for the next place, as if given after this.
        for id in std::mem::take(&mut self.membership.registers) {
            self.outputs.push_back(Output::Reply { id, result: Err(RequestError::Unregistered) });
        }
        for (id, _) in std::mem::take(&mut self.membership.updates) {
            self.outputs.push_back(Output::Reply { id, result: Ok(Reply::Done) });
        }
        self.drop_health();
        self.session.give_up_granting();
        self.end_session(now, SessionEnd::GivenUp);
    }

    fn grant_unregisters(&mut self) {
        let given_up = match self.intent {
            Intent::Observe => self.session.is_given_back(),
            // Registering again has begun already; the place that was given up is gone all the same.
            Intent::Register => !self.session.has_ghosts(),
            Intent::Stop { .. } | Intent::Stopped { .. } => false,
        };
        if given_up && std::mem::take(&mut self.membership.is_unregistering) {
            self.emit(Event::Unregistered);
            for id in std::mem::take(&mut self.membership.unregisters) {
                self.outputs.push_back(Output::Reply { id, result: Ok(Reply::Done) });
            }
        }
    }

    /// Requests that wait for a membership: refused when the node ends.
    pub(super) fn membership_requests(&mut self) -> Vec<RequestId> {
        let updates = std::mem::take(&mut self.membership.updates).into_iter().map(|(id, _)| id);
        let registers = std::mem::take(&mut self.membership.registers);
        let unregisters = std::mem::take(&mut self.membership.unregisters);
        updates.chain(registers).chain(unregisters).collect()
    }
}
