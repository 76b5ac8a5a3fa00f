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

use clustering_etcd::{LostReason, Node, Stabilization, Stable, View};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::Command,
};

use super::{log::Log, shortage::wait_out};
use crate::{
    connection,
    group::{Group, Guardian},
};

/// How long output may take to come after its process has ended. Something that it started may hold it open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The commands that are called when something happens, and what they are told in any case.
#[derive(Clone, Debug)]
pub(crate) struct Hooks {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uri: String,
    /// Where probes and metrics are served.
    pub(crate) listen: Option<SocketAddr>,
    /// How long one that is superseded may take to end after SIGTERM.
    pub(crate) grace: Duration,
    pub(crate) guardian: Arc<Guardian>,
    pub(crate) log: Log,
}

/// What one call is told, beside what all are.
struct Call<'a> {
    hook: &'a str,
    command: &'a str,
    variables: Vec<(&'static str, String)>,
    input: Value,
}

impl Hooks {
    /// Creates the command for the program or a hook: sets the node's variables, and removes this process's passwords.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.node());
        for secret in connection::secrets() {
            command.env_remove(secret);
        }
        command
    }

    /// What the program and all hooks are told of their node.
    fn node(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("CLUSTERING_NAMESPACE", self.namespace.clone()),
            ("CLUSTERING_NAME", self.name.clone()),
            ("CLUSTERING_URI", self.uri.clone()),
        ];
        variables.extend(self.listen.map(|address| ("CLUSTERING_LISTEN", address.to_string())));
        variables
    }

    /// Adapts to a view: exit code 0 is a yes.
    pub(crate) async fn stabilize(&self, command: &str, change: &Stabilization) -> Result<(), String> {
        let diff = change.diff();
        let names = |nodes: &[Arc<Node>]| nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        let mut input = self.view("stabilize", change.view());
        input["attempt"] = json!(change.attempt());
        input["previous"] = json!(change.previous().map(View::version));
        input["joined"] = json!(names(&diff.joined));
        input["left"] = json!(names(&diff.left));
        input["changed"] = json!(names(&diff.changed));
        let mut variables = variables(change.view());
        variables.push(("CLUSTERING_ATTEMPT", change.attempt().to_string()));
        self.call(Call { hook: "stabilize", command, variables, input }, change.superseded()).await
    }

    /// Announces a version.
    pub(crate) async fn on_stable(&self, command: &str, stable: &Stable) -> Result<(), String> {
        let mut variables = variables(stable.view());
        // The version may have been published under an older term than it was recorded under.
        variables.push(("CLUSTERING_TERM", stable.term().to_string()));
        let mut input = self.view("on_stable", stable.view());
        input["term"] = json!(stable.term());
        self.call(Call { hook: "on_stable", command, variables, input }, stable.superseded()).await
    }

    /// Runs the hook for a version that is stable.
    pub(crate) async fn on_stable_everywhere(
        &self,
        command: &str,
        view: &View,
        superseded: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let hook = "on_stable_everywhere";
        let (variables, input) = (variables(view), self.view(hook, view));
        self.call(Call { hook, command, variables, input }, superseded).await
    }

    /// Asks whether the program is well.
    pub(crate) async fn health(&self, command: &str) -> Result<(), String> {
        let input = json!({ "hook": "health", "namespace": self.namespace, "name": self.name });
        self.call(Call { hook: "health", command, variables: Vec::new(), input }, std::future::pending())
            .await
    }

    /// Tells that the node's session is over.
    pub(crate) async fn on_lost(&self, command: &str, reason: &LostReason) -> Result<(), String> {
        let reason = reason.to_string();
        let input = json!({
            "hook": "on_lost", "namespace": self.namespace, "name": self.name, "reason": reason
        });
        let variables = vec![("CLUSTERING_REASON", reason)];
        self.call(Call { hook: "on_lost", command, variables, input }, std::future::pending()).await
    }

    fn view(&self, hook: &str, view: &View) -> Value {
        json!({
            "hook": hook,
            "namespace": self.namespace,
            "name": self.name,
            "version": view.version(),
            "revision": view.revision(),
            "term": view.term(),
            "leader": view.leader(),
            "causes": view.causes(),
            "nodes": view.nodes(),
        })
    }

    async fn call(&self, call: Call<'_>, superseded: impl Future<Output = ()>) -> Result<(), String> {
        let Call { hook, command, variables, input } = call;
        let mut shell = self.command("/bin/sh");
        shell.arg("-c").arg(command);
        shell.env("CLUSTERING_HOOK", hook).envs(variables);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut superseded = pin!(superseded);
        let what = format!("the {hook} hook");
        let mut group = tokio::select! {
            group = wait_out(&self.log, &what, || ready(Group::spawn(&mut shell, &self.guardian))) => {
                group.map_err(|error| format!("cannot start /bin/sh: {error}"))?
            }
            () = &mut superseded => return Err("superseded".to_owned()),
        };
        let child = group.child();
        let stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        // One that does not read it, or not all, need not.
        let feeding = tokio::spawn(async move {
            let Some(mut stdin) = stdin else { return };
            let _ = stdin.write_all(input.to_string().as_bytes()).await;
            let _ = stdin.shutdown().await;
        });
        let mut telling = tokio::spawn({
            let (hook, log) = (hook.to_owned(), self.log.clone());
            async move { tokio::join!(tell(&log, &hook, stdout), tell(&log, &hook, stderr)).1 }
        });

        let status = tokio::select! {
            status = group.wait() => status,
            () = &mut superseded => {
                let ended = group.end(self.grace).await;
                feeding.abort();
                telling.abort();
                return ended.map_err(|error| error.to_string()).and(Err("superseded".to_owned()));
            }
        };
        feeding.abort();
        let last = tokio::time::timeout(LAST_WORDS, &mut telling).await;
        telling.abort();
        let said = last.ok().and_then(Result::ok).flatten();
        let status = status.map_err(|error| error.to_string())?;
        match status.success() {
            true => Ok(()),
            false => Err(reason(status, said.as_deref())),
        }
    }
}

/// What a command is told of a view in its environment.
fn variables(view: &View) -> Vec<(&'static str, String)> {
    vec![
        ("CLUSTERING_VERSION", view.version().to_string()),
        ("CLUSTERING_TERM", view.term().to_string()),
        ("CLUSTERING_LEADER", view.leader().map(ToString::to_string).unwrap_or_default()),
        ("CLUSTERING_NODES", view.len().to_string()),
    ]
}

/// Hands the lines on to the standard error, and keeps the last one that says something.
async fn tell(log: &Log, hook: &str, output: Option<impl AsyncRead + Unpin>) -> Option<String> {
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

/// Why it is a no: how it ended, and its last words.
fn reason(status: ExitStatus, said: Option<&str>) -> String {
    let ended = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    };
    said.map_or(ended.clone(), |said| format!("{ended}: {said}"))
}
