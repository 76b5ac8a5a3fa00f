//! Clusters of node processes.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use clustering_testkit::{
    etcd::EtcdServer,
    history::{Clock, Moment},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

/// TTL of the leases: the library's default.
pub(crate) const TTL: Duration = Duration::from_secs(15);

/// Time limit for a change, longer than any takes.
const LONG: Duration = Duration::from_secs(120);

/// Implementation of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This library, with crash detection.
    CrashDetection,
    /// This library, without crash detection.
    Ttl,
    /// A bare etcd client.
    Bare,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::CrashDetection => "crash-detection",
            Kind::Ttl => "ttl",
            Kind::Bare => "bare",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Kind::CrashDetection, Kind::Ttl, Kind::Bare].into_iter().find(|kind| kind.name() == name)
    }
}

/// Specification of a node process.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) kind: Kind,
    pub(crate) endpoint: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// State of a node, which its process prints whenever it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Number of nodes in the newest version, if it is stable.
    pub(crate) stable: Option<usize>,
    /// True if the node leads.
    pub(crate) leads: bool,
    /// Time since which `stable` has this value.
    pub(crate) since: Moment,
}

impl State {
    /// Prints the state if it is a new one.
    pub(crate) fn update(&mut self, clock: &Clock, stable: Option<usize>, leads: bool) {
        if (self.stable, self.leads) == (stable, leads) {
            return;
        }
        let since = if self.stable == stable { self.since } else { clock.now() };
        *self = State { stable, leads, since };
        println!("{}", serde_json::to_string(self).expect("a state can be serialized"));
    }
}

/// A node process, which ends when this is dropped.
pub(crate) struct Node {
    child: Child,
    state: watch::Receiver<State>,
}

impl Node {
    fn start(spec: &Spec) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--node", spec.kind.name()]);
        command.args([&spec.endpoint, &spec.namespace, &spec.name]);
        // The process ends with its input, even if this process is killed.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let (states, state) = watch::channel(State::default());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let state = serde_json::from_str(&line).expect("a node prints only its states");
                states.send_replace(state);
            }
        });
        Ok(Node { child, state })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn leads(&self) -> bool {
        self.state.borrow().leads
    }

    /// Kills the process with `SIGKILL`.
    pub(crate) fn kill(mut self) -> Result<(), Box<dyn Error>> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until the node knows a stable version of this many nodes, and returns the time at which it learned of it.
    async fn stable(&self, nodes: usize) -> Result<Moment, Box<dyn Error>> {
        let mut state = self.state.clone();
        let waiting = state.wait_for(|state| state.stable == Some(nodes));
        let state = tokio::time::timeout(LONG, waiting).await;
        let state = state.map_err(|_| format!("no stable version of {nodes} nodes within {LONG:?}"))?;
        Ok(state.map_err(|_| "a node process ended")?.since)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster of processes on one etcd.
pub(crate) struct Cluster {
    spec: Spec,
    nodes: Vec<Node>,
    started: usize,
    /// Time of the last change.
    pub(crate) changed: Instant,
}

impl Cluster {
    /// Starts this many nodes, and waits until all know that the cluster is stable.
    pub(crate) async fn start(
        etcd: &EtcdServer,
        kind: Kind,
        name: &str,
        nodes: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let namespace = format!("{}/{name}/{nodes}", kind.name());
        let spec = Spec { kind, endpoint: etcd.endpoint(), namespace, name: String::new() };
        let mut cluster = Cluster { spec, nodes: Vec::new(), started: 0, changed: Instant::now() };
        for _ in 0..nodes {
            cluster.add()?;
        }
        cluster.stable().await?;
        Ok(cluster)
    }

    pub(crate) fn add(&mut self) -> Result<(), Box<dyn Error>> {
        let spec = Spec { name: format!("node-{:03}", self.started), ..self.spec.clone() };
        self.nodes.push(Node::start(&spec)?);
        self.started += 1;
        Ok(())
    }

    /// Waits until all nodes know a stable version of all of them, and returns the time at which the last one learned
    /// of it.
    pub(crate) async fn stable(&mut self) -> Result<Moment, Box<dyn Error>> {
        let count = self.nodes.len();
        let all = self.nodes.iter().map(|node| node.stable(count));
        let times = futures_util::future::try_join_all(all).await?;
        self.changed = Instant::now();
        Ok(times.into_iter().max().unwrap_or_default())
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn take(&mut self, place: usize) -> Node {
        self.nodes.remove(place)
    }
}
