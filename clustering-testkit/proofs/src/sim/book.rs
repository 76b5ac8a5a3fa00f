use std::{
    fmt::Display,
    hash::{Hash, Hasher},
};

use clustering_core::{Event, NodeName, store::Batch};
use clustering_testkit::{
    history::{Entry, Ledger, Life, Moment, Observation, Page, ledger::Content},
    promises::{Calm, Promises, Violation},
};

use super::{Counts, Reached, digest::Digest};

/// Records a run: passes events to the promise checkers immediately, hashes and counts them, and logs them in words if
/// requested.
#[derive(Debug)]
pub(super) struct Book {
    promises: Promises,
    digest: Digest,
    pub(super) counts: Counts,
    story: Option<Vec<String>>,
    broken: Option<Broken>,
}

/// Reason why a run was stopped.
#[derive(Debug)]
pub(super) enum Broken {
    Promise(Box<Violation>),
    Check(String),
}

impl Book {
    pub(super) fn new(namespace: &str, tell: bool) -> Self {
        Book {
            promises: Promises::new(namespace),
            digest: Digest::default(),
            counts: Counts::default(),
            story: tell.then(Vec::new),
            broken: None,
        }
    }

    pub(super) fn ledger(&self) -> &Ledger {
        self.promises.ledger()
    }

    /// Mixes something that distinguishes this run from others into the hash.
    pub(super) fn stir(&mut self, what: &(impl Hash + ?Sized)) {
        what.hash(&mut self.digest);
    }

    pub(super) fn hash(&self) -> u64 {
        self.digest.finish()
    }

    pub(super) fn is_told(&self) -> bool {
        self.story.is_some()
    }

    /// Adds a line to the log, if there is one.
    pub(super) fn tell(&mut self, at: Moment, who: impl Display, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let (who, line) = (who.to_string(), line());
            story.push(format!("{at:>12}  {who:<9} {line}"));
        }
    }

    pub(super) fn take_story(&mut self) -> Vec<String> {
        self.story.take().unwrap_or_default()
    }

    /// Records that a check failed. Only the first failure counts.
    pub(super) fn fail(&mut self, broken: String) {
        self.broken.get_or_insert(Broken::Check(broken));
    }

    pub(super) fn check(&mut self, result: Result<(), String>) {
        if let Err(broken) = result {
            self.fail(broken);
        }
    }

    fn judged(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.broken.get_or_insert(Broken::Promise(Box::new(violation)));
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    pub(super) fn take_broken(&mut self) -> Option<Broken> {
        self.broken.take()
    }

    /// Records a revision that the store committed.
    pub(super) fn commit(&mut self, now: Moment, batch: &Batch, by_hand: bool) {
        self.stir(&(now, batch.revision, batch.changes.len()));
        self.counts.revisions += 1;
        if by_hand {
            let by_hand = Page { at: Some(now), content: Content::ByHand(batch.revision) };
            let result = self.promises.turn(&by_hand);
            self.judged(result);
        }
        let stable = self.ledger().present().is_stable();
        let result = self.promises.turn(&Page::of(Some(now), batch.clone()));
        self.judged(result);
        if !stable && self.ledger().present().is_stable() {
            self.counts.note(Reached::Stable);
        }
        if self.ledger().present().newest().is_some_and(|newest| newest.revision == batch.revision) {
            self.counts.note(Reached::Version);
            if !stable && self.ledger().present().versions().len() > 1 {
                self.counts.note(Reached::SupersededBarrier);
            }
        }
    }

    /// Records that the store was restored to `history`.
    pub(super) fn rewind(&mut self, now: Moment, history: &[Batch]) {
        self.stir(&(now, history.len()));
        let pages = history.iter().map(|batch| Page::of(Some(now), batch.clone()));
        let era = Page { at: Some(now), content: Content::Era };
        for page in std::iter::once(era).chain(pages) {
            let result = self.promises.turn(&page);
            self.judged(result);
        }
    }

    /// Records something that a node saw or did.
    pub(super) fn observe(&mut self, at: Moment, node: &NodeName, life: &Life, observation: Observation) {
        let entry = Entry { at, node: node.clone(), life: life.clone(), observation };
        let result = self.promises.observe(&entry);
        self.judged(result);
    }

    /// Records an observation in the form of an entry.
    pub(super) fn entry(&mut self, entry: &Entry) {
        if self.is_told() {
            self.tell(entry.at, &entry.life, || format!("• {}", entry.observation));
        }
        let result = self.promises.observe(entry);
        self.judged(result);
    }

    /// Records an event of a node.
    pub(super) fn event(&mut self, at: Moment, node: &NodeName, life: &Life, event: &Event) {
        let reached = match event {
            Event::LeaderChanged { own: true, .. } => Some(Reached::Election),
            Event::Superseded { .. } => Some(Reached::SupersededRun),
            Event::StabilizeRefused { .. } => Some(Reached::RefusedRun),
            Event::SessionLost { .. } => Some(Reached::SessionLost),
            Event::Rejoined { .. } => Some(Reached::Rejoin),
            Event::NameHeld { .. } => Some(Reached::NameHeld),
            Event::LeadershipSuspended { .. } => Some(Reached::Suspended),
            Event::LeadershipResumed { .. } => Some(Reached::Resumed),
            Event::Evicted { .. } => Some(Reached::Evicted),
            Event::FalselyRemoved { .. } => Some(Reached::FalseAlarm),
            Event::Blocked(_) => Some(Reached::Blocked),
            Event::Unhealthy { .. } => Some(Reached::Unhealthy),
            Event::Healthy => Some(Reached::Healthy),
            Event::Resynced { rewound: true, .. } => Some(Reached::Rewound),
            Event::Resynced { .. } => Some(Reached::Resync),
            _ => None,
        };
        reached.into_iter().for_each(|reached| self.counts.note(reached));
        match event {
            // These events are frequent, and no promise depends on them.
            Event::NodeUp { .. } | Event::NodeDown { .. } | Event::NodeChanged { .. } => {}
            Event::StoreAway { .. } | Event::StoreBack { .. } | Event::StabilizeRefused { .. } => {}
            Event::SlotsAcquired { .. } | Event::SlotsLost { .. } | Event::ReleaseRefused { .. } => {}
            Event::StabilizeSlow { .. } | Event::AnnouncementSlow { .. } | Event::Malformed { .. } => {}
            event => self.observe(at, node, life, event.into()),
        }
    }

    pub(super) fn calm(&mut self, calm: &Calm) {
        let result = self.promises.calm(calm);
        self.judged(result);
    }
}

impl Broken {
    /// Returns the promise or check that failed, without details. Shrinking compares failures by it.
    pub(super) fn kind(&self) -> String {
        match self {
            Broken::Promise(violation) => violation.promise.to_owned(),
            Broken::Check(said) => said.split(':').next().unwrap_or_default().to_owned(),
        }
    }

    pub(super) fn words(&self) -> String {
        match self {
            Broken::Promise(violation) => format!(
                "{} is broken\n  expected: {}\n  found:    {}",
                violation.promise, violation.expected, violation.found
            ),
            Broken::Check(said) => said.clone(),
        }
    }
}
