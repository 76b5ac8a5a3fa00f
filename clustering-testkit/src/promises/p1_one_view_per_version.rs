//! P1. All nodes that stabilize for a version are given the identical list of nodes.
//!
//! The list is held against the cut that the ledger made by itself; where the ledger has a gap, against what the first
//! node was given.

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
        "P1, one view per version,"
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
            let expected = "a node stabilizes for versions that the log has";
            let found = format!("{by} was given {version} @{revision}, and the log does not have it");
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
    let expected = format!("every node that stabilizes for {version} is given what {who} has: {theirs:?}");
    Broken::new(expected, format!("{by} was given {nodes:?}")).about(version).about(by)
}

#[cfg(test)]
mod tests {
    use crate::promises::scene::{Scene, broken, kept};

    fn scene() -> Scene {
        Scene::of(&["a", "b"])
    }

    #[test]
    fn the_cut_given_to_all_is_one_view() {
        let mut scene = scene();
        scene.sees("a", "V1");
        scene.stabilizes("a", "V1", &["a", "b"]);
        scene.sees("b", "V1");
        scene.stabilizes("b", "V1", &["a", "b"]);
        kept(scene);
    }

    #[test]
    fn a_node_that_is_left_out_is_found() {
        let mut scene = scene();
        scene.sees("a", "V1");
        scene.stabilizes("a", "V1", &["a"]);
        broken("P1", "is given what the log has", scene);
    }

    #[test]
    fn a_uri_or_metadata_of_another_time_is_found() {
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
            broken("P1", "is given what the log has", scene);
        }
    }

    #[test]
    fn a_version_that_the_log_does_not_have_is_found() {
        let mut scene = scene();
        scene.sees_at("a", "V2", 99);
        scene.stabilizes_at("a", "V2", 99, &["a", "b"]);
        // P2 finds it as well, and earlier: by what the node saw.
        broken("P", "that the log has", scene);
    }

    #[test]
    fn where_the_ledger_has_a_gap_nodes_are_compared_with_each_other() {
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
        broken("P1", "is given what a#1 has", other);
    }
}
