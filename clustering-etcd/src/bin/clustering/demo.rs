use std::{
    env,
    ffi::OsString,
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use clustering_etcd::{
    EtcdConfig, EtcdStore, Namespace, Operator, Report, operator::Purge, store::ErrorKind,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{process::Command, sync::mpsc};

use crate::{
    connection::Connection,
    failure::{Failure, NO, UNKNOWN},
    group::{Group, Guardian},
    output,
    watch::{News, follow},
};

/// How long any act may take: a crash shows after one TTL, and machines are busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The nodes' TTL: short, so that a crash shows soon. In production the default of 15 s is right.
const TTL: &str = "2s";

/// See a cluster at work: nodes join, one leaves, the leader crashes, somebody asks for a new version
///
/// The nodes are processes of their own (clustering run). They use the etcd that --endpoints or the environment names, in a
/// namespace of their own that is purged in the end; without one an etcd is started, with its data in a temporary folder.
/// Nothing is left behind. Exit codes: 0 all that was to be shown has happened, 1 something has not, 2 there is no etcd.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=20))]
    nodes: u8,
    /// The etcd to start [env: CLUSTERING_ETCD_BIN] [default: the one on the PATH]
    #[arg(long, value_name = "FILE", env = "CLUSTERING_ETCD_BIN", hide_env = true)]
    etcd: Option<PathBuf>,
}

/// What runs, in the order in which it ends.
struct Stage {
    nodes: Vec<(String, Group)>,
    operator: Operator,
    news: mpsc::UnboundedReceiver<News>,
    report: Option<Report>,
    began: Instant,
    /// Arguments that lead to the etcd.
    arguments: Vec<OsString>,
    guardian: Arc<Guardian>,
}

/// An etcd of the demo's own.
struct Server {
    group: Group,
    endpoint: String,
    folder: TempDir,
}

impl Demo {
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let guardian = Guardian::start().map_err(|error| cannot("start /bin/sh", &error))?;
        let server = match connection.is_given() {
            true => None,
            false => Some(Server::start(self.etcd.as_deref(), &guardian).await?),
        };
        let done = tokio::select! {
            done = self.play(connection, server.as_ref(), guardian) => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(NO, "ended before all was shown")),
        };
        if let Some(server) = server {
            server.end().await;
        }
        done
    }

    async fn play(
        &self,
        connection: &Connection,
        server: Option<&Server>,
        guardian: Arc<Guardian>,
    ) -> Result<ExitCode, Failure> {
        let namespace = Namespace::parse(&format!("clustering-demo-{}", std::process::id()))?;
        let (store, arguments) = match server {
            Some(server) => {
                let endpoints = vec!["--endpoints".into(), server.endpoint.clone().into()];
                (EtcdStore::new(EtcdConfig::new([&server.endpoint])?)?, endpoints)
            }
            None => (connection.store()?, connection.arguments()),
        };
        let operator = Operator::new(store, namespace, "somebody");
        let monitor = connection.quick(operator.monitor()).await?;
        let mut stage = Stage {
            nodes: Vec::new(),
            operator,
            news: follow(monitor),
            report: None,
            began: Instant::now(),
            arguments,
            guardian,
        };
        let done = self.acts(&mut stage).await;
        for (_, mut node) in stage.nodes {
            let _ = node.end(Duration::from_secs(2)).await;
        }
        match stage.operator.purge(Purge::new(true)).await {
            Ok(_) | Err(clustering_etcd::OperatorError::NoCluster(_)) => {}
            Err(error) => output::note(format!("clustering: the demo's keys are left: {error}")),
        }
        done?;
        output::lines(["", "All that was to be shown has happened, and nothing is left behind."]);
        Ok(ExitCode::SUCCESS)
    }

    async fn acts(&self, stage: &mut Stage) -> Result<(), Failure> {
        stage.act(&format!("{} nodes join", self.nodes));
        for number in 1..=self.nodes {
            stage.start(number)?;
        }
        let mut count = usize::from(self.nodes);
        stage.stable(count).await?;

        stage.act("one leaves in order");
        let leader = stage.leader()?;
        let place = stage.nodes.iter().position(|(name, _)| *name != leader).unwrap_or_default();
        let (_, mut leaver) = stage.nodes.remove(place);
        leaver.signal(Signal::TERM);
        count -= 1;
        stage.stable(count).await?;
        let _ = leaver.end(PATIENCE).await;

        stage.act(&format!("the leader is killed: its lease of {TTL} runs out"));
        let leader = stage.leader()?;
        let place = stage.nodes.iter().position(|(name, _)| *name == leader).unwrap_or_default();
        let (_, mut crashed) = stage.nodes.remove(place);
        crashed.signal(Signal::KILL);
        let _ = crashed.wait().await;
        count -= 1;
        stage.stable(count).await?;

        stage.act("somebody asks for a new version");
        let seen = stage.operator.change(Some("a rebalance by hand")).await?;
        stage
            .until("a new stable version", |report| {
                report.condition.is_stable()
                    && report.version.as_ref().is_some_and(|version| version.revision > seen)
            })
            .await?;

        stage.act("all leave");
        for (_, node) in &stage.nodes {
            node.signal(Signal::TERM);
        }
        stage.until("an empty cluster", |report| report.nodes.is_empty()).await
    }
}

impl Stage {
    fn act(&self, title: &str) {
        output::lines([String::new(), format!("── {title} ──")]);
    }

    fn start(&mut self, number: u8) -> Result<(), Failure> {
        let program = env::current_exe().map_err(|error| cannot("find this program", &error))?;
        let name = format!("node-{number}");
        let mut command = Command::new(program);
        command.arg("run").args(&self.arguments).arg("--namespace");
        command.arg(self.operator.keyspace().namespace().as_str());
        // Adapting takes each node a moment of its own, so that one can watch them turn ready.
        let adapt = format!("sleep 0.{number}");
        command.args([
            "--name",
            &name,
            "--ttl",
            TTL,
            "--uri",
            &format!("http://127.0.0.1:{}", 8000 + u16::from(number)),
        ]);
        command.args(["--stabilize", &adapt, "--", "sleep", "86400"]);
        // They would all want the one address that was meant for another.
        command.env_remove("CLUSTERING_LISTEN");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let node =
            Group::spawn(&mut command, &self.guardian).map_err(|error| cannot("start a node", &error))?;
        self.nodes.push((name, node));
        Ok(())
    }

    fn leader(&self) -> Result<String, Failure> {
        let leader = self.report.as_ref().and_then(Report::leader_name);
        leader.map(ToString::to_string).ok_or_else(|| Failure::new(NO, "nobody leads"))
    }

    async fn stable(&mut self, count: usize) -> Result<(), Failure> {
        let what = format!("a stable version of {count} nodes");
        self.until(&what, |report| report.condition.is_stable() && report.nodes.len() == count).await
    }

    /// Tells what happens until the cluster is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Report) -> bool) -> Result<(), Failure> {
        let waiting = async {
            while let Some(news) = self.news.recv().await {
                for sighting in &news.sightings {
                    output::line(format!("{:8.3} s  {sighting}", self.began.elapsed().as_secs_f64()));
                }
                self.report = news.report;
                if self.report.as_ref().is_some_and(&wanted) {
                    return true;
                }
            }
            false
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(true) => Ok(()),
            _ => Err(Failure::new(NO, format!("{what} did not come"))),
        }
    }
}

impl Server {
    async fn start(binary: Option<&Path>, guardian: &Arc<Guardian>) -> Result<Self, Failure> {
        let binary = binary.unwrap_or(Path::new("etcd"));
        let folder = tempfile::Builder::new().prefix("clustering-demo-").tempdir();
        let folder = folder.map_err(|error| cannot("make a temporary folder", &error))?;
        guardian.remove(folder.path());
        let (client, peer) = free_ports().map_err(|error| cannot("find free ports", &error))?;
        let endpoint = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let mut command = Command::new(binary);
        // Every flag of etcd can come from the environment.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD")) {
            command.env_remove(name);
        }
        command.arg("--data-dir").arg(folder.path().join("data"));
        command.args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let group = Group::spawn(&mut command, guardian).map_err(|error| {
            cannot(&format!("start {}", binary.display()), &error).hint(
                "install one (apt-get install etcd-server; brew install etcd), let CLUSTERING_ETCD_BIN name one, or name a \
                 running one with --endpoints",
            )
        })?;
        let mut server = Server { group, endpoint, folder };
        match server.answers().await {
            Ok(()) => Ok(server),
            Err(failure) => {
                server.end().await;
                Err(failure)
            }
        }
    }

    async fn answers(&mut self) -> Result<(), Failure> {
        let store = EtcdStore::new(EtcdConfig::new([&self.endpoint])?)?;
        let began = Instant::now();
        loop {
            tokio::select! {
                status = self.group.wait() => {
                    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    return Err(Failure::new(UNKNOWN, format!("the etcd that was started ended: {how}")));
                }
                checked = store.check() => match checked {
                    Ok(()) => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::Invalid || began.elapsed() > PATIENCE => {
                        return Err(error.into());
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
            }
        }
    }

    async fn end(mut self) {
        let _ = self.group.end(Duration::from_secs(2)).await;
        let _ = self.folder.close();
    }
}

/// Two that nobody uses at the moment.
fn free_ports() -> io::Result<(u16, u16)> {
    let (one, two) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?.port(), two.local_addr()?.port()))
}

fn cannot(what: &str, error: &io::Error) -> Failure {
    Failure::new(UNKNOWN, format!("cannot {what}: {error}"))
}
