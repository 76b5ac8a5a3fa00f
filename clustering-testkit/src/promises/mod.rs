//! Checkers of the promises P1 to P9, P11 and P12 over a [history](crate::history), each in its own file.
//!
//! [`Promises`] takes commits and observations one at a time and reports a broken promise at once, so a simulator can
//! check after every step. Pass a commit before the observations that depend on it, and the entries of each node in the
//! order of its journal. [`check`] does this for a recorded history: the ledger first, then the journals. When the
//! cluster has come to rest, [`Calm`] names the expected members, and the promises about the end are checked too.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use clustering_memory::{Clustering, MemoryStore, NodeName, Stabilization, Stable};
//! use clustering_testkit::{
//!     history::{Clock, Journal, ledger},
//!     promises::{Calm, check},
//! };
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (store, clock) = (MemoryStore::new(), Clock::tokio());
//! let follower = ledger::follow(store.clone(), "cluster", clock.clone());
//!
//! let (journal, entries) = Journal::in_memory(NodeName::parse("a")?, "a#1", clock);
//! let builder = Clustering::builder(journal.store(store)).name("a").uri("http://a");
//! let node = journal.attach(builder, |_: Stabilization| async {}, |_: Stable| async {}).start().await?;
//! node.wait_stable().await?;
//!
//! follower.settle().await?;
//! let journals = [entries.lock().unwrap().clone()];
//! check("cluster", &follower.pages(), &journals, Some(&Calm::of(["a"])))?;
//! # Ok(())
//! # }
//! ```

mod p11_health;
mod p12_one_holder;
mod p1_one_view_per_version;
mod p2_versions_go_forward;
mod p3_one_stabilize_at_a_time;
mod p4_stable_means_everyone;
mod p5_a_deposed_leader_cannot_write;
mod p5_increments;
mod p6_a_node_knows_in_time;
mod p7_it_comes_back_by_itself;
mod p8_progress;
pub mod p9_cost;
#[cfg(test)]
mod scene;
mod violation;

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
};

use clustering_core::NodeName;

pub use self::violation::Violation;
use self::violation::{Broken, Kept};
use crate::history::{
    Entry, Ledger, Moment, Observation, Page,
    ledger::{Commit, Content},
    timeline,
};

/// Maximum number of events that are kept for the timeline of a violation.
const KEPT: usize = 1000;

/// Maximum number of lines of a timeline.
const LINES: usize = 60;

/// A checker of one promise.
trait Promise: fmt::Debug + Send {
    /// Returns the promise's number and name.
    fn name(&self) -> &'static str;

    /// Checks a committed revision, which the ledger has already applied.
    fn commit(&mut self, _commit: &Commit, _ledger: &Ledger) -> Kept {
        Ok(())
    }

    /// Checks something that a node saw or did.
    fn observe(&mut self, _entry: &Entry, _ledger: &Ledger) -> Kept {
        Ok(())
    }

    /// Checks everything that is still in progress at the end of the history.
    fn end(&mut self, _ledger: &Ledger) -> Kept {
        Ok(())
    }

    /// Checks the state in which the cluster has come to rest.
    fn calm(&mut self, _calm: &Calm, _ledger: &Ledger) -> Kept {
        Ok(())
    }
}

/// Members that are expected when the cluster has come to rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calm {
    /// Names of the nodes.
    pub members: BTreeSet<NodeName>,
}

impl Calm {
    /// Expects exactly these nodes.
    ///
    /// # Panics
    ///
    /// Panics if a name is not a valid node name.
    pub fn of<N: AsRef<str>>(members: impl IntoIterator<Item = N>) -> Self {
        let name = |name: N| NodeName::parse(name.as_ref()).expect("a valid node name");
        Calm { members: members.into_iter().map(name).collect() }
    }
}

/// Checkers of the promises P1 to P8, P11 and P12 over the history of one cluster.
#[derive(Debug)]
pub struct Promises {
    ledger: Ledger,
    promises: Vec<Box<dyn Promise>>,
    story: VecDeque<(Option<Moment>, Happening)>,
}

/// Entry of a timeline. It is formatted only when needed, which is rare.
#[derive(Clone, Debug)]
enum Happening {
    Commit(Commit),
    Entry(Entry),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::Commit(commit) => commit.fmt(f),
            Happening::Entry(entry) => entry.fmt(f),
        }
    }
}

impl Promises {
    /// Creates checkers for the cluster in a namespace.
    pub fn new(namespace: &str) -> Self {
        Promises {
            ledger: Ledger::new(namespace),
            promises: vec![
                Box::<p1_one_view_per_version::OneView>::default(),
                Box::<p2_versions_go_forward::Forward>::default(),
                Box::<p3_one_stabilize_at_a_time::OneStabilize>::default(),
                Box::<p4_stable_means_everyone::Everyone>::default(),
                Box::<p5_a_deposed_leader_cannot_write::LeaderCommits>::default(),
                Box::<p5_increments::Increments>::default(),
                Box::<p6_a_node_knows_in_time::InTime>::default(),
                Box::<p7_it_comes_back_by_itself::ComesBack>::default(),
                Box::<p8_progress::Progress>::default(),
                Box::<p11_health::Fit>::default(),
                Box::<p12_one_holder::OneHolder>::default(),
            ],
            story: VecDeque::new(),
        }
    }

    /// Returns the ledger of the store's history so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Adds a page of the store's history.
    ///
    /// # Errors
    ///
    /// Returns the first promise that the page breaks.
    pub fn turn(&mut self, page: &Page) -> Result<(), Violation> {
        let Some(commit) = self.ledger.turn(page) else { return Ok(()) };
        self.remember(commit.at, Happening::Commit(commit.clone()));
        self.judge(|promise, ledger| promise.commit(&commit, ledger))
    }

    /// Adds something that a node saw or did.
    ///
    /// # Errors
    ///
    /// Returns the first promise that the entry breaks. An entry that reports missed events is an error too, because
    /// promises cannot be checked with an incomplete journal.
    pub fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        self.remember(Some(entry.at), Happening::Entry(entry.clone()));
        if let Observation::Missed { events } = entry.observation {
            return Err(Violation {
                promise: "journal completeness (a precondition of all checks)",
                expected: "every event is recorded".to_owned(),
                found: format!("{} missed {events} events", entry.life),
                about: vec![entry.node.to_string()],
                timeline: Vec::new(),
            });
        }
        self.judge(|promise, ledger| promise.observe(entry, ledger))
    }

    /// Checks the promises about the state in which the cluster has come to rest.
    ///
    /// # Errors
    ///
    /// Returns the first promise that is broken.
    pub fn calm(&mut self, calm: &Calm) -> Result<(), Violation> {
        self.judge(|promise, ledger| promise.calm(calm, ledger))
    }

    fn remember(&mut self, at: Option<Moment>, happening: Happening) {
        if self.story.len() == KEPT {
            self.story.pop_front();
        }
        self.story.push_back((at, happening));
    }

    fn judge(&mut self, mut judge: impl FnMut(&mut dyn Promise, &Ledger) -> Kept) -> Result<(), Violation> {
        for promise in &mut self.promises {
            if let Err(broken) = judge(promise.as_mut(), &self.ledger) {
                let (promise, story) = (promise.name(), self.story.iter());
                return Err(told(promise, broken, story.map(|(_, happening)| happening)));
            }
        }
        Ok(())
    }
}

/// Builds a violation with its timeline: the events that concern the same versions and nodes, and the last event.
fn told<'a>(
    promise: &'static str,
    broken: Broken,
    story: impl DoubleEndedIterator<Item = &'a Happening>,
) -> Violation {
    let mut timeline: Vec<String> = Vec::new();
    for (before, happening) in story.rev().enumerate() {
        let line = happening.to_string();
        if before == 0 || concerns(&line, &broken.about) {
            timeline.push(line);
        }
        if timeline.len() == LINES {
            break;
        }
    }
    timeline.reverse();
    let Broken { expected, found, about } = broken;
    Violation { promise, expected, found, about, timeline }
}

/// True if a line contains one of the names or versions.
fn concerns(line: &str, about: &[String]) -> bool {
    let mut words = line.split(|c: char| !(c.is_alphanumeric() || "-_.".contains(c)));
    about.is_empty() || words.any(|word| about.iter().any(|about| word == about))
}

/// Checks a recorded history: that of the store, and the journal of each life in its order.
///
/// If `calm` is given, the cluster has come to rest at the end of the history.
///
/// # Errors
///
/// Returns the first promise that is broken. Its timeline covers the whole history in the order of time.
pub fn check(
    namespace: &str,
    pages: &[Page],
    journals: &[Vec<Entry>],
    calm: Option<&Calm>,
) -> Result<Ledger, Violation> {
    let mut promises = Promises::new(namespace);
    // Pages that mark a revision as written by hand come after the revision, but the checkers need them before it.
    let by_hand = |page: &&Page| matches!(page.content, Content::ByHand(_));
    let feed = |promises: &mut Promises| {
        pages.iter().filter(by_hand).try_for_each(|page| promises.turn(page))?;
        pages.iter().try_for_each(|page| promises.turn(page))?;
        journals.iter().flatten().try_for_each(|entry| promises.observe(entry))?;
        promises.judge(|promise, ledger| promise.end(ledger))?;
        calm.map_or(Ok(()), |calm| promises.calm(calm))
    };
    match feed(&mut promises) {
        Ok(()) => Ok(promises.ledger),
        Err(violation) => Err(retold(violation, namespace, pages, journals)),
    }
}

/// Rebuilds the timeline from all events in the order of time, because the checkers saw the journals one after the
/// other.
fn retold(violation: Violation, namespace: &str, pages: &[Page], journals: &[Vec<Entry>]) -> Violation {
    let judged_last = violation.timeline.last().cloned();
    let lines = timeline(namespace, pages, journals);
    let judged = judged_last.and_then(|last| lines.iter().position(|line| *line == last));
    let until = judged.map_or(lines.len(), |judged| (judged + 10).min(lines.len()));
    let concerned = |line: &&String| concerns(line, &violation.about);
    let mut timeline: Vec<_> = lines[..until].iter().filter(concerned).cloned().collect();
    timeline.extend(judged.map(|judged| format!("detected at: {}", lines[judged])));
    let timeline = timeline.split_off(timeline.len().saturating_sub(LINES));
    Violation { timeline, ..violation }
}
