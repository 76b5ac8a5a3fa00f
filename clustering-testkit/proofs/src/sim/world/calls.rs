use std::time::Duration;

use clustering_core::{
    Version,
    machine::{Input, Output, Purpose, Token},
    store::{Batch, Change, ErrorKind, Key, LeaseId, Revision, StoreError, Txn},
    time::Timestamp,
};
use clustering_testkit::history::{Moment, Observation};

use super::{Due, World, process::Held};
use crate::sim::{
    Kind, Reached,
    checks::{self, p6_claims::End},
    swarm::Way,
};

/// A call of a process to the store.
pub(super) struct Call {
    pub(super) process: usize,
    pub(super) life: u32,
    /// `None` if nobody waits for the reply.
    pub(super) token: Option<Token>,
    pub(super) request: Request,
    /// Era of the store to which the call was sent.
    era: usize,
    sent: Moment,
    sent_at: Timestamp,
    gives_up: Moment,
    /// True if the caller gives up on the call before it arrives.
    late: bool,
    /// The caller's knowledge when it sent the call.
    knew: Knew,
}

/// A node's knowledge when it sent a commit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Knew {
    /// Revision up to which the node had followed the log.
    revision: Revision,
    /// Last label that the node saw published.
    label: Option<Version>,
}

pub(super) enum Request {
    Grant(Duration),
    Renew(LeaseId),
    Revoke(LeaseId),
    Read(Key),
    Watch,
    Commit(Txn, Purpose),
}

/// Origin of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// A call of a node.
    Node { process: usize, life: u32, purpose: Option<Purpose> },
    /// The expiry of a lease.
    Time,
    /// A person or program that bypasses the protocol.
    Hand,
}

impl Request {
    /// Returns the input that reports a failure of this request.
    fn refused(&self, token: Token, error: StoreError) -> Input {
        match self {
            Request::Grant(_) => Input::Granted { token, result: Err(error) },
            Request::Renew(_) => Input::Renewed { token, result: Err(error) },
            Request::Revoke(_) => Input::Revoked { token, result: Err(error) },
            Request::Read(_) => Input::Read { token, result: Err(error) },
            Request::Watch => Input::WatchOpened { token, result: Err(error) },
            Request::Commit(..) => Input::Committed { token, result: Err(error) },
        }
    }
}

fn silence() -> StoreError {
    StoreError::outcome_unknown("no reply")
}

impl World<'_> {
    /// Sends a call to the store. After its timeout, nobody waits for the reply any more.
    pub(super) fn call(&mut self, process: usize, output: Output) {
        let (token, timeout, request) = match output {
            Output::Grant { token, ttl, timeout } => (token, timeout, Request::Grant(ttl)),
            Output::Renew { token, lease, timeout } => (token, timeout, Request::Renew(lease)),
            Output::Revoke { token, lease, timeout } => (token, timeout, Request::Revoke(lease)),
            Output::Read { token, prefix, timeout } => (token, timeout, Request::Read(prefix)),
            Output::Watch { token, prefix, after, timeout } => {
                self.note_watch(process, token, &prefix, after);
                (token, timeout, Request::Watch)
            }
            Output::Commit { token, txn, purpose, timeout } => {
                (token, timeout, Request::Commit(txn, purpose))
            }
            _ => return,
        };
        let now = self.now;
        let renews = matches!(request, Request::Renew(_));
        let (mut knew, mut held, mut way) = (Knew::default(), Duration::ZERO, None);
        match &request {
            Request::Commit(_, purpose) => {
                let purpose = *purpose;
                let this = &self.processes[process];
                knew.label = this.seen_label;
                if purpose == Purpose::TakeOver {
                    let status = this.machine.as_ref().map(|machine| machine.status(this.clock.at(now)));
                    knew.revision = status.map_or(Revision::ZERO, |status| status.revision);
                }
                held = self.hold_up(process, purpose);
                way = Some(Way::Commit);
            }
            Request::Read(_) => way = Some(Way::Read),
            Request::Watch => way = Some(Way::Watch),
            Request::Grant(_) | Request::Renew(_) | Request::Revoke(_) => {}
        }
        let this = &mut self.processes[process];
        // The guards of a node that has not noticed a restore of the store could hold by accident, since revisions mean
        // something else in another history. That is a limit of the contract, so such commits do not arrive.
        let era = if matches!(request, Request::Commit(..)) { this.seen_in[0] } else { this.era };
        let mut call = Box::new(Call {
            process,
            life: this.life,
            token: Some(token),
            request,
            era,
            sent: now,
            sent_at: this.clock.at(now),
            gives_up: now + this.clock.true_time(timeout),
            late: false,
            knew,
        });
        if renews && this.window(Kind::LostRenewals, now).is_some() && this.random.percent(60) {
            return self.give_up(call);
        }
        let slow = way.map_or(Duration::ZERO, |way| self.slowness(process, way));
        let arrives = now + held + slow + self.latency(process, renews);
        if arrives >= call.gives_up {
            call.late = true;
            let input = call.request.refused(token, silence());
            let stands_for =
                Box::new(Call { request: Request::Read(self.keys.view_prefix().clone()), ..*call });
            self.queue.push(call.gives_up, Due::Reply { call: stands_for, input });
        }
        self.queue.push(arrives, Due::Arrive(call));
    }

    /// Draws the latency of a call, reply or delivery.
    pub(super) fn latency(&mut self, process: usize, renews: bool) -> Duration {
        let now = self.now;
        let this = &mut self.processes[process];
        let slow = [(Kind::SlowCalls, 40, true), (Kind::SlowRenewals, 90, renews)];
        for (kind, chance, concerned) in slow {
            if let Some(choice) = this.window(kind, now).filter(|_| concerned)
                && this.random.percent(chance)
            {
                // Occasionally the call takes effect long after its caller has given up.
                let most = if this.random.percent(15) { 10_000 } else { 50 + choice % 3_000 };
                return this.random.ms(10, most);
            }
        }
        this.random.ms(0, 3)
    }

    /// Draws the additional delay of a step in this run.
    pub(super) fn slowness(&mut self, process: usize, way: Way) -> Duration {
        match self.stormy {
            true => self.swarm.delay(way, &mut self.processes[process].random),
            false => Duration::ZERO,
        }
    }

    /// Draws the time for which a commit is delayed.
    fn hold_up(&mut self, process: usize, purpose: Purpose) -> Duration {
        let sprung = self.spring(process, purpose, false);
        let this = &mut self.processes[process];
        // An owner commit may arrive so late that another node holds the slot.
        if purpose == Purpose::OwnerCommit && this.random.percent(30) {
            return this.random.ms(10, 6_000);
        }
        let window = this.window(Kind::HeldCommit, self.now).is_some() && this.random.percent(50);
        if sprung || window { this.random.ms(10, 1_500) } else { Duration::ZERO }
    }

    /// Lets the caller time out without a reply.
    fn give_up(&mut self, call: Box<Call>) {
        if let Some(token) = call.token.filter(|_| !call.late) {
            let input = call.request.refused(token, silence());
            self.queue.push(call.gives_up, Due::Reply { call, input });
        }
    }

    fn is_away(&self, call: &Call) -> bool {
        let partition = self.processes[call.process].window(Kind::Partition, self.now).is_some();
        self.now < self.outage_until || partition || call.era != self.store.era()
    }

    /// Handles a call that reaches the store, or that fails to because the store is away.
    pub(super) fn arrive(&mut self, call: Box<Call>) {
        let process = call.process;
        if self.is_away(&call) {
            // Some networks refuse at once, others drop the call silently.
            if self.processes[process].random.percent(50) {
                return self.give_up(call);
            }
            return self.reply_with(call, Err(StoreError::unreachable("away")));
        }
        let renews = matches!(call.request, Request::Renew(_));
        let lost = {
            let now = self.now;
            let this = &mut self.processes[process];
            let all = this.window(Kind::LostReplies, now).is_some() && this.random.percent(50);
            let renewals = this.window(Kind::LostRenewals, now).is_some();
            all || renews && renewals
        };
        let reply = self.perform(&call);
        if call.late {
            return self.book.counts.note(Reached::LateEffect);
        }
        if lost {
            self.book.counts.note(Reached::LostReply);
            return self.give_up(call);
        }
        self.reply_with(call, reply);
    }

    fn reply_with(&mut self, call: Box<Call>, reply: Result<Input, StoreError>) {
        let Some(token) = call.token.filter(|_| !call.late) else { return };
        let renews = matches!(call.request, Request::Renew(_));
        let slow = self.slowness(call.process, Way::Reply);
        let at = self.now + slow + self.latency(call.process, renews);
        if at >= call.gives_up {
            return self.give_up(call);
        }
        let input = reply.unwrap_or_else(|error| call.request.refused(token, error));
        self.queue.push(at, Due::Reply { call, input });
    }

    /// Applies a call to the store.
    fn perform(&mut self, call: &Call) -> Result<Input, StoreError> {
        let (process, life) = (call.process, call.life);
        let by = |purpose| By::Node { process, life, purpose };
        let before = self.store.revision();
        let token = call.token;
        let input = match &call.request {
            Request::Grant(ttl) => {
                let lease = self.store.grant(self.now, *ttl);
                self.owners.push((process, life));
                Ok(token.map(|token| Input::Granted { token, result: Ok(lease) }))
            }
            Request::Renew(lease) => self
                .store
                .renew(self.now, *lease)
                .map(|left| token.map(|token| Input::Renewed { token, result: Ok(left) })),
            Request::Revoke(lease) => {
                let result = self.store.end(*lease);
                if result.is_ok() {
                    self.note_revocation(*lease);
                }
                self.committed(before, by(None));
                result.map(|()| token.map(|token| Input::Revoked { token, result: Ok(()) }))
            }
            Request::Read(prefix) => {
                let snapshot = self.store.read(prefix);
                Ok(token.map(|token| Input::Read { token, result: Ok(snapshot) }))
            }
            Request::Watch => Ok(token.map(|token| Input::WatchOpened { token, result: Ok(()) })),
            Request::Commit(txn, purpose) => {
                let result = self.commit((process, life), txn, *purpose, call.knew);
                result.map(|revision| token.map(|token| Input::Committed { token, result: Ok(revision) }))
            }
        };
        // Without a token, nobody waits for the reply.
        input.and_then(|input| input.ok_or_else(silence))
    }

    /// Applies a commit, and checks it against the store's state just before.
    pub(super) fn commit(
        &mut self,
        (process, life): (usize, u32),
        txn: &Txn,
        purpose: Purpose,
        knew: Knew,
    ) -> Result<Revision, StoreError> {
        let before = self.store.revision();
        let judged = {
            let leader = self.store.get(self.keys.election_key());
            checks::p5_writes::check(purpose, leader, self.is_own(process, life)).and_then(|()| match purpose
            {
                Purpose::Acknowledge => {
                    let name = &self.processes[process].name;
                    checks::p4_acknowledgements::check(&self.store, &self.keys, name, txn)
                }
                Purpose::Publish | Purpose::Elect => checks::p2_labels::check(&self.keys, txn, knew.label),
                _ => Ok(()),
            })
        };
        let min_nodes = self.swarm.min_nodes.min(self.setup.nodes);
        let formation = checks::p8_formation::check(&self.store, &self.keys, min_nodes, txn);
        let judged = judged.and_then(|()| {
            let what = (&self.processes[process].name, purpose, txn);
            checks::p5_places::check(&self.store, &self.keys, what, knew.revision, self.is_own(process, life))
        });
        let judged = judged.and_then(|()| {
            checks::crashes::removal(&self.store, &self.keys, purpose, txn, &self.reports.reported)
        });
        let result = self.store.commit(txn);
        match &result {
            Ok(_) => {
                self.book.check(judged);
                if purpose == Purpose::RemoveCrashed {
                    self.book.counts.note(Reached::Crashed);
                }
                if purpose == Purpose::OwnerCommit {
                    self.check_owner_commit((process, life), txn);
                }
                self.committed(before, By::Node { process, life, purpose: Some(purpose) });
                // After P4 was judged: a version that is not stable breaks that first, whatever its size.
                self.book.check(formation);
                self.spring(process, purpose, true);
            }
            Err(error) if matches!(error.kind(), ErrorKind::GuardFailed { .. }) => {
                let leaders = matches!(
                    purpose,
                    Purpose::Publish
                        | Purpose::Confirm
                        | Purpose::Evict
                        | Purpose::Resign
                        | Purpose::LeaderCommit
                );
                self.book.counts.note(if leaders { Reached::LeaderRefused } else { Reached::Refused });
            }
            Err(_) => {}
        }
        result
    }

    /// Passes everything that was committed after `before` to the promises and to the watches.
    pub(super) fn committed(&mut self, before: Revision, by: By) {
        for place in before.get()..self.store.revision().get() {
            let batch = self.store.history()[place as usize].clone();
            if self.book.is_told() {
                let line = super::render::batch(&batch, by, &self.processes);
                self.book.tell(self.now, "store", || line);
            }
            self.book.commit(self.now, &batch, by == By::Hand);
            let result = checks::causes::check(&self.store.history()[..=place as usize], &self.keys);
            self.book.check(result);
            self.note_reign(&batch, by);
            self.note_witnesses(&batch);
            self.tell_watches(&batch);
        }
    }

    /// Records ends and beginnings of terms.
    fn note_reign(&mut self, batch: &Batch, by: By) {
        let election = self.keys.election_key();
        let Some(change) = batch.changes.iter().find(|change| change.key() == election) else { return };
        match change {
            Change::Delete(_) => self.reigns.end(match by {
                By::Time => End::Expired,
                By::Node { purpose: None | Some(Purpose::Resign | Purpose::Leave), .. } => End::GivenUp,
                By::Node { .. } | By::Hand => End::Taken,
            }),
            Change::Put(entry) => self.reigns.begin(clustering_core::Term::new(entry.created), entry.lease),
        }
        self.check_claims();
    }

    /// Ends a lease that has expired.
    pub(super) fn expire(&mut self) {
        let Some(lease) = self.store.expired(self.now) else { return };
        let before = self.store.revision();
        let ended = self.store.end(lease);
        debug_assert!(ended.is_ok(), "the lease exists");
        self.book.counts.note(Reached::Expired);
        self.book.tell(self.now, "store", || format!("lease {lease} expires"));
        self.committed(before, By::Time);
    }

    /// Handles a reply that reaches the process.
    pub(super) fn reply(&mut self, call: Call, input: Input) {
        let process = call.process;
        match &input {
            Input::Granted { result: Ok(lease), .. } => {
                let this = &mut self.processes[process];
                let acts_until = call.sent_at + lease.ttl * 2 / 3;
                this.lease = Some(Held { id: lease.id, ttl: lease.ttl, acts_until });
                let (lease, ttl) = (lease.id.get(), lease.ttl);
                self.observe(process, Observation::Granted { lease, sent: call.sent, ttl });
            }
            Input::Renewed { result: Ok(left), .. } => {
                let this = &mut self.processes[process];
                if let (Request::Renew(id), Some(held)) = (&call.request, &mut this.lease)
                    && *id == held.id
                {
                    let share = (held.ttl * 2 / 3).min(*left);
                    held.acts_until = held.acts_until.max(call.sent_at + share);
                    let (lease, left) = (id.get(), *left);
                    self.observe(process, Observation::Renewed { lease, sent: call.sent, left });
                }
            }
            Input::Read { result: Ok(_), .. } => {
                if let Request::Read(prefix) = &call.request
                    && let Some(place) = self.place_of(prefix)
                {
                    self.processes[process].seen_in[place] = call.era;
                }
            }
            Input::WatchOpened { token, result } => {
                return self.watch_opened(process, *token, result.clone());
            }
            _ => {}
        }
        self.handle(process, input);
    }

    /// Performs the commits that a tamper makes on the node's behalf.
    pub(super) fn commit_past(&mut self, process: usize) {
        let Some(mut tamper) = self.tamper.take() else { return };
        let commits = self.seat(process).map_or_else(Vec::new, |seat| tamper.commits(&seat));
        self.tamper = Some(tamper);
        let life = self.processes[process].life;
        for (purpose, txn) in commits {
            // The tamper does not depend on the result.
            let _ = self.commit((process, life), &txn, purpose, Knew::default());
        }
    }
}
