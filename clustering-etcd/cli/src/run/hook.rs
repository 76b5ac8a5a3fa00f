use std::{
    ffi::OsStr,
    future::{Future, ready},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    pin::pin,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use clustering_core::{LostReason, Node, Release, Stabilization, Stable, View, slots::SlotSet};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::Command,
    task::JoinHandle,
};

use super::{
    log::Log,
    shortage::wait_out,
    slots::{Sets, owners},
};
use crate::{group::Group, guardian::Guardian};

/// Time limit for the rest of the output after a hook has ended. A process that the hook started may hold the output
/// open forever.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// Runs hooks, and holds the data that all of them are given.
#[derive(Clone, Debug)]
pub(crate) struct Hooks {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uri: String,
    /// Address of probes and metrics.
    pub(crate) listen: Option<SocketAddr>,
    /// Number of slots of an exclusive node.
    pub(crate) slots: Option<u16>,
    /// Time that a superseded hook gets between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
    /// Environment variables that the program and hooks must not inherit.
    pub(crate) secrets: Vec<&'static str>,
    pub(crate) guardian: Arc<Guardian>,
    pub(crate) log: Log,
}

/// A call of one hook.
struct Call<'a> {
    hook: &'a str,
    command: &'a str,
    variables: Vec<(&'static str, String)>,
    input: Value,
}

impl Hooks {
    /// Creates the command for the program or a hook, with the node's variables and without this process's secrets.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.variables());
        for secret in &self.secrets {
            command.env_remove(secret);
        }
        command
    }

    /// Returns the environment variables that the program and all hooks get.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("CLUSTERING_NAMESPACE", self.namespace.clone()),
            ("CLUSTERING_NAME", self.name.clone()),
            ("CLUSTERING_URI", self.uri.clone()),
        ];
        variables.extend(self.listen.map(|address| ("CLUSTERING_LISTEN", address.to_string())));
        variables.extend(self.slots.map(|slots| ("CLUSTERING_SLOTS", slots.to_string())));
        variables
    }

    /// Adapts the program to a view. Exit code 0 means ready.
    pub(crate) async fn stabilize(&self, command: &str, change: &Stabilization) -> Result<(), String> {
        let diff = change.diff();
        let names = |nodes: &[Arc<Node>]| nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        let mut input = self.view("stabilize", change.view());
        input["attempt"] = json!(change.attempt());
        input["previous"] = json!(change.previous().map(View::version));
        input["joined"] = json!(names(&diff.joined));
        input["left"] = json!(names(&diff.left));
        input["changed"] = json!(names(&diff.changed));
        let mut variables = of_view(change.view());
        variables.push(("CLUSTERING_ATTEMPT", change.attempt().to_string()));
        if self.slots.is_some() {
            let sets = Sets::default().with("CLUSTERING_GAINED", "gained", change.gained());
            let sets = sets.with("CLUSTERING_LOST", "lost", change.lost());
            sets.with("CLUSTERING_KEPT", "kept", change.kept()).add_to(&mut variables, &mut input);
        }
        self.call(Call { hook: "stabilize", command, variables, input }, change.superseded()).await
    }

    /// Makes the program let go of slots that the node lost. Exit code 0 means that the program has let go of them.
    pub(crate) async fn release(&self, command: &str, change: &Release) -> Result<(), String> {
        let hook = "release";
        let mut variables = change.view().map(of_view).unwrap_or_default();
        let mut input = match change.view() {
            Some(view) => self.view(hook, view),
            None => json!({ "hook": hook, "namespace": self.namespace, "name": self.name }),
        };
        let still_held = change.still_held();
        input["attempt"] = json!(change.attempt());
        input["still_held"] = json!(still_held);
        variables.push(("CLUSTERING_ATTEMPT", change.attempt().to_string()));
        variables.push(("CLUSTERING_STILL_HELD", still_held.to_string()));
        let held = change.cluster().upgrade().map(|cluster| cluster.held_slots()).unwrap_or_default();
        let sets = Sets::default().with("CLUSTERING_LOST", "lost", change.lost());
        sets.with("CLUSTERING_HELD", "held", &held).add_to(&mut variables, &mut input);
        self.call(Call { hook, command, variables, input }, std::future::pending()).await
    }

    /// Announces a stable version, on the leader.
    pub(crate) async fn on_stable(&self, command: &str, stable: &Stable) -> Result<(), String> {
        let mut variables = of_view(stable.view());
        // The version may have been published under an older term than it was recorded under.
        variables.push(("CLUSTERING_TERM", stable.term().to_string()));
        let mut input = self.view("on_stable", stable.view());
        input["term"] = json!(stable.term());
        self.call(Call { hook: "on_stable", command, variables, input }, stable.superseded()).await
    }

    /// Announces a stable version, on any node.
    pub(crate) async fn stable(
        &self,
        command: &str,
        view: &View,
        held: &SlotSet,
        superseded: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let hook = "stable";
        let (mut variables, mut input) = (of_view(view), self.view(hook, view));
        if self.slots.is_some() {
            Sets::default().with("CLUSTERING_HELD", "held", held).add_to(&mut variables, &mut input);
        }
        self.call(Call { hook, command, variables, input }, superseded).await
    }

    /// Checks the health of the program.
    pub(crate) async fn health(&self, command: &str) -> Result<(), String> {
        let input = json!({ "hook": "health", "namespace": self.namespace, "name": self.name });
        self.call(Call { hook: "health", command, variables: Vec::new(), input }, std::future::pending())
            .await
    }

    /// Reports the end of the node's session.
    pub(crate) async fn on_lost(&self, command: &str, reason: &LostReason) -> Result<(), String> {
        let reason = reason.to_string();
        let input = json!({
            "hook": "on_lost", "namespace": self.namespace, "name": self.name, "reason": reason
        });
        let variables = vec![("CLUSTERING_REASON", reason)];
        self.call(Call { hook: "on_lost", command, variables, input }, std::future::pending()).await
    }

    fn view(&self, hook: &str, view: &View) -> Value {
        let mut input = json!({
            "hook": hook,
            "namespace": self.namespace,
            "name": self.name,
            "version": view.version(),
            "revision": view.revision(),
            "term": view.term(),
            "leader": view.leader(),
            "causes": view.causes(),
            "nodes": view.nodes(),
        });
        if let Some(slots) = owners(view) {
            input["slots"] = slots;
        }
        input
    }

    /// Runs a hook to its end. If it is superseded, ends it.
    async fn call(&self, call: Call<'_>, superseded: impl Future<Output = ()>) -> Result<(), String> {
        let mut superseded = pin!(superseded);
        let mut group = tokio::select! {
            group = self.spawn(&call) => group?,
            () = &mut superseded => return Err("superseded".to_owned()),
        };
        let mut pipes = Pipes::connect(&mut group, call, &self.log);
        tokio::select! {
            status = group.wait() => {
                let last_line = pipes.last_line().await;
                let status = status.map_err(|error| error.to_string())?;
                if status.success() { Ok(()) } else { Err(reason(status, last_line.as_deref())) }
            }
            () = &mut superseded => {
                let ended = group.end(self.grace).await;
                ended.map_err(|error| error.to_string()).and(Err("superseded".to_owned()))
            }
        }
    }

    async fn spawn(&self, call: &Call<'_>) -> Result<Group, String> {
        let mut shell = self.command("/bin/sh");
        shell.arg("-c").arg(call.command);
        shell.env("CLUSTERING_HOOK", call.hook).envs(call.variables.iter().cloned());
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let what = format!("the {} hook", call.hook);
        let spawned = wait_out(&self.log, &what, || ready(Group::spawn(&mut shell, &self.guardian))).await;
        spawned.map_err(|error| format!("cannot start /bin/sh: {error}"))
    }
}

/// Tasks that write the input of a hook and read its output. They are aborted when this is dropped.
struct Pipes {
    feeding: JoinHandle<()>,
    /// Returns the last line of the standard error.
    logging: JoinHandle<Option<String>>,
}

impl Pipes {
    fn connect(group: &mut Group, call: Call<'_>, log: &Log) -> Self {
        let child = group.child();
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (hook, log, input) = (call.hook.to_owned(), log.clone(), call.input.to_string());
        let feeding = tokio::spawn(async move {
            let Some(mut stdin) = stdin else { return };
            // A hook does not have to read its input.
            let _ = stdin.write_all(input.as_bytes()).await;
            let _ = stdin.shutdown().await;
        });
        let logging = tokio::spawn(async move {
            tokio::join!(log_lines(&log, &hook, stdout), log_lines(&log, &hook, stderr)).1
        });
        Pipes { feeding, logging }
    }

    async fn last_line(&mut self) -> Option<String> {
        let logged = tokio::time::timeout(LAST_OUTPUT, &mut self.logging).await;
        logged.ok().and_then(Result::ok).flatten()
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        self.feeding.abort();
        self.logging.abort();
    }
}

/// Returns the environment variables that describe a view.
fn of_view(view: &View) -> Vec<(&'static str, String)> {
    vec![
        ("CLUSTERING_VERSION", view.version().to_string()),
        ("CLUSTERING_TERM", view.term().to_string()),
        ("CLUSTERING_LEADER", view.leader().map(ToString::to_string).unwrap_or_default()),
        ("CLUSTERING_NODES", view.len().to_string()),
    ]
}

/// Logs all lines, and returns the last one that is not blank.
async fn log_lines(log: &Log, hook: &str, output: Option<impl AsyncRead + Unpin>) -> Option<String> {
    let mut lines = BufReader::new(output?).lines();
    let mut last = None;
    while let Ok(Some(line)) = lines.next_line().await {
        log.hook(hook, &line);
        if !line.trim().is_empty() {
            last = Some(line);
        }
    }
    last
}

/// Returns the reason for a failed hook: the exit code or signal, and the last line of its standard error.
fn reason(status: ExitStatus, last_line: Option<&str>) -> String {
    let ended = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    };
    match last_line {
        Some(line) => format!("{ended}: {line}"),
        None => ended,
    }
}
