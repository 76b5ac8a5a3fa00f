//! The state of a cluster according to the store's history: [`Ledger`].

mod era;
mod facts;
mod follow;
mod key;
mod page;
mod record;

use std::collections::BTreeSet;

use clustering_core::{
    Version,
    store::{Batch, Revision},
};

pub use self::{
    era::Era,
    facts::{Acknowledged, Confirmed, LeaderCommit, Published, Registration, Reign},
    follow::{Follower, follow},
    page::{Act, Commit, Content, Page},
};

/// State of one cluster, derived from the store's history. It shares no code with the library's replica of the log, so
/// that an error in one is not repeated in the other.
///
/// The ledger is fed with [pages](Page) in the order of the store's history. When the store is wiped or restored to an
/// older state, a new [`Era`] begins, with its own revisions, terms and leases. Across eras, each version still has
/// only one view (P1) and one `on_stable` (P4). Terms may repeat, and the versions of one era may be missing in the
/// next, so P5 and the order of versions (P2) hold within one era only.
#[derive(Clone, Debug)]
pub struct Ledger {
    namespace: String,
    eras: Vec<Era>,
    by_hand: BTreeSet<Revision>,
}

impl Ledger {
    /// Prefix, relative to the namespace, of the keys of leader commits. Their values have a `term`, under which the
    /// writer claims to lead, and a unique `id`.
    pub const LEADER_COMMITS: &'static str = "leader-commits/";

    /// Key below [`LEADER_COMMITS`](Self::LEADER_COMMITS) in which leaders count their steps: `{"id", "term",
    /// "count"}`.
    pub const COUNTER: &'static str = "counter";

    /// Returns the key below [`LEADER_COMMITS`](Self::LEADER_COMMITS) of the page that lists the step with number
    /// `count`: `{"id", "term", "ids"}`.
    pub fn page_of(count: u64) -> String {
        format!("list/{:06}", count.saturating_sub(1) / 100)
    }

    /// Creates the empty ledger of the cluster in the namespace.
    pub fn new(namespace: &str) -> Self {
        let era = Era::new(namespace, 0);
        Ledger { namespace: namespace.to_owned(), eras: vec![era], by_hand: BTreeSet::new() }
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Applies the next page and returns its changes, or `None` if the page is not a commit.
    pub fn turn(&mut self, page: &Page) -> Option<Commit> {
        match &page.content {
            Content::Batch(batch) => {
                let acts = self.present_mut().apply(batch);
                Some(Commit { at: page.at, era: self.eras.len() - 1, revision: batch.revision, acts })
            }
            Content::Era => {
                self.eras.push(Era::new(&self.namespace, self.eras.len()));
                None
            }
            Content::Gap(snapshot) => {
                self.present_mut().skip_to(snapshot);
                None
            }
            Content::ByHand(revision) => {
                self.by_hand.insert(*revision);
                None
            }
        }
    }

    /// Applies a single batch, like [`turn`](Self::turn).
    pub fn apply(&mut self, batch: &Batch) -> Option<Commit> {
        self.turn(&Page::of(None, batch.clone()))
    }

    /// Returns the current era.
    pub fn present(&self) -> &Era {
        self.eras.last().expect("there is always an era")
    }

    fn present_mut(&mut self) -> &mut Era {
        self.eras.last_mut().expect("there is always an era")
    }

    /// Returns all eras in order.
    pub fn eras(&self) -> &[Era] {
        &self.eras
    }

    /// True if the test harness declared that the revision was written outside of the protocol.
    pub fn is_by_hand(&self, revision: Revision) -> bool {
        self.by_hand.contains(&revision)
    }

    /// True if changes are missing in the history, so that things may have happened that the ledger does not know.
    pub fn has_gaps(&self) -> bool {
        self.eras.iter().any(|era| era.has_gaps())
    }

    /// Returns the version with this label that was published at this revision, in any era.
    pub fn published_at(&self, version: Version, revision: Revision) -> Option<&Published> {
        let same = |published: &&Published| published.version == version && published.revision == revision;
        self.eras.iter().rev().find_map(|era| era.versions().iter().rev().find(same))
    }

    /// Returns the latest publication of a version with this label.
    pub fn published(&self, version: Version) -> Option<&Published> {
        let same = |published: &&Published| published.version == version;
        self.eras.iter().rev().find_map(|era| era.versions().iter().rev().find(same))
    }

    /// Returns all records, of any era, that the version is stable.
    pub fn confirmed(&self, version: Version) -> impl Iterator<Item = &Confirmed> {
        let all = self.eras.iter().flat_map(|era| era.confirmed());
        all.filter(move |confirmed| confirmed.version == version)
    }

    /// Returns the leader commits with this id. There should be at most one.
    pub fn leader_commits(&self, id: &str) -> impl Iterator<Item = &LeaderCommit> {
        let all = self.eras.iter().flat_map(|era| era.leader_commits());
        all.filter(move |write| write.id.as_deref() == Some(id))
    }
}
