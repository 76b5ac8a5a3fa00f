use clustering_core::{NodeName, node::WEIGHT, placement::Placement};

use clustering_testkit::history::Member;

/// Keys whose owners are compared.
pub(in crate::sim) const KEYS: [&str; 4] = ["a", "device-17", "tenants/9", "zz"];

/// Computes the owners of [`KEYS`] among the nodes of a cut, from their records in the log.
pub(in crate::sim) fn owners(cut: &[Member]) -> [Option<NodeName>; KEYS.len()] {
    let weight =
        |node: &Member| node.metadata.get(WEIGHT).and_then(|text| text.parse().ok()).unwrap_or_default();
    let placement = Placement::new(cut.iter().map(|node| (node.name.as_str(), weight(node))));
    KEYS.map(|key| placement.find(key.as_bytes()).map(|place| cut[place].name.clone()))
}
