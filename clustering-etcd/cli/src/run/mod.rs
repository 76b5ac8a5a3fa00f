//! `run`: turns a program into a node.

mod crashes;
mod exclusive;
mod health;
mod hook;
mod listen;
mod log;
mod node;
mod orphans;
mod program;
mod rollout;
mod serve;
mod shortage;
mod signals;
mod slots;
mod stable;
mod supervisor;
mod variable;

use std::{
    env,
    ffi::OsString,
    hash::{BuildHasher, RandomState},
    io::{self, IsTerminal},
    process::{ExitCode, Stdio},
    time::Duration,
};

use clap::{Args, ValueEnum};
use clustering_core::{Builder, Clustering, NameConflict, NodeName, Stabilization, Stable, Version};
use serde_json::json;

use self::{
    hook::Hooks,
    listen::Listening,
    log::Log,
    signals::Signals,
    supervisor::Supervisor,
    variable::{Value, boolean, optional},
};
use crate::{
    connect::Purpose,
    context::Context,
    failure::Failure,
    group::Group,
    guardian::Guardian,
    page,
    times::{duration, now_ms},
};

/// Run a program as a node
///
/// The node lives as long as the program. Starts the program, registers the node, calls the hooks, and exits with the
/// exit code of the program, or with 128 plus the number of the signal that ended it. When the program ends, the node
/// leaves the cluster. While the store is away, the program keeps running and the node waits. While the program is
/// unhealthy (see --health and --health-url), the node leaves the cluster and other nodes take over its keys; it
/// rejoins when the program is healthy again.
///
/// On the first INT or TERM the node leaves the cluster, so that no more requests are sent to it. Then the program and
/// all its child processes get the signal. Leaving takes one call to the store, or 5 seconds if the store is away. A
/// second INT or TERM is passed on at once, as are HUP, QUIT, USR1, USR2 and WINCH. Ctrl-Z pauses the program together
/// with this command.
///
/// With --exclusive, each key is held by at most one node at any time. Before the program gets the signal, its slots
/// are handed over to other nodes: no new work may begin (/ownz answers no), and the release hook makes the program
/// finish the work that it has begun. If an operator drains the node, the program gets TERM after the same hand-over.
/// With --restart-grace, the slots do not move to other nodes: they wait for this node to be back, except if an
/// operator drains it or the program ends by itself with exit code 0.
///
/// A hook is a shell command. It gets the view as JSON on its standard input, and these environment variables:
/// CLUSTERING_HOOK, CLUSTERING_NAMESPACE, CLUSTERING_NAME, CLUSTERING_URI, CLUSTERING_VERSION, CLUSTERING_TERM,
/// CLUSTERING_LEADER, CLUSTERING_NODES (their number), for stabilize CLUSTERING_ATTEMPT, for on-lost
/// CLUSTERING_REASON, and with --listen CLUSTERING_LISTEN (the actual address). With --exclusive they also get
/// CLUSTERING_SLOTS (their number) and sets of slots such as 0-3,7: stabilize CLUSTERING_GAINED, CLUSTERING_LOST and
/// CLUSTERING_KEPT, release CLUSTERING_LOST, CLUSTERING_HELD and CLUSTERING_STILL_HELD, and stable CLUSTERING_HELD.
/// Its output goes to the standard error. A hook that is superseded by a newer version gets SIGTERM, and SIGKILL
/// after --hook-grace; the next hook starts when it has ended.
///
/// Exit codes of the command itself: 2 wrong arguments or refused by the store, 3 the node has ended (for example
/// because its name was taken over), 4 an operator drained the node, 126 the program cannot be executed, 127 the
/// program does not exist.
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Address of the program, for those who look the node up [env: CLUSTERING_URI]
    #[arg(long, value_name = "URI", env = "CLUSTERING_URI", hide_env = true)]
    uri: String,
    /// Name of the node, unique in the cluster. With a name that survives restarts, the node gets its keys back
    /// [env: CLUSTERING_NAME] [default: a ULID]
    #[arg(long, value_name = "NAME", env = "CLUSTERING_NAME", hide_env = true)]
    name: Option<String>,
    /// Metadata that the node publishes about itself; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
    metadata: Vec<(String, String)>,
    /// Share of the keys that the node takes; 0 for none [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    weight: Option<u32>,
    /// Time after which the other nodes notice a crash [default: 15s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<Duration>,
    /// When to start the program. With joined or stable, a --stabilize or --health that needs the running program never
    /// succeeds
    #[arg(long, value_name = "WHEN", default_value = "now")]
    start_when: StartWhen,
    /// What to do if another node has the name
    #[arg(long, value_name = "POLICY", default_value = "wait")]
    name_conflict: Conflict,
    /// Hook that adapts the program to a new view. Exit code 0 means ready; on any other the hook is retried. Without
    /// this option the node is always ready
    #[arg(long, value_name = "COMMAND")]
    stabilize: Option<String>,
    /// Hook that the leader alone runs, once for each version at which all nodes are ready
    #[arg(long, value_name = "COMMAND")]
    on_stable: Option<String>,
    /// Hook that each node with this option runs, for each version at which all nodes are ready
    #[arg(long, value_name = "COMMAND")]
    stable: Option<String>,
    /// Hook to run when the node's session has ended, so that others may have taken over its keys. The node rejoins by
    /// itself
    #[arg(long, value_name = "COMMAND")]
    on_lost: Option<String>,
    /// Time limit for the stabilize hook; after it the hook is killed and counts as a refusal [default: none]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    stabilize_timeout: Option<Duration>,
    /// Time limit for the on-stable hook; after it the hook is killed and counts as failed. No later version is
    /// announced while the hook runs [default: none]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    on_stable_timeout: Option<Duration>,
    /// Time limit for leaving the cluster, including the hand-over of slots [default: 5s, with --exclusive 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    stop_timeout: Option<Duration>,
    /// Address for serving probes (/livez, /readyz, /leaderz, /stablez, /ownz?key=…) and Prometheus metrics
    /// (/metrics) over HTTP, such as 127.0.0.1:8081, or :8081 for all addresses; port 0 picks a free port and logs it
    /// [env: CLUSTERING_LISTEN] [default: none]
    #[arg(long, value_name = "ADDRESS", env = "CLUSTERING_LISTEN", hide_env = true)]
    listen: Option<String>,
    /// Also show the cluster live in a browser, at / of the address in --listen, as `clustering serve` does: anyone
    /// who can reach the address sees the names, URIs and metadata of all nodes. The cluster is followed only while
    /// the page is open [env: CLUSTERING_PAGE, true or false]
    #[arg(
        long,
        value_name = "BOOL",
        env = "CLUSTERING_PAGE",
        hide_env = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = optional(boolean)
    )]
    page: Option<Value<bool>>,
    /// Time that a superseded hook gets to end
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    hook_grace: Duration,
    /// Time that the program gets to end after the node has ended by itself
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    kill_after: Duration,
    /// Log events as JSON objects, with the time (`at`), the `node` and the kind of `event`
    #[arg(long)]
    json: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
    // Must be the last fields: a heading applies to all arguments after it.
    #[command(flatten)]
    exclusive: exclusive::Exclusive,
    #[command(flatten)]
    rollout: rollout::Rollout,
    #[command(flatten)]
    crashes: crashes::Crashes,
    #[command(flatten)]
    health: health::Health,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StartWhen {
    /// At once, even while the store is away
    Now,
    /// Once the node is a member
    Joined,
    /// Once the cluster is stable and the node is part of it
    Stable,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Conflict {
    /// Wait until the other node is gone
    Wait,
    /// Take over the name, which ends the other node
    TakeOver,
    /// Give up
    Fail,
}

/// Exit code for a node that has ended by itself.
const ENDED: u8 = 3;

/// Exit code for a node that an operator drained.
const DRAINED: u8 = 4;

fn entry(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as zone=a")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Run {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let signals = Signals::new().map_err(|error| cannot("receive signals", &error))?;
        let guardian = Guardian::start(&context.secrets).map_err(|error| cannot("start /bin/sh", &error))?;
        // All arguments are checked before the program starts.
        let namespace = context.namespace()?.to_string();
        self.rollout.check(self.name.as_deref())?;
        self.crashes.check()?;
        let name = match &self.name {
            Some(name) => NodeName::parse(name)?.to_string(),
            None => new_name(),
        };
        let page = self.page(context)?;
        // Starts before the store is created, so that metrics include the store's first calls.
        let listening = match self.address() {
            None => None,
            Some(address) => Some(Listening::at(address, page.as_ref()).await?),
        };
        let log = Log::new(&name, self.json);
        let hooks = Hooks {
            namespace,
            name,
            uri: self.uri.clone(),
            listen: listening.as_ref().map(|listening| listening.address),
            slots: self.exclusive.exclusive,
            grace: self.hook_grace,
            secrets: context.secrets.clone(),
            guardian: guardian.clone(),
            log: log.clone(),
        };
        let store = context.store(Purpose::Node).await?;
        let builder = self.describe(Clustering::builder(store), &hooks, self.ttl(context.ttl_variable)?);
        builder.validate().map_err(|error| Failure::unknown(error.to_string()))?;
        if let Some(address) = hooks.listen {
            let text = format!("probes and metrics at http://{address}");
            log.say(&text, "listening", json!({ "address": address }));
            if let Some(states) = page {
                let url = page::url(address);
                log.say(&format!("the cluster in a browser at {url}"), "page", json!({ "url": url }));
                // The page has its own connection, so that the page and the node do not slow each other down.
                tokio::spawn(states.follow_while_open(context.store(Purpose::Operator).await?));
            }
        }
        if self.exclusive.exclusive.is_none() && !self.rollout.restart_grace().is_zero() {
            let text =
                "--restart-grace has no effect without --exclusive, because only slots wait for a node";
            log.say(text, "no_slots", json!({}));
        }
        orphans::reap(guardian).map_err(|error| cannot("receive the signal of ended processes", &error))?;
        Supervisor::new(self, builder, hooks, listening, signals).run().await
    }

    /// Returns the address to listen on. A variable that is set but empty counts as unset: templates produce such
    /// variables.
    fn address(&self) -> Option<&str> {
        self.listen.as_deref().filter(|address| !address.is_empty())
    }

    /// Returns the states of the page, or `None` without `--page`.
    fn page(&self, context: &Context) -> Result<Option<page::States>, Failure> {
        if !Value::of(self.page.as_ref()).unwrap_or_default() {
            return Ok(None);
        }
        match self.address() {
            Some(_) => Ok(Some(page::States::new(context.namespace()?, context.store_name))),
            None => Err(Failure::unknown("--page needs --listen, which sets the address of the page")
                .hint("see --listen or CLUSTERING_LISTEN, --page or CLUSTERING_PAGE")),
        }
    }

    /// Returns the TTL of the option, or of the store's environment variable.
    fn ttl(&self, variable: Option<&str>) -> Result<Option<Duration>, Failure> {
        let Some(variable) = variable.filter(|_| self.ttl.is_none()) else { return Ok(self.ttl) };
        match env::var(variable) {
            Ok(text) if !text.is_empty() => duration(&text)
                .map(Some)
                .map_err(|error| Failure::unknown(format!("{variable} {text:?} cannot be used: {error}"))),
            _ => Ok(None),
        }
    }

    /// Adds all settings and hooks to the builder of the node.
    fn describe(&self, builder: Builder, hooks: &Hooks, ttl: Option<Duration>) -> Builder {
        let mut builder = builder.namespace(&hooks.namespace).name(&hooks.name).uri(&self.uri);
        builder = builder.name_conflict(match self.name_conflict {
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
        if let Some(ttl) = ttl {
            builder = builder.ttl(ttl);
        }
        builder = builder.configure(|config| {
            config.stabilize_timeout = self.stabilize_timeout;
            config.on_stable_timeout = self.on_stable_timeout;
            config.stop_timeout = self.stop_timeout;
        });
        builder = self.health.describe(builder, hooks);
        builder = self.exclusive.describe(builder, hooks);
        builder = self.crashes.describe(self.rollout.describe(builder));
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

    /// Starts the program.
    fn start(&self, hooks: &Hooks) -> Result<Group, Failure> {
        let (program, arguments) =
            self.program.split_first().ok_or_else(|| Failure::unknown("give the program after --"))?;
        let mut command = hooks.command(program);
        command.args(arguments);
        if io::stdin().is_terminal() {
            // The program has its own process group, so reading from the terminal would stop it.
            command.stdin(Stdio::null());
        }
        Group::spawn(&mut command, &hooks.guardian).map_err(|error| {
            let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
            Failure::with_code(code, format!("cannot execute {}: {error}", program.display()))
        })
    }
}

fn cannot(what: &str, error: &io::Error) -> Failure {
    Failure::unknown(format!("cannot {what}: {error}"))
}

/// Returns a new ULID as the name of a node.
fn new_name() -> String {
    let random = || RandomState::new().hash_one(std::process::id());
    let random = (u128::from(random()) << 64 | u128::from(random())) & ((1 << 80) - 1);
    Version::from_u128(u128::from(now_ms()) << 80 | random).to_string()
}
