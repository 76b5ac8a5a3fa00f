//! P1. All nodes that stabilize for a version receive the identical list of nodes.
//!
//! The list is compared with the cut that the ledger has computed by itself. Where the ledger has a gap, it is compared
//! with the list that the first node received.

use std::collections::BTreeMap;

use clustering_core::{Version, store::Revision};

use super::{Broken, Kept, Promise};
use crate::history::{Entry, Ledger, Life, Member, Observation};

#[derive(Clone, Debug, Default)]
pub(crate) struct OneView {
    given: BTreeMap<(Version, Revision), (Life, Vec<Member>)>,
}

impl Promise for OneView {
    fn name(&self) -> &'static str {
        "P1 (one view per version)"
    }

    fn observe(&mut self, entry: &Entry, ledger: &Ledger) -> Kept {
        let Observation::StabilizeBegan { version, revision, nodes, .. } = &entry.observation else {
            return Ok(());
        };
        let by = &entry.life;
        if let Some(published) = ledger.published_at(*version, *revision) {
            if published.cut != *nodes {
                return Err(differs(*version, "the log", &published.cut, by, nodes));
            }
        } else if !ledger.has_gaps() {
            let expected = "nodes stabilize only for versions in the log";
            let found = format!("{by} stabilized for {version} @{revision}, which is not in the log");
            return Err(Broken::new(expected, found).about(version).about(&entry.node));
        }
        let (first, same) =
            self.given.entry((*version, *revision)).or_insert_with(|| (by.clone(), nodes.clone()));
        match same == nodes {
            true => Ok(()),
            false => Err(differs(*version, &first.to_string(), same, by, nodes)),
        }
    }
}

fn differs(version: Version, who: &str, theirs: &[Member], by: &Life, nodes: &[Member]) -> Broken {
    let expected =
        format!("every node that stabilizes for {version} receives the nodes that {who} has: {theirs:?}");
    Broken::new(expected, format!("{by} received {nodes:?}")).about(version).about(by)
}

#[cfg(test)]
mod tests {
    use crate::promises::scene::{Scene, broken, kept};

    fn scene() -> Scene {
        Scene::of(&["a", "b"])
    }

    #[test]
    fn nodes_that_receive_the_cut_keep_the_promise() {
        let mut scene = scene();
        scene.sees("a", "V1");
        scene.stabilizes("a", "V1", &["a", "b"]);
        scene.sees("b", "V1");
        scene.stabilizes("b", "V1", &["a", "b"]);
        kept(scene);
    }

    #[test]
    fn a_missing_node_is_detected() {
        let mut scene = scene();
        scene.sees("a", "V1");
        scene.stabilizes("a", "V1", &["a"]);
        broken("P1", "the nodes that the log has", scene);
    }

    #[test]
    fn an_outdated_uri_metadata_or_incarnation_is_detected() {
        for change in [
            |scene: &mut Scene| scene.given("a", "V1", |nodes| nodes[1].uri = "http://elsewhere".into()),
            |scene: &mut Scene| {
                scene.given("a", "V1", |nodes| drop(nodes[0].metadata.insert("zone".into(), "x".into())));
            },
            |scene: &mut Scene| scene.given("a", "V1", |nodes| nodes[0].incarnation = "older".into()),
        ] {
            let mut scene = scene();
            scene.sees("a", "V1");
            change(&mut scene);
            broken("P1", "the nodes that the log has", scene);
        }
    }

    #[test]
    fn a_version_that_is_not_in_the_log_is_detected() {
        let mut scene = scene();
        scene.sees_at("a", "V2", 99);
        scene.stabilizes_at("a", "V2", 99, &["a", "b"]);
        // P2 detects it first, by the version that the node saw.
        broken("P", "only versions in the log", scene);
    }

    #[test]
    fn nodes_are_compared_with_each_other_where_the_ledger_has_a_gap() {
        let mut scene = scene();
        scene.gap();
        scene.sees_at("a", "V2", 99);
        scene.stabilizes_at("a", "V2", 99, &["a", "b"]);
        let mut other = scene.clone();
        for (scene, nodes) in [(&mut scene, &["a", "b"][..]), (&mut other, &["b"][..])] {
            scene.sees_at("b", "V2", 99);
            scene.stabilizes_at("b", "V2", 99, nodes);
        }
        kept(scene);
        broken("P1", "the nodes that a#1 has", other);
    }
}
