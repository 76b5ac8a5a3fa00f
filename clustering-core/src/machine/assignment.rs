//! Assigning slots to nodes (P12).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{facts::Facts, formation, outbox::Outbox};
use crate::{
    event::Event,
    fold::Changed,
    name::NodeName,
    node::Node,
    placement::Weight,
    record::Cause,
    slots::{Assignment, Assignor, Balanced, Candidate, Slot, SlotCount},
    store::{Revision, Txn},
    version::Version,
    view::View,
};

/// Maximum number of changed cordons that are kept as reasons for a version.
const CHANGES: usize = 64;

/// On the leader, finds out whether the slots of the newest version must be reassigned.
///
/// That is the case if the assignor, given the nodes of that version, returns an assignment that differs from the one
/// written with the version. This happens when a node was cordoned or uncordoned, or joined or departed between the
/// leader's last look at the log and its commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Assigning {
    /// The version that was checked, and the number of changed cordons at that time.
    checked: Option<(Revision, u64)>,
    /// Number of cordons that were put or lifted.
    cordons: u64,
    /// Cordons that were put or lifted since the newest version.
    changes: Vec<Cause>,
    /// True if the slots must be reassigned.
    is_outdated: bool,
    /// The last version that this leader tried to publish, and the nodes and cordons for which it assigned the slots.
    published: Option<(Version, Inputs)>,
}

/// Everything that an assignment depends on besides the previous one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Inputs {
    nodes: Vec<(NodeName, Revision)>,
    cordons: u64,
}

impl Assigning {
    /// True if the leader must publish another version because the assignment of the newest one is outdated.
    pub(crate) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Returns the reasons for another assignment.
    pub(crate) fn causes(&self) -> Vec<Cause> {
        match self.is_outdated {
            true if self.changes.is_empty() => vec![Cause::Assigned],
            true => self.changes.clone(),
            false => Vec::new(),
        }
    }

    /// Handles a change of the log.
    pub(crate) fn on_change(&mut self, change: &Changed) {
        let cause = match change {
            Changed::Cordoned(name) => Cause::Cordoned(name.clone()),
            Changed::Uncordoned(name) => Cause::Uncordoned(name.clone()),
            Changed::Version => return self.changes.clear(),
            _ => return,
        };
        self.cordons += 1;
        // Cordons of absent nodes cause no version, so these may come without end.
        if self.changes.len() < CHANGES {
            self.changes.push(cause);
        }
    }

    /// Checks the assignment of the newest version, unless it was checked before.
    pub(crate) fn reconcile(&mut self, facts: &Facts, is_leading: bool, out: &mut Outbox) {
        // The first version after the cluster has formed assigns the slots in any case.
        let may_assign = is_leading && formation::has_formed(facts) && !formation::is_outdated(facts);
        let view = facts.fold.newest().filter(|view| may_assign && view.has_handover());
        let Some((view, count)) = view.zip(facts.config.exclusive) else {
            self.checked = None;
            self.is_outdated = false;
            if !is_leading {
                self.published = None;
            }
            return;
        };
        let check = (view.revision(), self.cordons);
        if self.checked.replace(check) == Some(check) {
            return;
        }
        let stored = view.assignment().map(|assignment| &**assignment);
        let nodes: Vec<&Arc<Node>> = view.iter().collect();
        let outcome = assign(facts, count, stored, &nodes);
        if let Err(reason) = &outcome {
            out.emit(Event::AssignorFailed { reason: reason.clone() });
        }
        self.is_outdated = outcome.is_ok_and(|next| Some(&next) != stored) && !self.is_faulty(view, out);
    }

    /// Notes that this node publishes a version for the nodes present and the current cordons.
    pub(crate) fn published(&mut self, facts: &Facts, version: Version) {
        if facts.config.exclusive.is_some() && formation::has_formed(facts) {
            self.published = Some((version, Inputs::new(facts.fold.present(), self.cordons)));
        }
    }

    /// True if the assignment of the view was computed for exactly its nodes and the current cordons, and not for those
    /// of another attempt to publish a version. Then the assignor
    /// must return the same one again. If it returns another one each time, the leader must not publish versions forever.
    fn is_faulty(&self, view: &View, out: &mut Outbox) -> bool {
        let inputs = Inputs::new(view.iter(), self.cordons);
        let is_same = self.published.as_ref() == Some(&(view.version(), inputs));
        if is_same {
            let reason = "it returns another assignment when it is given its own".to_owned();
            out.emit(Event::AssignorFailed { reason });
        }
        is_same
    }
}

impl Inputs {
    fn new<'a>(nodes: impl Iterator<Item = &'a Arc<Node>>, cordons: u64) -> Self {
        Inputs { nodes: nodes.map(|node| (node.name.clone(), node.modified)).collect(), cordons }
    }
}

/// Adds the assignment of the next version to the commit that publishes the version, unless the same assignment is
/// already stored. An assignment is only written while all nodes present are exclusive, and not before the cluster has
/// formed.
pub(crate) fn put_assignment(txn: Txn, facts: &Facts) -> Txn {
    let may_assign = formation::has_formed(facts) && all_exclusive(facts);
    let Some(count) = facts.config.exclusive.filter(|_| may_assign) else { return txn };
    let stored = facts.fold.slots().and_then(|slots| slots.record.as_deref());
    let nodes: Vec<&Arc<Node>> = facts.fold.present().collect();
    match assign(facts, count, stored, &nodes) {
        Ok(next) if Some(&next) != stored => txn.put(facts.keys().slots_key().clone(), next.encode(), None),
        _ => txn,
    }
}

/// True if every node present has a witness of its session.
fn all_exclusive(facts: &Facts) -> bool {
    let is_exclusive =
        |node: &Arc<Node>| node.lease.is_some_and(|lease| facts.fold.holds().contains_key(&lease));
    facts.fold.present().all(is_exclusive)
}

/// Calls the assignor, which is the user's code, and checks its result.
fn assign(
    facts: &Facts,
    count: SlotCount,
    previous: Option<&Assignment>,
    nodes: &[&Arc<Node>],
) -> Result<Assignment, String> {
    let weight = |node: &Node| match facts.fold.is_cordoned(&node.name) {
        true => Weight::new(0),
        false => node.weight(),
    };
    let candidates: Vec<Candidate<'_>> =
        nodes.iter().map(|node| Candidate { node, weight: weight(node) }).collect();
    let previous = match previous.filter(|previous| previous.count() == count) {
        Some(previous) => previous.among(nodes.iter().map(|node| &node.name)),
        None => vec![None; count.get().into()],
    };
    let assignor: &dyn Assignor = facts.config.assignor.as_ref().map_or(&Balanced, |shared| &*shared.0);
    let owners = catch_unwind(AssertUnwindSafe(|| assignor.assign(&previous, &candidates)))
        .map_err(|_| "it panicked".to_owned())?;
    if owners.len() != previous.len() {
        return Err(format!("it assigned {} slots of {}", owners.len(), previous.len()));
    }
    if let Some(place) = owners.iter().flatten().find(|place| **place >= nodes.len()) {
        return Err(format!("it assigned a slot to candidate {place} of {}", nodes.len()));
    }
    let owner = |slot: Slot| owners[usize::from(slot.number())].map(|place| &nodes[place].name);
    Ok(Assignment::new(count, owner))
}
