//! Checks of the promises with each step that may break one. For the store's side they use the [`Ledger`], which
//! computes views and acknowledgements by itself.

use std::fmt;

use clustering_core::{
    Term, View,
    machine::{Leadership, Purpose},
    store::{LeaseId, Revision},
    time::Timestamp,
};
use clustering_testkit::history::{
    Ledger, Member,
    ledger::{Act, Commit},
};

use super::state::{Held, Node, Shared};
use crate::named::named;

named! {
    /// Promises that a model checks, by number.
    pub enum Promise {
        /// One view per version.
        P1 = "P1: all nodes have the same view of a version as the log",
        /// Versions never go back.
        P2 = "P2: versions never go back, neither in the log nor on any node",
        /// At most one stabilize runs at a time on a node.
        P3 = "P3: a node runs one stabilize at a time, and tells it when it is superseded",
        /// A stable version was acknowledged by every node, and acknowledgements of old sessions do not count.
        P4 = "P4: a stable version is recorded once, acknowledged by all in the sessions of its view; on_stable runs once",
        /// A deposed leader cannot write.
        P5 = "P5: writes of leaders are accepted only under the current term",
        /// A node knows in time that its session has ended.
        P6 = "P6: a node leads for at most two thirds of a TTL after sending its last successful renewal",
        /// Names are not shared, and no node joins under a session that is not its own.
        P7 = "P7: no node takes a name that is held, and each joins under its own session",
        /// From every state, the cluster becomes stable if nothing goes wrong any more.
        P8 = "P8: without further faults, all nodes reach a stable version",
        /// At most one process holds a slot.
        P12 = "P12: at most one process holds a slot, and no commit of a former owner is accepted",
    }
}

/// Violation of a promise.
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

/// Originator and purpose of a commit.
#[derive(Clone, Copy)]
pub(super) struct By {
    pub(super) node: usize,
    pub(super) life: u32,
    pub(super) purpose: Purpose,
}

/// Checks a revision that the ledger has just applied.
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
                            "{version} of term {} follows {} of term {}",
                            last.term, before.version, before.term
                        ),
                    );
                }
                if last.standing != Some(last.term) {
                    return broken(
                        Promise::P5,
                        format!(
                            "{version} is published under term {}, but the current term is {:?}",
                            last.term, last.standing
                        ),
                    );
                }
            }
            Act::Confirmed(_) => confirmed(&shared.ledger)?,
            Act::Wrote(write) if write.standing != Some(write.term) => {
                return broken(
                    Promise::P5,
                    format!(
                        "a user's write under term {} is accepted, but the current term is {:?}",
                        write.term, write.standing
                    ),
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
                        format!("{registration}, a lease that was granted to another process"),
                    );
                }
                let taken = registration.replaced.filter(|lease| !own(*lease));
                if let (Some(lease), Purpose::Join | Purpose::Rewrite | Purpose::TakeOver) =
                    (taken, by.purpose)
                {
                    return broken(
                        Promise::P7,
                        format!("{registration}, which was held under lease {lease:?}"),
                    );
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks the ledger's last record of a stable version.
fn confirmed(ledger: &Ledger) -> Kept {
    let era = ledger.present();
    let Some(confirmed) = era.confirmed().last() else { return Ok(()) };
    let version = confirmed.version;
    if confirmed.term != confirmed.standing {
        return broken(
            Promise::P5,
            format!(
                "{version} is recorded as stable under term {:?}, but the current term is {:?}",
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
            format!("{version} is recorded as stable, but the newest version is {:?}", confirmed.newest),
        );
    };
    match published.everyone {
        Some(everyone) if everyone < confirmed.revision => Ok(()),
        _ => broken(
            Promise::P4,
            format!("{version} is recorded as stable without valid acknowledgements of {:?}", era.missing()),
        ),
    }
}

/// Checks the view that a node has as its newest.
pub(super) fn newest(view: &View, before: Option<Revision>, ledger: &Ledger) -> Kept {
    if before.is_some_and(|before| before > view.revision()) {
        return broken(Promise::P2, format!("{} @{} follows @{before:?}", view.version(), view.revision()));
    }
    given(view, &Member::all(view), ledger)
}

/// Checks the nodes that the user's stabilize receives for a view.
pub(super) fn given(view: &View, nodes: &[Member], ledger: &Ledger) -> Kept {
    let (version, revision) = (view.version(), view.revision());
    match ledger.published_at(version, revision) {
        None => broken(Promise::P1, format!("the log has no {version} @{revision}")),
        Some(published) if published.cut != nodes => {
            broken(Promise::P1, format!("the view of {version} is {:?}, not {nodes:?}", published.cut))
        }
        Some(_) => Ok(()),
    }
}

/// Checks the running callbacks of a node against its newest view.
pub(super) fn runs(node: &Node, newest: Option<&View>) -> Kept {
    if node.stabilizing.len() > 1 {
        return broken(Promise::P3, format!("{} runs two stabilizes at a time", node.name));
    }
    if node.announcing.len() > 1 {
        return broken(Promise::P4, format!("{} runs two on_stable callbacks at a time", node.name));
    }
    let newest = newest.map(View::revision);
    let untold = node.stabilizing.iter().find(|run| !run.told && Some(run.view.revision()) < newest);
    untold.map_or(Ok(()), |run| {
        broken(
            Promise::P3,
            format!("the stabilize of {} is not told that {} is superseded", node.name, run.view.version()),
        )
    })
}

/// Checks a call of `on_stable` for `view` under `term`. `before` has the revisions of the versions for which it was
/// called earlier.
pub(super) fn announced(node: &Node, view: &View, term: Term, before: &[Revision], ledger: &Ledger) -> Kept {
    let version = view.version();
    if before.contains(&view.revision()) {
        return broken(Promise::P4, format!("on_stable is called for {version} again by {}", node.name));
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
            format!("on_stable is called for {version} by {}, which is not the leader", node.name),
        ),
    }
}

/// Returns the time until which the holder of a lease may act as leader.
fn acts_until(held: &Held) -> Timestamp {
    held.renewed + held.ttl * 2 / 3
}

/// Checks the lead that a node claims when asked.
pub(super) fn claims(node: &Node, told: Option<Leadership>) -> Kept {
    let Some(Leadership { term, until, .. }) = told else { return Ok(()) };
    match &node.lease {
        Some(held) if until <= acts_until(held) => Ok(()),
        held => broken(
            Promise::P6,
            format!(
                "{} claims term {term} until {until:?}, but its lease allows it until {:?}",
                node.name,
                held.as_ref().map(acts_until)
            ),
        ),
    }
}

/// Checks that a node may send a commit for this purpose now.
pub(super) fn acts(node: &Node, purpose: Purpose) -> Kept {
    let as_leader = matches!(
        purpose,
        Purpose::Publish
            | Purpose::Permit
            | Purpose::Reclaim
            | Purpose::Confirm
            | Purpose::Evict
            | Purpose::LeaderCommit
    );
    match &node.lease {
        _ if !as_leader => Ok(()),
        Some(held) if node.now < acts_until(held) => Ok(()),
        held => broken(
            Promise::P6,
            format!(
                "{} sends a commit ({purpose}) at {:?}, but its lease allows it until {:?}",
                node.name,
                node.now,
                held.as_ref().map(acts_until)
            ),
        ),
    }
}
