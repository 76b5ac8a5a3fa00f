use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
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
    alarm::Alarm,
    callbacks::{Callbacks, Stabilization, Stable},
    meter::Meter,
    repliers::Repliers,
    shared::{Command, Shared},
    spawn::spawn_task,
    status::Publisher,
    trace::Tracer,
};
use crate::{
    event::{Event, StopReason},
    machine::{FEW_OUTPUTS, Input, Output, Token},
    name::NodeName,
    outcome::Outcome,
    store::{Batch, StoreError, WatchEnd, WatchStream},
};

/// The most batches that are taken in at once.
const MOST_BATCHES: usize = 128;

/// How long ended callbacks may take to drop what they hold.
const DROPPING: Duration = Duration::from_secs(1);

type Doing = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Something that the driver waited for.
enum Done {
    Input(Input),
    Watching { token: Token, result: Result<WatchStream, StoreError> },
}

/// Why a start is decided.
#[derive(Debug)]
pub(crate) enum Started {
    Joined,
    Refused(String),
}

/// The loop around the machine: it brings it every input, and does what it says. It decides nothing.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    status: Publisher,
    callbacks: Callbacks,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Whether a handle may still send commands.
    held: bool,
    alarm: Alarm,
    /// Calls to the store and runs of callbacks.
    doing: FuturesUnordered<Doing>,
    /// Watches that are being opened, and not dropped meanwhile.
    opening: BTreeSet<Token>,
    watches: Vec<Watching>,
    runs: BTreeMap<Token, Run>,
    requests: Repliers,
    /// Empty between inputs: kept for its room.
    outputs: Vec<Output>,
    started: Option<oneshot::Sender<Started>>,
    stopped: bool,
    meter: Meter,
    tracer: Tracer,
}

/// A watch that is open.
struct Watching {
    token: Token,
    stream: WatchStream,
    /// It has ended, which is not told yet.
    ended: Option<WatchEnd>,
}

/// A callback that runs.
struct Run {
    superseded: CancellationToken,
    abort: AbortHandle,
    /// Why it was aborted.
    reason: Arc<OnceLock<String>>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        status: Publisher,
        node: Option<NodeName>,
        callbacks: Callbacks,
        commands: mpsc::UnboundedReceiver<Command>,
        started: Option<oneshot::Sender<Started>>,
    ) -> Self {
        let meter = Meter::new(shared.keyspace.namespace().as_str(), node.is_some());
        // An observer has no deadlines.
        let clock = shared.known.clock.clone();
        let alarm = if node.is_some() { Alarm::new(clock) } else { Alarm::plain(clock) };
        let tracer = Tracer::new(shared.keyspace.namespace().as_str(), node);
        Driver {
            shared,
            status,
            callbacks,
            commands,
            held: true,
            alarm,
            doing: FuturesUnordered::new(),
            opening: BTreeSet::new(),
            watches: Vec::new(),
            runs: BTreeMap::new(),
            requests: Repliers::new(),
            outputs: Vec::new(),
            started,
            stopped: false,
            meter,
            tracer,
        }
    }

    /// Drives the machine until it has ended. If the future is dropped before, the lease is left to expire.
    pub(crate) async fn run(mut self) {
        self.handle(Input::Tick);
        while !self.stopped {
            let input = self.next_input().await;
            self.handle(input);
            // A store that always has something ready must not keep other tasks of the thread waiting.
            tokio::task::coop::consume_budget().await;
        }
        self.end_runs().await;
    }

    /// Waits for whatever comes first. In a fixed order, so that a seeded run repeats itself.
    async fn next_input(&mut self) -> Input {
        let wakeup = self.shared.machine().next_wakeup();
        let tick = self.alarm.wait_until(wakeup);
        let watches = &mut self.watches;
        let done = tokio::select! {
            biased;
            command = self.commands.recv(), if self.held => match command {
                Some(command) => return self.command(command),
                None => {
                    // Nobody holds the node any more: it leaves.
                    self.held = false;
                    return Input::Stop;
                }
            },
            Some(done) = self.doing.next(), if !self.doing.is_empty() => done,
            input = poll_fn(|context| poll_watches(watches, context)) => return input,
            () = tick => return Input::Tick,
        };
        match done {
            Done::Input(input) => input,
            Done::Watching { token, result } => {
                let wanted = self.opening.remove(&token);
                let result = result.map(|stream| {
                    if wanted {
                        self.watches.push(Watching { token, stream, ended: None });
                    }
                });
                Input::WatchOpened { token, result }
            }
        }
    }

    fn command(&mut self, command: Command) -> Input {
        match command {
            Command::Stop => Input::Stop,
            Command::Request { make, reply } => {
                let ids = self.requests.abandoned();
                if !ids.is_empty() {
                    self.handle(Input::Abandoned { ids });
                }
                (make.0)(self.requests.add(reply))
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
        // Before anything is done: who hears of an event, or is answered, finds the status that goes with it.
        let status = self.status.publish(known);
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
            Output::Watch { token, prefix, after, timeout } => {
                let opening = async move { store.watch(&prefix, after).await };
                self.opening.insert(token);
                self.doing.push(Box::pin(async move {
                    Done::Watching { token, result: bounded(timeout, opening).await }
                }));
            }
            Output::Unwatch { token } => {
                self.opening.remove(&token);
                self.watches.retain(|watching| watching.token != token);
            }
            Output::Stabilize { token, view, previous, attempt } => {
                let callback = self.callbacks.stabilize.clone();
                let superseded = CancellationToken::new();
                let given = superseded.clone();
                let run = self.tracer.stabilize(view.version(), attempt, move || {
                    callback(Stabilization::new(view, previous, attempt, given))
                });
                self.run_callback(token, Input::stabilized, superseded, run);
            }
            Output::Announce { token, view, term } => {
                let callback = self.callbacks.on_stable.clone();
                let superseded = CancellationToken::new();
                let given = superseded.clone();
                let run =
                    self.tracer.on_stable(&view.clone(), move || callback(Stable::new(view, term, given)));
                self.run_callback(token, Input::announced, superseded, run);
            }
            Output::CheckHealth { token } => {
                let callback = self.callbacks.health.clone();
                let run = Box::pin(async move { callback(()).await });
                self.run_callback(token, Input::health_reported, CancellationToken::new(), run);
            }
            Output::Supersede { token } => {
                if let Some(run) = self.runs.get(&token) {
                    run.superseded.cancel();
                }
            }
            Output::Abort { token, reason } => {
                if let Some(run) = self.runs.get(&token) {
                    run.reason.get_or_init(|| reason);
                    run.superseded.cancel();
                    run.abort.abort();
                }
            }
            Output::Event(event) => self.emit(event),
            Output::Reply { id, result } => self.requests.answer(id, result),
            Output::Stopped { .. } => self.stopped = true,
        }
    }

    fn call<T: 'static>(
        &mut self,
        limit: Duration,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
        input: impl FnOnce(Result<T, StoreError>) -> Input + Send + 'static,
    ) {
        self.doing.push(Box::pin(async move { Done::Input(input(bounded(limit, call).await)) }));
    }

    /// Runs a callback as a task of its own, so that one that blocks or panics does neither to the driver.
    fn run_callback(
        &mut self,
        token: Token,
        input: fn(Token, Outcome) -> Input,
        superseded: CancellationToken,
        run: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    ) {
        let task = spawn_task(&Handle::current(), run);
        let reason = Arc::new(OnceLock::new());
        self.runs.insert(token, Run { superseded, abort: task.abort_handle(), reason: reason.clone() });
        self.doing.push(Box::pin(async move {
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
            // An error only says that nobody waits for the start any more.
            let _ = waiting.send(started);
        }
        self.shared.hub.send(event);
    }

    /// Ends the callbacks that still run, and waits for them to drop what they hold: not for long, as one that blocks
    /// its thread cannot be ended.
    async fn end_runs(&mut self) {
        self.watches.clear();
        for run in self.runs.values() {
            run.superseded.cancel();
            run.abort.abort();
        }
        let all = async {
            while !self.runs.is_empty() {
                match self.doing.next().await {
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

/// However it ends, also by a panic or with its runtime: those who wait for the end are told, and no callback goes on.
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
        self.shared.hub.end();
        self.shared.ended.cancel();
    }
}

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

/// What the watches yield next, the log's before that of the acknowledgements.
fn poll_watches(watches: &mut Vec<Watching>, context: &mut Context<'_>) -> Poll<Input> {
    for place in 0..watches.len() {
        let watching = &mut watches[place];
        let token = watching.token;
        if let Poll::Ready(input) = watching.poll_batches(context) {
            return Poll::Ready(input);
        }
        if let Some(end) = watching.ended.take() {
            drop(watches.remove(place));
            return Poll::Ready(Input::WatchEnded { token, end });
        }
    }
    Poll::Pending
}

impl Watching {
    /// All that is there: a node that is behind takes it in at once. Pending too if the watch has ended.
    fn poll_batches(&mut self, context: &mut Context<'_>) -> Poll<Input> {
        let token = self.token;
        let Some(first) = self.poll_batch(context) else { return Poll::Pending };
        let Some(second) = self.poll_batch(context) else {
            return Poll::Ready(Input::Batch { token, batch: first });
        };
        let mut batches = vec![first, second];
        while batches.len() < MOST_BATCHES
            && let Some(batch) = self.poll_batch(context)
        {
            batches.push(batch);
        }
        Poll::Ready(Input::Batches { token, batches })
    }

    fn poll_batch(&mut self, context: &mut Context<'_>) -> Option<Batch> {
        if self.ended.is_some() {
            return None;
        }
        let end = match self.stream.poll_next_unpin(context) {
            Poll::Pending => return None,
            Poll::Ready(Some(Ok(batch))) => return Some(batch),
            Poll::Ready(Some(Err(end))) => end,
            Poll::Ready(None) => WatchEnd::Disconnected { reason: "the store ended the stream".to_owned() },
        };
        self.ended = Some(end);
        None
    }
}

/// The run of a callback that ended by that.
fn ended(input: &Input) -> Option<Token> {
    match input {
        Input::Stabilized { token, .. }
        | Input::Announced { token, .. }
        | Input::HealthReported { token, .. } => Some(*token),
        _ => None,
    }
}

fn describe(error: JoinError, reason: Option<&String>) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("it panicked: {}", panic_message(&*panic)),
        Err(_) => reason.cloned().unwrap_or_else(|| "it was ended".to_owned()),
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

    fn announced(token: Token, outcome: Outcome) -> Self {
        Input::Announced { token, result: outcome.into_result() }
    }

    fn health_reported(token: Token, outcome: Outcome) -> Self {
        Input::HealthReported { token, result: outcome.into_result() }
    }
}
