mod health;
mod hook;
mod listen;
mod log;
mod node;
mod orphans;
mod program;
mod serve;
mod shortage;
mod signals;
mod stable;

use std::{
    ffi::OsString,
    future,
    hash::{BuildHasher, RandomState},
    io::{self, IsTerminal},
    os::unix::process::ExitStatusExt,
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use clap::{Args, ValueEnum};
use clustering_etcd::{
    Builder, Clustering, Event, Events, EventsError, NameConflict, NodeName, Stabilization, Stable, Version,
};
use rustix::process::Signal;
use serde_json::json;

use self::{
    hook::Hooks,
    listen::Listening,
    log::Log,
    node::{Node, Step},
    program::Program,
    signals::Signals,
};
use crate::{
    connection::Connection,
    failure::{Failure, UNKNOWN},
    group::{Group, Guardian},
    times::{duration, now_ms},
};

/// Be a node on behalf of a program: the node lives as long as the program does
///
/// Starts the program, registers the node, calls the hooks, and exits with the program's exit code, or with 128 and the
/// signal's number. When the program ends, the node leaves the cluster. While etcd is away the program runs on and the
/// node waits. While the program is unhealthy (see --health and --health-url), the node leaves the cluster and others
/// take over its keys; it rejoins when the program is healthy again.
///
/// On the first INT or TERM the node leaves the cluster, so that others send no more requests, and then the signal is
/// passed on to the program and all its child processes. Leaving takes one call to etcd, or 5 seconds if etcd is away.
/// A second INT or TERM is passed on at once, as are HUP, QUIT, USR1, USR2 and WINCH. Ctrl-Z pauses the program
/// together with this command.
///
/// A hook is a shell command. It gets the view as JSON on its standard input, and CLUSTERING_HOOK, CLUSTERING_NAMESPACE,
/// CLUSTERING_NAME, CLUSTERING_URI, CLUSTERING_VERSION, CLUSTERING_TERM, CLUSTERING_LEADER, CLUSTERING_NODES (how many) and,
/// for stabilize, CLUSTERING_ATTEMPT in its environment; with --listen also CLUSTERING_LISTEN, the address in effect. What it prints goes to the standard error. One that is superseded by
/// a newer version gets SIGTERM, and SIGKILL after --hook-grace; the next one begins when it has ended.
///
/// Exit codes of its own: 2 wrong arguments or refused by etcd, 3 the node has ended (its name was taken over, say), 126 the
/// program cannot be run, 127 there is no such program.
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Where the program is reached, for those who look the node up [env: CLUSTERING_URI]
    #[arg(long, value_name = "URI", env = "CLUSTERING_URI", hide_env = true)]
    uri: String,
    /// The node's name, unique in the cluster; one that survives restarts gets its keys back [env: CLUSTERING_NAME]
    /// [default: a ULID]
    #[arg(long, value_name = "NAME", env = "CLUSTERING_NAME", hide_env = true)]
    name: Option<String>,
    /// Something that the node tells about itself; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
    metadata: Vec<(String, String)>,
    /// The share of keys that the node takes; 0 for none [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    weight: Option<u32>,
    /// After which time a crash shows to the others [env: ETCD_TTL] [default: 15s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<Duration>,
    /// When to start the program. With joined or stable, a --stabilize or --health that needs the running program never
    /// passes
    #[arg(long, value_name = "WHEN", default_value = "now")]
    start_when: StartWhen,
    /// What to do if the name is taken
    #[arg(long, value_name = "POLICY", default_value = "wait")]
    name_conflict: Conflict,
    /// Adapts the program to a new view: exit code 0 says that it is ready, others are tried again. Without it the node is
    /// always ready
    #[arg(long, value_name = "COMMAND")]
    stabilize: Option<String>,
    /// Run only on the leader, once for each version at which all nodes are ready
    #[arg(long, value_name = "COMMAND")]
    on_stable: Option<String>,
    /// Run on each node that has this option, for each version at which all nodes are ready
    #[arg(long, value_name = "COMMAND")]
    on_stable_everywhere: Option<String>,
    /// Called when the node's session is over, so that others may have taken over its keys; it joins again by itself
    #[arg(long, value_name = "COMMAND")]
    on_lost: Option<String>,
    /// Time limit for a stabilize; after it the hook is killed and counts as a refusal [default: none]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    stabilize_timeout: Option<Duration>,
    /// Time limit for an on-stable; after it the hook is killed and counts as failed. No later version is announced
    /// while it runs [default: none]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    on_stable_timeout: Option<Duration>,
    /// Address for serving probes (/livez, /readyz, /leaderz, /stablez) and Prometheus metrics (/metrics) over HTTP,
    /// such as
    /// 127.0.0.1:8081, or :8081 for all addresses; port 0 picks a free port and logs it [env: CLUSTERING_LISTEN] [default: none]
    #[arg(long, value_name = "ADDRESS", env = "CLUSTERING_LISTEN", hide_env = true)]
    listen: Option<String>,
    /// How long a hook that is superseded may take to end
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    hook_grace: Duration,
    /// How long the program may take to end when the node has ended by itself
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    kill_after: Duration,
    /// Log events as JSON objects, with the time (`at`), the `node` and the kind of `event`
    #[arg(long)]
    json: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
    // Last: its heading is for all that follow it.
    #[command(flatten)]
    health: health::Health,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StartWhen {
    /// At once, even while etcd is away
    Now,
    /// Once the node is a member
    Joined,
    /// Once the cluster is stable and the node is part of it
    Stable,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Conflict {
    /// Wait until the other one is gone
    Wait,
    /// Take the name over: the other one ends
    TakeOver,
    /// Give up
    Fail,
}

/// The node has ended by itself.
const ENDED: u8 = 3;

fn entry(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as zone=a")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Run {
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let failure =
            |what: &str, error: io::Error| Failure::new(UNKNOWN, format!("{what} cannot be had: {error}"));
        let mut signals = Signals::new().map_err(|error| failure("signals", error))?;
        let guardian = Guardian::start().map_err(|error| failure("/bin/sh", error))?;
        // Everything that can be wrong is looked at before the program starts.
        let namespace = connection.namespace()?.to_string();
        let name = match &self.name {
            Some(name) => NodeName::parse(name)?.to_string(),
            None => new_name(),
        };
        // Before the store is made: it is measured too.
        let listening = match self.listen.as_deref() {
            // Set but empty is what an unset variable of a template leaves behind.
            None | Some("") => None,
            Some(address) => Some(Listening::at(address).await?),
        };
        let log = Log::new(&name, self.json);
        let hooks = Hooks {
            namespace,
            name,
            uri: self.uri.clone(),
            listen: listening.as_ref().map(|listening| listening.address),
            grace: self.hook_grace,
            guardian: guardian.clone(),
            log: log.clone(),
        };
        let node = connection.store()?.node().namespace(&hooks.namespace).name(&hooks.name);
        let builder = self.describe(node, &hooks);
        builder.validate().map_err(|error| Failure::new(UNKNOWN, error.to_string()))?;
        let events = builder.events();

        if let Some(address) = hooks.listen {
            let text = format!("probes and metrics at http://{address}");
            log.say(&text, "listening", json!({ "address": address }));
        }
        orphans::reap(guardian).map_err(|error| failure("the end of orphans", error))?;
        let mut program = Program::default();
        if self.start_when == StartWhen::Now {
            program.started(self.start(&hooks)?);
        }
        let telling = tokio::spawn(tell(events, hooks.clone(), self.on_lost.clone()));
        let mut node = Node::start(builder, log.clone());
        let mut cluster: Option<Clustering> = None;
        // The signal that requested the end, until it has been passed on to the program.
        let mut asked: Option<Signal> = None;
        let mut leaves = false;
        let ended = loop {
            let due = self.due(cluster.as_ref());
            tokio::select! {
                status = program.wait() => break Ok(status.map(exit_code)),
                signal = signals.next() => match signal {
                    Signal::TSTP => program.pause_with_this(),
                    // Others stop sending requests before the program stops answering them.
                    Signal::INT | Signal::TERM if !leaves => {
                        (leaves, asked) = (true, Some(signal));
                        log.say("leaving the cluster; the program gets the signal after that", "leaving", json!({}));
                        node.leave();
                    }
                    // There is no program to pass it to or to wait for.
                    Signal::INT | Signal::TERM if !program.is_started() => {
                        break Ok(Ok(signalled(signal.as_raw())));
                    }
                    Signal::INT | Signal::TERM => {
                        asked = None;
                        program.signal(signal);
                    }
                    signal => program.signal(signal),
                },
                step = node.next() => match step {
                    Step::Joined(joined) => {
                        if let Some(listening) = &listening {
                            listening.follow(&joined);
                        }
                        if let Some(command) = self.on_stable_everywhere.clone() {
                            let (joined, hooks, log) = (joined.clone(), hooks.clone(), log.clone());
                            tokio::spawn(stable::call_each_time(joined, hooks, command, log));
                        }
                        cluster = Some(joined);
                    }
                    Step::Left => match asked.take() {
                        Some(signal) if !program.is_started() => break Ok(Ok(signalled(signal.as_raw()))),
                        Some(signal) => program.signal(signal),
                        None => {}
                    },
                    Step::Ended(failure) => break Err(failure),
                },
                () = due, if !program.is_started() && !leaves => match self.start(&hooks) {
                    Ok(group) => program.started(group),
                    Err(failure) => break Err(failure),
                },
            }
        };
        if ended.is_err() {
            // Without a node it must not go on: others have its keys.
            program.end(self.kill_after).await;
        }
        node.left().await;
        // Ends when the node has left.
        let _ = tokio::time::timeout(Duration::from_secs(6), telling).await;
        ended?.map_err(|error| failure("the program's end", error))
    }

    /// Waits until the program should start.
    async fn due(&self, cluster: Option<&Clustering>) {
        match (self.start_when, cluster) {
            (StartWhen::Now, _) | (StartWhen::Joined, Some(_)) => {}
            (StartWhen::Stable, Some(cluster)) => stable::stable(cluster).await,
            (_, None) => future::pending().await,
        }
    }

    fn describe(&self, builder: Builder, hooks: &Hooks) -> Builder {
        let mut builder = builder.uri(&self.uri).name_conflict(match self.name_conflict {
            Conflict::Wait => NameConflict::Wait,
            Conflict::TakeOver => NameConflict::TakeOver,
            Conflict::Fail => NameConflict::Fail,
        });
        for (key, value) in &self.metadata {
            builder = builder.metadata(key, value);
        }
        if let Some(weight) = self.weight {
            builder = builder.weight(weight);
        }
        if let Some(ttl) = self.ttl {
            builder = builder.ttl(ttl);
        }
        if let Some(timeout) = self.stabilize_timeout {
            builder = builder.configure(|config| config.stabilize_timeout = Some(timeout));
        }
        if let Some(timeout) = self.on_stable_timeout {
            builder = builder.configure(|config| config.on_stable_timeout = Some(timeout));
        }
        builder = self.health.describe(builder, hooks);
        if let Some(command) = self.stabilize.clone() {
            let hooks = hooks.clone();
            builder = builder.stabilize(move |change: Stabilization| {
                let (hooks, command) = (hooks.clone(), command.clone());
                async move { hooks.stabilize(&command, &change).await }
            });
        }
        if let Some(command) = self.on_stable.clone() {
            let hooks = hooks.clone();
            builder = builder.on_stable(move |stable: Stable| {
                let (hooks, command) = (hooks.clone(), command.clone());
                async move { hooks.on_stable(&command, &stable).await }
            });
        }
        builder
    }

    fn start(&self, hooks: &Hooks) -> Result<Group, Failure> {
        let (program, arguments) =
            self.program.split_first().ok_or_else(|| Failure::new(UNKNOWN, "give the program after --"))?;
        let mut command = hooks.command(program);
        command.args(arguments);
        if io::stdin().is_terminal() {
            // In its own process group it would be stopped when it reads from the terminal.
            command.stdin(Stdio::null());
        }
        Group::spawn(&mut command, &hooks.guardian).map_err(|error| {
            let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
            Failure::new(code, format!("{} cannot be run: {error}", program.display()))
        })
    }
}

/// Says what happens, and calls the hook for the end of a session.
async fn tell(mut events: Events, hooks: Hooks, on_lost: Option<String>) {
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
                let text = format!("{missed} events were missed");
                hooks.log.say(&text, "events_missed", json!({ "missed": missed }));
            }
            Err(EventsError::Ended) => return,
        }
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(UNKNOWN)),
        (None, Some(signal)) => signalled(signal),
        (None, None) => ExitCode::from(UNKNOWN),
    }
}

/// Returns the exit code that a shell uses for a process that a signal killed.
fn signalled(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

/// A name that nobody else has: a ULID.
fn new_name() -> String {
    let random = || RandomState::new().hash_one(std::process::id());
    let random = (u128::from(random()) << 64 | u128::from(random())) & ((1 << 80) - 1);
    Version::from_u128(u128::from(now_ms()) << 80 | random).to_string()
}
