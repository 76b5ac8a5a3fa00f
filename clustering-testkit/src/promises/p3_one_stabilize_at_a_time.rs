//! P3. A node runs one stabilize at a time, for the newest version only. A superseded run is notified, and its result
//! is discarded.
//!
//! - On one life of a node, no stabilize begins while another is running.
//! - A stabilize begins for the version that the node decided on, which is the newest that it had seen. After a gap in
//!   what the node saw, the last version counts only if it is still the newest.
//! - A run is notified within [`GRACE`] of a newer version. After that, the node never becomes ready for the superseded
//!   version.
//! - At the end, each valid acknowledgement in the store follows from a stabilize of that node.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clustering_core::{NodeName, Version, store::Revision};

use super::{Broken, Calm, Kept, Promise};
use crate::history::{
    Ending, Entry, Ledger, Life, Moment, Observation,
    ledger::{Act, Commit},
};

/// Time within which a run must be notified that it is superseded. This is far longer than a notification takes.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
pub(crate) struct OneStabilize {
    lives: BTreeMap<Life, Progress>,
    /// Nodes and versions for which a stabilize succeeded.
    said_yes: BTreeSet<(NodeName, Version)>,
    /// Nodes whose stabilizes are recorded in a journal.
    journaled: BTreeSet<NodeName>,
    /// Positive acknowledgements in the store.
    acknowledged: BTreeSet<(NodeName, Version)>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    newest: Option<(Version, Revision)>,
    decided: Option<(Version, u32)>,
    running: Option<Version>,
    /// Time at which the node saw a newer version than the one for which a stabilize is running.
    outdated: Option<Moment>,
    superseded: Option<Version>,
}

impl Promise for OneStabilize {
    fn name(&self) -> &'static str {
        "P3 (one stabilize at a time)"
    }

    fn commit(&mut self, commit: &Commit, ledger: &Ledger) -> Kept {
        for act in &commit.acts {
            if let Act::Acknowledged { name, version: Some(version), ready: true } = act
                && !ledger.is_by_hand(commit.revision)
            {
                self.acknowledged.insert((name.clone(), *version));
            }
        }
        Ok(())
    }

    fn observe(&mut self, entry: &Entry, ledger: &Ledger) -> Kept {
        let life = self.lives.entry(entry.life.clone()).or_default();
        let about = |broken: Broken, version: &Version| broken.about(version).about(&entry.node);
        match &entry.observation {
            Observation::VersionPublished { version, revision } => {
                life.newest = Some((*version, *revision));
                if life.running.is_some() {
                    life.outdated.get_or_insert(entry.at);
                }
            }
            Observation::Resynced { rewound, revision } => {
                let kept = life.newest.filter(|(_, seen)| {
                    ledger.present().newest_at(*revision).is_none_or(|newest| newest.revision == *seen)
                });
                life.newest = kept.filter(|_| !rewound);
            }
            Observation::Stabilizing { version, attempt } => {
                let newest = life.newest.map(|(newest, _)| newest);
                if newest != Some(*version) {
                    let expected = match newest {
                        Some(newest) => {
                            format!("the node stabilizes for {newest}, the newest version that it saw")
                        }
                        None => "the node waits for a version whose view it can compute".to_owned(),
                    };
                    let found = format!("{} decided to stabilize for {version}", entry.life);
                    return Err(about(Broken::new(expected, found), version));
                }
                life.decided = Some((*version, *attempt));
            }
            Observation::StabilizeBegan { version, attempt, .. } => {
                self.journaled.insert(entry.node.clone());
                let found = format!("{} began a stabilize for {version}, attempt {attempt}", entry.life);
                if let Some(running) = life.running {
                    let expected = format!("the stabilize for {running} ends before another begins");
                    return Err(about(Broken::new(expected, found), version));
                }
                if life.decided != Some((*version, *attempt)) {
                    let expected = format!("a stabilize begins as the node decided: {:?}", life.decided);
                    return Err(about(Broken::new(expected, found), version));
                }
                life.running = Some(*version);
                let newest = life.newest.is_some_and(|(newest, _)| newest == *version);
                life.outdated = (!newest).then_some(entry.at);
                life.superseded = None;
            }
            Observation::Superseded { version } => life.superseded = Some(*version),
            Observation::StabilizeEnded { version, ending, told, .. } => {
                life.running = None;
                let late = life.outdated.take().is_some_and(|since| entry.at.since(since) > GRACE);
                if late && !told {
                    let expected = "a stabilize is told when it is superseded";
                    let found = format!("{} did not tell its stabilize for {version}", entry.life);
                    return Err(about(Broken::new(expected, found), version));
                }
                if *ending == Ending::Ready {
                    self.said_yes.insert((entry.node.clone(), *version));
                }
            }
            Observation::Ready { version } if life.superseded == Some(*version) => {
                let expected = "the result of a superseded stabilize is discarded";
                let found = format!("{} became ready for {version}", entry.life);
                return Err(about(Broken::new(expected, found), version));
            }
            _ => {}
        }
        Ok(())
    }

    fn calm(&mut self, _: &Calm, _: &Ledger) -> Kept {
        let unsaid = self.acknowledged.iter().find(|(name, version)| {
            self.journaled.contains(name) && !self.said_yes.contains(&(name.clone(), *version))
        });
        match unsaid {
            None => Ok(()),
            Some((name, version)) => {
                let expected = "each acknowledgement in the store follows from a stabilize that succeeded";
                let found = format!("no stabilize of {name} for {version} succeeded");
                Err(Broken::new(expected, found).about(version).about(name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::promises::scene::{Scene, broken, kept, version};

    fn scene() -> Scene {
        let mut scene = Scene::of(&["a"]);
        scene.sees("a", "V1");
        scene
    }

    fn begins(scene: &mut Scene, label: &str) {
        scene.stabilize_begins("a", label, 1, &["a"]);
    }

    fn ends(scene: &mut Scene, label: &str, told: bool) {
        scene.stabilize_ends("a", label, 1, told);
    }

    #[test]
    fn consecutive_stabilizes_for_the_newest_version_keep_the_promise() {
        let mut scene = scene();
        begins(&mut scene, "V1");
        scene.publish("V2");
        scene.publish("V3");
        scene.sees("a", "V2");
        scene.saw("a", Observation::Superseded { version: version("V1") });
        scene.sees("a", "V3");
        scene.pass(Duration::from_secs(5));
        ends(&mut scene, "V1", true);
        begins(&mut scene, "V3");
        ends(&mut scene, "V3", false);
        scene.acknowledge("a", "V3");
        kept(scene);
    }

    #[test]
    fn two_stabilizes_at_a_time_are_detected() {
        let mut scene = scene();
        begins(&mut scene, "V1");
        scene.publish("V2");
        scene.sees("a", "V2");
        begins(&mut scene, "V2");
        broken("P3", "ends before another begins", scene);
    }

    #[test]
    fn a_stabilize_for_an_older_version_is_detected() {
        let mut scene = scene();
        scene.publish("V2");
        scene.sees("a", "V2");
        begins(&mut scene, "V1");
        broken("P3", "the newest version that it saw", scene);
    }

    #[test]
    fn a_stabilize_that_the_node_did_not_decide_on_is_detected() {
        let mut scene = scene();
        scene.stabilize_begins("a", "V1", 1, &["a"]);
        ends(&mut scene, "V1", false);
        scene.callback_begins("a", "V1", 2, &["a"]);
        broken("P3", "begins as the node decided", scene);
    }

    #[test]
    fn a_stabilize_for_a_version_that_was_superseded_during_a_gap_is_detected() {
        let mut scene = scene();
        scene.publish("V2");
        scene.resynced("a", false);
        begins(&mut scene, "V1");
        broken("P3", "whose view it can compute", scene);
    }

    #[test]
    fn a_stabilize_for_a_version_that_is_still_the_newest_after_a_gap_keeps_the_promise() {
        let mut scene = scene();
        scene.write_elsewhere();
        scene.resynced("a", false);
        begins(&mut scene, "V1");
        kept(scene);
    }

    #[test]
    fn a_superseded_stabilize_that_is_not_told_is_detected() {
        let mut scene = scene();
        begins(&mut scene, "V1");
        scene.publish("V2");
        scene.sees("a", "V2");
        scene.pass(Duration::from_secs(2));
        ends(&mut scene, "V1", false);
        broken("P3", "is told when it is superseded", scene);
    }

    #[test]
    fn a_result_of_a_superseded_stabilize_that_counts_is_detected() {
        let mut scene = scene();
        begins(&mut scene, "V1");
        scene.saw("a", Observation::Superseded { version: version("V1") });
        ends(&mut scene, "V1", true);
        scene.saw("a", Observation::Ready { version: version("V1") });
        broken("P3", "is discarded", scene);
    }

    #[test]
    fn an_acknowledgement_without_a_stabilize_is_detected_at_the_end() {
        let mut scene = scene();
        begins(&mut scene, "V1");
        scene.acknowledge("a", "V1");
        scene.calm(&["a"]);
        broken("P3", "follows from a stabilize", scene);
    }
}
