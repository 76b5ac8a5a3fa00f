//! The promises, judged with each step that may break one. The store's side is judged by the [`Ledger`], which makes its
//! own cuts and counts.

use std::fmt;

use clustering_core::{
    Term, View,
    machine::{Leadership, Purpose},
    store::{LeaseId, Revision},
    time::Timestamp,
};

use super::state::{Held, Node, Shared};
use crate::{
    history::{
        Ledger, Member,
        ledger::{Act, Commit},
    },
    named::named,
};

named! {
    /// The promises that a model judges, by their numbers.
    pub enum Promise {
        /// One view per version.
        P1 = "P1: all nodes have the log's view of a version",
        /// Versions go forward.
        P2 = "P2: versions go forward, on the log and on every node",
        /// One stabilize at a time.
        P3 = "P3: one stabilize at a time, and what is superseded is told",
        /// Stable means everyone, and acknowledgements of old sessions do not count.
        P4 = "P4: what is stable was acknowledged by everyone in the session of its cut, once; on_stable runs once",
        /// A deposed leader cannot write.
        P5 = "P5: what leaders write is accepted under the term that stands",
        /// A node knows in time that its session is over.
        P6 = "P6: a lead is claimed and acted on for two thirds of a TTL from the sending of the last good renewal",
        /// Names are not shared, and nobody joins under a session that is not its own.
        P7 = "P7: nobody takes a name that is held, and everyone joins under a session of its own",
        /// From every state calm leads to a stable version of all nodes.
        P8 = "P8: calm leads to a stable version of all nodes",
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) promise: Promise,
    pub(super) said: String,
}

impl Breach {
    pub(super) fn new(promise: Promise, said: impl Into<String>) -> Self {
        Breach { promise, said: said.into() }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is broken: {}", self.promise, self.said)
    }
}

pub(super) type Kept = Result<(), Breach>;

fn broken(promise: Promise, said: String) -> Kept {
    Err(Breach { promise, said })
}

/// Who did what a commit did.
#[derive(Clone, Copy)]
pub(super) struct By {
    pub(super) node: usize,
    pub(super) life: u32,
    pub(super) purpose: Purpose,
}

/// Judges a revision that the ledger has just taken in.
pub(super) fn commit(commit: &Commit, shared: &Shared, by: Option<By>) -> Kept {
    let era = shared.ledger.present();
    for act in &commit.acts {
        match act {
            Act::Published(version) => {
                let [.., before, last] = era.versions() else { continue };
                if last.version <= before.version || last.term < before.term {
                    return broken(
                        Promise::P2,
                        format!(
                            "{version} of term {} follows on {} of term {}",
                            last.term, before.version, before.term
                        ),
                    );
                }
                if last.standing != Some(last.term) {
                    return broken(
                        Promise::P5,
                        format!(
                            "{version} is published under term {}, and {:?} stands",
                            last.term, last.standing
                        ),
                    );
                }
            }
            Act::Confirmed(_) => confirmed(&shared.ledger)?,
            Act::Wrote(write) if write.standing != Some(write.term) => {
                return broken(
                    Promise::P5,
                    format!("a user writes under term {}, and {:?} stands", write.term, write.standing),
                );
            }
            Act::Registered(registration) => {
                let Some(by) = by else { continue };
                let own = |lease: Option<LeaseId>| {
                    lease.is_some_and(|lease| shared.is_owner(lease, by.node, by.life))
                };
                if !own(registration.lease) {
                    return broken(
                        Promise::P7,
                        format!("{registration}, a lease that was granted to another"),
                    );
                }
                let taken = registration.replaced.filter(|lease| !own(*lease));
                if let (Some(lease), Purpose::Join | Purpose::Rewrite | Purpose::TakeOver) =
                    (taken, by.purpose)
                {
                    return broken(Promise::P7, format!("{registration}, which stood under lease {lease:?}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The ledger's last record that a version is stable.
fn confirmed(ledger: &Ledger) -> Kept {
    let era = ledger.present();
    let Some(confirmed) = era.confirmed().last() else { return Ok(()) };
    let version = confirmed.version;
    if confirmed.term != confirmed.standing {
        return broken(
            Promise::P5,
            format!(
                "{version} is recorded as stable under {:?}, and {:?} stands",
                confirmed.term, confirmed.standing
            ),
        );
    }
    if confirmed.again {
        return broken(Promise::P4, format!("{version} is recorded as stable again"));
    }
    let Some(published) = era.newest().filter(|newest| newest.version == version) else {
        return broken(
            Promise::P4,
            format!("{version} is recorded as stable, and the newest is {:?}", confirmed.newest),
        );
    };
    match published.everyone {
        Some(everyone) if everyone < confirmed.revision => Ok(()),
        _ => broken(
            Promise::P4,
            format!("{version} is recorded as stable without a yes that counts of {:?}", era.missing()),
        ),
    }
}

/// A node has that as its newest view.
pub(super) fn newest(view: &View, before: Option<Revision>, ledger: &Ledger) -> Kept {
    if before.is_some_and(|before| before > view.revision()) {
        return broken(
            Promise::P2,
            format!("{} @{} comes after @{before:?}", view.version(), view.revision()),
        );
    }
    given(view, &Member::all(view), ledger)
}

/// The user's stabilize is given these nodes.
pub(super) fn given(view: &View, nodes: &[Member], ledger: &Ledger) -> Kept {
    let (version, revision) = (view.version(), view.revision());
    match ledger.published_at(version, revision) {
        None => broken(Promise::P1, format!("the log does not have {version} @{revision}")),
        Some(published) if published.cut != nodes => {
            broken(Promise::P1, format!("the cut of {version} is {:?}, not {nodes:?}", published.cut))
        }
        Some(_) => Ok(()),
    }
}

/// The callbacks of a node that run now, and its newest view.
pub(super) fn runs(node: &Node, newest: Option<&View>) -> Kept {
    if node.stabilizing.len() > 1 {
        return broken(Promise::P3, format!("{} stabilizes twice at a time", node.name));
    }
    if node.announcing.len() > 1 {
        return broken(Promise::P4, format!("{} runs on_stable twice at a time", node.name));
    }
    let newest = newest.map(View::revision);
    let untold = node.stabilizing.iter().find(|run| !run.told && Some(run.view.revision()) < newest);
    untold.map_or(Ok(()), |run| {
        broken(Promise::P3, format!("{} is not told that {} is superseded", node.name, run.view.version()))
    })
}

/// `on_stable` is called for that view, under that term; before, for those of these revisions.
pub(super) fn announced(node: &Node, view: &View, term: Term, before: &[Revision], ledger: &Ledger) -> Kept {
    let version = view.version();
    if before.contains(&view.revision()) {
        return broken(Promise::P4, format!("on_stable is called for {version} again, by {}", node.name));
    }
    let recorded = ledger.confirmed(version).any(|confirmed| confirmed.term == Some(term));
    let led = ledger.present().reign_of(term).and_then(|reign| reign.leader.as_deref());
    if !recorded || led != Some(node.name.as_str()) {
        return broken(
            Promise::P4,
            format!("on_stable is called by {}, which did not record {version}", node.name),
        );
    }
    match node.claim {
        Some((claimed, until)) if claimed == term && node.now < until => Ok(()),
        _ => broken(
            Promise::P4,
            format!("on_stable is called for {version} by {}, which does not lead", node.name),
        ),
    }
}

/// Until when a holder of that lease may act as leader.
fn acts_until(held: &Held) -> Timestamp {
    held.renewed + held.ttl * 2 / 3
}

/// What a node answers when it is asked whether it leads.
pub(super) fn claims(node: &Node, told: Option<Leadership>) -> Kept {
    let Some(Leadership { term, until, .. }) = told else { return Ok(()) };
    match &node.lease {
        Some(held) if until <= acts_until(held) => Ok(()),
        held => broken(
            Promise::P6,
            format!(
                "{} claims term {term} until {until:?}, its lease allows {:?}",
                node.name,
                held.as_ref().map(acts_until)
            ),
        ),
    }
}

/// A node sends a commit for that purpose.
pub(super) fn acts(node: &Node, purpose: Purpose) -> Kept {
    let as_leader = matches!(purpose, Purpose::Publish | Purpose::Confirm | Purpose::Evict | Purpose::Fenced);
    match &node.lease {
        _ if !as_leader => Ok(()),
        Some(held) if node.now < acts_until(held) => Ok(()),
        held => broken(
            Promise::P6,
            format!(
                "{} sends a {purpose} at {:?}, its lease allows {:?}",
                node.name,
                node.now,
                held.as_ref().map(acts_until)
            ),
        ),
    }
}
