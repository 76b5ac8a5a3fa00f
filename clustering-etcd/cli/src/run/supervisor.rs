use std::{
    future, io,
    ops::ControlFlow,
    os::unix::process::ExitStatusExt,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use clustering_core::{Builder, Clustering, Event, Events, EventsError};
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{
    DRAINED, Run, StartWhen, cannot,
    hook::Hooks,
    listen::Listening,
    node::{Node, Step},
    program::Program,
    signals::Signals,
    stable,
};
use crate::{
    failure::{Failure, UNKNOWN},
    times::brief,
};

/// Time limit for logging the last events after the node has left.
const LAST_EVENTS: Duration = Duration::from_secs(6);

/// Runs the program and its node side by side, and ends each of them when the other one has ended.
pub(super) struct Supervisor {
    options: Run,
    hooks: Hooks,
    listening: Option<Listening>,
    signals: Signals,
    program: Program,
    node: Node,
    /// The node's cluster, once the node has joined.
    cluster: Option<Clustering>,
    shutdown: Shutdown,
    /// True if an operator drained the node.
    drained: bool,
    /// Time for which the slots of the node wait for it when the program has ended by itself.
    keep: Duration,
    logging: JoinHandle<()>,
}

/// Progress of a shutdown that a signal requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shutdown {
    NotRequested,
    /// The node leaves the cluster. After that, the program gets this signal.
    Leaving(Signal),
    /// The program has received the signal, or is not running.
    Passed,
}

/// Reasons for the supervisor to act.
enum Happening {
    ProgramEnded(io::Result<ExitStatus>),
    Signal(Signal),
    Node(Step),
    /// The program should start.
    StartDue,
}

impl Supervisor {
    /// Creates the node, which starts when the supervisor [runs](Self::run).
    pub(super) fn new(
        options: Run,
        builder: Builder,
        hooks: Hooks,
        listening: Option<Listening>,
        signals: Signals,
    ) -> Self {
        let logging = tokio::spawn(log_events(builder.events(), hooks.clone(), options.on_lost.clone()));
        let node = Node::start(builder, hooks.log.clone());
        Supervisor {
            options,
            hooks,
            listening,
            signals,
            program: Program::default(),
            node,
            cluster: None,
            shutdown: Shutdown::NotRequested,
            drained: false,
            keep: Duration::ZERO,
            logging,
        }
    }

    /// Runs until the program or the node has ended, ends the other one, and returns the exit code.
    pub(super) async fn run(mut self) -> Result<ExitCode, Failure> {
        let ended = self.supervise().await;
        if ended.is_err() {
            // Without a node the program must not continue, since other nodes take over its keys.
            self.program.end(self.options.kill_after).await;
        }
        self.node.left(self.keep).await;
        let _ = tokio::time::timeout(LAST_EVENTS, self.logging).await;
        ended
    }

    async fn supervise(&mut self) -> Result<ExitCode, Failure> {
        if self.options.start_when == StartWhen::Now {
            self.start_program()?;
        }
        loop {
            let flow = match self.next().await {
                Happening::ProgramEnded(status) => {
                    let status = status.map_err(|error| cannot("wait for the program", &error))?;
                    if !status.success() {
                        // The program crashed, and a supervisor is expected to start it again.
                        self.keep = self.options.rollout.restart_grace();
                    }
                    return Ok(if self.drained { ExitCode::from(DRAINED) } else { exit_code(status) });
                }
                Happening::Signal(signal) => self.on_signal(signal),
                Happening::Node(Step::Joined(cluster)) => self.on_joined(cluster),
                Happening::Node(Step::Left) => self.on_left(),
                Happening::Node(Step::Drained) => self.on_drained(),
                Happening::Node(Step::Ended(failure)) => return Err(failure),
                Happening::StartDue => {
                    self.start_program()?;
                    ControlFlow::Continue(())
                }
            };
            if let ControlFlow::Break(code) = flow {
                return Ok(code);
            }
        }
    }

    async fn next(&mut self) -> Happening {
        let may_start = !self.program.is_started() && self.shutdown == Shutdown::NotRequested;
        tokio::select! {
            status = self.program.wait() => Happening::ProgramEnded(status),
            signal = self.signals.next() => Happening::Signal(signal),
            step = self.node.next() => Happening::Node(step),
            () = start_due(self.options.start_when, self.cluster.as_ref()), if may_start => Happening::StartDue,
        }
    }

    fn start_program(&mut self) -> Result<(), Failure> {
        self.program.started(self.options.start(&self.hooks)?);
        Ok(())
    }

    fn on_signal(&mut self, signal: Signal) -> ControlFlow<ExitCode> {
        match signal {
            Signal::TSTP => self.program.pause_with_this(),
            Signal::INT | Signal::TERM if self.shutdown == Shutdown::NotRequested => {
                // Other nodes must stop sending requests before the program stops answering them.
                self.say_leaving();
                self.shutdown = Shutdown::Leaving(signal);
                self.node.leave(self.options.rollout.restart_grace());
            }
            Signal::INT | Signal::TERM => return self.pass_on(signal),
            _ => self.program.signal(signal),
        }
        ControlFlow::Continue(())
    }

    fn say_leaving(&self) {
        let grace = self.options.rollout.restart_grace();
        let text = match (self.options.exclusive.exclusive, grace.is_zero()) {
            (None, _) => "leaving the cluster".to_owned(),
            (Some(_), true) => "handing over all slots and leaving the cluster".to_owned(),
            (Some(_), false) => {
                format!(
                    "releasing all slots, which wait for this node for {}, and leaving the cluster",
                    brief(grace)
                )
            }
        };
        let text = format!("{text}; the program gets the signal after that");
        self.hooks.log.say(&text, "leaving", json!({ "restart_grace_ms": grace.as_millis() as u64 }));
    }

    fn on_joined(&mut self, cluster: Clustering) -> ControlFlow<ExitCode> {
        if let Some(listening) = &self.listening {
            listening.follow(&cluster);
        }
        if let Some(endpoint) =
            cluster.discovery().node(cluster.name()).and_then(|node| node.endpoint.clone())
        {
            let text = format!("crash detection: other nodes connect to {}", endpoint.address);
            self.hooks.log.say(&text, "detecting_crashes", json!({ "address": endpoint.address }));
        }
        if let Some(command) = self.options.stable.clone() {
            tokio::spawn(stable::call_each_time(cluster.clone(), self.hooks.clone(), command));
        }
        self.cluster = Some(cluster);
        ControlFlow::Continue(())
    }

    fn on_left(&mut self) -> ControlFlow<ExitCode> {
        match self.shutdown {
            Shutdown::Leaving(signal) => self.pass_on(signal),
            Shutdown::NotRequested | Shutdown::Passed => ControlFlow::Continue(()),
        }
    }

    /// Ends the program of a drained node like a signal does. All slots are handed over by then.
    fn on_drained(&mut self) -> ControlFlow<ExitCode> {
        self.drained = true;
        if self.shutdown == Shutdown::Passed {
            return ControlFlow::Continue(());
        }
        let text = "the node is drained; the program gets SIGTERM";
        self.hooks.log.say(text, "drained", json!({}));
        self.pass_on(Signal::TERM)
    }

    /// Sends the signal that ends the program. If the program has not started, there is nothing to wait for.
    fn pass_on(&mut self, signal: Signal) -> ControlFlow<ExitCode> {
        self.shutdown = Shutdown::Passed;
        if !self.program.is_started() {
            let code = if self.drained { ExitCode::from(DRAINED) } else { killed_by(signal.as_raw()) };
            return ControlFlow::Break(code);
        }
        self.program.signal(signal);
        ControlFlow::Continue(())
    }
}

/// Waits until the program should start.
async fn start_due(when: StartWhen, cluster: Option<&Clustering>) {
    match (when, cluster) {
        (StartWhen::Now, _) | (StartWhen::Joined, Some(_)) => {}
        (StartWhen::Stable, Some(cluster)) => stable::stable(cluster).await,
        (_, None) => future::pending().await,
    }
}

/// Logs the node's events until it has ended, and calls the hook for the end of a session.
async fn log_events(mut events: Events, hooks: Hooks, on_lost: Option<String>) {
    loop {
        match events.recv().await {
            Ok(event) => {
                hooks.log.event(&event);
                if let (Event::SessionLost { reason }, Some(command)) = (&*event, &on_lost)
                    && let Err(reason) = hooks.on_lost(command, reason).await
                {
                    let text = format!("on_lost failed: {reason}");
                    hooks.log.say(&text, "hook_failed", json!({ "hook": "on_lost", "reason": reason }));
                }
            }
            Err(EventsError::Missed(missed)) => {
                let text = format!("missed {missed} events");
                hooks.log.say(&text, "events_missed", json!({ "missed": missed }));
            }
            Err(EventsError::Ended) => return,
        }
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(UNKNOWN)),
        (None, Some(signal)) => killed_by(signal),
        (None, None) => ExitCode::from(UNKNOWN),
    }
}

/// Returns the exit code that a shell uses for a process that a signal killed.
fn killed_by(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}
