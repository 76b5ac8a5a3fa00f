use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinError},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    WeakClustering,
    alarm::Alarm,
    callbacks::{self, Callbacks, Release, Stabilization, Stable},
    holds::Keeper,
    liveness::Liveness,
    meter::Meter,
    repliers::Repliers,
    shared::{Command, Shared},
    spawn::spawn_task,
    status::Publisher,
    trace::Tracer,
    watches::Watches,
};
use crate::{
    event::{Event, StopReason},
    machine::{FEW_OUTPUTS, Input, Output, SlotChange, Token},
    outcome::Outcome,
    slots::SlotSet,
    store::{Key, LeaseId, Revision, StoreError, WatchStream},
    version::Term,
    view::View,
};

/// Time limit for aborted callbacks to drop their state.
const DROPPING: Duration = Duration::from_secs(1);

type Pending = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Result of a store call or of a callback.
enum Done {
    Input(Input),
    Watching { token: Token, result: Result<WatchStream, StoreError> },
}

/// Result of waiting for the start of a node.
#[derive(Debug)]
pub(crate) enum Started {
    Joined,
    Refused(String),
}

/// The loop that passes inputs to the machine and executes its outputs. It makes no decisions of its own.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    status: Publisher,
    /// The node, for its callbacks; `None` for an observer, which has none.
    node: Option<WeakClustering>,
    callbacks: Callbacks,
    /// Dropped with the driver, which makes all holds lost.
    keeper: Keeper,
    commands: mpsc::UnboundedReceiver<Command>,
    /// True while a handle may still send commands.
    held: bool,
    alarm: Alarm,
    /// Calls to the store and callbacks that have not finished.
    pending: FuturesUnordered<Pending>,
    /// Watches that are being opened and are still wanted.
    opening: BTreeSet<Token>,
    watches: Watches,
    liveness: Liveness,
    runs: BTreeMap<Token, Run>,
    requests: Repliers,
    /// Empty between inputs; kept to reuse its memory.
    outputs: Vec<Output>,
    started: Option<oneshot::Sender<Started>>,
    stopped: bool,
    meter: Meter,
    tracer: Tracer,
}

/// A running callback.
struct Run {
    superseded: CancellationToken,
    abort: AbortHandle,
    /// Why it was aborted, if it was.
    reason: Arc<OnceLock<String>>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        status: Publisher,
        node: Option<WeakClustering>,
        callbacks: Callbacks,
        commands: mpsc::UnboundedReceiver<Command>,
        liveness: Liveness,
        started: Option<oneshot::Sender<Started>>,
    ) -> Self {
        let meter = Meter::new(shared.keyspace.namespace().as_str(), node.is_some());
        // An observer has no deadlines, so it needs no timer that counts suspends.
        let clock = shared.known.clock.clone();
        let alarm = if node.is_some() { Alarm::new(clock) } else { Alarm::plain(clock) };
        let name = node.as_ref().map(|node| node.name().clone());
        let tracer = Tracer::new(shared.keyspace.namespace().as_str(), name);
        let keeper =
            Keeper::new(shared.known.holds.clone(), shared.known.clock.clone()).present(liveness.presence());
        Driver {
            shared,
            status,
            node,
            callbacks,
            keeper,
            commands,
            held: true,
            alarm,
            pending: FuturesUnordered::new(),
            opening: BTreeSet::new(),
            watches: Watches::default(),
            liveness,
            runs: BTreeMap::new(),
            requests: Repliers::new(),
            outputs: Vec::new(),
            started,
            stopped: false,
            meter,
            tracer,
        }
    }

    /// Drives the machine until it has ended. If the future is dropped first, the lease is left to expire.
    pub(crate) async fn run(mut self) {
        self.handle(Input::Tick);
        while !self.stopped {
            let input = self.next_input().await;
            self.handle(input);
            // A store that is always ready must not starve the other tasks of the thread.
            tokio::task::coop::consume_budget().await;
        }
        self.end_runs().await;
        // Outstanding holds keep the port open, since they may still be valid.
        self.keeper.leave();
        self.liveness.end().await;
    }

    /// Waits for the next input. Sources are polled in a fixed order, so that seeded runs are reproducible.
    async fn next_input(&mut self) -> Input {
        if let Some(report) = self.keeper.report() {
            return report;
        }
        if let Some((slot, after)) = self.shared.known.holds.next_dropped_work() {
            return Input::WorkDropped { slot, after };
        }
        let wakeup = self.shared.machine().next_wakeup();
        let tick = self.alarm.wait_until(wakeup.into_iter().chain(self.keeper.next_deadline()).min());
        let watches = &mut self.watches;
        let done = tokio::select! {
            biased;
            command = self.commands.recv(), if self.held => match command {
                Some(command) => return self.command(command),
                None => {
                    // The last handle was dropped, so the node leaves.
                    self.held = false;
                    return Input::Stop { keep: Duration::ZERO };
                }
            },
            report = self.liveness.next_report() => return report,
            Some(done) = self.pending.next(), if !self.pending.is_empty() => done,
            input = poll_fn(|context| watches.poll(context)) => return input,
            () = self.shared.known.holds.noticed() => return Input::Tick,
            () = tick => return Input::Tick,
        };
        match done {
            Done::Input(input) => input,
            Done::Watching { token, result } => {
                let wanted = self.opening.remove(&token);
                let result = result.map(|stream| {
                    if wanted {
                        self.watches.add(token, stream);
                    }
                });
                Input::WatchOpened { token, result }
            }
        }
    }

    fn command(&mut self, command: Command) -> Input {
        match command {
            Command::Stop { keep } => Input::Stop { keep },
            Command::Request(make) => {
                let ids = self.requests.abandoned();
                if !ids.is_empty() {
                    self.handle(Input::Abandoned { ids });
                }
                (make.0)(&mut self.requests)
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let now = self.shared.known.clock.now();
        if let Some(token) = ended(&input) {
            self.runs.remove(&token);
        }
        self.meter.input(now, &input);
        let mut outputs = std::mem::take(&mut self.outputs);
        let known = {
            let mut machine = self.shared.machine();
            machine.handle(now, input);
            outputs.extend(std::iter::from_fn(|| machine.poll_output()));
            self.meter.look(&machine);
            machine.status(now)
        };
        self.keeper.apply(known.holdings.as_ref(), now);
        // Published before the outputs are executed: a task that is woken by an event or a reply must find the status
        // that goes with it.
        let status = self.status.publish(known);
        // Wake the waiters only after the status is published, for the same reason.
        self.keeper.wake();
        self.meter.outputs(now, &outputs, &status);
        for output in outputs.drain(..) {
            self.execute(output);
        }
        outputs.shrink_to(FEW_OUTPUTS);
        self.outputs = outputs;
    }

    fn execute(&mut self, output: Output) {
        let store = self.shared.store.clone();
        match output {
            Output::Grant { token, ttl, timeout } => {
                self.call(timeout, async move { store.grant_lease(ttl).await }, {
                    move |result| Input::Granted { token, result }
                });
            }
            Output::Renew { token, lease, timeout } => {
                self.call(timeout, async move { store.renew_lease(lease).await }, {
                    move |result| Input::Renewed { token, result }
                });
            }
            Output::Revoke { token, lease, timeout } => {
                self.call(timeout, async move { store.revoke_lease(lease).await }, {
                    move |result| Input::Revoked { token, result }
                });
            }
            Output::Read { token, prefix, timeout } => {
                self.call(timeout, async move { store.read(&prefix).await }, {
                    move |result| Input::Read { token, result }
                });
            }
            Output::Commit { token, txn, purpose, timeout } => {
                tracing::trace!(target: "clustering", %purpose, %token, "commit");
                self.call(timeout, async move { store.commit(txn).await }, {
                    move |result| Input::Committed { token, result }
                });
            }
            Output::Watch { token, prefix, after, timeout } => self.watch(token, prefix, after, timeout),
            Output::Unwatch { token } => {
                self.opening.remove(&token);
                self.watches.remove(token);
            }
            Output::Retract { token, slots } => self.keeper.retract(token, &slots),
            Output::Release { token, slots, lease, view, attempt } => {
                self.release(token, slots, lease, view, attempt);
            }
            Output::Stabilize { token, view, previous, attempt, slots } => {
                self.stabilize(token, view, previous, attempt, slots.unwrap_or_default());
            }
            Output::Announce { token, view, term } => self.announce(token, view, term),
            Output::CheckHealth { token } => self.check_health(token),
            Output::Supersede { token } => self.supersede(token),
            Output::Abort { token, reason } => self.abort(token, reason),
            Output::WatchProcesses { endpoints } => self.liveness.watch(endpoints),
            Output::Event(event) => self.emit(event),
            Output::Reply { id, reply } => self.requests.answer(id, reply),
            Output::Stopped { .. } => self.stopped = true,
        }
    }

    fn watch(&mut self, token: Token, prefix: Key, after: Revision, timeout: Duration) {
        let store = self.shared.store.clone();
        let opening = async move { store.watch(&prefix, after).await };
        self.opening.insert(token);
        self.pending
            .push(Box::pin(async move { Done::Watching { token, result: bounded(timeout, opening).await } }));
    }

    fn release(&mut self, token: Token, slots: SlotSet, lease: LeaseId, view: Option<View>, attempt: u32) {
        let Some(node) = self.node.clone() else { return };
        let (callback, lease) = (self.callbacks.release.clone(), self.keeper.lease(lease));
        let version = view.as_ref().map(View::version);
        let run = self.tracer.release(slots.len(), version, attempt, move || {
            callback(Release::new(slots, view, attempt, lease, node))
        });
        self.run_callback(token, Input::released, CancellationToken::new(), run);
    }

    fn stabilize(
        &mut self,
        token: Token,
        view: View,
        previous: Option<View>,
        attempt: u32,
        slots: SlotChange,
    ) {
        let Some(node) = self.node.clone() else { return };
        let callback = self.callbacks.stabilize.clone();
        let superseded = CancellationToken::new();
        let given = superseded.clone();
        let run = self.tracer.stabilize(view.version(), attempt, move || {
            callback(Stabilization::new(view, previous, attempt, slots, node, given))
        });
        self.run_callback(token, Input::stabilized, superseded, run);
    }

    fn announce(&mut self, token: Token, view: View, term: Term) {
        let Some(node) = self.node.clone() else { return };
        let callback = self.callbacks.on_stable.clone();
        let superseded = CancellationToken::new();
        let given = superseded.clone();
        let run =
            self.tracer.on_stable(&view.clone(), move || callback(Stable::new(view, term, node, given)));
        self.run_callback(token, Input::announced, superseded, run);
    }

    fn check_health(&mut self, token: Token) {
        let callback = self.callbacks.health.clone();
        let run = Box::pin(async move { callback(()).await });
        self.run_callback(token, Input::health_reported, CancellationToken::new(), run);
    }

    fn supersede(&self, token: Token) {
        if let Some(run) = self.runs.get(&token) {
            run.superseded.cancel();
        }
    }

    fn abort(&self, token: Token, reason: String) {
        if let Some(run) = self.runs.get(&token) {
            run.reason.get_or_init(|| reason);
            run.superseded.cancel();
            run.abort.abort();
        }
    }

    /// Starts a store call with a time limit. Its result becomes an input.
    fn call<T: 'static>(
        &mut self,
        limit: Duration,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
        input: impl FnOnce(Result<T, StoreError>) -> Input + Send + 'static,
    ) {
        self.pending.push(Box::pin(async move { Done::Input(input(bounded(limit, call).await)) }));
    }

    /// Runs a callback as a task of its own, so that a callback that blocks or panics does not affect the driver. Its
    /// result becomes an input.
    fn run_callback(
        &mut self,
        token: Token,
        input: fn(Token, Outcome) -> Input,
        superseded: CancellationToken,
        run: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    ) {
        let task = spawn_task(&Handle::current(), callbacks::within(self.shared.address(), run));
        let reason = Arc::new(OnceLock::new());
        self.runs.insert(token, Run { superseded, abort: task.abort_handle(), reason: reason.clone() });
        self.pending.push(Box::pin(async move {
            let outcome = task.await.unwrap_or_else(|error| Outcome::refused(describe(error, reason.get())));
            Done::Input(input(token, outcome))
        }));
    }

    fn emit(&mut self, event: Event) {
        let newest = self.status.status().newest.clone();
        self.tracer.emit(&event, newest.as_ref());
        let started = match &event {
            Event::Joined { .. } => Some(Started::Joined),
            Event::StoreRefused { reason } => Some(Started::Refused(reason.clone())),
            _ => None,
        };
        if let Some(started) = started
            && let Some(waiting) = self.started.take()
        {
            // An error only means that the caller is no longer waiting for the start.
            let _ = waiting.send(started);
        }
        self.shared.hub.send(event);
    }

    /// Aborts the callbacks that still run, and waits for them to drop their state. The wait is limited, since a
    /// callback that blocks its thread cannot be aborted.
    async fn end_runs(&mut self) {
        self.watches.clear();
        for run in self.runs.values() {
            run.superseded.cancel();
            run.abort.abort();
        }
        let all = async {
            while !self.runs.is_empty() {
                match self.pending.next().await {
                    Some(Done::Input(input)) => {
                        ended(&input).map(|token| self.runs.remove(&token));
                    }
                    Some(Done::Watching { .. }) => {}
                    None => return,
                }
            }
        };
        let _ = timeout(DROPPING, all).await;
    }
}

/// However the driver ends, even by a panic or with its runtime: those who wait for the end are notified, and all
/// callbacks are aborted.
impl Drop for Driver {
    fn drop(&mut self) {
        if !self.stopped {
            self.shared.machine().abort();
            let status = self.status.publish(self.shared.status_now());
            let event = Event::Stopped { reason: StopReason::Aborted };
            let ended = [Output::Event(event.clone())];
            self.meter.look(&self.shared.machine());
            self.meter.outputs(self.shared.known.clock.now(), &ended, &status);
            self.emit(event);
        }
        for run in self.runs.values() {
            run.superseded.cancel();
            run.abort.abort();
        }
        self.keeper.end();
        self.shared.hub.end();
        self.shared.ended.cancel();
    }
}

/// Limits the time of a store call.
async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let silent = |_| {
        let limit = limit.as_millis();
        Err(StoreError::outcome_unknown(format!("the store did not answer within {limit} ms")))
    };
    timeout(limit, call).await.unwrap_or_else(silent)
}

/// Returns the token of the callback that ended with this input.
fn ended(input: &Input) -> Option<Token> {
    match input {
        Input::Stabilized { token, .. }
        | Input::Released { token, .. }
        | Input::Announced { token, .. }
        | Input::HealthReported { token, .. } => Some(*token),
        _ => None,
    }
}

/// Describes why a callback's task did not return a result.
fn describe(error: JoinError, reason: Option<&String>) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("it panicked: {}", panic_message(&*panic)),
        Err(_) => reason.cloned().unwrap_or_else(|| "it was aborted".to_owned()),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

impl Input {
    fn stabilized(token: Token, outcome: Outcome) -> Self {
        Input::Stabilized { token, outcome }
    }

    fn released(token: Token, outcome: Outcome) -> Self {
        Input::Released { token, outcome }
    }

    fn announced(token: Token, outcome: Outcome) -> Self {
        Input::Announced { token, result: outcome.into_result() }
    }

    fn health_reported(token: Token, outcome: Outcome) -> Self {
        Input::HealthReported { token, result: outcome.into_result() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Effect, Snapshot};

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_not_answered_in_time_is_dropped_with_an_unknown_outcome() {
        let limit = Duration::from_millis(2_500);
        let held = Arc::new(());
        let dropped = Arc::downgrade(&held);
        let read = async move {
            let _held = held;
            std::future::pending::<Result<Snapshot, StoreError>>().await
        };
        let began = tokio::time::Instant::now();
        let error = bounded(limit, read).await.unwrap_err();
        assert_eq!((error.effect(), began.elapsed()), (Effect::Unknown, limit));
        assert!(dropped.upgrade().is_none(), "the future of the call is dropped");
    }
}
