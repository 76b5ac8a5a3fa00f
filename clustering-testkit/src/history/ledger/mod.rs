//! The store's own history of a cluster: [`Ledger`].

mod era;
mod follow;
mod page;
mod record;

use std::collections::BTreeSet;

use clustering_core::{
    Version,
    store::{Batch, Revision},
};

pub use self::{
    era::{Acknowledged, Confirmed, Era, FencedWrite, Published, Registration, Reign},
    follow::{Follower, follow},
    page::{Act, Commit, Content, Page},
};

/// What the store's history says of one cluster. It shares no code with the library's replica of the log: both would have
/// to be wrong in the same way.
///
/// Fed with [pages](Page) in the order in which the store's history goes. A store that is wiped or put back to an older
/// state begins a new [`Era`], with revisions, terms and leases of its own. Across eras hold: one view for a version (P1),
/// one `on_stable` for a version (P4). Terms come again, and a version that one era had may be missing in the next: P5 and
/// the order of versions (P2) hold within an era.
#[derive(Clone, Debug)]
pub struct Ledger {
    namespace: String,
    eras: Vec<Era>,
    by_hand: BTreeSet<Revision>,
}

impl Ledger {
    /// The prefix, in the namespace, of keys whose values carry a `term` that their writer claims to lead under, and an
    /// `id` that tells one write from all others.
    pub const FENCED: &'static str = "fenced/";

    /// The key below [`FENCED`](Self::FENCED) in which leaders count their steps: `{"id", "term", "count"}`.
    pub const COUNTER: &'static str = "counter";

    /// The key below [`FENCED`](Self::FENCED) of the page that lists the step of that number: `{"id", "term", "ids"}`.
    pub fn page_of(count: u64) -> String {
        format!("list/{:06}", count.saturating_sub(1) / 100)
    }

    /// One of the cluster in that namespace, whose history begins with nothing.
    pub fn new(namespace: &str) -> Self {
        let era = Era::new(namespace, 0);
        Ledger { namespace: namespace.to_owned(), eras: vec![era], by_hand: BTreeSet::new() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Takes the next page, and tells what happened by it: nothing for a page that only speaks of the ledger itself.
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

    /// As [`turn`](Self::turn), for a batch alone.
    pub fn apply(&mut self, batch: &Batch) -> Option<Commit> {
        self.turn(&Page::of(None, batch.clone()))
    }

    /// The era that lasts.
    pub fn present(&self) -> &Era {
        self.eras.last().expect("there is always one")
    }

    fn present_mut(&mut self) -> &mut Era {
        self.eras.last_mut().expect("there is always one")
    }

    /// All eras.
    pub fn eras(&self) -> &[Era] {
        &self.eras
    }

    /// Whether somebody wrote that revision past the commits of the protocol, as the harness said.
    pub fn is_by_hand(&self, revision: Revision) -> bool {
        self.by_hand.contains(&revision)
    }

    /// Whether changes are missing in it: what it does not know of may have happened.
    pub fn has_gaps(&self) -> bool {
        self.eras.iter().any(|era| era.has_gaps())
    }

    /// The version of that label that was published at that revision, in whichever era.
    pub fn published_at(&self, version: Version, revision: Revision) -> Option<&Published> {
        let same = |published: &&Published| published.version == version && published.revision == revision;
        self.eras.iter().rev().find_map(|era| era.versions().iter().rev().find(same))
    }

    /// The newest that was published under that label.
    pub fn published(&self, version: Version) -> Option<&Published> {
        let same = |published: &&Published| published.version == version;
        self.eras.iter().rev().find_map(|era| era.versions().iter().rev().find(same))
    }

    /// The records that a version is stable, of whichever era.
    pub fn confirmed(&self, version: Version) -> impl Iterator<Item = &Confirmed> {
        let all = self.eras.iter().flat_map(|era| era.confirmed());
        all.filter(move |confirmed| confirmed.version == version)
    }

    /// The fenced writes of that id. There should be one at most.
    pub fn fenced(&self, id: &str) -> impl Iterator<Item = &FencedWrite> {
        let all = self.eras.iter().flat_map(|era| era.fenced());
        all.filter(move |write| write.id.as_deref() == Some(id))
    }
}
