//! P3. One stabilize at a time, for the newest version only. A run that is superseded is told, and its answer discarded.
//!
//! - On one life of a node no stabilize begins while another runs.
//! - It begins for what the node had decided to stabilize, and that is the newest version that it had seen. After a gap in
//!   what it saw, the last version counts only if it is still the newest.
//! - A run is told within [`GRACE`] of a newer version, and a version for which it was told never becomes ready.
//! - At the end: each yes in the store that counts was said by a stabilize of that node.

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

/// How long after a newer version a run must know that it is superseded: far more than it takes to tell it, and less than
/// would go unnoticed.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
pub(crate) struct OneStabilize {
    lives: BTreeMap<Life, Progress>,
    /// Who said yes to which version, by a stabilize that ran to its end.
    said_yes: BTreeSet<(NodeName, Version)>,
    /// The nodes of whose stabilizes there is a journal.
    journaled: BTreeSet<NodeName>,
    /// The acknowledgements in the store that say yes.
    acknowledged: BTreeSet<(NodeName, Version)>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    newest: Option<(Version, Revision)>,
    decided: Option<(Version, u32)>,
    running: Option<Version>,
    /// When it saw a newer version than the one that runs.
    outdated: Option<Moment>,
    superseded: Option<Version>,
}

impl Promise for OneStabilize {
    fn name(&self) -> &'static str {
        "P3, one stabilize at a time,"
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
                        Some(newest) => format!("it stabilizes for {newest}, the newest that it saw"),
                        None => "it waits for a version whose view it can know".to_owned(),
                    };
                    let found = format!("{} decides to stabilize for {version}", entry.life);
                    return Err(about(Broken::new(expected, found), version));
                }
                life.decided = Some((*version, *attempt));
            }
            Observation::StabilizeBegan { version, attempt, .. } => {
                self.journaled.insert(entry.node.clone());
                let found = format!("{} began one for {version}, try {attempt}", entry.life);
                if let Some(running) = life.running {
                    let expected = format!("the stabilize for {running} ends before another begins");
                    return Err(about(Broken::new(expected, found), version));
                }
                if life.decided != Some((*version, *attempt)) {
                    let expected = format!("a stabilize begins as decided: {:?}", life.decided);
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
                    let expected = "a stabilize that runs while a newer version comes is told so";
                    let found = format!("that of {} for {version} was not", entry.life);
                    return Err(about(Broken::new(expected, found), version));
                }
                if *ending == Ending::Ready {
                    self.said_yes.insert((entry.node.clone(), *version));
                }
            }
            Observation::Ready { version } if life.superseded == Some(*version) => {
                let expected = "the answer of a stabilize that was superseded is discarded";
                let found = format!("{} is ready at {version}", entry.life);
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
                let expected = "a yes in the store was said by a stabilize that ran to its end";
                let found = format!("no stabilize of {name} said yes to {version}");
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
    fn one_after_the_other_for_the_newest_is_kept() {
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
    fn two_at_once_are_found() {
        let mut scene = scene();
        begins(&mut scene, "V1");
        scene.publish("V2");
        scene.sees("a", "V2");
        begins(&mut scene, "V2");
        broken("P3", "ends before another begins", scene);
    }

    #[test]
    fn one_for_an_older_version_is_found() {
        let mut scene = scene();
        scene.publish("V2");
        scene.sees("a", "V2");
        begins(&mut scene, "V1");
        broken("P3", "the newest that it saw", scene);
    }

    #[test]
    fn a_run_that_nobody_decided_is_found() {
        let mut scene = scene();
        scene.stabilize_begins("a", "V1", 1, &["a"]);
        ends(&mut scene, "V1", false);
        scene.callback_begins("a", "V1", 2, &["a"]);
        broken("P3", "begins as decided", scene);
    }

    #[test]
    fn a_version_kept_over_a_gap_in_which_newer_ones_came_is_found() {
        let mut scene = scene();
        scene.publish("V2");
        scene.resynced("a", false);
        begins(&mut scene, "V1");
        broken("P3", "whose view it can know", scene);
    }

    #[test]
    fn a_version_kept_over_a_gap_in_which_none_came_is_kept() {
        let mut scene = scene();
        scene.write_elsewhere();
        scene.resynced("a", false);
        begins(&mut scene, "V1");
        kept(scene);
    }

    #[test]
    fn a_run_that_is_never_told_is_found() {
        let mut scene = scene();
        begins(&mut scene, "V1");
        scene.publish("V2");
        scene.sees("a", "V2");
        scene.pass(Duration::from_secs(2));
        ends(&mut scene, "V1", false);
        broken("P3", "is told so", scene);
    }

    #[test]
    fn an_answer_that_was_to_be_discarded_is_found() {
        let mut scene = scene();
        begins(&mut scene, "V1");
        scene.saw("a", Observation::Superseded { version: version("V1") });
        ends(&mut scene, "V1", true);
        scene.saw("a", Observation::Ready { version: version("V1") });
        broken("P3", "is discarded", scene);
    }

    #[test]
    fn a_yes_that_nobody_said_is_found_at_the_end() {
        let mut scene = scene();
        begins(&mut scene, "V1");
        scene.acknowledge("a", "V1");
        scene.calm(&["a"]);
        broken("P3", "was said by a stabilize", scene);
    }
}
