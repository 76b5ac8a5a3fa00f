//! P8. When changes cease, the newest version becomes stable; one that is stuck names who blocks it.
//!
//! - At the end: the newest version is recorded as stable, its nodes are those present, and those that should be there.
//! - Who is named as blocking a version belongs to its view.

use clustering_core::NodeName;

use super::{Broken, Calm, Kept, Promise};
use crate::history::{Entry, Ledger, Observation};

#[derive(Clone, Debug, Default)]
pub(crate) struct Progress;

impl Promise for Progress {
    fn name(&self) -> &'static str {
        "P8, progress,"
    }

    fn observe(&mut self, entry: &Entry, ledger: &Ledger) -> Kept {
        let Observation::Blocked { version, missing, .. } = &entry.observation else { return Ok(()) };
        let Some(published) = ledger.published(*version) else { return Ok(()) };
        let known = |name: &NodeName| published.cut.iter().any(|node| node.name == *name);
        if missing.is_empty() {
            let expected = "a version that is blocked names who blocks it";
            return Err(Broken::new(expected, "nobody is named").about(version).about(&entry.node));
        }
        match missing.iter().find(|missing| !known(&missing.name)) {
            None => Ok(()),
            Some(stranger) => {
                let expected = format!("who blocks {version} belongs to it");
                let found = format!("{} names {}", entry.life, stranger.name);
                Err(Broken::new(expected, found).about(version).about(&stranger.name))
            }
        }
    }

    fn calm(&mut self, calm: &Calm, ledger: &Ledger) -> Kept {
        let era = ledger.present();
        if calm.members.is_empty() {
            // When everybody left, nobody publishes that.
            return match era.present().first() {
                None => Ok(()),
                Some(left) => {
                    Err(Broken::new("in the end nobody is there", format!("{left:?} is")).about(&left.name))
                }
            };
        }
        let Some(newest) = era.newest() else {
            return Err(Broken::new("in the end there is a version", "there is none"));
        };
        if era.present() != newest.cut {
            let expected = format!("in the end the newest version has those present: {:?}", era.present());
            let found = format!("{} has {:?}", newest.version, newest.cut);
            return Err(Broken::new(expected, found).about(newest.version));
        }
        let names = newest.cut.iter().map(|node| &node.name);
        if !names.clone().eq(&calm.members) {
            let expected = format!("in the end those are there that should be: {:?}", calm.members);
            let found = format!("{} has {:?}", newest.version, names.collect::<Vec<_>>());
            return Err(Broken::new(expected, found).about(newest.version));
        }
        if !era.is_stable() {
            let expected = "in the end the newest version is stable";
            let found =
                format!("{} is not; acknowledgements are missing of {:?}", newest.version, era.missing());
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
    fn a_stable_version_of_those_present_is_calm() {
        let mut scene = scene();
        scene.settled(&["a"], "V1");
        kept(scene);
    }

    #[test]
    fn a_newest_version_that_is_not_stable_is_found() {
        let mut scene = scene();
        scene.settled(&["a"], "V1");
        scene.publish("V2");
        scene.calm(&["a"]);
        broken("P8", "is stable", scene);
    }

    #[test]
    fn a_node_that_no_version_has_is_found() {
        let mut scene = scene();
        scene.settled(&["a"], "V1");
        scene.join("b", 2);
        scene.joined("b");
        scene.calm(&["a"]);
        broken("P8", "has those present", scene);
    }

    #[test]
    fn a_node_that_should_not_be_there_is_found() {
        let mut scene = Scene::of(&["a", "b"]);
        scene.joined("a");
        scene.joined("b");
        scene.acknowledge("b", "V1");
        scene.settled(&["a"], "V1");
        broken("P8", "that should be", scene);
    }

    #[test]
    fn a_cluster_that_all_left_is_calm() {
        let mut scene = scene();
        scene.leave("a");
        scene.saw("a", Observation::Stopped { reason: "asked".into() });
        scene.calm(&[]);
        kept(scene);
    }

    #[test]
    fn a_stranger_or_nobody_named_as_blocking_is_found() {
        for (named, says) in [(&["x"][..], "belongs to it"), (&[], "names who blocks it")] {
            let mut scene = scene();
            let missing = |name: &&str| Missing { name: NodeName::parse(name).unwrap(), refused: None };
            let missing = named.iter().map(missing).collect();
            scene.saw("a", Observation::Blocked { version: version("V1"), since: Duration::ZERO, missing });
            broken("P8", says, scene);
        }
    }
}
