//! Everything that leaves the machine: calls, events and replies.

use std::{collections::VecDeque, time::Duration};

use super::{
    contact::Contact,
    failing::FailingCalls,
    input::Input,
    output::{Output, Purpose, Reply, RequestError, SlotChange},
    token::{RequestId, Token},
};
use crate::{
    config::Config,
    event::{Event, StopReason, StoreCall},
    node::Endpoint,
    slots::SlotSet,
    store::{ErrorKind, Key, LeaseId, Revision, StoreError, Txn},
    time::Timestamp,
    version::{IdGenerator, Term},
    view::View,
};

/// Capacity that the queue of outputs keeps. A snapshot of a thousand nodes needs a thousand, once.
pub(crate) const FEW_OUTPUTS: usize = 16;

/// The queue of outputs, and the table of calls that wait for a reply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Outbox {
    queue: VecDeque<Output>,
    /// Number of tokens given out.
    tokens: u64,
    /// Calls, watches and runs of callbacks that have not ended, in the order of their tokens.
    pending: Vec<(Token, Pending)>,
    /// Time limit for store calls.
    call_timeout: Duration,
    /// Source of ULIDs and jitter.
    pub(crate) ids: IdGenerator,
    pub(crate) contact: Contact,
    pub(crate) failing: FailingCalls,
}

/// A call that waits for its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pending {
    pub(crate) call: Call,
    /// True for a watch, which has replies of its own.
    is_watch: bool,
    /// Time at which it was sent.
    pub(crate) sent: Timestamp,
}

impl Pending {
    /// True if the input is a reply to this kind of call.
    fn is_answered_by(&self, input: &Input) -> bool {
        match (self.call, input) {
            (Call::Grant, Input::Granted { .. })
            | (Call::Renew, Input::Renewed { .. })
            | (Call::Revoke | Call::Reclaim | Call::RevokeCrashed, Input::Revoked { .. })
            | (Call::Commit(_), Input::Committed { .. })
            | (Call::Stabilize, Input::Stabilized { .. })
            | (Call::Retract, Input::Retracted { .. })
            | (Call::Release, Input::Released { .. })
            | (Call::Announce, Input::Announced { .. })
            | (Call::CheckHealth, Input::HealthReported { .. }) => true,
            (
                Call::Log | Call::Acknowledgements | Call::OwnAcknowledgement | Call::OwnerCommits,
                Input::Read { .. },
            ) => !self.is_watch,
            (
                Call::Log | Call::Acknowledgements,
                Input::WatchOpened { .. }
                | Input::Batch { .. }
                | Input::Batches { .. }
                | Input::WatchEnded { .. },
            ) => self.is_watch,
            _ => false,
        }
    }
}

/// The kind of a call, by which its reply is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Grant,
    Renew,
    Revoke,
    /// Revocation of the lease of another session.
    Reclaim,
    /// Revocation of the lease of a node whose process is gone.
    RevokeCrashed,
    /// Read or watch of `{ns}/view/`.
    Log,
    /// Read or watch of `{ns}/ready/`.
    Acknowledgements,
    /// Read of the node's own key under `{ns}/ready/`.
    OwnAcknowledgement,
    /// Read of the version key, to find out which guard of an owner commit failed.
    OwnerCommits,
    Commit(Purpose),
    Stabilize,
    Retract,
    Release,
    Announce,
    CheckHealth,
}

impl Outbox {
    pub(crate) fn new(config: &Config, ids: IdGenerator) -> Self {
        let mut outbox = Outbox {
            queue: VecDeque::new(),
            tokens: 0,
            pending: Vec::new(),
            call_timeout: Duration::ZERO,
            ids,
            contact: Contact::default(),
            failing: FailingCalls::default(),
        };
        outbox.limit_calls(config, config.ttl);
        outbox
    }

    /// Removes the next output. Frees the queue's memory once it is empty.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        let output = self.queue.pop_front();
        if output.is_none() {
            self.queue.shrink_to(FEW_OUTPUTS);
        }
        output
    }

    /// Returns the call that the input is a reply to, and removes it if that ends the call. A reply of the wrong kind
    /// must not remove it, or the right reply would be ignored.
    pub(crate) fn answered(&mut self, token: Token, input: &Input) -> Option<Pending> {
        let place = self.find(token)?;
        let (_, pending) = self.pending[place];
        if !pending.is_answered_by(input) {
            return None;
        }
        if input.ends_call() {
            self.pending.remove(place);
        }
        Some(pending)
    }

    /// Returns the index of the call with that token.
    fn find(&self, token: Token) -> Option<usize> {
        self.pending.binary_search_by_key(&token, |(token, _)| *token).ok()
    }

    /// Sets the time limit for store calls: a sixth of `ttl` if it is not configured.
    pub(crate) fn limit_calls(&mut self, config: &Config, ttl: Duration) {
        self.call_timeout = config.call_timeout.unwrap_or(ttl / 6);
    }

    pub(crate) fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    fn begin(&mut self, call: Call, now: Timestamp) -> Token {
        self.wait_for(Pending { call, is_watch: false, sent: now })
    }

    fn wait_for(&mut self, pending: Pending) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.pending.push((token, pending));
        token
    }

    pub(crate) fn grant(&mut self, ttl: Duration, now: Timestamp) {
        let (token, timeout) = (self.begin(Call::Grant, now), self.call_timeout);
        self.queue.push_back(Output::Grant { token, ttl, timeout });
    }

    pub(crate) fn renew(&mut self, lease: LeaseId, now: Timestamp) -> Token {
        let (token, timeout) = (self.begin(Call::Renew, now), self.call_timeout);
        self.queue.push_back(Output::Renew { token, lease, timeout });
        token
    }

    pub(crate) fn revoke(&mut self, lease: LeaseId, now: Timestamp) -> Token {
        let (token, timeout) = (self.begin(Call::Revoke, now), self.call_timeout);
        self.queue.push_back(Output::Revoke { token, lease, timeout });
        token
    }

    /// Revokes the lease of another session.
    pub(crate) fn reclaim(&mut self, lease: LeaseId, now: Timestamp) -> Token {
        let (token, timeout) = (self.begin(Call::Reclaim, now), self.call_timeout);
        self.queue.push_back(Output::Revoke { token, lease, timeout });
        token
    }

    /// Revokes the lease of a node whose process is gone.
    pub(crate) fn revoke_crashed(&mut self, lease: LeaseId, now: Timestamp) -> Token {
        let (token, timeout) = (self.begin(Call::RevokeCrashed, now), self.call_timeout);
        self.queue.push_back(Output::Revoke { token, lease, timeout });
        token
    }

    pub(crate) fn read(&mut self, call: Call, prefix: Key, now: Timestamp) -> Token {
        let (token, timeout) = (self.begin(call, now), self.call_timeout);
        self.queue.push_back(Output::Read { token, prefix, timeout });
        token
    }

    pub(crate) fn watch(&mut self, call: Call, prefix: Key, after: Revision, now: Timestamp) -> Token {
        let token = self.wait_for(Pending { call, is_watch: true, sent: now });
        let timeout = self.call_timeout;
        self.queue.push_back(Output::Watch { token, prefix, after, timeout });
        token
    }

    /// Drops a watch.
    pub(crate) fn unwatch(&mut self, token: Token) {
        if let Some(place) = self.find(token) {
            self.pending.remove(place);
        }
        self.queue.push_back(Output::Unwatch { token });
    }

    pub(crate) fn commit(&mut self, purpose: Purpose, txn: Txn, now: Timestamp) -> Token {
        self.commit_within(self.call_timeout, purpose, txn, now)
    }

    /// Sends a commit with a time limit of its own.
    pub(crate) fn commit_within(
        &mut self,
        timeout: Duration,
        purpose: Purpose,
        txn: Txn,
        now: Timestamp,
    ) -> Token {
        let token = self.begin(Call::Commit(purpose), now);
        self.queue.push_back(Output::Commit { token, txn, purpose, timeout });
        token
    }

    pub(crate) fn stabilize(
        &mut self,
        view: View,
        previous: Option<View>,
        attempt: u32,
        slots: Option<SlotChange>,
        now: Timestamp,
    ) -> Token {
        let token = self.begin(Call::Stabilize, now);
        self.emit(Event::Stabilizing { version: view.version(), attempt });
        self.queue.push_back(Output::Stabilize { token, view, previous, attempt, slots });
        token
    }

    pub(crate) fn retract(&mut self, slots: SlotSet, now: Timestamp) -> Token {
        let token = self.begin(Call::Retract, now);
        self.queue.push_back(Output::Retract { token, slots });
        token
    }

    pub(crate) fn release(
        &mut self,
        slots: SlotSet,
        lease: LeaseId,
        view: Option<View>,
        attempt: u32,
        now: Timestamp,
    ) -> Token {
        let token = self.begin(Call::Release, now);
        self.emit(Event::Releasing { slots: slots.clone(), attempt });
        self.queue.push_back(Output::Release { token, slots, lease, view, attempt });
        token
    }

    pub(crate) fn announce(&mut self, view: View, term: Term, now: Timestamp) -> Token {
        let token = self.begin(Call::Announce, now);
        self.emit(Event::Announcing { version: view.version(), term });
        self.queue.push_back(Output::Announce { token, view, term });
        token
    }

    pub(crate) fn check_health(&mut self, now: Timestamp) -> Token {
        let token = self.begin(Call::CheckHealth, now);
        self.queue.push_back(Output::CheckHealth { token });
        token
    }

    /// Tells a running callback that it is superseded.
    pub(crate) fn supersede(&mut self, token: Token) {
        self.queue.push_back(Output::Supersede { token });
    }

    /// Cancels a running callback.
    pub(crate) fn abort(&mut self, token: Token, reason: String) {
        self.queue.push_back(Output::Abort { token, reason });
    }

    /// Watches the processes at these endpoints, and no others.
    pub(crate) fn watch_processes(&mut self, endpoints: Vec<Endpoint>) {
        self.queue.push_back(Output::WatchProcesses { endpoints });
    }

    pub(crate) fn emit(&mut self, event: Event) {
        self.queue.push_back(Output::Event(event));
    }

    pub(crate) fn reply(&mut self, id: RequestId, reply: Reply) {
        self.queue.push_back(Output::Reply { id, reply });
    }

    /// Answers a request that has no result.
    pub(crate) fn done(&mut self, id: RequestId) {
        self.reply(id, Reply::Done(Ok(())));
    }

    /// Refuses a request that has no result.
    pub(crate) fn refuse(&mut self, id: RequestId, error: RequestError) {
        self.reply(id, Reply::Done(Err(error)));
    }

    /// Puts out the last output: the node has ended.
    pub(crate) fn stopped(&mut self, reason: StopReason) {
        self.emit(Event::Stopped { reason: reason.clone() });
        self.queue.push_back(Output::Stopped { reason });
    }

    /// Returns `delay` shortened by up to a quarter at random, so that nodes that failed together do not retry
    /// together.
    pub(crate) fn jittered(&mut self, delay: Duration) -> Duration {
        delay - Duration::from_nanos(self.ids.below(delay.as_nanos() as u64 / 4))
    }

    /// Records a failed attempt of a call that the node needs, and reports an error that needs operator action.
    pub(crate) fn call_failed(&mut self, call: StoreCall, error: &StoreError, now: Timestamp) {
        self.failing.failed(now, call, error);
        self.report_refusal(error);
    }

    /// Reports an error that needs operator action.
    pub(crate) fn report_refusal(&mut self, error: &StoreError) {
        if matches!(error.kind(), ErrorKind::Refused | ErrorKind::Invalid) {
            self.emit(Event::StoreRefused { reason: error.to_string() });
        }
    }
}
