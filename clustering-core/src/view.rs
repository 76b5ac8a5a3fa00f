//! The view of a version: the nodes that belong to it, which are the same on every node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Deref,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use crate::{
    name::NodeName,
    node::Node,
    placement::Placement,
    record::Cause,
    slots::{Assignment, Slot, SlotCount, SlotSet},
    store::Revision,
    version::{Term, Version},
};

/// The nodes of one version: all nodes that were present after the changes of the revision that wrote the version.
///
/// Every node that sees the version has the identical view (P1). Views are cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct View(Arc<Inner>);

#[derive(PartialEq, Eq, Hash)]
struct Inner {
    label: Label,
    nodes: Nodes,
    /// The slots; `None` if no node of the view is exclusive.
    slots: Option<ViewSlots>,
    me: Option<NodeName>,
    /// The index of the node that holds the view, if it belongs to it. Kept because it is needed far more often than
    /// views are created.
    own: Option<usize>,
    /// The slots that this node owns. Kept for the same reason.
    own_slots: SlotSet,
}

impl View {
    /// Creates the view of `nodes`, which are sorted by name, for the node `me`.
    pub(crate) fn new(
        label: Label,
        nodes: impl IntoIterator<Item = Arc<Node>>,
        me: Option<NodeName>,
        slots: Option<ViewSlots>,
    ) -> Self {
        let nodes = Nodes::new(nodes);
        let own = me.as_ref().and_then(|me| nodes.place(me));
        let own_slots = slots.as_ref().zip(own).map(|(slots, own)| slots.of(own)).unwrap_or_default();
        View(Arc::new(Inner { label, nodes, slots, me, own, own_slots }))
    }

    /// Returns the version.
    pub fn version(&self) -> Version {
        self.0.label.version
    }

    /// Returns the revision that wrote the version. A later version has a larger revision.
    pub fn revision(&self) -> Revision {
        self.0.label.revision
    }

    /// Returns the term of the leader that published the version.
    pub fn term(&self) -> Term {
        self.0.label.term
    }

    /// Returns the leader that published the version, if the version record names it.
    pub fn leader(&self) -> Option<&NodeName> {
        self.0.label.leader.as_ref()
    }

    /// Returns the reasons why the version was published.
    pub fn causes(&self) -> &[Cause] {
        &self.0.label.causes
    }

    /// True if this node owns `key` in this view. Always false in the view of an observer.
    ///
    /// A view does not change when it becomes out of date. To decide if this node may work on a key *now*, call
    /// [`Clustering::owns`](crate::Clustering::owns).
    pub fn owns(&self, key: impl AsRef<[u8]>) -> bool {
        self.0.me.as_ref().is_some_and(|me| self.find(key).is_some_and(|owner| owner.name == *me))
    }

    /// Returns the name of this node, or `None` for an observer.
    pub fn me(&self) -> Option<&NodeName> {
        self.0.me.as_ref()
    }

    /// Returns this node, if it belongs to the view.
    pub(crate) fn own(&self) -> Option<&Arc<Node>> {
        self.0.own.map(|place| &self.nodes[place])
    }

    /// Returns the highest protocol version that all nodes of the view support, which is the lowest of their versions.
    pub fn protocol(&self) -> u32 {
        self.iter().map(|node| node.protocol).min().unwrap_or(crate::record::PROTOCOL)
    }

    /// True if keys are handed over in this version: every node of the view is [exclusive](crate::Builder::exclusive).
    /// In other versions, nodes acquire no slots.
    pub fn has_handover(&self) -> bool {
        self.0.slots.as_ref().is_some_and(|slots| slots.lacking.is_empty())
    }

    /// Returns the nodes that are not exclusive and therefore keep this version from handing over keys. Empty if all
    /// nodes are exclusive, or if none is.
    pub fn not_exclusive(&self) -> &[NodeName] {
        self.0.slots.as_ref().map_or(&[], |slots| &slots.lacking)
    }

    /// Returns the absent nodes whose slots wait for them, with the time that remained when the version was published
    /// (its [restart grace](crate::Config::restart_grace)). These slots have no owner in this version.
    pub fn kept(&self) -> &BTreeMap<NodeName, Duration> {
        &self.0.label.kept
    }

    /// Returns the absent node for which a slot waits, if it waits for one.
    pub fn kept_for(&self, slot: Slot) -> Option<&NodeName> {
        let assignment = self.assignment()?;
        self.kept().keys().find(|name| self.get(name).is_none() && assignment.is_owner(slot, name))
    }

    /// Returns the [minimum size](crate::Config::min_nodes) that this version waits for: the cluster has not been
    /// stable with so many nodes yet, and this version has fewer. Such a version does not become stable.
    pub fn waits_for_nodes(&self) -> Option<u32> {
        let Label { min_nodes, formed, .. } = &self.0.label;
        min_nodes.filter(|min| !formed && self.len() < *min as usize)
    }

    /// Returns the [minimum size](crate::Config::min_nodes) with which the publisher was configured.
    pub fn min_nodes(&self) -> Option<u32> {
        self.0.label.min_nodes
    }

    /// True if the version record says that the cluster has been stable with its minimum size.
    pub(crate) fn is_formed(&self) -> bool {
        self.0.label.formed
    }

    /// Returns the number of slots, if slots were assigned in this version or an earlier one.
    pub fn slot_count(&self) -> Option<SlotCount> {
        self.assignment().map(|assignment| assignment.count())
    }

    /// Returns the slot of a key, if slots are assigned.
    pub fn slot_of(&self, key: impl AsRef<[u8]>) -> Option<Slot> {
        self.slot_count().map(|count| count.slot_of(key))
    }

    /// Returns the owner of a slot. A slot has no owner if it is unassigned, or assigned to a node outside of the view.
    pub fn owner_of(&self, slot: Slot) -> Option<&Arc<Node>> {
        let slots = self.0.slots.as_ref()?;
        let place = *slots.owners.get(usize::from(slot.number()))?;
        self.nodes().get(usize::from(place))
    }

    /// Returns the slots that the node with that name owns.
    pub fn slots_of(&self, name: &NodeName) -> SlotSet {
        match (&self.0.slots, self.place(name)) {
            (Some(_), place) if place == self.0.own => self.0.own_slots.clone(),
            (Some(slots), Some(place)) => slots.of(place),
            _ => SlotSet::default(),
        }
    }

    /// Returns the slots that this node owns.
    pub(crate) fn own_slots(&self) -> &SlotSet {
        &self.0.own_slots
    }

    /// Returns the nodes that lose a slot from `previous` to this view, and are in both in the same session: they must
    /// let go of slots.
    pub(crate) fn losers(&self, previous: &View) -> BTreeSet<NodeName> {
        let count = previous.slot_count().into_iter().flat_map(SlotCount::iter);
        let lost = |slot: Slot| {
            let before = &previous.owner_of(slot)?.name;
            let is_kept = self.owner_of(slot).is_some_and(|node| node.name == *before);
            (!is_kept).then_some(before)
        };
        let losers: BTreeSet<&NodeName> = count.filter_map(lost).collect();
        losers.into_iter().filter(|name| self.is_same_session(name, previous)).cloned().collect()
    }

    /// True if the node loses a slot from `previous` to this view, and is in both in the same session.
    pub(crate) fn loses(&self, name: &NodeName, previous: &View) -> bool {
        self.is_same_session(name, previous) && !previous.slots_of(name).is_subset(&self.slots_of(name))
    }

    fn is_same_session(&self, name: &NodeName, previous: &View) -> bool {
        let lease = |view: &View| view.get(name).map(|node| node.lease);
        lease(self).is_some() && lease(self) == lease(previous)
    }

    pub(crate) fn assignment(&self) -> Option<&Arc<Assignment>> {
        self.0.slots.as_ref()?.assignment.as_ref()
    }

    /// True if only sessions of the previous cut that lose slots must release them.
    pub(crate) fn is_clean_start(&self) -> bool {
        self.0.label.clean
    }

    /// Returns the owner of `key`, or `None` if no node owns it: by its slot in an exclusive cluster, and by
    /// [`placement`](crate::placement) otherwise. As long as an exclusive cluster has not assigned its slots, because
    /// it waits for [further nodes](crate::Config::min_nodes), no node owns a key.
    pub fn find(&self, key: impl AsRef<[u8]>) -> Option<&Arc<Node>> {
        match self.has_handover() {
            true => self.owner_of(self.slot_of(key)?),
            false => self.0.nodes.find(key),
        }
    }

    /// Returns the owner of `key` and the nodes that would own it next, `n` in total, or fewer if fewer nodes own keys.
    pub fn find_n(&self, key: impl AsRef<[u8]>, n: usize) -> Vec<Arc<Node>> {
        let next = self.0.nodes.find_n(&key, n.saturating_add(1));
        let owner = self.find(&key).cloned();
        let others = next.into_iter().filter(|node| Some(node) != owner.as_ref());
        owner.iter().cloned().chain(others).take(n).collect()
    }

    /// Returns the differences from `previous`. Without a previous view, all nodes are new.
    pub fn diff(&self, previous: Option<&View>) -> Diff {
        let mut diff = Diff::default();
        let before = |name: &NodeName| previous.and_then(|view| view.get(name));
        for node in self.iter() {
            match before(&node.name) {
                None => diff.joined.push(node.clone()),
                Some(old) if old.incarnation != node.incarnation => diff.changed.push(node.clone()),
                Some(_) => {}
            }
        }
        let gone =
            previous.into_iter().flat_map(|view| view.iter()).filter(|node| self.get(&node.name).is_none());
        diff.left.extend(gone.cloned());
        diff
    }
}

/// The slots of a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ViewSlots {
    /// The assignment that was stored when the version was written.
    assignment: Option<Arc<Assignment>>,
    /// The nodes that are not exclusive.
    lacking: Box<[NodeName]>,
    /// Index of the owner of each slot, or [`NOBODY`].
    owners: Box<[u16]>,
}

const NOBODY: u16 = u16::MAX;

impl ViewSlots {
    /// Creates the slots of a view of these nodes, which must be sorted by name.
    pub(crate) fn new<'a>(
        assignment: Option<Arc<Assignment>>,
        lacking: Box<[NodeName]>,
        nodes: impl Iterator<Item = &'a Arc<Node>>,
    ) -> Self {
        let owners = assignment.as_ref().map(|assignment| assignment.among(nodes.map(|node| &node.name)));
        let index = |owner: Option<usize>| owner.and_then(|place| place.try_into().ok()).unwrap_or(NOBODY);
        let owners = owners.into_iter().flatten().map(index).collect();
        ViewSlots { assignment, lacking, owners }
    }

    fn of(&self, place: usize) -> SlotSet {
        let Some(assignment) = &self.assignment else { return SlotSet::default() };
        let owned = |(_, owner): &(Slot, &u16)| usize::from(**owner) == place;
        assignment.count().iter().zip(&self.owners).filter(owned).map(|(slot, _)| slot).collect()
    }
}

impl Deref for View {
    type Target = Nodes;
    fn deref(&self) -> &Nodes {
        &self.0.nodes
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} @{} term {} ", self.version(), self.revision(), self.term())?;
        f.debug_list().entries(self.iter().map(|node| &node.name)).finish()?;
        f.write_str(")")
    }
}

/// The content of a version record, as part of a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Label {
    pub(crate) version: Version,
    pub(crate) revision: Revision,
    pub(crate) term: Term,
    pub(crate) leader: Option<NodeName>,
    pub(crate) causes: Vec<Cause>,
    pub(crate) clean: bool,
    pub(crate) kept: BTreeMap<NodeName, Duration>,
    pub(crate) min_nodes: Option<u32>,
    pub(crate) formed: bool,
}

/// A set of nodes, sorted by name, with the placement of keys on them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nodes {
    nodes: Box<[Arc<Node>]>,
    placement: Placement,
}

impl Nodes {
    /// Creates a set of nodes, which must be sorted by name.
    pub(crate) fn new(nodes: impl IntoIterator<Item = Arc<Node>>) -> Self {
        let nodes: Box<[_]> = nodes.into_iter().collect();
        debug_assert!(nodes.is_sorted_by(|a, b| a.name < b.name));
        let placement = Placement::new(nodes.iter().map(|node| (node.name.as_str(), node.weight())));
        Nodes { nodes, placement }
    }

    /// Returns the nodes, sorted by name.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Iterates over the nodes in the order of their names.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Node>> {
        self.nodes.iter()
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True if there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the node with that name.
    pub fn get(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.place(name).map(|place| &self.nodes[place])
    }

    fn place(&self, name: &NodeName) -> Option<usize> {
        self.nodes.binary_search_by(|node| node.name.cmp(name)).ok()
    }

    /// Returns the owner of `key`, or `None` if no node owns keys. See [`placement`](crate::placement).
    pub fn find(&self, key: impl AsRef<[u8]>) -> Option<&Arc<Node>> {
        self.placement.find(key.as_ref()).map(|index| &self.nodes[index])
    }

    /// Returns the owner of `key` and the nodes that would own it next, `n` in total, or fewer if fewer nodes own keys.
    pub fn find_n(&self, key: impl AsRef<[u8]>, n: usize) -> Vec<Arc<Node>> {
        self.placement.find_n(key.as_ref(), n).into_iter().map(|index| self.nodes[index].clone()).collect()
    }
}

impl<'a> IntoIterator for &'a Nodes {
    type Item = &'a Arc<Node>;
    type IntoIter = std::slice::Iter<'a, Arc<Node>>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The differences between two views. Each list is sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Nodes whose names are only in the newer view.
    pub joined: Vec<Arc<Node>>,
    /// Nodes whose names are only in the older view.
    pub left: Vec<Arc<Node>>,
    /// Nodes that are in both views with different incarnations, as they are in the newer view: they restarted, lost
    /// their session, or changed their metadata.
    pub changed: Vec<Arc<Node>>,
}

impl Diff {
    /// True if the views contain the same nodes.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty() && self.changed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        node::{Metadata, WEIGHT},
        record::PROTOCOL,
    };

    fn name(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    /// Returns a node with this incarnation.
    fn node(name: &str, incarnation: &str) -> Node {
        Node {
            name: self::name(name),
            uri: crate::name::NodeUri::parse(&format!("http://{name}")).unwrap(),
            incarnation: incarnation.into(),
            metadata: Metadata::new(),
            protocol: PROTOCOL,
            priority: None,
            restart_grace: Duration::ZERO,
            endpoint: None,
            created: Revision::new(1),
            modified: Revision::new(1),
            lease: None,
            seen: None,
        }
    }

    fn nodes(nodes: impl IntoIterator<Item = Node>) -> Vec<Arc<Node>> {
        nodes.into_iter().map(Arc::new).collect()
    }

    fn label(revision: u64) -> Label {
        Label {
            version: Version::from_u128(u128::from(revision)),
            revision: Revision::new(revision),
            term: Term::new(Revision::new(2)),
            leader: Some(name("a")),
            causes: vec![Cause::Resync],
            clean: false,
            kept: BTreeMap::new(),
            min_nodes: None,
            formed: false,
        }
    }

    fn view(nodes: &[Arc<Node>], me: Option<&str>) -> View {
        View::new(label(7), nodes.iter().cloned(), me.map(name), None)
    }

    fn names<'a>(nodes: impl IntoIterator<Item = &'a Arc<Node>>) -> Vec<&'a str> {
        nodes.into_iter().map(|node| node.name.as_str()).collect()
    }

    #[test]
    fn a_view_exposes_its_version_and_its_nodes() {
        let view = view(&nodes([node("a", "1"), node("b", "1"), node("c", "1")]), Some("b"));
        assert_eq!((view.version(), view.revision()), (Version::from_u128(7), Revision::new(7)));
        assert_eq!((view.term(), view.leader()), (Term::new(Revision::new(2)), Some(&name("a"))));
        assert_eq!(view.causes(), [Cause::Resync]);
        assert_eq!(
            (names(view.nodes()), names(&*view), view.len()),
            (vec!["a", "b", "c"], names(view.iter()), 3)
        );
        assert!(!view.is_empty());
        assert_eq!(names(view.get(&name("c"))), ["c"]);
        assert_eq!((view.get(&name("x")), view.me()), (None, Some(&name("b"))));
        assert_eq!(names(view.own()), ["b"]);
        assert_eq!(format!("{view:?}"), format!("View({} @7 term 2 [\"a\", \"b\", \"c\"])", view.version()));
    }

    #[test]
    fn an_empty_view_owns_nothing() {
        let view = view(&[], Some("a"));
        assert!(view.is_empty() && view.own().is_none() && view.find("k").is_none() && !view.owns("k"));
        assert!(view.find_n("k", 2).is_empty());
        assert_eq!((view.len(), view.protocol()), (0, PROTOCOL));
    }

    #[test]
    fn every_key_has_one_owner_and_distinct_next_candidates() {
        let mut all = [node("a", "1"), node("b", "1"), node("c", "1"), node("d", "1")];
        all[3].metadata.insert(WEIGHT.to_owned(), "0".to_owned());
        let all = nodes(all);
        let of = |me| view(&all, me);
        let views = ["a", "b", "c", "d"].map(|me| of(Some(me)));
        let mut owners = std::collections::BTreeSet::new();
        for key in (0..100).map(|key| format!("device-{key}")) {
            let owner = views[0].find(&key).unwrap();
            let owning = views.iter().filter(|view| view.owns(&key)).map(|view| view.me().unwrap());
            assert_eq!(owning.collect::<Vec<_>>(), [&owner.name]);
            let line = views[0].find_n(&key, 2);
            assert_eq!((line.len(), &line[0]), (2, owner));
            assert_ne!(line[1], *owner);
            assert_eq!(views[0].find_n(&key, 9).len(), 3, "the node of weight 0 takes no keys");
            assert!(!of(None).owns(&key), "an observer owns no keys");
            owners.insert(owner.name.clone());
        }
        assert_eq!(owners, ["a", "b", "c"].map(name).into());
    }

    #[test]
    fn the_protocol_of_a_view_is_the_lowest_of_its_nodes() {
        let speaking = |protocol, name| Node { protocol, ..node(name, "1") };
        let of = |protocols: [u32; 3]| {
            let named = protocols.into_iter().zip(["a", "b", "c"]);
            view(&nodes(named.map(|(protocol, name)| speaking(protocol, name))), None).protocol()
        };
        assert_eq!((of([3, 2, 5]), of([4, 4, 4])), (2, 4));
    }

    #[test]
    fn a_diff_lists_the_nodes_that_joined_left_and_changed() {
        let before = view(&nodes([node("a", "1"), node("b", "1"), node("c", "1")]), None);
        let after = view(&nodes([node("b", "1"), node("c", "2"), node("d", "1")]), None);
        let diff = after.diff(Some(&before));
        assert_eq!(
            (names(&diff.joined), names(&diff.left), names(&diff.changed)),
            (vec!["d"], vec!["a"], vec!["c"])
        );
        assert_eq!(diff.changed[0].incarnation, "2", "a changed node is listed as in the newer view");
        assert!(after.diff(Some(&after)).is_empty());
        let first = after.diff(None);
        assert_eq!(
            (names(&first.joined), first.left.len(), first.changed.len()),
            (vec!["b", "c", "d"], 0, 0)
        );
        for one in [
            Diff { joined: diff.joined, ..Diff::default() },
            Diff { left: diff.left, ..Diff::default() },
            Diff { changed: diff.changed, ..Diff::default() },
        ] {
            assert!(!one.is_empty(), "{one:?}");
        }
    }
}
