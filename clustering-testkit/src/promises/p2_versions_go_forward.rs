//! P2. No node ever sees versions out of order, no matter which node leads and how wrong its wall clock is.
//!
//! In the ledger, the label of each version is above the previous label. On a node, versions come in the order of the
//! revisions that wrote them, each once, and only those in the log. Restoring the store to an older state begins a new
//! order of revisions. Labels keep increasing across it: a node that rejoins records the label that it had seen, and
//! the next publisher whose previous cut contains that node generates a label above it.

use std::collections::BTreeMap;

use clustering_core::{Incarnation, Version, store::Revision};

use super::{Broken, Calm, Kept, Promise};
use crate::history::{
    Entry, Ledger, Life, Member, Observation,
    ledger::{Act, Commit, Published},
};

#[derive(Clone, Debug, Default)]
pub(crate) struct Forward {
    last: BTreeMap<Life, (Version, Revision)>,
    /// Largest label that each process saw in any era.
    seen: BTreeMap<Life, Version>,
    /// Largest label that each process had seen when the store was last restored.
    before_rewind: BTreeMap<Life, Version>,
    /// Lower bound for the labels of versions, by the sessions in their cut.
    owed: BTreeMap<Incarnation, Version>,
}

impl Forward {
    /// Checks that the newest version is above all labels that the nodes in `cut` had seen when they rejoined.
    fn above_what_was_seen(&self, published: &Published, cut: &[Member], ledger: &Ledger) -> Kept {
        let owed = cut.iter().filter_map(|node| Some((node, self.owed.get(&node.incarnation)?)));
        let Some((node, seen)) = owed.max_by_key(|(_, seen)| **seen) else { return Ok(()) };
        if published.version > *seen || ledger.is_by_hand(published.revision) {
            return Ok(());
        }
        let expected =
            format!("a version above {seen}, which {} saw before the store was restored", node.name);
        let found = format!("{} @{}", published.version, published.revision);
        Err(Broken::new(expected, found).about(published.version).about(&node.name))
    }
}

impl Promise for Forward {
    fn name(&self) -> &'static str {
        "P2 (versions go forward)"
    }

    fn commit(&mut self, commit: &Commit, ledger: &Ledger) -> Kept {
        if !commit.acts.iter().any(|act| matches!(act, Act::Published(_))) {
            return Ok(());
        }
        let [.., before, published] = ledger.present().versions() else { return Ok(()) };
        // A publisher generates a label above the current one. If there was none, an operator had deleted or
        // overwritten it. Versions written by hand may have any label.
        let by_hand = ledger.is_by_hand(published.revision) || !before.version.is_plausible();
        let minted = !published.anew && !by_hand;
        if minted && published.version <= before.version {
            let expected = format!("a version above {} @{}", before.version, before.revision);
            let found = format!("{} @{}", published.version, published.revision);
            return Err(Broken::new(expected, found).about(before.version).about(published.version));
        }
        // The publisher had followed the log up to the previous version, so it knew all nodes in that version's cut.
        // It may have missed nodes that joined later. If an operator had deleted that version, the publisher knows
        // only those that are still present.
        let is_known = |node: &&Member| !published.anew || published.cut.contains(node);
        let known: Vec<Member> = before.cut.iter().filter(is_known).cloned().collect();
        self.above_what_was_seen(published, &known, ledger)
    }

    fn calm(&mut self, _: &Calm, ledger: &Ledger) -> Kept {
        let Some(newest) = ledger.present().newest() else { return Ok(()) };
        self.above_what_was_seen(newest, &newest.cut, ledger)
    }

    fn observe(&mut self, entry: &Entry, ledger: &Ledger) -> Kept {
        match &entry.observation {
            Observation::Resynced { rewound: true, .. } => {
                self.last.remove(&entry.life);
                let seen = self.seen.get(&entry.life).copied();
                self.before_rewind.extend(seen.map(|seen| (entry.life.clone(), seen)));
            }
            Observation::Rejoined { incarnation } => {
                let seen = self.before_rewind.get(&entry.life).copied();
                self.owed.extend(seen.map(|seen| (incarnation.clone(), seen)));
            }
            Observation::VersionPublished { version, revision } => {
                if version.is_plausible() {
                    let seen = self.seen.entry(entry.life.clone()).or_insert(*version);
                    *seen = (*seen).max(*version);
                }
                let now = (*version, *revision);
                let found = format!("{} saw {version} @{revision}", entry.life);
                let broken =
                    |expected: String| Err(Broken::new(expected, &found).about(version).about(&entry.node));
                if ledger.published_at(*version, *revision).is_none() && !ledger.has_gaps() {
                    return broken("nodes see only versions in the log".to_owned());
                }
                if let Some((last, at)) = self.last.insert(entry.life.clone(), now)
                    && *revision <= at
                {
                    return broken(format!(
                        "a version written after {last} @{at}, which the node saw before"
                    ));
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
    fn a_node_may_skip_versions() {
        let mut scene = scene();
        scene.sees("a", "V1");
        scene.sees("a", "V3");
        kept(scene);
    }

    #[test]
    fn an_older_version_after_a_newer_one_is_detected() {
        let mut scene = scene();
        scene.sees("a", "V3");
        scene.sees("a", "V2");
        broken("P2", "a version written after", scene);
    }

    #[test]
    fn a_repeated_version_is_detected() {
        let mut scene = scene();
        scene.sees("a", "V3");
        scene.sees("a", "V3");
        broken("P2", "a version written after", scene);
    }

    #[test]
    fn a_label_in_the_log_below_the_previous_one_is_detected() {
        let mut scene = scene();
        scene.publish("V2b");
        broken("P2", "a version above", scene);
    }

    #[test]
    fn any_label_may_follow_a_deletion_or_be_written_by_hand() {
        let mut scene = scene();
        scene.delete("view/version");
        scene.publish("V1b");
        let revision = scene.publish("V0");
        scene.by_hand(revision);
        kept(scene);
    }

    /// Restores the store, and lets another node publish that label before `a` rejoins.
    fn restored(label: &str) -> Scene {
        let mut scene = scene();
        scene.sees("a", "V3");
        scene.era();
        scene.join("b", 2);
        scene.elect("b", label);
        scene.resynced("a", true);
        scene.sees("a", label);
        scene.join("a", 3);
        scene.rejoined("a");
        scene
    }

    #[test]
    fn a_restored_store_begins_a_new_order_of_versions() {
        let mut scene = restored("V1");
        scene.publish("V4");
        scene.publish("V5");
        scene.sees("a", "V5");
        kept(scene);
    }

    #[test]
    fn a_publisher_that_finds_no_version_need_not_know_labels_seen_by_departed_nodes() {
        let mut scene = restored("V1");
        scene.publish("V4");
        scene.delete("view/version");
        scene.leave("a");
        scene.publish("V2");
        kept(scene);
    }

    #[test]
    fn a_label_below_one_seen_by_a_node_of_the_cut_is_detected_across_eras() {
        let mut scene = restored("V1");
        scene.publish("V1b");
        scene.publish("V2");
        scene.settled(&["a", "b"], "V2");
        broken("P2", "a version above 0000000000000000000000000Y, which a saw", scene);
    }

    #[test]
    fn a_final_label_below_one_seen_by_a_node_is_detected() {
        let mut scene = restored("V1");
        scene.publish("V2");
        scene.settled(&["a", "b"], "V2");
        broken("P2", "which a saw before the store was restored", scene);
    }
}
