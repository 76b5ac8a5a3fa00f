use std::{
    fmt,
    fs::{File, OpenOptions},
    future::Future,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clustering_core::{
    Builder, Clustering, Events, EventsError, HealthChecks, IntoOutcome, NameConflict, NodeName, Outcome,
    Stabilization, Stable, store::CoordinationStore,
};

use super::{Clock, Ending, Entry, Life, Member, Observation, RecordingStore};

/// Destination of a journal's entries.
pub trait Sink: Send {
    /// Records an entry. When this returns, the entry must be as durable as this kind of sink permits.
    fn take(&mut self, entry: &Entry);
}

/// Any closure that takes an entry is a sink.
impl<F: FnMut(&Entry) + Send> Sink for F {
    fn take(&mut self, entry: &Entry) {
        self(entry);
    }
}

/// Appends entries to a file as JSON objects, one per line, each with a single write. After the process is killed, the
/// file still has all whole lines written before.
#[derive(Debug)]
pub struct FileSink(File);

impl FileSink {
    /// Opens the file for appending, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns the file system's error.
    pub fn append(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(FileSink)
    }
}

impl Sink for FileSink {
    fn take(&mut self, entry: &Entry) {
        let mut line = serde_json::to_vec(entry).expect("entries are plain objects");
        line.push(b'\n');
        self.0.write_all(&line).expect("writing to the journal failed");
    }
}

/// Reads a journal written by a [`FileSink`]. An incomplete last line, left by a killed writer, is ignored.
///
/// # Errors
///
/// Returns the file system's error, or [`io::ErrorKind::InvalidData`] for a complete line that is not an entry.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<Entry>> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut entries, mut line) = (Vec::new(), String::new());
    while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
        entries.push(serde_json::from_str(&line)?);
        line.clear();
    }
    Ok(entries)
}

/// Records what one life of a node sees and does.
///
/// A task receives the node's events and records them. Before recording anything else, the journal records all events
/// that have already arrived. Events are therefore recorded in the order in which they occurred, and the start of a
/// callback comes after all events that preceded it.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    node: NodeName,
    life: Life,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    sink: Box<dyn Sink>,
    events: Option<Events>,
    /// True once the life was killed. Later observations do not belong to it.
    closed: bool,
}

impl Journal {
    /// Creates a journal for this life of the node.
    pub fn new(node: NodeName, life: impl Into<Life>, clock: Clock, sink: impl Sink + 'static) -> Self {
        let state = Mutex::new(State { sink: Box::new(sink), events: None, closed: false });
        Journal { shared: Arc::new(Shared { node, life: life.into(), clock, state }) }
    }

    /// Creates a journal in memory, and returns it with its list of entries.
    pub fn in_memory(node: NodeName, life: impl Into<Life>, clock: Clock) -> (Self, Arc<Mutex<Vec<Entry>>>) {
        let entries = Arc::<Mutex<Vec<Entry>>>::default();
        let kept = entries.clone();
        let keep = move |entry: &Entry| {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
        };
        (Journal::new(node, life, clock, keep), entries)
    }

    /// Returns the node's name.
    pub fn node(&self) -> &NodeName {
        &self.shared.node
    }

    /// Returns the life of the node that this journal records.
    pub fn life(&self) -> &Life {
        &self.shared.life
    }

    /// Returns the clock that the journal uses.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Records an observation with the current time.
    pub fn note(&self, observation: Observation) {
        let mut state = self.drained();
        self.take(&mut state, self.shared.clock.now(), observation);
    }

    /// Records an observation with an earlier time.
    pub fn note_at(&self, at: super::Moment, observation: Observation) {
        let mut state = self.drained();
        self.take(&mut state, at, observation);
    }

    /// Records all events that have arrived so far. Without this, the latest events may be missing from the journal.
    pub fn catch_up(&self) {
        drop(self.drained());
    }

    /// Records that the life was killed, and ignores all later observations.
    pub fn kill(&self) {
        self.note(Observation::Killed);
        self.state().closed = true;
    }

    /// Asks the node if it may act as leader, records the answer and returns it.
    pub fn ask_leader(&self, cluster: &Clustering) -> Observation {
        let (at, answer) = self.look(cluster);
        self.note_at(at, answer.clone());
        answer
    }

    /// Asks the node if it may act as leader, and returns the answer with a time just before the question.
    pub fn look(&self, cluster: &Clustering) -> (super::Moment, Observation) {
        let at = self.shared.clock.now();
        // The remaining time is read first: it belongs to that term or to an earlier one, and it counts from a moment
        // that is no later than that of the question.
        let left = cluster.leadership_left();
        let (term, until) = (cluster.term(), at + left);
        (at, Observation::AskedLeader { term, until: term.map(|_| until) })
    }

    /// Wraps a store to record grants and renewals of leases. The node must be built on the returned store.
    pub fn store(&self, store: impl CoordinationStore) -> RecordingStore {
        RecordingStore::new(store, self.clone())
    }

    /// Sets the user's callbacks, and records everything that the node built from the returned builder sees and does.
    /// Call this last: callbacks that are set on the builder afterwards are not recorded.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn attach<S, SR, A, AR>(&self, builder: Builder, stabilize: S, on_stable: A) -> Builder
    where
        S: Fn(Stabilization) -> SR + Send + Sync + 'static,
        SR: Future<Output: IntoOutcome> + Send + 'static,
        A: Fn(Stable) -> AR + Send + Sync + 'static,
        AR: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.attach_to(builder.stabilize(stabilize).on_stable(on_stable))
    }

    /// Records the node built from a builder whose callbacks are already set, like [`attach`](Self::attach).
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn attach_to(&self, builder: Builder) -> Builder {
        let (mut leadership, mut takes_over, mut checks) = (None, false, None);
        let builder = builder.configure(|config| {
            leadership = config.leadership;
            takes_over = config.name_conflict == NameConflict::TakeOver;
            checks = config.health;
        });
        self.note(Observation::Started { leadership, takes_over });
        if let Some(HealthChecks { interval, deadline, failures }) = checks {
            self.note(Observation::ChecksHealth { interval, deadline, failures });
        }
        self.state().events = Some(builder.events());
        // This second subscription only wakes the task when there is something to record.
        let mut waking = builder.events();
        let journal = self.clone();
        tokio::spawn(async move {
            while !matches!(waking.recv().await, Err(EventsError::Ended)) {
                journal.catch_up();
            }
            journal.catch_up();
        });
        let (stabilize, on_stable) = (builder.stabilize_given(), builder.on_stable_given());
        let builder = match checks {
            None => builder,
            Some(checks) => {
                let (journal, health) = (self.clone(), builder.health_given());
                let builder = builder.health(move || {
                    journal.note(Observation::CheckBegan);
                    journal.clone().run(health(()), |ending| Observation::CheckEnded { ending })
                });
                builder.configure(|config| config.health = Some(checks))
            }
        };
        let (journal, announcing) = (self.clone(), self.clone());
        builder
            .stabilize(move |stabilization: Stabilization| {
                journal.clone().stabilize(stabilization, &*stabilize)
            })
            .on_stable(move |stable: Stable| announcing.clone().on_stable(stable, &*on_stable))
    }

    fn stabilize<R>(self, stabilization: Stabilization, callback: &dyn Fn(Stabilization) -> R) -> Running
    where
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        let (view, version) = (stabilization.view(), stabilization.version());
        let attempt = stabilization.attempt();
        let (revision, nodes) = (view.revision(), Member::all(view));
        self.note(Observation::StabilizeBegan { version, revision, attempt, nodes });
        let given = stabilization.clone();
        self.run(callback(stabilization), move |ending| {
            let told = given.is_superseded();
            Observation::StabilizeEnded { version, attempt, ending, told }
        })
    }

    fn on_stable<R>(self, stable: Stable, callback: &dyn Fn(Stable) -> R) -> Running
    where
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        let (version, term) = (stable.version(), stable.term());
        self.note(Observation::OnStableBegan { version, term });
        self.run(callback(stable), move |ending| Observation::OnStableEnded { version, term, ending })
    }

    /// Wraps the user's future to record its end, however it ends.
    fn run<R>(self, running: R, ended: impl FnOnce(Ending) -> Observation + Send + 'static) -> Running
    where
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        let mut end = NoteEnd { journal: self, ended: Some(Box::new(ended)) };
        Box::pin(async move {
            let outcome = running.await.into_outcome();
            end.note(match &outcome {
                Outcome::Ready => Ending::Ready,
                Outcome::Refused { reason } => Ending::Refused(reason.clone()),
            });
            outcome
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the events that have arrived, and returns the locked state.
    fn drained(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        let Some(mut events) = state.events.take() else { return state };
        loop {
            let observation = match events.try_recv() {
                Ok(Some(event)) => Observation::from(&*event),
                Ok(None) => break,
                Err(EventsError::Missed(events)) => Observation::Missed { events },
                Err(EventsError::Ended) => return state,
            };
            self.take(&mut state, self.shared.clock.now(), observation);
        }
        state.events = Some(events);
        state
    }

    fn take(&self, state: &mut State, at: super::Moment, observation: Observation) {
        if state.closed {
            return;
        }
        let (node, life) = (self.shared.node.clone(), self.shared.life.clone());
        state.sink.take(&Entry { at, node, life, observation });
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Journal({}#{})", self.shared.node, self.shared.life)
    }
}

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type MakeEnd = Box<dyn FnOnce(Ending) -> Observation + Send>;

/// Records the end of a callback. If this is dropped before, it records that the callback was dropped.
struct NoteEnd {
    journal: Journal,
    ended: Option<MakeEnd>,
}

impl NoteEnd {
    fn note(&mut self, ending: Ending) {
        if let Some(ended) = self.ended.take() {
            self.journal.note(ended(ending));
        }
    }
}

impl Drop for NoteEnd {
    fn drop(&mut self) {
        self.note(Ending::Dropped);
    }
}
