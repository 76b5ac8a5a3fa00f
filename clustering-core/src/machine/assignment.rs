//! Assigning slots to nodes (P12).

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{facts::Facts, formation, keeping::Keeping, outbox::Outbox};
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
/// This is the case if the assignor, given the nodes of that version, returns an assignment that differs from the one
/// written with the version. This happens when a node was cordoned or uncordoned, or did not come back in time, or if
/// a node joined or departed between the leader's last look at the log and its commit. It is also the case if slots
/// are kept for an absent node that the version does not list: the next leader must know about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Assigning {
    /// The version that was checked, the number of changed cordons at that time, and the nodes whose slots were kept.
    checked: Option<(Revision, u64, BTreeSet<NodeName>)>,
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
    kept: BTreeSet<NodeName>,
    cordons: u64,
}

impl Assigning {
    /// True if the leader must publish another version because the assignment of the newest one is outdated.
    pub(crate) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Returns the reasons for another assignment, given the nodes that did not come back in time.
    pub(crate) fn causes(&self, not_back: Vec<Cause>) -> Vec<Cause> {
        let mut causes = not_back;
        if self.is_outdated {
            causes.extend(self.changes.iter().cloned());
            if causes.is_empty() {
                causes.push(Cause::Assigned);
            }
        }
        causes
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
    pub(crate) fn reconcile(&mut self, facts: &Facts, keeping: &Keeping, is_leading: bool, out: &mut Outbox) {
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
        let kept = keeping.kept_in(facts, view);
        let check = Some((view.revision(), self.cordons, kept.clone()));
        if self.checked == check {
            return;
        }
        self.checked = check;
        let stored = view.assignment().map(|assignment| &**assignment);
        let nodes: Vec<&Arc<Node>> = view.iter().collect();
        let names: Vec<&NodeName> = kept.iter().collect();
        let outcome = assign(facts, count, stored, &nodes, &names);
        if let Err(reason) = &outcome {
            out.emit(Event::AssignorFailed { reason: reason.clone() });
        }
        let differs = outcome.is_ok_and(|next| Some(&next) != stored);
        let is_unlisted = kept.iter().any(|name| !view.kept().contains_key(name));
        let is_same = self.is_as_published(view, kept);
        if differs && is_same {
            let reason = "it returns another assignment when it is given its own".to_owned();
            out.emit(Event::AssignorFailed { reason });
        }
        self.is_outdated = (differs || is_unlisted) && !is_same;
    }

    /// Notes that this node publishes a version for the nodes present and the current cordons.
    pub(crate) fn published(&mut self, facts: &Facts, keeping: &Keeping, version: Version) {
        if facts.config.exclusive.is_some() {
            let kept = keeping.kept(facts).into_keys().collect();
            self.published = Some((version, Inputs::new(facts.fold.present(), kept, self.cordons)));
        }
    }

    /// True if the assignment of the view was computed for exactly its nodes, the same kept nodes and the current
    /// cordons, and not for those of another attempt to publish a version. Then the assignor must return the same one
    /// again, and kept nodes that the version does not list did not fit into it. Another version would be no better,
    /// and the leader must not publish versions forever.
    fn is_as_published(&self, view: &View, kept: BTreeSet<NodeName>) -> bool {
        let inputs = Inputs::new(view.iter(), kept, self.cordons);
        self.published.as_ref() == Some(&(view.version(), inputs))
    }
}

impl Inputs {
    fn new<'a>(nodes: impl Iterator<Item = &'a Arc<Node>>, kept: BTreeSet<NodeName>, cordons: u64) -> Self {
        Inputs { nodes: nodes.map(|node| (node.name.clone(), node.modified)).collect(), kept, cordons }
    }
}

/// Adds the assignment of the next version to the commit that publishes the version, unless the same assignment is
/// already stored. An assignment is only written while all nodes present are exclusive, and not before the cluster has
/// formed. Slots of the absent nodes in `kept` stay where they are.
pub(crate) fn put_assignment(txn: Txn, facts: &Facts, kept: &[NodeName]) -> Txn {
    let may_assign = formation::has_formed(facts) && all_exclusive(facts);
    let Some(count) = facts.config.exclusive.filter(|_| may_assign) else { return txn };
    let stored = facts.fold.slots().and_then(|slots| slots.record.as_deref());
    let nodes: Vec<&Arc<Node>> = facts.fold.present().collect();
    let kept: Vec<&NodeName> = kept.iter().collect();
    match assign(facts, count, stored, &nodes, &kept) {
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

/// Assigns the slots to the nodes, except for those that are kept for absent nodes. Calls the assignor, which is the
/// user's code, and checks its result.
fn assign(
    facts: &Facts,
    count: SlotCount,
    previous: Option<&Assignment>,
    nodes: &[&Arc<Node>],
    kept: &[&NodeName],
) -> Result<Assignment, String> {
    let weight = |node: &Node| match facts.fold.is_cordoned(&node.name) {
        true => Weight::new(0),
        false => node.weight(),
    };
    let candidates: Vec<Candidate<'_>> =
        nodes.iter().map(|node| Candidate { node, weight: weight(node) }).collect();
    let previous = previous.filter(|previous| previous.count() == count);
    let among = |names: &mut dyn Iterator<Item = &NodeName>| match previous {
        Some(previous) => previous.among(names),
        None => vec![None; count.get().into()],
    };
    let waiting = among(&mut kept.iter().copied());
    let owned = count.iter().zip(among(&mut nodes.iter().map(|node| &node.name)));
    let free: Vec<(Slot, Option<usize>)> =
        owned.zip(&waiting).filter(|(_, waits)| waits.is_none()).map(|(slot, _)| slot).collect();
    let assignor: &dyn Assignor = facts.config.assignor.as_ref().map_or(&Balanced, |shared| &*shared.0);
    let owners = catch_unwind(AssertUnwindSafe(|| assignor.assign(&free, &candidates)))
        .map_err(|_| "it panicked".to_owned())?;
    if owners.len() != free.len() {
        return Err(format!("it assigned {} slots of {}", owners.len(), free.len()));
    }
    if let Some(place) = owners.iter().flatten().find(|place| **place >= nodes.len()) {
        return Err(format!("it assigned a slot to candidate {place} of {}", nodes.len()));
    }
    let mut next: Vec<Option<&NodeName>> =
        waiting.iter().map(|waits| waits.map(|place| kept[place])).collect();
    for ((slot, _), owner) in free.iter().zip(owners) {
        next[usize::from(slot.number())] = owner.map(|place| &nodes[place].name);
    }
    Ok(Assignment::new(count, |slot| next[usize::from(slot.number())]))
}
