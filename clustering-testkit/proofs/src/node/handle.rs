use std::{
    io,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use clustering_core::{NodeName, store::CoordinationStore};
use clustering_testkit::{
    history::{self, Clock, Entry, Observation},
    process::{Process, ProcessBuilder},
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{Condition, NodeSpec, run, spec::VARIABLE};
use crate::network::Network;

/// Interval at which a journal file is polled.
const LOOK: Duration = Duration::from_millis(20);

/// A node that a test started, as a process or as a task.
#[derive(Debug)]
pub struct Node {
    spec: NodeSpec,
    body: Body,
    /// Number of journal entries that [`next`](Self::next) has consumed.
    passed: Mutex<usize>,
    /// Actions of the test on the node, as journal entries.
    fate: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
enum Body {
    Process(Process),
    Task { stop: Mutex<Option<oneshot::Sender<()>>>, task: Mutex<Option<JoinHandle<()>>> },
}

impl NodeSpec {
    /// Runs the node as a process, with the test's own binary. The binary's `main` must call [`NodeSpec::from_env`].
    ///
    /// # Errors
    ///
    /// Returns an error if the process cannot be started.
    pub fn spawn(self) -> io::Result<Node> {
        self.spawn_by(Process::builder(std::env::current_exe()?))
    }

    /// Runs the node as a process in its own network.
    ///
    /// # Errors
    ///
    /// Returns an error if the process cannot be started.
    pub fn spawn_in(self, network: &Network) -> io::Result<Node> {
        self.spawn_by(network.process(std::env::current_exe()?))
    }

    fn spawn_by(self, process: ProcessBuilder) -> io::Result<Node> {
        let process = process.env(VARIABLE, self.to_env()).spawn()?;
        Ok(Node::new(self, Body::Process(process)))
    }

    /// Runs the node as a task of this process.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn spawn_task(self, store: impl CoordinationStore) -> Node {
        let (stop, stopped) = oneshot::channel();
        let spec = self.clone();
        let task = tokio::spawn(async move {
            // If the sender is dropped, the node keeps running.
            let stop = async move {
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let ended = run::run(&spec, store, stop).await;
            println!("{} ended: {ended:?}", spec.life);
        });
        Node::new(self, Body::Task { stop: Mutex::new(Some(stop)), task: Mutex::new(Some(task)) })
    }
}

impl Node {
    fn new(spec: NodeSpec, body: Body) -> Self {
        Node { spec, body, passed: Mutex::default(), fate: Mutex::default() }
    }

    /// Returns the node's specification.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// Returns the node's name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Returns the node's process, or `None` if the node is a task.
    pub fn process(&self) -> Option<&Process> {
        match &self.body {
            Body::Process(process) => Some(process),
            Body::Task { .. } => None,
        }
    }

    /// Freezes the node with `SIGSTOP`.
    ///
    /// # Panics
    ///
    /// Panics if the node is a task, or if the process cannot be paused.
    pub fn pause(&self) {
        self.expect_process().pause().expect("the node can be paused");
        self.note(Observation::Note { text: "was paused".to_owned() });
    }

    /// Resumes the node after [`pause`](Self::pause).
    ///
    /// # Panics
    ///
    /// Panics if the node is a task, or if the process cannot be resumed.
    pub fn resume(&self) {
        self.note(Observation::Note { text: "was resumed".to_owned() });
        self.expect_process().resume().expect("the node can be resumed");
    }

    /// Kills the node with `SIGKILL`.
    ///
    /// # Panics
    ///
    /// Panics if the node is a task, or if the process cannot be killed.
    pub async fn kill(&self) {
        self.expect_process().kill().await.expect("the node can be killed");
        self.note(Observation::Killed);
    }

    /// Sets the result of the node's health check from now on.
    ///
    /// # Panics
    ///
    /// Panics if the condition file cannot be written.
    pub fn set_condition(&self, condition: Condition) {
        self.note(Observation::Note { text: format!("condition set to {condition:?}") });
        self.spec.write_condition(condition).expect("the condition can be written");
    }

    fn expect_process(&self) -> &Process {
        self.process().expect("a task cannot be paused or killed by itself")
    }

    /// Tells the node to leave the cluster and end, and waits until it has ended.
    ///
    /// # Panics
    ///
    /// Panics if the node cannot be told to end or its end cannot be observed, or if its task panicked.
    pub async fn stop(&self) {
        match &self.body {
            Body::Process(process) => {
                process.terminate().expect("the process can be signalled");
                process.wait().await.expect("the end of the process can be observed");
            }
            Body::Task { stop, task } => {
                let stop = stop.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(stop) = stop {
                    // An error only means that the node has already ended.
                    let _ = stop.send(());
                }
                let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(task) = task {
                    task.await.expect("the node ends without a panic");
                }
            }
        }
    }

    fn note(&self, observation: Observation) {
        let node = NodeName::parse(&self.spec.name).expect("the node name is valid");
        let entry = Entry { at: Clock::boot().now(), node, life: (&*self.spec.life).into(), observation };
        self.fate.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Returns the journal so far, followed by what the test did to the node.
    ///
    /// # Panics
    ///
    /// Panics if the journal cannot be read.
    pub fn journal(&self) -> Vec<Entry> {
        let mut entries = self.written();
        entries.extend(self.fate.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        entries
    }

    fn written(&self) -> Vec<Entry> {
        if !Path::new(&self.spec.journal).exists() {
            return Vec::new();
        }
        history::read(&self.spec.journal)
            .unwrap_or_else(|error| panic!("the journal of {}: {error}", self.spec.life))
    }

    /// Waits for the next journal entry for which `pick` returns a value. Starts after the last entry returned by this
    /// method.
    ///
    /// # Panics
    ///
    /// Panics if there is no such entry in time, with the end of the journal in the message.
    pub async fn next_of<T>(&self, what: &str, within: Duration, pick: impl Fn(&Entry) -> Option<T>) -> T {
        let find = async {
            loop {
                let entries = self.written();
                {
                    let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
                    let all = entries.iter().enumerate().skip(*passed);
                    if let Some((place, picked)) =
                        all.filter_map(|(place, entry)| Some((place, pick(entry)?))).next()
                    {
                        *passed = place + 1;
                        return picked;
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(within, find).await {
            Ok(found) => found,
            Err(_) => {
                let entries = self.written();
                let tail: Vec<_> =
                    entries.iter().rev().take(40).rev().map(|entry| format!("\n  {entry}")).collect();
                let log = self.process().map(Process::log).unwrap_or_default();
                panic!(
                    "{} did not record this within {within:?}: {what}; last entries:{}\n{log}",
                    self.spec.life,
                    tail.concat()
                );
            }
        }
    }

    /// Waits for the next journal entry whose observation matches. Starts after the last entry returned by this method.
    ///
    /// # Panics
    ///
    /// Panics if there is no such entry in time, with the end of the journal in the message.
    pub async fn next(&self, what: &str, within: Duration, is: impl Fn(&Observation) -> bool) -> Entry {
        self.next_of(what, within, |entry| is(&entry.observation).then(|| entry.clone())).await
    }

    /// Makes [`next`](Self::next) skip all entries written so far.
    pub fn pass_all(&self) {
        let written = self.written().len();
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner) = written;
    }

    /// Returns the number of journal entries whose observation matches.
    pub fn count(&self, is: impl Fn(&Observation) -> bool) -> usize {
        self.written().iter().filter(|entry| is(&entry.observation)).count()
    }
}

/// Aborts a node that runs as a task. A process ends when its own handle is dropped.
impl Drop for Node {
    fn drop(&mut self) {
        if let Body::Task { task, .. } = &self.body
            && let Some(task) = task.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            task.abort();
        }
    }
}
