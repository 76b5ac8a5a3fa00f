//! The protocol as a pure state machine: no I/O, no clock, no randomness.
//!
//! ```text
//!                       ┌───────────────────── Machine ─────────────────────┐
//!                       │  session ─▶ membership ─▶ election ─▶ publication │
//!  store, timers,       │                  ▲                        │       │       runtime:
//!  callbacks, user      │                  │                        ▼       │       calls, watches,
//!  ──────── Input ────▶ │   log ─▶ fold ───┴──────▶ stabilization, ─┘       │ ─ Output ─▶ callbacks,
//!                       │                           consistency             │       events, replies
//!                       └──────────────── next_wakeup() ────────────────────┘
//! ```
//!
//! [`Machine::handle`] takes the time and one [`Input`]; [`Machine::poll_output`] then yields what is to be done, until
//! it yields `None`; [`Machine::next_wakeup`] tells when [`Input::Tick`] is due if nothing else comes. Whoever drives
//! it decides nothing.
//!
//! It is driven by state, not by events: each input is first taken down, then every concern looks at what is so now and
//! at what it wants, and sends what is missing. A lost reply, a repeated one or a late timer changes nothing in that.
//! Each concern has a file:
//!
//! | file | concern | promises |
//! |---|---|---|
//! | `log` | following `{ns}/view/`, resuming, resyncing | P1, P2 |
//! | `health` | whether the process is well, and takes part | P11 |
//! | `session` | the lease, its deadlines, giving it back | P6, P7 |
//! | `membership` | the own record: joining, names, changes | P7 |
//! | `election` | campaigning, leading, resigning | P5, P6 |
//! | `publication` | when to publish, and how often | P2, P9 |
//! | `stabilization` | one callback at a time, for the newest version | P3 |
//! | `acknowledgement` | telling the others how it went | P4 |
//! | `consistency` | who is ready, who is late, recording stability | P4, P8 |
//! | `history` | what is kept of versions | P9 |
//! | `announcement` | `on_stable`, at most once | P4 |
//! | `requests` | what the user asks for | |
//! | `failing` | store calls that keep failing | P10 |
//!
//! It is `Clone + Eq + Hash`, so that a simulator can fork it and a model checker can tell states apart.

mod acknowledgement;
mod announcement;
mod consistency;
mod contact;
mod election;
mod failing;
mod follow;
mod health;
mod history;
mod in_flight;
mod input;
mod log;
mod membership;
mod output;
mod publication;
mod requests;
mod session;
mod stabilization;
mod status;
mod timers;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use self::{
    acknowledgement::Acknowledgement, announcement::Announcement, consistency::Consistency, contact::Contact,
    election::Election, failing::FailingCalls, health::Checks, membership::Membership,
    publication::Publication, requests::Requests, session::Session, stabilization::Stabilization,
};
pub use self::{
    failing::FailingCall,
    health::Health,
    input::Input,
    output::{Output, Purpose, Reply, RequestError},
    status::{Leader, Leadership, Phase, SessionStatus, Status},
};
pub(crate) use self::{follow::Follow, in_flight::InFlight, timers::Timers};
use crate::{
    config::Config,
    event::{Event, StopReason},
    fold::{Changed, Fold},
    keyspace::Keyspace,
    name::{NodeName, NodeUri},
    node::{Metadata, Node},
    store::{ErrorKind, StoreError, Txn},
    time::Timestamp,
    version::{IdGenerator, Version},
    view::View,
};

/// Room for so many outputs is kept. A snapshot of a thousand nodes has a thousand, once.
pub(crate) const FEW_OUTPUTS: usize = 16;

/// Names a call, a watch or a run of a callback. Replies carry it; stale ones fall away by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a request of the user. Whoever drives the machine chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its name, unique in the cluster.
    pub name: NodeName,
    /// Where it is reached.
    pub uri: NodeUri,
    /// What it tells about itself.
    pub metadata: Metadata,
}

/// What the node is there for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Intent {
    /// Follow the log, and no more.
    Observe,
    /// Hold a place in the cluster.
    Register,
    /// End, for that reason, by that time at the latest.
    Stop { reason: StopReason, deadline: Timestamp },
    /// Ended.
    Stopped { reason: StopReason },
}

/// The state machine of one node. See the [module's page](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    identity: Option<Identity>,
    config: Arc<Config>,
    ids: IdGenerator,
    tokens: u64,
    /// When the last input came: what was due by then has been seen to.
    seen_to: Timestamp,
    intent: Intent,
    fold: Fold,
    /// The newest version that this process has seen, or that a node record in the log names as seen. It is kept across
    /// sessions and restores of the store, and versions are minted above it (P2).
    newest_seen: Option<Version>,
    log: log::Log,
    contact: Contact,
    session: Session,
    health: Checks,
    membership: Membership,
    election: Election,
    publication: Publication,
    stabilization: Stabilization,
    acknowledgement: Acknowledgement,
    consistency: Consistency,
    announcement: Announcement,
    requests: Requests,
    failing: FailingCalls,
    outputs: VecDeque<Output>,
}

impl Machine {
    /// A node that joins the cluster as soon as it is driven.
    ///
    /// `mint` gives it its ULIDs and jitter: seed it differently for every process. `config` must be
    /// [valid](Config::validate).
    pub fn node(keyspace: Keyspace, identity: Identity, config: Config, ids: IdGenerator) -> Self {
        let me = Some(identity.name.clone());
        Machine { intent: Intent::Register, ..Machine::new(keyspace, me, Some(identity), config, ids) }
    }

    /// An observer: it follows the log and writes nothing but requests for a new version.
    pub fn observer(keyspace: Keyspace, config: Config, ids: IdGenerator) -> Self {
        Machine::new(keyspace, None, None, config, ids)
    }

    fn new(
        keyspace: Keyspace,
        me: Option<NodeName>,
        identity: Option<Identity>,
        config: Config,
        ids: IdGenerator,
    ) -> Self {
        Machine {
            identity,
            ids,
            tokens: 0,
            seen_to: Timestamp::ZERO,
            newest_seen: None,
            intent: Intent::Observe,
            log: log::Log::new(&keyspace),
            contact: Contact::default(),
            session: Session::default(),
            health: Checks::default(),
            membership: Membership::default(),
            election: Election::default(),
            publication: Publication::default(),
            stabilization: Stabilization::default(),
            acknowledgement: Acknowledgement::default(),
            consistency: Consistency::new(&keyspace),
            announcement: Announcement::default(),
            requests: Requests::default(),
            failing: FailingCalls::default(),
            outputs: VecDeque::new(),
            config: Arc::new(config),
            fold: Fold::new(keyspace, me),
        }
    }

    /// Takes one input that came at `now`. The times of a machine's inputs never decrease.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        if matches!(self.intent, Intent::Stopped { .. }) {
            return self.refuse(input);
        }
        self.seen_to = now;
        match input {
            Input::Tick => {}
            Input::Granted { token, result } => self.on_granted(now, token, result),
            Input::Renewed { token, result } => self.on_renewed(now, token, result),
            Input::Revoked { token, result } => self.on_revoked(now, token, result),
            Input::Read { token, result } => self.on_read(now, token, result),
            Input::WatchOpened { token, result } => self.on_watch_opened(now, token, result),
            Input::Batch { token, batch } => self.on_batches(now, token, &[batch]),
            Input::Batches { token, batches } => self.on_batches(now, token, &batches),
            Input::WatchEnded { token, end } => self.on_watch_ended(now, token, end),
            Input::Committed { token, result } => self.on_committed(now, token, result),
            Input::Stabilized { token, outcome } => self.on_stabilized(now, token, outcome),
            Input::Announced { token, result } => self.on_announced(token, result),
            Input::HealthReported { token, result } => self.on_health(now, token, result),
            Input::RequestVersion { id, why } => self.on_ask(id, why),
            Input::Resign { id } => self.on_resign(now, id),
            Input::CommitAsLeader { id, txn } => self.on_fence(now, id, txn),
            Input::Update { id, metadata } => self.on_update(now, id, metadata),
            Input::Register { id } => self.on_register(id),
            Input::Unregister { id } => self.on_unregister(now, id),
            Input::Abandoned { ids } => self.on_abandoned(&ids),
            Input::Stop => self.stop(now, StopReason::Asked),
        }
        self.settle(now);
    }

    /// The next thing to be done, or `None` once all is said. Poll until then after every input.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() {
            self.outputs.shrink_to(FEW_OUTPUTS);
        }
        output
    }

    /// When [`Input::Tick`] is due if no other input comes before; `None`: never.
    ///
    /// Ask again after every input. It lies later than the last input.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let mut timers = Timers::after(self.seen_to);
        match self.intent {
            Intent::Stopped { .. } => {}
            Intent::Stop { deadline, .. } => {
                timers.at(deadline);
                self.session_timers(&mut timers);
                timers.maybe(self.session.expiry());
            }
            Intent::Observe | Intent::Register => {
                timers.maybe(self.log.follow.wakeup());
                self.health_timers(&mut timers);
                self.session_timers(&mut timers);
                self.membership_timers(&mut timers);
                self.election_timers(&mut timers);
                self.consistency_timers(&mut timers);
                self.publication_timers(&mut timers);
                self.stabilization_timers(&mut timers);
                self.acknowledgement_timers(&mut timers);
                self.announcement_timers(&mut timers);
                self.requests_timers(&mut timers);
                self.failing_timers(&mut timers);
            }
        }
        timers.next()
    }

    /// Lets every concern look at what is so now, each after those that it rests on.
    fn settle(&mut self, now: Timestamp) {
        self.reconcile_health(now);
        self.reconcile_session(now);
        self.reconcile_log(now);
        self.reconcile_membership(now);
        self.reconcile_election(now);
        self.reconcile_consistency(now);
        self.reconcile_publication(now);
        self.reconcile_stabilization(now);
        self.reconcile_acknowledgement(now);
        self.reconcile_announcement(now);
        self.reconcile_requests(now);
        self.reconcile_contact(now);
        self.reconcile_failing(now);
        self.reconcile_stop(now);
    }

    /// Begins to end. What is asked of the node from now on is refused.
    fn stop(&mut self, now: Timestamp, reason: StopReason) {
        if matches!(self.intent, Intent::Stop { .. } | Intent::Stopped { .. }) {
            return;
        }
        self.intent = Intent::Stop { reason, deadline: now + self.config.stop_timeout };
        self.drop_health();
        self.end_session(now, session::SessionEnd::GivenUp);
    }

    fn reconcile_stop(&mut self, now: Timestamp) {
        let Intent::Stop { reason, deadline } = &self.intent else { return };
        // Expired leases need not be revoked, so stopping does not wait for the store to confirm that.
        let is_away = self.contact.away_since().is_some();
        let idle = (self.session.is_given_back() || is_away && self.session.shows_nothing(now))
            && !self.stabilization.is_running()
            && !self.announcement.is_running();
        if !idle && now < *deadline {
            return;
        }
        let reason = reason.clone();
        self.drop_watches();
        self.requests.refuse_all(&reason, &mut self.outputs);
        for id in self.membership_requests() {
            let result = Err(RequestError::Stopped(reason.clone()));
            self.outputs.push_back(Output::Reply { id, result });
        }
        self.end(reason.clone());
        self.emit(Event::Stopped { reason: reason.clone() });
        self.outputs.push_back(Output::Stopped { reason });
    }

    /// Whoever drove the node is gone, and nobody will from now on: it ends as it is.
    pub fn abort(&mut self) {
        if !matches!(self.intent, Intent::Stopped { .. }) {
            self.end(StopReason::Aborted);
        }
    }

    /// A node that has ended hears nothing any more. It says that it knows nothing, rather than what once was so.
    fn end(&mut self, reason: StopReason) {
        self.intent = Intent::Stopped { reason };
        self.leave_membership();
        self.fold = Fold::new(self.keyspace().clone(), None);
        self.acknowledgement = Acknowledgement::default();
        self.failing = FailingCalls::default();
    }

    /// What comes after the end.
    fn refuse(&mut self, input: Input) {
        let Intent::Stopped { reason } = &self.intent else { return };
        if let Input::RequestVersion { id, .. }
        | Input::Resign { id }
        | Input::CommitAsLeader { id, .. }
        | Input::Update { id, .. }
        | Input::Register { id }
        | Input::Unregister { id } = input
        {
            let result = Err(RequestError::Stopped(reason.clone()));
            self.outputs.push_back(Output::Reply { id, result });
        }
    }

    /// Whether the node is to have a place in the cluster now.
    fn wants_place(&self) -> bool {
        self.intent == Intent::Register && self.is_fit()
    }

    fn is_ending(&self) -> bool {
        matches!(self.intent, Intent::Stop { .. } | Intent::Stopped { .. })
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn emit(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Sends a commit, and returns its token.
    fn commit(&mut self, purpose: Purpose, txn: Txn) -> Token {
        let token = self.token();
        self.outputs.push_back(Output::Commit { token, txn, purpose, timeout: self.call_timeout() });
        token
    }

    /// How long a call may take, by the TTL that the store granted or, before that, by the one asked for.
    fn call_timeout(&self) -> Duration {
        self.config.call_timeout.unwrap_or_else(|| self.session.ttl().unwrap_or(self.config.ttl) / 6)
    }

    /// A delay, with up to a quarter of it taken off at random, so that nodes that failed together do not come back
    /// together.
    fn jittered(&mut self, delay: Duration) -> Duration {
        delay - Duration::from_nanos(self.ids.below(delay.as_nanos() as u64 / 4))
    }

    /// Tells of an answer that only a person can mend.
    fn report_refusal(&mut self, error: &StoreError) {
        if matches!(error.kind(), ErrorKind::Refused | ErrorKind::Invalid) {
            self.emit(Event::StoreRefused { reason: error.to_string() });
        }
    }

    /// The nodes present now, sorted by name: whom one may find, whether or not a version has them yet.
    pub fn present(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.fold.present()
    }

    /// How many there are.
    pub fn present_count(&self) -> usize {
        self.fold.present_count()
    }

    /// The node of that name, if it is present.
    pub fn node_named(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.fold.node(name)
    }

    /// True if, as far as the node knows, the store contains none of its keys any more: its leases were revoked, have
    /// expired, or never held a key.
    pub fn is_given_back(&self) -> bool {
        self.session.shows_nothing(self.seen_to)
    }

    /// The view of the newest version, if it is known.
    pub fn newest(&self) -> Option<&View> {
        self.fold.newest()
    }

    /// On the leader, once it knows: how many nodes of the newest version have not acknowledged it.
    pub fn unready(&self) -> Option<usize> {
        let newest = self.fold.newest()?;
        self.consistency.missing(newest.revision()).filter(|_| self.election.leading().is_some())
    }

    /// The keys of the cluster.
    pub fn keyspace(&self) -> &Keyspace {
        self.fold.keyspace()
    }

    /// Who the node is, as it last said; `None` for an observer.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Tells what the log brought, and lets the concerns that keep books about it keep them.
    fn note_changes(&mut self, now: Timestamp, changes: &[Changed]) {
        for change in changes {
            match change {
                Changed::Up(node) => {
                    self.consistency.touch(&node.name);
                    self.note_label(node.seen);
                    self.emit(Event::NodeUp { name: node.name.clone(), uri: node.uri.clone() });
                }
                Changed::Renewed(node) => {
                    self.note_label(node.seen);
                    self.consistency.touch(&node.name);
                    self.consistency.spared(&node.name);
                    self.emit(Event::NodeChanged { name: node.name.clone(), uri: node.uri.clone() });
                }
                Changed::Down(node, how) => {
                    self.consistency.touch(&node.name);
                    self.election.rerank();
                    self.emit(Event::NodeDown { name: node.name.clone(), how: *how });
                    self.note_evicted(&node.name, *how);
                }
                Changed::Leader => self.note_leader(now),
                Changed::Version => self.note_version(now),
                Changed::Stable => self.note_stable(),
                Changed::Request | Changed::Departed(_) => {}
                Changed::Malformed { key, reason } => {
                    self.emit(Event::Malformed { key: key.clone(), reason: reason.clone() });
                }
            }
        }
    }

    /// Records a label that this or another node has seen. Labels that are out of range were written by hand and are
    /// ignored.
    fn note_label(&mut self, label: Option<Version>) {
        self.newest_seen = self.newest_seen.max(label.filter(|label| label.is_plausible()));
    }

    fn note_version(&mut self, now: Timestamp) {
        let record = self.fold.version().and_then(|version| version.record.as_ref());
        self.note_label(record.map(|record| record.version));
        self.publication.published(now, &self.config);
        if let Some(view) = self.fold.newest() {
            let event = Event::VersionPublished {
                version: view.version(),
                revision: view.revision(),
                nodes: view.len(),
                causes: view.causes().to_vec(),
            };
            self.emit(event);
        }
    }

    fn note_stable(&mut self) {
        if self.fold.is_stable()
            && let Some(view) = self.fold.newest()
        {
            let version = view.version();
            self.emit(Event::Stable { version });
        }
    }
}
