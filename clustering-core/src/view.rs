//! The view of a version: who belongs to it, the same on every node.

use std::{fmt, ops::Deref, sync::Arc};

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
}

#[derive(PartialEq, Eq, Hash)]
struct Cut {
    version: Version,
    revision: Revision,
    term: Term,
    leader: Option<NodeName>,
    causes: Vec<Cause>,
    nodes: Nodes,
}

impl View {
    pub(crate) fn new(
        label: Label,
        nodes: impl IntoIterator<Item = Arc<Node>>,
        me: Option<NodeName>,
    ) -> Self {
        let Label { version, revision, term, leader, causes } = label;
        View { cut: Arc::new(Cut { version, revision, term, leader, causes, nodes: Nodes::new(nodes) }), me }
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.cut.version
    }

    /// The revision that wrote it. A later version has a larger one.
    pub fn revision(&self) -> Revision {
        self.cut.revision
    }

    /// The term of the leader that published it.
    pub fn term(&self) -> Term {
        self.cut.term
    }

    /// The leader that published it, as its record names it.
    pub fn leader(&self) -> Option<&NodeName> {
        self.cut.leader.as_ref()
    }

    /// Why it was published.
    pub fn causes(&self) -> &[Cause] {
        &self.cut.causes
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
#[derive(Clone, Debug)]
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
        self.nodes.binary_search_by(|node| node.name.cmp(name)).ok().map(|index| &self.nodes[index])
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
