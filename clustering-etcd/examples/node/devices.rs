use clustering_core::{Stabilization, View};

/// Number of devices that the nodes of the cluster share.
const DEVICES: usize = 24;

/// Changes of the devices of a node.
pub(crate) struct Diff {
    pub(crate) owned: usize,
    pub(crate) gained: Vec<String>,
    pub(crate) lost: Vec<String>,
}

/// Compares the devices of this node in the previous and in the new view. Every node computes the same placement from
/// the same view, so that each device belongs to exactly one node once all have adapted.
pub(crate) fn diff(change: &Stabilization) -> Diff {
    let owns = |view: Option<&View>, device: &str| view.is_some_and(|view| view.owns(device));
    let mut diff = Diff { owned: 0, gained: Vec::new(), lost: Vec::new() };
    for device in (1..=DEVICES).map(|number| format!("device-{number}")) {
        let (had, has) = (owns(change.previous(), &device), owns(Some(change.view()), &device));
        diff.owned += usize::from(has);
        match (had, has) {
            (false, true) => diff.gained.push(device),
            (true, false) => diff.lost.push(device),
            _ => {}
        }
    }
    diff
}
