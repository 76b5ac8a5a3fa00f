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

/// Where a journal's entries go.
pub trait Sink: Send {
    /// Takes an entry down. When it returns, the entry must outlive the process as far as the sink's kind allows.
    fn take(&mut self, entry: &Entry);
}

/// Any closure is a sink.
impl<F: FnMut(&Entry) + Send> Sink for F {
    fn take(&mut self, entry: &Entry) {
        self(entry);
    }
}

/// Appends entries to a file, one JSON object a line, each with one write: what was taken down is there also after the
/// process was killed, up to the last whole line.
#[derive(Debug)]
pub struct FileSink(File);

impl FileSink {
    /// Opens the file, and creates it if need be.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn append(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(FileSink)
    }
}

impl Sink for FileSink {
    fn take(&mut self, entry: &Entry) {
        let mut line = serde_json::to_vec(entry).expect("entries are plain objects");
        line.push(b'\n');
        self.0.write_all(&line).expect("the journal can be written");
    }
}

/// Reads a journal that a [`FileSink`] wrote. A last line without an end is left out: its writer was killed.
///
/// # Errors
///
/// What the file system says; [`io::ErrorKind::InvalidData`] for a whole line that is no entry.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<Entry>> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut entries, mut line) = (Vec::new(), String::new());
    while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
        entries.push(serde_json::from_str(&line)?);
        line.clear();
    }
    Ok(entries)
}

/// Takes down what one life of a node sees and does.
///
/// It hears of events by a task, and of callbacks in them. Before it takes down anything else, it takes down the events
/// that have come: so events stand in the order in which the node went through them, and what a callback was given stands
/// after all events that came before it was called.
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
    /// Whether the life was killed: what comes later did not happen to it.
    closed: bool,
}

impl Journal {
    /// One of that life of that node.
    pub fn new(node: NodeName, life: impl Into<Life>, clock: Clock, sink: impl Sink + 'static) -> Self {
        let state = Mutex::new(State { sink: Box::new(sink), events: None, closed: false });
        Journal { shared: Arc::new(Shared { node, life: life.into(), clock, state }) }
    }

    /// One in memory, and where to read it.
    pub fn in_memory(node: NodeName, life: impl Into<Life>, clock: Clock) -> (Self, Arc<Mutex<Vec<Entry>>>) {
        let entries = Arc::<Mutex<Vec<Entry>>>::default();
        let kept = entries.clone();
        let keep = move |entry: &Entry| {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
        };
        (Journal::new(node, life, clock, keep), entries)
    }

    /// The node.
    pub fn node(&self) -> &NodeName {
        &self.shared.node
    }

    /// Which life of it.
    pub fn life(&self) -> &Life {
        &self.shared.life
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Takes something down, as of now.
    pub fn note(&self, observation: Observation) {
        let mut state = self.drained();
        self.take(&mut state, self.shared.clock.now(), observation);
    }

    /// Takes something down, as of an earlier moment.
    pub fn note_at(&self, at: super::Moment, observation: Observation) {
        let mut state = self.drained();
        self.take(&mut state, at, observation);
    }

    /// Takes down the events that have come: without that the last may be missing.
    pub fn catch_up(&self) {
        drop(self.drained());
    }

    /// The life was ended from outside: that is the last thing that is taken down.
    pub fn kill(&self) {
        self.note(Observation::Killed);
        self.state().closed = true;
    }

    /// Asks the node whether it may act as leader, and takes the answer down.
    pub fn ask_leader(&self, cluster: &Clustering) -> Observation {
        let (at, answer) = self.look(cluster);
        self.note_at(at, answer.clone());
        answer
    }

    /// Asks the node whether it may act as leader. The moment is one before the question.
    pub fn look(&self, cluster: &Clustering) -> (super::Moment, Observation) {
        let at = self.shared.clock.now();
        // In this order: the time left belongs to that term or to an earlier one, and counts from a moment that is no later
        // than that of the question.
        let left = cluster.leadership_left();
        let (term, until) = (cluster.term(), at + left);
        (at, Observation::AskedLeader { term, until: term.map(|_| until) })
    }

    /// The store that the node is to be built on: it takes down grants and renewals.
    pub fn store(&self, store: impl CoordinationStore) -> RecordingStore {
        RecordingStore::new(store, self.clone())
    }

    /// Sets the user's callbacks, and takes down what the node that is built sees and does. To be called last: what is
    /// set on the builder afterwards may be missed.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn attach<S, SR, A, AR>(&self, builder: Builder, stabilize: S, on_stable: A) -> Builder
    where
        S: Fn(Stabilization) -> SR + Send + Sync + 'static,
        SR: Future<Output: IntoOutcome> + Send + 'static,
        A: Fn(Stable) -> AR + Send + Sync + 'static,
        AR: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.attach_to(builder.stabilize(stabilize).on_stable(on_stable))
    }

    /// As [`attach`](Self::attach), for a builder that has its callbacks.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
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
        // A subscription of its own only tells when there is something to take down.
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

    /// The user's future, whose end is taken down, however it ends.
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

    /// Takes down the events that have come.
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

/// Takes down the end of a callback; if it is dropped, that.
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
