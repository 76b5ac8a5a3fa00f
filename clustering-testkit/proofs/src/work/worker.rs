use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use clustering_core::{Clustering, Hold, WeakClustering, slots::SlotSet};
use clustering_testkit::history::{Moment, WriteOutcome};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::sleep};

use super::{
    Event, FencedFile, Log, Place,
    counter::{Counter, Step},
};

/// Interval at which a worker checks whether its hold is valid.
const LOOK: Duration = Duration::from_millis(20);

/// Interval at which a worker records that its hold is still valid.
const NOTE: Duration = Duration::from_millis(100);

/// Pause before the next attempt after a key was not held or the store was unavailable.
const AGAIN: Duration = Duration::from_millis(20);

/// Work of a node on exclusive keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkSpec {
    /// Number of slots.
    pub slots: u16,
    /// Number of keys. Each node tries to hold all of them.
    pub keys: u16,
    /// Path of the log.
    pub log: PathBuf,
    /// Folder of the [`FencedFile`]s, shared by all nodes.
    pub files: PathBuf,
    /// Interval between increments of a key.
    pub every: Duration,
    /// Time for which a worker continues after its hold is lost.
    pub lingers: Duration,
    /// Duration of the `release` callback. `None` means that there is no callback.
    pub release_takes: Option<Duration>,
    /// Deliberate fault of the workers, to test that the fault is detected.
    pub breach: Option<Breach>,
}

/// Deliberate faults of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Breach {
    /// Work continues after the hold is lost and void.
    GoesOn,
    /// Like [`GoesOn`](Self::GoesOn), and increments in the store are not committed as owner.
    Unfenced,
}

impl WorkSpec {
    /// Creates work on 6 keys in 16 slots, each incremented about 7 times a second, that ends 50 ms after a hold is
    /// lost.
    pub fn new(log: impl Into<PathBuf>, files: impl Into<PathBuf>) -> Self {
        WorkSpec {
            slots: 16,
            keys: 6,
            log: log.into(),
            files: files.into(),
            every: Duration::from_millis(150),
            lingers: Duration::from_millis(50),
            release_takes: None,
            breach: None,
        }
    }

    /// Returns the keys.
    pub fn keys(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.keys).map(|number| format!("device-{number}"))
    }
}

/// The running workers of a node. They end when this value is dropped.
pub(crate) struct Workers(JoinSet<()>);

impl Workers {
    /// Starts a worker for each key.
    ///
    /// # Panics
    ///
    /// Panics if the log cannot be written, or outside of a tokio runtime.
    pub(crate) fn begin(spec: &WorkSpec, life: &str, node: &Clustering) -> Self {
        let log = Log::append(&spec.log)
            .unwrap_or_else(|error| panic!("the log {} cannot be written: {error}", spec.log.display()));
        let mut tasks = JoinSet::new();
        tasks.spawn(note_slots(log.clone(), node.downgrade()));
        for key in spec.keys() {
            let worker = Worker {
                spec: spec.clone(),
                life: life.to_owned(),
                key,
                node: node.clone(),
                log: log.clone(),
                number: AtomicU64::new(0),
            };
            tasks.spawn(worker.run());
        }
        Workers(tasks)
    }

    /// Ends the work.
    pub(crate) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

/// Records the node's slots whenever they change.
async fn note_slots(log: Log, node: WeakClustering) {
    let mut last = None;
    while let Some(node) = node.upgrade() {
        if let Some(view) = node.status().get().newest.clone() {
            let owned = view.me().map(|me| view.slots_of(me)).unwrap_or_default();
            let slots = (view.version(), node.held_slots(), owned);
            if last.as_ref() != Some(&slots) {
                let (version, held, owned) = (slots.0, numbers(&slots.1), numbers(&slots.2));
                log.note(Event::Slots { version, held, owned });
                last = Some(slots);
            }
        }
        drop(node);
        sleep(LOOK).await;
    }
}

fn numbers(slots: &SlotSet) -> Vec<u16> {
    slots.iter().map(|slot| slot.number()).collect()
}

/// Works on one key whenever the node holds it.
struct Worker {
    spec: WorkSpec,
    life: String,
    key: String,
    node: Clustering,
    log: Log,
    /// Number of increments so far, for their ids.
    number: AtomicU64,
}

impl Worker {
    async fn run(self) {
        // True while an increment in the store may still take effect.
        let mut unsure = false;
        loop {
            if let Ok(hold) = self.node.wait_hold(&self.key).await {
                self.log.note(Event::Began { key: self.key.clone(), token: hold.token().get() });
                self.work(&hold, &mut unsure).await;
                self.log.note(Event::Ended { key: self.key.clone() });
            }
            sleep(AGAIN).await;
        }
    }

    /// Works until some time after the hold is lost, or until it is void.
    async fn work(&self, hold: &Hold, unsure: &mut bool) {
        let mut looks = Looks { log: &self.log, key: &self.key, valid: None, noted: Moment::default() };
        if self.spec.breach.is_some() {
            tokio::select! {
                () = self.increment(hold, unsure) => {}
                () = looks.pretend() => {}
            }
        }
        let end = async {
            hold.lost().await;
            sleep(self.spec.lingers).await;
        };
        tokio::select! {
            biased;
            () = looks.until_void(hold) => {}
            () = end => {}
            () = self.increment(hold, unsure) => {}
        }
        looks.last(hold);
    }

    /// Increments both counters again and again.
    async fn increment(&self, hold: &Hold, unsure: &mut bool) {
        let file = FencedFile::load(self.spec.files.join(&self.key), hold.token().get());
        let Some(mut file) = file.expect("the file can be loaded") else {
            self.surprised(hold, "the file has seen a larger token".to_owned());
            return std::future::pending().await;
        };
        loop {
            let mut counter = self.load().await;
            loop {
                sleep(self.spec.every).await;
                self.increment_file(&mut file);
                if !self.increment_store(&mut counter, hold, unsure).await {
                    break;
                }
            }
        }
    }

    async fn load(&self) -> Counter {
        loop {
            let unfenced = self.spec.breach == Some(Breach::Unfenced);
            match Counter::load(&self.node, &self.key, unfenced).await {
                Ok(counter) => return counter,
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    fn increment_file(&self, file: &mut FencedFile) {
        let id = self.trying(Place::File);
        let outcome = match file.increment(&id) {
            Ok(true) => WriteOutcome::Done(clustering_core::store::Revision::ZERO),
            Ok(false) => WriteOutcome::Refused("the token is too small".to_owned()),
            Err(error) => WriteOutcome::Unknown(error.to_string()),
        };
        self.tried(Place::File, id, outcome);
    }

    /// Increments the counter in the store. Returns false if the counter must be loaded again.
    async fn increment_store(&self, counter: &mut Counter, hold: &Hold, unsure: &mut bool) -> bool {
        let id = self.trying(Place::Store);
        let was_unsure = std::mem::replace(unsure, true);
        let step = counter.increment(&self.node, hold, &id).await;
        let (outcome, goes_on) = match step {
            Step::Changed(outcome) => {
                if !was_unsure {
                    self.surprised(hold, format!("the counter has changed before {id}"));
                }
                // An earlier increment that was still in flight cannot apply any more, or has applied and will be
                // loaded.
                *unsure = was_unsure;
                (outcome, false)
            }
            Step::Made(outcome) => {
                match &outcome {
                    WriteOutcome::Done(_) => *unsure = false,
                    WriteOutcome::Refused(_) => *unsure = was_unsure,
                    WriteOutcome::Unknown(_) => {}
                }
                let goes_on = !matches!(outcome, WriteOutcome::Unknown(_));
                (outcome, goes_on)
            }
        };
        self.tried(Place::Store, id, outcome);
        goes_on
    }

    fn trying(&self, place: Place) -> String {
        let id = format!("{}-{}", self.life, self.number.fetch_add(1, Ordering::Relaxed));
        self.log.note(Event::Trying { key: self.key.clone(), place, id: id.clone() });
        id
    }

    fn tried(&self, place: Place, id: String, outcome: WriteOutcome) {
        self.log.note(Event::Tried { key: self.key.clone(), place, id, outcome });
    }

    /// Records a change by another process, which is a violation only if the hold is still valid.
    fn surprised(&self, hold: &Hold, what: String) {
        if hold.is_valid() {
            self.log.note(Event::Surprised { key: self.key.clone(), what });
        }
    }
}

/// Checks of a hold. The time is taken before each check, so that the hold was valid at that time.
struct Looks<'a> {
    log: &'a Log,
    key: &'a str,
    /// The last check at which the hold was valid, if it is not recorded.
    valid: Option<Moment>,
    noted: Moment,
}

impl Looks<'_> {
    async fn until_void(&mut self, hold: &Hold) {
        loop {
            let at = self.log.now();
            if !hold.is_valid() {
                return;
            }
            self.valid_at(at);
            sleep(LOOK).await;
        }
    }

    /// Records that the hold is valid without checking.
    async fn pretend(&mut self) {
        loop {
            self.valid_at(self.log.now());
            sleep(LOOK).await;
        }
    }

    fn valid_at(&mut self, at: Moment) {
        self.valid = Some(at);
        if at.since(self.noted) >= NOTE {
            self.note();
        }
    }

    fn note(&mut self) {
        if let Some(at) = self.valid.take() {
            self.noted = at;
            self.log.note_at(at, Event::Valid { key: self.key.to_owned() });
        }
    }

    /// Records the last successful check before the hold is dropped.
    fn last(&mut self, hold: &Hold) {
        let at = self.log.now();
        if hold.is_valid() {
            self.valid = Some(at);
        }
        self.note();
    }
}
