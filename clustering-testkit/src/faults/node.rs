use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use clustering_core::{
    Builder, Clustering, NodeName, Stabilization, Stable, Term, WeakClustering, store::CoordinationStore,
};
use tokio::sync::watch;

use super::{Faults, Line, Writer, host::Host, worker};
use crate::{
    conformance::Clock as StoreClock,
    history::{Clock, Entry, Journal, Moment, Observation},
};

/// Interval of the leader's writes.
const WRITE: Duration = Duration::from_millis(100);

/// Interval at which the suite asks a node whether it may act as leader.
const LOOK: Duration = Duration::from_millis(20);

/// Number of equal answers in a row that are recorded as one.
const NOTE: u32 = 10;

/// Settings of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) ttl: Duration,
    /// True if the leader writes all the time. Otherwise only the library uses the connection.
    pub(super) writes: bool,
    /// True if the node is exclusive and works on keys.
    pub(super) exclusive: bool,
}

/// One life of a node, isolated like a separate process as far as the test process allows.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) line: Arc<Line>,
    journal: Journal,
    entries: Arc<Entries>,
    host: Host,
    node: Arc<OnceLock<WeakClustering>>,
    /// Number of journal entries that [`next`](Self::next) has consumed.
    passed: Mutex<usize>,
}

/// Entries of a journal, which can be awaited.
#[derive(Default)]
struct Entries {
    all: Mutex<Vec<Entry>>,
    count: watch::Sender<usize>,
}

impl Entries {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, entry: &Entry) {
        self.lock().push(entry.clone());
        self.count.send_modify(|count| *count += 1);
    }
}

impl Node {
    /// Starts a node with its own handle to the store.
    pub(super) async fn start<F: Faults>(
        faults: Arc<F>,
        clock: Clock,
        namespace: &str,
        (name, number): (&str, u64),
        settings: Settings,
    ) -> Arc<Self> {
        let line = Arc::new(Line::through_proxies(&faults.addresses()).await);
        let parsed = NodeName::parse(name).expect("the suite uses valid names");
        let (entries, cell) = (Arc::<Entries>::default(), Arc::<OnceLock<WeakClustering>>::default());
        let kept = entries.clone();
        let sink = move |entry: &Entry| kept.push(entry);
        let journal = Journal::new(parsed, format!("{name}#{number}"), clock, sink);
        let life = Life {
            journal: journal.clone(),
            namespace: namespace.to_owned(),
            // Makes two runs identical under a paused clock.
            seed: (faults.bounds().clock == StoreClock::Paused).then_some(number),
            settings,
            cell: cell.clone(),
        };
        let to = line.clone();
        let store_clock = faults.bounds().clock;
        let run = move || async move { life.run(faults.open(&to).await).await };
        let host = Host::start(store_clock, name, run);
        let node = Node {
            name: name.to_owned(),
            line,
            journal,
            entries,
            host,
            node: cell,
            passed: Mutex::default(),
        };
        let node = Arc::new(node);
        tokio::spawn(look(Arc::downgrade(&node)));
        node
    }

    pub(super) async fn kill(&self) {
        self.host.kill().await;
        self.journal.kill();
    }

    pub(super) async fn pause(&self) {
        self.host.pause().await;
        self.note("was paused");
    }

    pub(super) fn resume(&self) {
        self.note("was resumed");
        self.host.resume();
    }

    fn note(&self, text: &str) {
        self.journal.note(Observation::Note { text: text.to_owned() });
    }

    /// Asks the node now if it may act as leader. Returns `None` if it has not started.
    pub(super) fn ask(&self) -> Option<Observation> {
        let node = self.node.get()?.upgrade()?;
        Some(self.journal.ask_leader(&node))
    }

    /// Returns the node's handle once it has started.
    pub(super) fn handle(&self) -> Option<Clustering> {
        self.node.get()?.upgrade()
    }

    pub(super) fn journal(&self) -> Vec<Entry> {
        self.journal.catch_up();
        self.entries.lock().clone()
    }

    /// Waits until the journal has an entry, after those that were passed, for which `pick` returns a value. Passes the
    /// entry.
    pub(super) async fn next_of<T>(&self, pick: impl Fn(&Entry) -> Option<T>) -> T {
        let mut count = self.entries.count.subscribe();
        loop {
            count.borrow_and_update();
            if let Some(picked) = self.try_next(&pick) {
                return picked;
            }
            // This node holds the sender, so waiting cannot fail.
            let _ = count.changed().await;
        }
    }

    fn try_next<T>(&self, pick: impl Fn(&Entry) -> Option<T>) -> Option<T> {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = self.entries.lock();
        let mut later = entries.iter().enumerate().skip(*passed);
        let (place, picked) = later.find_map(|(place, entry)| Some((place, pick(entry)?)))?;
        *passed = place + 1;
        Some(picked)
    }

    /// Makes [`next_of`](Self::next_of) skip all entries so far.
    pub(super) fn pass_all(&self) {
        self.journal.catch_up();
        let count = self.entries.lock().len();
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner) = count;
    }

    /// Returns the number of entries so far that match.
    pub(super) fn count(&self, is: impl Fn(&Observation) -> bool) -> usize {
        self.journal().iter().filter(|entry| is(&entry.observation)).count()
    }
}

/// Asks the node again and again if it may act as leader, also while it is paused. Records every changed answer
/// together with the last one before, and an unchanged positive answer from time to time.
async fn look(node: Weak<Node>) {
    let mut last: Option<(Moment, Observation)> = None;
    for number in 0_u32.. {
        let Some(node) = node.upgrade() else { return };
        if let Some(handle) = node.handle() {
            let (at, look) = node.journal.look(&handle);
            let before = last.replace((at, look.clone()));
            let is_changed = before.as_ref().map(|(_, before)| term(before)) != Some(term(&look));
            if is_changed {
                before.into_iter().for_each(|(at, before)| node.journal.note_at(at, before));
            }
            if is_changed || term(&look).is_some() && number.is_multiple_of(NOTE) {
                node.journal.note_at(at, look);
            }
        }
        drop(node);
        tokio::time::sleep(LOOK).await;
    }
}

fn term(look: &Observation) -> Option<Term> {
    match look {
        Observation::AskedLeader { term, .. } => *term,
        _ => None,
    }
}

/// Runs one life of a node.
struct Life {
    journal: Journal,
    namespace: String,
    seed: Option<u64>,
    settings: Settings,
    cell: Arc<OnceLock<WeakClustering>>,
}

impl Life {
    async fn run(self, store: Arc<dyn CoordinationStore>) {
        let Settings { ttl, writes, exclusive } = self.settings;
        let name = self.journal.node().to_string();
        let builder = Clustering::builder(self.journal.store(store))
            .namespace(&self.namespace)
            .uri(format!("http://{name}.test:80"))
            .name(name)
            .ttl(ttl);
        let builder = self.seed.into_iter().fold(builder, Builder::seed);
        let builder = if exclusive { builder.exclusive(worker::SLOTS) } else { builder };
        let builder = self.journal.attach(builder, |_: Stabilization| async {}, |_: Stable| async {});
        let node = match builder.start().await {
            Ok(node) => node,
            Err(error) => {
                return self.journal.note(Observation::Note { text: format!("did not start: {error}") });
            }
        };
        let _ = self.cell.set(node.downgrade());
        let writing = async {
            match writes {
                true => Writer::new(self.journal.clone(), node.clone(), None).write(WRITE).await,
                false => std::future::pending().await,
            }
        };
        let working = async {
            match exclusive {
                true => worker::work(self.journal.clone(), node.clone()).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = node.ended() => self.journal.note(Observation::Note { text: format!("ended: {ended:?}") }),
            () = writing => {}
            () = working => {}
        }
    }
}
