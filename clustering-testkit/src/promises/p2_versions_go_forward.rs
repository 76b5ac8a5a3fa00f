//! P2. No node ever sees versions out of order, whoever leads and however wrong its wall clock is.
//!
//! In the ledger the label of each version is above that of the one before it. On a node versions come in the order of the
//! revisions that wrote them, each once, and are those that the log has. A store that was put back to an older state
//! begins a new order: what the node saw of the old one says nothing of it.

use std::collections::BTreeMap;

use clustering_core::{Version, store::Revision};

use super::{Broken, Kept, Promise};
use crate::history::{
    Entry, Ledger, Life, Observation,
    ledger::{Act, Commit},
};

#[derive(Clone, Debug, Default)]
pub(crate) struct Forward {
    last: BTreeMap<Life, (Version, Revision)>,
}

impl Promise for Forward {
    fn name(&self) -> &'static str {
        "P2, versions go forward,"
    }

    fn commit(&mut self, commit: &Commit, ledger: &Ledger) -> Kept {
        if !commit.acts.iter().any(|act| matches!(act, Act::Published(_))) {
            return Ok(());
        }
        let [.., before, published] = ledger.present().versions() else { return Ok(()) };
        // Labels are minted above the one that stands. Where none stood, somebody had deleted or overwritten it; and
        // what was written by hand may be anything.
        let minted = !published.anew && !ledger.is_by_hand(published.revision);
        if minted && published.version <= before.version {
            let expected = format!("a version above {} @{}", before.version, before.revision);
            let found = format!("{} @{}", published.version, published.revision);
            return Err(Broken::new(expected, found).about(before.version).about(published.version));
        }
        Ok(())
    }

    fn observe(&mut self, entry: &Entry, ledger: &Ledger) -> Kept {
        match &entry.observation {
            Observation::Resynced { rewound: true, .. } => drop(self.last.remove(&entry.life)),
            Observation::VersionPublished { version, revision } => {
                let now = (*version, *revision);
                let found = format!("{} saw {version} @{revision}", entry.life);
                let broken =
                    |expected: String| Err(Broken::new(expected, &found).about(version).about(&entry.node));
                if ledger.published_at(*version, *revision).is_none() && !ledger.has_gaps() {
                    return broken("nodes see versions that the log has".to_owned());
                }
                if let Some((last, at)) = self.last.insert(entry.life.clone(), now)
                    && *revision <= at
                {
                    return broken(format!("a version written after {last} @{at}, which it saw before"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::promises::scene::{Scene, broken, kept};

    fn scene() -> Scene {
        let mut scene = Scene::of(&["a"]);
        scene.publish("V2");
        scene.publish("V3");
        scene
    }

    #[test]
    fn versions_in_their_order_and_some_left_out_go_forward() {
        let mut scene = scene();
        scene.sees("a", "V1");
        scene.sees("a", "V3");
        kept(scene);
    }

    #[test]
    fn an_older_version_after_a_newer_one_is_found() {
        let mut scene = scene();
        scene.sees("a", "V3");
        scene.sees("a", "V2");
        broken("P2", "a version written after", scene);
    }

    #[test]
    fn the_same_version_twice_is_found() {
        let mut scene = scene();
        scene.sees("a", "V3");
        scene.sees("a", "V3");
        broken("P2", "a version written after", scene);
    }

    #[test]
    fn a_label_below_the_one_before_is_found_in_the_log() {
        let mut scene = scene();
        scene.publish("V2b");
        broken("P2", "a version above", scene);
    }

    #[test]
    fn a_label_by_hand_or_after_a_deletion_may_be_any() {
        let mut scene = scene();
        scene.delete("view/version");
        scene.publish("V1b");
        let revision = scene.publish("V0");
        scene.by_hand(revision);
        kept(scene);
    }

    #[test]
    fn another_era_begins_another_order() {
        let mut scene = scene();
        scene.sees("a", "V3");
        scene.era();
        scene.join("a", 2);
        scene.elect("a", "V1");
        scene.resynced("a", true);
        scene.sees("a", "V1");
        kept(scene);
    }
}
