//! The protocol as a pure state machine: no I/O, no clock, no randomness.
//!
//! [`Machine::handle`] takes the time and one [`Input`]; [`Machine::poll_output`] then returns the actions to execute,
//! until it returns `None`; [`Machine::next_wakeup`] returns the time at which [`Input::Tick`] is due if no other input
//! comes before. The runtime around it decides nothing.
//!
//! The machine is driven by state, not by events: it routes an input to the concern that waits for it, and then every
//! concern *reconciles*: it compares the current state with the goal, and sends what is missing. So a lost reply, a
//! repeated reply or a late timer is harmless.
//!
//! ```text
//!              Input ──▶ Machine: routes a reply by the token of its call, and a change of the log to all
//!                              │  that follow it; then lets each concern reconcile, from the bottom up
//!                              │
//!             departure        │  leaves, and gives the lease back                         P7
//!             owner_commits    │  commits of the user as owner of a slot                   P12
//!             requests         │  puts the request key; commits of the user as leader
//!             announcement     │  calls `on_stable`, at most once                          P4
//!             acknowledgement  │  tells the others how `stabilize` went                    P4, P8
//!             stabilization    │  runs `stabilize`, one at a time, for the newest version  P3
//!             publication      │  publishes versions                                       P2, P9
//!             crashes          │  removes nodes whose processes are gone
//!             eviction         │  removes laggards                                         P8
//!             reclaim          │  ends removed sessions that do not let go                 P12
//!             consistency      │  finds nodes that are not released or ready, records both P4, P8, P12
//!             acknowledgements │  follows the acknowledgements of all nodes
//!             election         │  campaigns, leads, resigns                                P5, P6
//!             ownership        │  acquires, holds and releases slots                       P12
//!             membership       │  keeps the node's own record                              P7
//!             versions         │  builds version records from the causes of a version      P9
//!             assignment       │  assigns slots to nodes                                   P12
//!             keeping          │  keeps the slots of absent nodes for a while              P12
//!             formation        │  knows whether the cluster has reached its minimum size   P8
//!             version_requests │  open requests for a new version
//!             log              │  follows and folds the log                                P1, P2
//!             session          │  grants and renews the lease, and ends the session        P6, P7
//!             health           │  runs the health check                                    P11
//!                              ▼
//!             outbox: the queue of outputs, and the table of calls that wait for a reply  ──▶ Output
//!             facts (configuration, goal, folded log, time), follow, in_flight, timers, contact, failing
//! ```
//!
//! Each concern is a struct in a file of its own. It reads only concerns below it, which are arguments of its methods,
//! so that a signature shows what a method can read and change. No file names a concern above it; a test checks that.
//! If one concern needs to know what happened in a lower one, it looks at the lower one's state when it reconciles: for
//! example, concerns that belong to a session reset themselves when they see that the session has changed.
//!
//! Example: a node joins. The watch yields its record ([`Input::Batch`]), `log` folds it, and `publication` on the
//! leader sees that the log differs from the newest version and commits a new one. When the watch yields that, `log`
//! folds it, `membership` returns the new view as the node's target, and `stabilization` puts out
//! [`Output::Stabilize`].
//!
//! The machine is `Clone + Eq + Hash`, so that a simulator can fork it and a model checker can compare states.

mod acknowledgement;
mod acknowledgements;
mod announcement;
mod assignment;
mod consistency;
mod contact;
mod crashes;
mod departure;
mod election;
mod eviction;
mod facts;
mod failing;
mod follow;
mod formation;
mod health;
mod in_flight;
mod input;
mod keeping;
mod log;
mod membership;
mod outbox;
mod output;
mod owner_commits;
mod ownership;
mod publication;
mod reclaim;
mod requests;
mod session;
mod stabilization;
mod status;
mod timers;
mod token;
mod version_requests;
mod versions;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use self::{
    acknowledgement::Acknowledgement,
    acknowledgements::Acknowledgements,
    announcement::Announcement,
    assignment::Assigning,
    consistency::Consistency,
    crashes::Crashes,
    departure::Departing,
    election::Election,
    eviction::Eviction,
    facts::{Facts, Intent},
    formation::Formation,
    health::Checks,
    keeping::Keeping,
    log::{Log, Resync},
    membership::Membership,
    outbox::{Call, Outbox, Pending},
    owner_commits::OwnerCommits,
    ownership::Ownership,
    publication::Publication,
    reclaim::Reclaim,
    requests::Requests,
    session::{Session, SessionEnd},
    stabilization::Stabilization,
    timers::Timers,
    version_requests::VersionRequests,
    versions::VersionInputs,
};
pub use self::{
    facts::Identity,
    failing::FailingCall,
    health::Health,
    input::Input,
    output::{Output, Purpose, Reply, RequestError, SlotChange},
    status::{Holdings, Leader, Leadership, Phase, SessionStatus, Status},
    token::{RequestId, Token},
};
use crate::{
    config::Config,
    event::{Event, LostReason, StopReason, StoreCall},
    fold::{Changed, Fold},
    keyspace::Keyspace,
    name::NodeName,
    node::Metadata,
    record::ReadinessOutcome,
    store::{Batch, ErrorKind, Revision, StoreError},
    time::Timestamp,
    version::IdGenerator,
};
pub(crate) use outbox::FEW_OUTPUTS;

/// The state machine of one node. See the [module's page](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    facts: Facts,
    health: Checks,
    session: Session,
    log: Log,
    version_requests: VersionRequests,
    formation: Formation,
    keeping: Keeping,
    assigning: Assigning,
    membership: Membership,
    ownership: Ownership,
    election: Election,
    acknowledgements: Acknowledgements,
    consistency: Consistency,
    reclaim: Reclaim,
    eviction: Eviction,
    crashes: Crashes,
    publication: Publication,
    stabilization: Stabilization,
    acknowledgement: Acknowledgement,
    announcement: Announcement,
    requests: Requests,
    owner_commits: OwnerCommits,
    departure: Departing,
    out: Outbox,
}

impl Machine {
    /// Creates a node that joins the cluster as soon as it is driven.
    ///
    /// `ids` generates its ULIDs and jitter: seed it differently for every process. `config` must be
    /// [valid](Config::validate).
    pub fn node(keyspace: Keyspace, identity: Identity, config: Config, ids: IdGenerator) -> Self {
        let name = identity.name.clone();
        Machine::new(keyspace, Some(name), Some(identity), Intent::Register, config, ids)
    }

    /// Creates an observer, which follows the log and writes nothing but requests for a new version.
    pub fn observer(keyspace: Keyspace, config: Config, ids: IdGenerator) -> Self {
        Machine::new(keyspace, None, None, Intent::Observe, config, ids)
    }

    fn new(
        keyspace: Keyspace,
        name: Option<NodeName>,
        identity: Option<Identity>,
        intent: Intent,
        config: Config,
        ids: IdGenerator,
    ) -> Self {
        Machine {
            health: Checks::default(),
            session: Session::default(),
            log: Log::new(&keyspace),
            version_requests: VersionRequests::default(),
            formation: Formation::default(),
            keeping: Keeping::default(),
            assigning: Assigning::default(),
            membership: Membership::default(),
            ownership: Ownership::default(),
            election: Election::default(),
            acknowledgements: Acknowledgements::new(&keyspace),
            consistency: Consistency::default(),
            reclaim: Reclaim::default(),
            eviction: Eviction::default(),
            crashes: Crashes::default(),
            publication: Publication::default(),
            stabilization: Stabilization::default(),
            acknowledgement: Acknowledgement::default(),
            announcement: Announcement::default(),
            requests: Requests::default(),
            owner_commits: OwnerCommits::default(),
            departure: Departing::default(),
            out: Outbox::new(&config, ids),
            facts: Facts {
                config: Arc::new(config),
                identity,
                intent,
                fold: Fold::new(keyspace, name),
                now: Timestamp::ZERO,
            },
        }
    }

    /// Handles one input that came at `now`. The times of a machine's inputs never decrease.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        if let Intent::Stopped { reason } = &self.facts.intent {
            return refuse(input, reason, &mut self.out);
        }
        self.facts.now = now;
        match input.token() {
            Some(token) => self.route(token, input),
            None => self.request(input),
        }
        self.reconcile();
    }

    /// Returns the next output, or `None` if there is none. Call it until then after every input.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.poll()
    }

    /// Returns the time at which [`Input::Tick`] is due if no other input comes before; `None` if it is never due.
    ///
    /// Ask again after every input. The time is later than that of the last input.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let facts = &self.facts;
        let mut timers = Timers::after(facts.now);
        match facts.intent {
            Intent::Stopped { .. } => {}
            Intent::Stop { deadline, .. } => {
                timers.at(deadline);
                self.session.timers(&mut timers);
                self.ownership.timers(facts, &self.session, &mut timers);
                self.departure.timers(&self.session, &mut timers);
                timers.maybe(self.session.ended().map(|ended| ended.expires));
            }
            Intent::Observe | Intent::Register => {
                self.health.timers(facts, &mut timers);
                self.session.timers(&mut timers);
                self.log.timers(&mut timers);
                self.keeping.timers(&self.session, facts, self.election.leading().is_some(), &mut timers);
                self.membership.timers(facts, &mut timers);
                self.ownership.timers(facts, &self.session, &mut timers);
                self.election.timers(facts, &self.session, &mut timers);
                self.acknowledgements.timers(&self.election, &mut timers);
                self.consistency.timers(facts, &mut timers);
                self.reclaim.timers(facts, &mut timers);
                self.eviction.timers(facts, &self.consistency, &mut timers);
                self.crashes.timers(facts, &mut timers);
                self.publication.timers(facts, &mut timers);
                self.stabilization.timers(facts, &mut timers);
                self.acknowledgement.timers(&mut timers);
                self.announcement.timers(facts, &mut timers);
                self.requests.timers(facts, &mut timers);
                self.owner_commits.timers(&mut timers);
                self.departure.timers(&self.session, &mut timers);
                self.out.failing.timers(facts.config.warn_after, &mut timers);
            }
        }
        timers.next()
    }

    /// Routes a reply to the concern that sent the call. A reply that no call waits for, or of the wrong kind, is
    /// ignored.
    fn route(&mut self, token: Token, input: Input) {
        let Some(Pending { call, sent, .. }) = self.out.answered(token, &input) else { return };
        let Machine { facts, session, out, .. } = self;
        match (call, input) {
            (Call::Grant, Input::Granted { result, .. }) => {
                session.on_granted(facts, &self.health, sent, result, out);
            }
            (Call::Renew, Input::Renewed { result, .. }) => {
                session.on_renewed(facts, token, sent, result, out);
            }
            (Call::Revoke, Input::Revoked { result, .. }) => {
                self.departure.on_revoked(facts, session, token, result, out);
            }
            (Call::Reclaim, Input::Revoked { result, .. }) => {
                self.reclaim.on_revoked(facts, token, result, out);
            }
            (Call::RevokeCrashed, Input::Revoked { result, .. }) => {
                self.crashes.on_revoked(facts, token, result, out);
            }
            (Call::Commit(purpose), Input::Committed { result, .. }) => {
                self.committed(purpose, token, sent, result);
            }
            (Call::OwnAcknowledgement, Input::Read { result, .. }) => {
                self.acknowledgement.on_read(facts, session, token, result, out);
            }
            (Call::OwnerCommits, Input::Read { result, .. }) => {
                self.owner_commits.on_read(facts, token, result, out);
            }
            (Call::Log, input) => self.route_log(token, input),
            (Call::Acknowledgements, input) => self.route_acknowledgements(token, input),
            (Call::Stabilize, Input::Stabilized { outcome, .. }) => {
                self.ownership.loading_ended();
                if let Some(report) = self.stabilization.on_ended(facts, token, outcome, out) {
                    if report.outcome == ReadinessOutcome::Ready {
                        self.ownership.acquire(facts, &report.view, out);
                    }
                    self.acknowledgement.report(report);
                }
            }
            (Call::Retract, Input::Retracted { in_use, .. }) => self.ownership.on_retracted(token, in_use),
            (Call::Release, Input::Released { outcome, .. }) => {
                self.ownership.on_released(facts, token, outcome, out);
            }
            (Call::Announce, Input::Announced { result, .. }) => {
                self.announcement.on_ended(token, result, out);
            }
            (Call::CheckHealth, Input::HealthReported { result, .. }) => {
                self.health.on_reported(facts, token, result, out);
            }
            // Every call is answered by its own kind of reply.
            _ => {}
        }
    }

    fn route_log(&mut self, token: Token, input: Input) {
        let Machine { facts, session, log, out, .. } = self;
        match input {
            Input::Read { result, .. } => {
                if let Some(resync) = log.on_read(facts, session, token, result, out) {
                    self.resynced(&resync);
                }
            }
            Input::WatchOpened { result, .. } => log.on_opened(facts, token, result, out),
            Input::Batch { batch, .. } => self.fold(token, &batch),
            Input::Batches { batches, .. } => batches.iter().for_each(|batch| self.fold(token, batch)),
            Input::WatchEnded { end, .. } => log.on_watch_ended(facts, token, end, out),
            _ => {}
        }
    }

    fn fold(&mut self, token: Token, batch: &Batch) {
        let changes = self.log.on_batch(&mut self.facts, token, batch);
        self.changed(&changes);
    }

    /// Notifies the concerns of a snapshot of the log.
    fn resynced(&mut self, resync: &Resync) {
        let Machine { facts, session, out, .. } = self;
        if resync.first || resync.rewound {
            self.version_requests.restart(facts);
        }
        self.keeping.on_resync(resync);
        self.election.on_resync(session, resync, out);
        self.consistency.on_resync();
        self.eviction.on_resync(resync);
        self.publication.on_resync(resync);
        self.announcement.on_resync(resync);
        self.requests.on_resync(facts, resync);
        self.changed(&resync.changes);
    }

    /// Notifies the concerns of changes of the log.
    fn changed(&mut self, changes: &[Changed]) {
        let Machine { facts, session, log, election, acknowledgements, out, .. } = self;
        for change in changes {
            log.on_change(facts, change, out);
            self.keeping.on_change(facts, change);
            self.assigning.on_change(change);
            self.membership.on_change(facts, session, log, change, out);
            self.ownership.on_change(facts, change, out);
            self.reclaim.on_change(change);
            election.on_change(facts, session, change, out);
            self.consistency.on_change(facts, acknowledgements, change);
            self.eviction.on_change(change, out);
            self.publication.on_change(facts, log, change);
        }
    }

    fn route_acknowledgements(&mut self, token: Token, input: Input) {
        let Machine { facts, acknowledgements, consistency, out, .. } = self;
        let mut fold = |batch: &Batch| {
            let changed = acknowledgements.on_batch(facts, token, batch, out);
            consistency.on_acknowledgements(facts, acknowledgements, &changed);
        };
        match input {
            Input::Batch { batch, .. } => fold(&batch),
            Input::Batches { batches, .. } => batches.iter().for_each(fold),
            Input::Read { result, .. } => {
                if let Some(before) = acknowledgements.on_read(facts, token, result, out) {
                    consistency.on_acknowledgements_read(facts, acknowledgements, &before);
                }
            }
            Input::WatchOpened { result, .. } => acknowledgements.on_opened(facts, token, result, out),
            Input::WatchEnded { .. } => acknowledgements.on_watch_ended(facts, token),
            _ => {}
        }
    }

    /// Routes the reply to a commit, and handles what all commits have in common.
    fn committed(
        &mut self,
        purpose: Purpose,
        token: Token,
        sent: Timestamp,
        result: Result<Revision, StoreError>,
    ) {
        let Machine { facts, session, membership, out, .. } = self;
        let (call, is_awaited) = match purpose {
            Purpose::Join | Purpose::TakeOver => {
                (StoreCall::Join, membership.on_committed(facts, purpose, token, &result))
            }
            Purpose::Rewrite => (StoreCall::Rewrite, membership.on_committed(facts, purpose, token, &result)),
            Purpose::Elect => (StoreCall::Elect, self.election.on_committed(facts, purpose, token, &result)),
            Purpose::Resign => {
                (StoreCall::Resign, self.election.on_committed(facts, purpose, token, &result))
            }
            Purpose::Publish => (StoreCall::Publish, self.publication.on_committed(facts, token, &result)),
            Purpose::Permit => {
                (StoreCall::Permit, self.consistency.on_committed(facts, purpose, token, &result))
            }
            Purpose::Confirm => {
                (StoreCall::Confirm, self.consistency.on_committed(facts, purpose, token, &result))
            }
            Purpose::Reclaim => (StoreCall::Reclaim, self.reclaim.on_committed(facts, token, &result)),
            Purpose::Evict => (StoreCall::Evict, self.eviction.on_committed(facts, token, &result)),
            Purpose::RemoveCrashed => {
                (StoreCall::RemoveCrashed, self.crashes.on_committed(facts, token, &result))
            }
            Purpose::RequestVersion => {
                (StoreCall::RequestVersion, self.requests.on_committed(facts, token, &result))
            }
            Purpose::Acknowledge => {
                let reply =
                    self.acknowledgement.on_committed(facts, session, membership, token, &result, out);
                (StoreCall::Acknowledge, reply)
            }
            Purpose::OwnerCommit => return self.owner_commits.on_committed(facts, token, result, out),
            Purpose::LeaderCommit => return self.requests.on_leader_committed(token, result, out),
            Purpose::Leave => return self.departure.on_left(facts, token, &result, out),
        };
        match result {
            _ if !is_awaited => {}
            Ok(_) => session.measured(facts.now.since(sent)),
            Err(error) if error.kind() == ErrorKind::LeaseNotFound => {
                session.end(facts, SessionEnd::Lost(LostReason::LeaseGone), out);
            }
            Err(error) => out.call_failed(call, &error, facts.now),
        }
    }

    /// Handles a request of the user.
    fn request(&mut self, input: Input) {
        let Machine { facts, out, .. } = self;
        match input {
            Input::RequestVersion { id, why } => self.version_requests.add(facts, id, why),
            Input::Resign { id } => self.election.on_resign(facts, id, out),
            Input::CommitAsLeader { id, txn } => {
                self.requests.commit_as_leader(facts, &self.election, id, txn, out);
            }
            Input::CommitAsOwner { id, slot, acquired, txn } => {
                self.owner_commits.commit(facts, &self.ownership, id, (slot, acquired), txn, out);
            }
            Input::Update { id, .. } | Input::Register { id } | Input::Unregister { id }
                if facts.identity.is_none() =>
            {
                out.refuse(id, RequestError::Observer);
            }
            Input::Update { id, metadata } => self.update(id, metadata),
            Input::Register { id } => self.register(id),
            Input::Unregister { id } => self.unregister(id),
            Input::Abandoned { ids } => {
                self.version_requests.abandon(&ids);
                self.membership.abandon(&ids);
                self.election.abandon(&ids);
            }
            Input::WorkDropped { slot, after } => out.emit(Event::WorkDropped { slot, after }),
            Input::ProcessGone { process, evidence } => self.crashes.on_gone(facts, process, evidence),
            Input::Stop { keep } => self.stop(StopReason::Asked, keep),
            _ => {}
        }
    }

    fn update(&mut self, id: RequestId, metadata: Metadata) {
        if let Some(identity) = &mut self.facts.identity {
            identity.metadata = metadata;
        }
        self.membership.update(&self.facts, &self.session, &self.log, id, &mut self.out);
    }

    fn register(&mut self, id: RequestId) {
        self.membership.register(id, &mut self.out);
        if self.facts.intent == Intent::Observe {
            self.facts.intent = Intent::Register;
        }
    }

    fn unregister(&mut self, id: RequestId) {
        if self.facts.intent == Intent::Register {
            self.facts.intent = Intent::Observe;
            self.health.cancel(&mut self.out);
        }
        self.membership.unregister(&self.facts, id, &mut self.out);
    }

    /// Begins to stop. Calls that come while the node is stopping are refused when it has stopped.
    fn stop(&mut self, reason: StopReason, keep: Duration) {
        if !self.facts.is_ending() {
            let deadline = self.facts.now + self.facts.config.stop_timeout();
            self.facts.intent = Intent::Stop { reason, deadline, keep };
            self.health.cancel(&mut self.out);
        }
    }

    /// Lets every concern compare the current state with its goal, each after those that it reads.
    fn reconcile(&mut self) {
        // Ownership and departure read the session, but can also end it. They do so before the session is reconciled.
        self.ownership.give_up(&self.facts, &mut self.session, &mut self.out);
        self.departure.give_up(&self.facts, &mut self.session, &self.ownership);
        self.health.reconcile(&self.facts, &mut self.out);
        // A session that begins while slots of an earlier one are being released could acquire nothing.
        let free = self.ownership.has_let_go();
        self.session.reconcile(&self.facts, &self.health, free, &mut self.out);
        self.log.reconcile(&self.facts, &mut self.out);
        let stop = self.membership.reconcile(&self.facts, &mut self.session, &self.log, &mut self.out);
        if let Some(reason) = stop {
            self.stop(reason, Duration::ZERO);
        }
        let Machine {
            facts,
            session,
            log,
            version_requests,
            keeping,
            assigning,
            membership,
            ownership,
            election,
            acknowledgements,
            consistency,
            out,
            ..
        } = self;
        ownership.reconcile(facts, session, out);
        keeping.reconcile(facts, session, election.leading().is_some(), out);
        let inputs = VersionInputs { log, version_requests, keeping, assigning };
        election.reconcile(facts, session, &inputs, membership, out);
        acknowledgements.reconcile(facts, election, out);
        consistency.reconcile(facts, log, election, acknowledgements, out);
        let is_leading = election.leading().is_some();
        self.formation.reconcile(facts, is_leading, out);
        assigning.reconcile(facts, keeping, is_leading, out);
        self.reclaim.reconcile(facts, election, out);
        self.eviction.reconcile(facts, election, consistency, out);
        self.crashes.reconcile(facts, session, membership, out);
        let inputs = VersionInputs { log, version_requests, keeping, assigning };
        if let Some(version) = self.publication.reconcile(facts, &inputs, election, consistency, out) {
            assigning.published(facts, keeping, version);
        }
        self.stabilization.reconcile(facts, session, membership, ownership, out);
        self.acknowledgement.reconcile(facts, session, membership, ownership, &self.stabilization, out);
        self.announcement.reconcile(facts, election, out);
        self.requests.reconcile(facts, log, version_requests, membership, election, out);
        self.owner_commits.reconcile(facts, ownership, out);
        self.departure.reconcile(facts, session, membership, ownership, out);
        self.report_failures();
        self.finish();
    }

    /// Reports whether the store answers, and which calls keep failing.
    fn report_failures(&mut self) {
        let now = self.facts.now;
        let is_away = self.log.is_failing() || self.session.is_failing() || self.departure.is_failing();
        if let Some(event) = self.out.contact.update(is_away, now) {
            self.out.emit(event);
        }
        if self.out.failing.is_empty() {
            return;
        }
        let mut failing = std::mem::take(&mut self.out.failing);
        let events = failing.update(now, self.facts.config.warn_after, |call| self.still_fails(call));
        self.out.failing = failing;
        events.into_iter().for_each(|event| self.out.emit(event));
    }

    /// True if the last attempt of that call failed, and another attempt is in flight or due later.
    fn still_fails(&self, call: StoreCall) -> bool {
        let facts = &self.facts;
        match call {
            StoreCall::Grant => self.session.fails_to_grant(),
            StoreCall::Revoke => self.departure.is_failing(),
            StoreCall::Join => self.membership.fails_to_join(facts),
            StoreCall::Rewrite => self.membership.fails_to_rewrite(facts),
            StoreCall::Elect => self.election.fails_to_elect(facts),
            StoreCall::Resign => self.election.fails_to_resign(facts),
            StoreCall::FollowAcknowledgements => self.acknowledgements.is_failing(),
            StoreCall::Permit => self.consistency.fails_to_permit(facts),
            StoreCall::Reclaim => self.reclaim.fails_to_reclaim(facts),
            StoreCall::Confirm => self.consistency.fails_to_confirm(facts),
            StoreCall::Evict => self.eviction.fails_to_evict(facts),
            StoreCall::RemoveCrashed => self.crashes.fails_to_remove(facts),
            StoreCall::Publish => self.publication.fails_to_publish(facts),
            StoreCall::Acknowledge => self.acknowledgement.is_failing(),
            StoreCall::RequestVersion => self.requests.fails_to_request(facts),
        }
    }

    /// Ends the node once it has left and its callbacks have ended, or at its deadline.
    fn finish(&mut self) {
        let Intent::Stop { reason, deadline, .. } = &self.facts.intent else { return };
        let (reason, deadline) = (reason.clone(), *deadline);
        // Expired leases need not be revoked, so stopping does not wait for the store to confirm that.
        let is_away = self.out.contact.away_since().is_some();
        let has_left = self.session.is_given_back() || is_away && self.session.shows_nothing(self.facts.now);
        let is_idle = !self.stabilization.is_running()
            && !self.announcement.is_running()
            && !self.ownership.is_running();
        if !(has_left && is_idle) && self.facts.now < deadline {
            return;
        }
        self.log.stop(&mut self.out);
        self.acknowledgements.stop(&mut self.out);
        self.version_requests.refuse_all(&reason, &mut self.out);
        self.requests.refuse_all(&reason, &mut self.out);
        self.owner_commits.refuse_all(&reason, &mut self.out);
        self.membership.refuse_all(&reason, &mut self.out);
        self.end(reason.clone());
        self.out.stopped(reason);
    }

    /// Ends the node at once, because it will not be driven any more.
    pub fn abort(&mut self) {
        if !matches!(self.facts.intent, Intent::Stopped { .. }) {
            self.end(StopReason::Aborted);
        }
    }

    /// Discards state that would become outdated. A node that has ended handles no more inputs, and its status shows
    /// that it knows nothing.
    fn end(&mut self, reason: StopReason) {
        self.facts.intent = Intent::Stopped { reason };
        self.facts.fold = Fold::new(self.facts.keys().clone(), None);
        self.membership.leave();
        self.ownership = Ownership::default();
        self.election = Election::default();
        self.acknowledgement = Acknowledgement::default();
        self.out.failing = failing::FailingCalls::default();
    }
}

/// Refuses a request to a node that has ended.
fn refuse(input: Input, reason: &StopReason, out: &mut Outbox) {
    let stopped = RequestError::Stopped(reason.clone());
    match input {
        Input::RequestVersion { id, .. } => out.reply(id, Reply::Version(Err(stopped))),
        Input::CommitAsLeader { id, .. } | Input::CommitAsOwner { id, .. } => {
            out.reply(id, Reply::Committed(Err(stopped)));
        }
        Input::Resign { id }
        | Input::Update { id, .. }
        | Input::Register { id }
        | Input::Unregister { id } => {
            out.refuse(id, stopped);
        }
        _ => {}
    }
}
