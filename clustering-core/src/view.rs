//! The view of a version: who belongs to it, the same on every node.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use serde::Serialize;

use crate::{
    name::NodeName,
    node::Node,
    placement::Placement,
    record::Cause,
    store::Revision,
    version::{Term, Version},
};

/// The nodes of one version: all that were present after the changes of the revision that wrote it.
///
/// Every node that sees the version has the identical view (P1). Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct View {
    cut: Arc<Cut>,
    me: Option<NodeName>,
    /// The place of the node that holds the view, if it is in it: asked for far more often than views are cut.
    own: Option<usize>,
}

#[derive(PartialEq, Eq, Hash)]
struct Cut {
    label: Label,
    nodes: Nodes,
}

/// The last cuts, for the nodes of this process that make the same: where many share a process they share the views, too,
/// which would else take as much again for each.
static CUTS: Mutex<Vec<Weak<Cut>>> = Mutex::new(Vec::new());

/// How many cuts are looked through. Nodes of one process are rarely so many versions apart.
const CUTS_KEPT: usize = 16;

impl Cut {
    /// The cut of that label and these nodes, if somebody in this process has made it.
    fn find<'a>(label: &Label, nodes: impl Iterator<Item = &'a Arc<Node>> + Clone) -> Option<Arc<Cut>> {
        let alike = |cut: &Arc<Cut>| cut.label.revision == label.revision && cut.label == *label;
        let known: Vec<_> = cuts().iter().filter_map(Weak::upgrade).filter(alike).collect();
        // Records are shared as well: equal nodes are the same one. Others are as good as different.
        let pointers = nodes.map(Arc::as_ptr);
        known.into_iter().find(|cut| cut.nodes.iter().map(Arc::as_ptr).eq(pointers.clone()))
    }

    fn keep(cut: &Arc<Cut>) {
        let mut cuts = cuts();
        cuts.retain(|cut| cut.strong_count() > 0);
        if cuts.len() == CUTS_KEPT {
            cuts.remove(0);
        }
        cuts.push(Arc::downgrade(cut));
    }
}

fn cuts() -> MutexGuard<'static, Vec<Weak<Cut>>> {
    CUTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl View {
    /// The view of nodes sorted by name.
    pub(crate) fn new<'a>(
        label: Label,
        nodes: impl Iterator<Item = &'a Arc<Node>> + Clone,
        me: Option<NodeName>,
    ) -> Self {
        let cut = Cut::find(&label, nodes.clone()).unwrap_or_else(|| {
            let cut = Arc::new(Cut { label, nodes: Nodes::new(nodes.cloned()) });
            Cut::keep(&cut);
            cut
        });
        let own = me.as_ref().and_then(|me| cut.nodes.place(me));
        View { cut, me, own }
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.cut.label.version
    }

    /// The revision that wrote it. A later version has a larger one.
    pub fn revision(&self) -> Revision {
        self.cut.label.revision
    }

    /// The term of the leader that published it.
    pub fn term(&self) -> Term {
        self.cut.label.term
    }

    /// The leader that published it, as its record names it.
    pub fn leader(&self) -> Option<&NodeName> {
        self.cut.label.leader.as_ref()
    }

    /// Why it was published.
    pub fn causes(&self) -> &[Cause] {
        &self.cut.label.causes
    }

    /// Whether `key` belongs to the node that holds this view. False in the view of a process that is no node.
    ///
    /// A view does not know whether it is still good: to decide whether this node may work on a key *now*, ask
    /// [`Clustering::owns`](crate::Clustering::owns).
    pub fn owns(&self, key: impl AsRef<[u8]>) -> bool {
        self.me.as_ref().is_some_and(|me| self.find(key).is_some_and(|owner| owner.name == *me))
    }

    /// The name of the node that holds this view.
    pub fn me(&self) -> Option<&NodeName> {
        self.me.as_ref()
    }

    /// The node that holds this view, if it is in it.
    pub(crate) fn own(&self) -> Option<&Arc<Node>> {
        self.own.map(|place| &self.nodes[place])
    }

    /// The protocol that all nodes of the view speak: the lowest among theirs.
    pub fn protocol(&self) -> u32 {
        self.iter().map(|node| node.protocol).min().unwrap_or(crate::record::PROTOCOL)
    }

    /// What changed since `previous`; since nothing, if there is none.
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

impl Deref for View {
    type Target = Nodes;
    fn deref(&self) -> &Nodes {
        &self.cut.nodes
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} @{} term {} ", self.version(), self.revision(), self.term())?;
        f.debug_list().entries(self.iter().map(|node| &node.name)).finish()?;
        f.write_str(")")
    }
}

/// What a version record says of itself, beside the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Label {
    pub(crate) version: Version,
    pub(crate) revision: Revision,
    pub(crate) term: Term,
    pub(crate) leader: Option<NodeName>,
    pub(crate) causes: Vec<Cause>,
}

/// Some nodes, sorted by name, and where keys belong among them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nodes {
    nodes: Box<[Arc<Node>]>,
    placement: Placement,
}

impl Nodes {
    /// Of nodes sorted by name.
    pub(crate) fn new(nodes: impl IntoIterator<Item = Arc<Node>>) -> Self {
        let nodes: Box<[_]> = nodes.into_iter().collect();
        debug_assert!(nodes.is_sorted_by(|a, b| a.name < b.name));
        let placement = Placement::new(nodes.iter().map(|node| (node.name.as_str(), node.weight())));
        Nodes { nodes, placement }
    }

    /// The nodes, sorted by name.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The nodes, sorted by name.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Node>> {
        self.nodes.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The node of that name.
    pub fn get(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.place(name).map(|place| &self.nodes[place])
    }

    fn place(&self, name: &NodeName) -> Option<usize> {
        self.nodes.binary_search_by(|node| node.name.cmp(name)).ok()
    }

    /// The node that owns `key`, or `None` if no node takes keys. See [`placement`](crate::placement).
    pub fn find(&self, key: impl AsRef<[u8]>) -> Option<&Arc<Node>> {
        self.placement.find(key.as_ref()).map(|index| &self.nodes[index])
    }

    /// The owner of `key` and those next in line, `n` in all, or fewer if fewer take keys.
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

/// What changed from one view to another. Each list is sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Nodes whose names are new.
    pub joined: Vec<Arc<Node>>,
    /// Nodes whose names are gone.
    pub left: Vec<Arc<Node>>,
    /// Nodes of the same name in another life: they restarted, lost their session, or changed their metadata. As the
    /// newer view has them.
    pub changed: Vec<Arc<Node>>,
}

impl Diff {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty() && self.changed.is_empty()
    }
}
