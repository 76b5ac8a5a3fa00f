use std::{
    env,
    ffi::OsString,
    io,
    process::{ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use clustering_core::{
    Namespace, Operator, OperatorError, Report,
    operator::Purge,
    store::{CoordinationStore, ErrorKind},
};
use rustix::process::Signal;
use tokio::{process::Command, sync::mpsc};

use crate::{
    command::context_for,
    connect::{Connect, Purpose, Server},
    context::Context,
    failure::Failure,
    group::Group,
    guardian::Guardian,
    output,
    watch::{Update, follow},
};

/// Time limit for each step. A crash is noticed after one TTL, and machines are busy.
const STEP_LIMIT: Duration = Duration::from_secs(30);

/// Time that a process gets to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// TTL of the nodes. It is short, so that the crash is noticed soon; in production the default is the better choice.
const TTL: &str = "2s";

/// Show a cluster at work
///
/// Nodes join, one leaves, the leader crashes, and an operator asks for a new version. Each node is a process of its
/// own (`clustering run`). The nodes use the store that the options or the environment name, with a namespace of their
/// own that is purged at the end. If none is named, a server is started with its data in a temporary directory. Nothing
/// is left behind. Exit codes: 0 everything was shown, 1 a step did not happen, 2 there is no store.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=20))]
    nodes: u8,
}

/// Settings of the user's own nodes: one address cannot serve all nodes of the demo, and the others would change its
/// course.
const NOT_FOR_THE_DEMO: [&str; 7] = [
    "CLUSTERING_LISTEN",
    "CLUSTERING_PRIORITY",
    "CLUSTERING_RESTART_GRACE",
    "CLUSTERING_MIN_NODES",
    "CLUSTERING_DETECT_CRASHES",
    "CLUSTERING_ADVERTISE",
    "CLUSTERING_TRUST_REFUSED",
];

/// The running demo.
struct Stage {
    nodes: Vec<(String, Group)>,
    operator: Operator,
    updates: mpsc::UnboundedReceiver<Update>,
    report: Option<Report>,
    began: Instant,
    /// Options that connect other processes to the store.
    arguments: Vec<OsString>,
    guardian: Arc<Guardian>,
}

impl Demo {
    /// Runs the demo on the given store, or on a server of its own. `given` are the connection options of the command
    /// line.
    pub(crate) async fn run<C: Connect>(
        self,
        context: &Context,
        connection: &C,
        given: Vec<OsString>,
    ) -> Result<ExitCode, Failure> {
        let guardian = Guardian::start(&context.secrets).map_err(|error| cannot("start /bin/sh", &error))?;
        let folder = tempfile::Builder::new().prefix("clustering-demo-").tempdir();
        let folder = folder.map_err(|error| cannot("create a temporary directory", &error))?;
        guardian.watch_folder(folder.path());
        let played = match connection.server(folder.path())? {
            None => self.play(context, given, guardian).await,
            Some(server) => {
                let arguments = server.arguments.clone();
                let own = context_for::<C>(&arguments)?;
                let mut group = start_server(server, &guardian)?;
                let played = match wait_for_server(&mut group, &own).await {
                    Ok(()) => self.play(&own, arguments, guardian).await,
                    Err(failure) => Err(failure),
                };
                let _ = group.end(GRACE).await;
                played
            }
        };
        let _ = folder.close();
        played?;
        output::lines(["", "Everything was shown, and nothing is left behind."]);
        Ok(ExitCode::SUCCESS)
    }

    async fn play(
        &self,
        context: &Context,
        arguments: Vec<OsString>,
        guardian: Arc<Guardian>,
    ) -> Result<(), Failure> {
        let namespace = Namespace::parse(&format!("clustering-demo-{}", std::process::id()))?;
        let operator = Operator::new(context.store(Purpose::Operator).await?, namespace, "an operator");
        let monitor = context.quick(operator.monitor()).await?;
        let mut stage = Stage {
            nodes: Vec::new(),
            operator,
            updates: follow(monitor),
            report: None,
            began: Instant::now(),
            arguments,
            guardian,
        };
        let played = tokio::select! {
            played = self.steps(&mut stage) => played,
            _ = tokio::signal::ctrl_c() => Err(Failure::no("interrupted before everything was shown")),
        };
        stage.clean_up().await;
        played
    }

    async fn steps(&self, stage: &mut Stage) -> Result<(), Failure> {
        stage.title(&format!("{} nodes join", self.nodes));
        for number in 1..=self.nodes {
            stage.start(number)?;
        }
        let mut count = usize::from(self.nodes);
        stage.until_stable(count).await?;

        stage.title("one leaves in order");
        let mut leaver = stage.take(|name, leader| name != leader)?;
        leaver.signal(Signal::TERM);
        count -= 1;
        stage.until_stable(count).await?;
        let _ = leaver.end(STEP_LIMIT).await;

        stage.title(&format!("the leader is killed: its lease expires within {TTL}"));
        let mut crashed = stage.take(|name, leader| name == leader)?;
        crashed.signal(Signal::KILL);
        let _ = crashed.wait().await;
        count -= 1;
        stage.until_stable(count).await?;

        stage.title("an operator asks for a new version");
        let seen = stage.operator.change(Some("a rebalance by hand")).await?;
        let is_newer = |report: &Report| {
            let newest = report.version.as_ref();
            report.condition.is_stable() && newest.is_some_and(|version| version.revision > seen)
        };
        stage.until("a new stable version", is_newer).await?;

        stage.title("all leave");
        for (_, node) in &stage.nodes {
            node.signal(Signal::TERM);
        }
        stage.until("an empty cluster", |report| report.nodes.is_empty()).await
    }
}

impl Stage {
    fn title(&self, title: &str) {
        output::lines([String::new(), format!("── {title} ──")]);
    }

    /// Starts a node.
    fn start(&mut self, number: u8) -> Result<(), Failure> {
        let program = env::current_exe().map_err(|error| cannot("find this program", &error))?;
        let name = format!("node-{number}");
        let uri = format!("http://127.0.0.1:{}", 8000 + u16::from(number));
        // Each node takes a different time, so that they become ready one after the other.
        let stabilize = format!("sleep 0.{number}");
        let namespace = self.operator.keyspace().namespace().as_str();
        let mut command = Command::new(program);
        command.arg("run").args(&self.arguments);
        command.args(["--namespace", namespace, "--name", &name, "--uri", &uri, "--ttl", TTL]);
        command.args(["--stabilize", &stabilize, "--", "sleep", "86400"]);
        for variable in NOT_FOR_THE_DEMO {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let node =
            Group::spawn(&mut command, &self.guardian).map_err(|error| cannot("start a node", &error))?;
        self.nodes.push((name, node));
        Ok(())
    }

    /// Removes the first node from the list whose name, compared with the leader's, satisfies `is_wanted`.
    fn take(&mut self, is_wanted: impl Fn(&str, &str) -> bool) -> Result<Group, Failure> {
        let leader = self.report.as_ref().and_then(Report::leader_name);
        let leader = leader.ok_or_else(|| Failure::no("the cluster has no leader"))?.as_str();
        let place = self.nodes.iter().position(|(name, _)| is_wanted(name, leader)).unwrap_or_default();
        Ok(self.nodes.remove(place).1)
    }

    async fn until_stable(&mut self, count: usize) -> Result<(), Failure> {
        let what = format!("a stable version of {count} nodes");
        self.until(&what, |report| report.condition.is_stable() && report.nodes.len() == count).await
    }

    /// Prints events until `is_wanted` returns true for the report.
    async fn until(&mut self, what: &str, is_wanted: impl Fn(&Report) -> bool) -> Result<(), Failure> {
        let waiting = async {
            while let Some(update) = self.updates.recv().await {
                for event in &update.events {
                    output::line(format!("{:8.3} s  {event}", self.began.elapsed().as_secs_f64()));
                }
                self.report = update.report;
                if self.report.as_ref().is_some_and(&is_wanted) {
                    return true;
                }
            }
            false
        };
        match tokio::time::timeout(STEP_LIMIT, waiting).await {
            Ok(true) => Ok(()),
            _ => Err(Failure::no(format!("{what} did not come within {} s", STEP_LIMIT.as_secs()))),
        }
    }

    /// Ends the nodes and deletes their keys.
    async fn clean_up(self) {
        for (_, mut node) in self.nodes {
            let _ = node.end(GRACE).await;
        }
        match self.operator.purge(Purge::new(true)).await {
            Ok(_) | Err(OperatorError::NoCluster(_)) => {}
            Err(error) => output::note(format!("clustering: cannot delete the demo's keys: {error}")),
        }
    }
}

fn start_server(server: Server, guardian: &Arc<Guardian>) -> Result<Group, Failure> {
    let program = server.command.get_program().to_owned();
    let mut command = Command::from(server.command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Group::spawn(&mut command, guardian)
        .map_err(|error| cannot(&format!("start {}", program.display()), &error).hint(server.hint))
}

/// Waits until the server answers.
async fn wait_for_server(server: &mut Group, context: &Context) -> Result<(), Failure> {
    let store = context.store(Purpose::Operator).await?;
    let began = Instant::now();
    loop {
        tokio::select! {
            status = server.wait() => {
                let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Err(Failure::unknown(format!("the server that was started has ended: {how}")));
            }
            answer = store.read_keys("clustering-demo") => match answer {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Invalid || began.elapsed() > STEP_LIMIT => {
                    return Err(error.into());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
}

fn cannot(what: &str, error: &io::Error) -> Failure {
    Failure::unknown(format!("cannot {what}: {error}"))
}
