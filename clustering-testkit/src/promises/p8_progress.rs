//! P8. When changes cease, the newest version becomes stable. The report of a blocked version names the nodes that
//! block it.
//!
//! - At the end, the newest version is recorded as stable, and its nodes are the present and the expected ones.
//! - Nodes that are reported to block a version belong to its view.

use clustering_core::NodeName;

use super::{Broken, Calm, Kept, Promise};
use crate::history::{Entry, Ledger, Observation};

#[derive(Clone, Debug, Default)]
pub(crate) struct Progress;

impl Promise for Progress {
    fn name(&self) -> &'static str {
        "P8 (progress)"
    }

    fn observe(&mut self, entry: &Entry, ledger: &Ledger) -> Kept {
        let Observation::Blocked { version, missing, holders, waits_for_nodes, .. } = &entry.observation
        else {
            return Ok(());
        };
        let Some(published) = ledger.published(*version) else { return Ok(()) };
        let known = |name: &NodeName| published.cut.iter().any(|node| node.name == *name);
        if missing.is_empty() && holders.is_empty() && waits_for_nodes.is_none() {
            let expected = "the report of a blocked version names the nodes that block it";
            return Err(Broken::new(expected, "no node is named").about(version).about(&entry.node));
        }
        match missing.iter().find(|missing| !known(&missing.name)) {
            None => Ok(()),
            Some(stranger) => {
                let expected = format!("nodes that block {version} belong to it");
                let found = format!("{} names {}", entry.life, stranger.name);
                Err(Broken::new(expected, found).about(version).about(&stranger.name))
            }
        }
    }

    fn calm(&mut self, calm: &Calm, ledger: &Ledger) -> Kept {
        let era = ledger.present();
        if calm.members.is_empty() {
            // If all nodes have left, there is no leader to publish that.
            return match era.present().first() {
                None => Ok(()),
                Some(left) => {
                    Err(Broken::new("at the end, no node is present", format!("{left:?} is present"))
                        .about(&left.name))
                }
            };
        }
        let Some(newest) = era.newest() else {
            return Err(Broken::new("at the end, there is a version", "there is none"));
        };
        if era.present() != newest.cut {
            let expected =
                format!("at the end, the newest version has the present nodes: {:?}", era.present());
            let found = format!("{} has {:?}", newest.version, newest.cut);
            return Err(Broken::new(expected, found).about(newest.version));
        }
        let names = newest.cut.iter().map(|node| &node.name);
        if !names.clone().eq(&calm.members) {
            let expected =
                format!("at the end, the newest version has the expected nodes: {:?}", calm.members);
            let found = format!("{} has {:?}", newest.version, names.collect::<Vec<_>>());
            return Err(Broken::new(expected, found).about(newest.version));
        }
        if !era.is_stable() {
            let expected = "at the end, the newest version is stable";
            let found =
                format!("{} is not stable; missing acknowledgements: {:?}", newest.version, era.missing());
            let broken = Broken::new(expected, found).about(newest.version);
            return Err(era.missing().iter().fold(broken, Broken::about));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        history::Missing,
        promises::scene::{Scene, broken, kept, version},
    };

    fn scene() -> Scene {
        let mut scene = Scene::of(&["a"]);
        scene.joined("a");
        scene
    }

    #[test]
    fn a_stable_version_of_the_present_nodes_keeps_the_promise() {
        let mut scene = scene();
        scene.settled(&["a"], "V1");
        kept(scene);
    }

    #[test]
    fn a_newest_version_that_is_not_stable_is_detected() {
        let mut scene = scene();
        scene.settled(&["a"], "V1");
        scene.publish("V2");
        scene.calm(&["a"]);
        broken("P8", "is stable", scene);
    }

    #[test]
    fn a_present_node_that_no_version_has_is_detected() {
        let mut scene = scene();
        scene.settled(&["a"], "V1");
        scene.join("b", 2);
        scene.joined("b");
        scene.calm(&["a"]);
        broken("P8", "has the present nodes", scene);
    }

    #[test]
    fn an_unexpected_node_is_detected() {
        let mut scene = Scene::of(&["a", "b"]);
        scene.joined("a");
        scene.joined("b");
        scene.acknowledge("b", "V1");
        scene.settled(&["a"], "V1");
        broken("P8", "the expected nodes", scene);
    }

    #[test]
    fn a_cluster_that_all_nodes_have_left_keeps_the_promise() {
        let mut scene = scene();
        scene.leave("a");
        scene.saw("a", Observation::Stopped { reason: "asked".into() });
        scene.calm(&[]);
        kept(scene);
    }

    #[test]
    fn a_blocked_report_that_names_a_foreign_node_or_none_is_detected() {
        for (named, says) in [(&["x"][..], "belong to it"), (&[], "names the nodes that block it")] {
            let mut scene = scene();
            let missing = |name: &&str| Missing { name: NodeName::parse(name).unwrap(), refused: None };
            let missing = named.iter().map(missing).collect();
            let (version, since, holders) = (version("V1"), Duration::ZERO, Vec::new());
            let waits_for_nodes = None;
            scene.saw("a", Observation::Blocked { version, since, missing, holders, waits_for_nodes });
            broken("P8", says, scene);
        }
    }
}
