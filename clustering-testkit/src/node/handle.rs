use std::{
    io,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use clustering_core::{NodeName, store::CoordinationStore};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{Condition, NodeSpec, run, spec::VARIABLE};
use crate::{
    history::{self, Clock, Entry, Observation},
    network::Network,
    process::{Process, ProcessBuilder},
};

/// Between two looks into the file of a journal.
const LOOK: Duration = Duration::from_millis(20);

/// A node that a test started: a process of its own, or a task.
#[derive(Debug)]
pub struct Node {
    spec: NodeSpec,
    body: Body,
    /// How many of its entries [`next`](Self::next) has passed.
    passed: Mutex<usize>,
    /// What the test did to it.
    fate: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
enum Body {
    Process(Process),
    Task { stop: Mutex<Option<oneshot::Sender<()>>>, task: Mutex<Option<JoinHandle<()>>> },
}

impl NodeSpec {
    /// Runs it as a process: this test binary again, whose `main` must look for it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn spawn(self) -> io::Result<Node> {
        self.spawn_by(Process::builder(std::env::current_exe()?))
    }

    /// Runs it as a process in a network of its own.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn spawn_in(self, network: &Network) -> io::Result<Node> {
        self.spawn_by(network.process(std::env::current_exe()?))
    }

    fn spawn_by(self, process: ProcessBuilder) -> io::Result<Node> {
        let process = process.env(VARIABLE, self.to_env()).spawn()?;
        Ok(Node::new(self, Body::Process(process)))
    }

    /// Runs it as a task of this process.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn spawn_task(self, store: impl CoordinationStore) -> Node {
        let (stop, stopped) = oneshot::channel();
        let spec = self.clone();
        let task = tokio::spawn(async move {
            // Dropping the sender is no wish to stop.
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

    /// What it is and does.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its process, if it is one.
    pub fn process(&self) -> Option<&Process> {
        match &self.body {
            Body::Process(process) => Some(process),
            Body::Task { .. } => None,
        }
    }

    /// Stops it in its tracks, as `SIGSTOP` does.
    ///
    /// # Panics
    ///
    /// If it is a task, or the system does not let us.
    pub fn pause(&self) {
        self.expect_process().pause().expect("the node can be paused");
        self.note(Observation::Note { text: "was paused".to_owned() });
    }

    /// Lets it go on.
    ///
    /// # Panics
    ///
    /// If it is a task, or the system does not let us.
    pub fn resume(&self) {
        self.note(Observation::Note { text: "was resumed".to_owned() });
        self.expect_process().resume().expect("the node can be resumed");
    }

    /// Ends it at once, as `kill -9` does.
    ///
    /// # Panics
    ///
    /// If it is a task, or the system does not let us.
    pub async fn kill(&self) {
        self.expect_process().kill().await.expect("the node can be killed");
        self.note(Observation::Killed);
    }

    /// From now on its health check finds it so.
    ///
    /// # Panics
    ///
    /// If the file that tells it cannot be written.
    pub fn set_condition(&self, condition: Condition) {
        self.note(Observation::Note { text: format!("its condition is to be {condition:?}") });
        self.spec.write_condition(condition).expect("the condition can be written");
    }

    fn expect_process(&self) -> &Process {
        self.process().expect("a task cannot be paused or killed by itself")
    }

    /// Tells it to leave, and waits until it has.
    ///
    /// # Panics
    ///
    /// If the system does not let us wait.
    pub async fn stop(&self) {
        match &self.body {
            Body::Process(process) => {
                process.terminate().expect("the node can be told to end");
                process.wait().await.expect("the node ends");
            }
            Body::Task { stop, task } => {
                let stop = stop.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(stop) = stop {
                    // An error only says that it has ended.
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
        let node = NodeName::parse(&self.spec.name).expect("the name of a node");
        let entry = Entry { at: Clock::boot().now(), node, life: (&*self.spec.life).into(), observation };
        self.fate.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Its journal so far, and what the test did to it, in that order.
    ///
    /// # Panics
    ///
    /// If the journal is none.
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

    /// Waits for the next entry of which `pick` makes something, after the last that this returned.
    ///
    /// # Panics
    ///
    /// If it does not come in time; with the end of the journal.
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
                    "{} did not write within {within:?}: {what}; it wrote{}\n{log}",
                    self.spec.life,
                    tail.concat()
                );
            }
        }
    }

    /// Waits for the next entry that is so, after the last that this returned.
    ///
    /// # Panics
    ///
    /// If it does not come in time; with the end of the journal.
    pub async fn next(&self, what: &str, within: Duration, is: impl Fn(&Observation) -> bool) -> Entry {
        self.next_of(what, within, |entry| is(&entry.observation).then(|| entry.clone())).await
    }

    /// From now on [`next`](Self::next) looks for what is written after this.
    pub fn pass_all(&self) {
        let written = self.written().len();
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner) = written;
    }

    /// How many entries are so.
    pub fn count(&self, is: impl Fn(&Observation) -> bool) -> usize {
        self.written().iter().filter(|entry| is(&entry.observation)).count()
    }
}

/// A task does not outlive its node either.
impl Drop for Node {
    fn drop(&mut self) {
        if let Body::Task { task, .. } = &self.body
            && let Some(task) = task.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            task.abort();
        }
    }
}
