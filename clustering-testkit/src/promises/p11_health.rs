//! P11. An unhealthy node gives up its session.
//!
//! Checked against the results of the user's health check. After the configured number of consecutive failures, the
//! node reports that it is unhealthy before it checks again. While it is unhealthy, and before the first check has
//! passed, it does not claim to lead and does not join. It reports that it is healthy only after a check that passed.

use std::collections::BTreeMap;

use super::{Broken, Kept, Promise};
use crate::history::{Ending, Entry, Ledger, Life, Moment, Observation};

#[derive(Clone, Debug, Default)]
pub(crate) struct Fit {
    lives: BTreeMap<Life, Checked>,
}

#[derive(Clone, Debug, Default)]
struct Checked {
    /// Number of failures that make the node unhealthy. `None` if its health is not checked.
    enough: Option<u32>,
    failed: u32,
    passed: bool,
    fit: bool,
    /// Time at which the node reported that it is unhealthy.
    fell: Option<Moment>,
}

impl Promise for Fit {
    fn name(&self) -> &'static str {
        "P11 (an unhealthy node gives up its session)"
    }

    fn observe(&mut self, entry: &Entry, _: &Ledger) -> Kept {
        let life = self.lives.entry(entry.life.clone()).or_default();
        if let Observation::ChecksHealth { failures, .. } = entry.observation {
            life.enough = Some(failures);
        }
        let Some(enough) = life.enough else { return Ok(()) };
        let broken = |expected: &str, found: String| Err(Broken::new(expected, found).about(&entry.node));
        match &entry.observation {
            Observation::CheckEnded { ending: Ending::Ready } => (life.failed, life.passed) = (0, true),
            Observation::CheckEnded { ending: Ending::Refused(_) } => {
                (life.failed, life.passed) = (life.failed + 1, false);
            }
            // The check took too long, or the node unregistered and the check was cancelled.
            Observation::CheckEnded { ending: Ending::Dropped } => life.passed = false,
            Observation::CheckBegan if life.fit && life.failed >= enough => {
                let found =
                    format!("{} is still a member after {} consecutive failures", entry.life, life.failed);
                return broken("a node becomes unhealthy when enough checks have failed", found);
            }
            Observation::Unhealthy { .. } => (life.fit, life.fell) = (false, Some(entry.at)),
            Observation::Healthy if !life.passed => {
                let found =
                    format!("{} reports that it is healthy, but its last check did not pass", entry.life);
                return broken("a node becomes healthy after a passed check", found);
            }
            Observation::Healthy => (life.fit, life.fell) = (true, None),
            Observation::Joined { .. } | Observation::Rejoined { .. } if !life.fit => {
                return broken("a node joins only while it is healthy", format!("{} joined", entry.life));
            }
            // A claim may be recorded after an event that followed it.
            Observation::AskedLeader { term: Some(term), .. }
                if life.fell.is_some_and(|fell| entry.at > fell) =>
            {
                let found = format!("at {}, {} claimed to lead under term {term}", entry.at, entry.life);
                return broken("an unhealthy node does not act as leader", found);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::promises::scene::{Scene, broken, kept};

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns a scene in which the health of `a` is checked.
    fn checked() -> Scene {
        let mut scene = Scene::new();
        scene.saw("a", Observation::ChecksHealth { interval: SECOND, deadline: SECOND, failures: 2 });
        scene
    }

    /// Returns a scene in which `a` is healthy and leads.
    fn scene() -> Scene {
        let mut scene = checked();
        check(&mut scene, Ending::Ready);
        scene.saw("a", Observation::Healthy);
        scene.grants("a", 1, Duration::from_secs(15));
        scene.join("a", 1);
        scene.joined("a");
        scene.elect("a", "V1");
        scene
    }

    fn check(scene: &mut Scene, ending: Ending) {
        scene.saw("a", Observation::CheckBegan);
        scene.saw("a", Observation::CheckEnded { ending });
    }

    fn no() -> Ending {
        Ending::Refused("unhealthy".to_owned())
    }

    fn falls(scene: &mut Scene) {
        check(scene, no());
        check(scene, no());
        scene.saw("a", Observation::Unhealthy { reason: "unhealthy".to_owned() });
        scene.loses("a");
    }

    #[test]
    fn a_node_that_becomes_unhealthy_and_rejoins_keeps_the_promise() {
        let mut scene = scene();
        check(&mut scene, no());
        check(&mut scene, Ending::Ready);
        scene.says_yes("a", None);
        falls(&mut scene);
        scene.says_no("a");
        check(&mut scene, no());
        check(&mut scene, Ending::Ready);
        scene.saw("a", Observation::Healthy);
        scene.grants("a", 2, Duration::from_secs(15));
        scene.join("a", 2);
        scene.rejoined("a");
        kept(scene);
    }

    #[test]
    fn a_node_that_stays_healthy_after_enough_failures_is_detected() {
        let mut scene = scene();
        check(&mut scene, no());
        check(&mut scene, no());
        check(&mut scene, Ending::Ready);
        broken("P11", "unhealthy when enough checks have failed", scene);
    }

    #[test]
    fn an_unhealthy_leader_is_detected() {
        let mut scene = checked();
        scene.join("a", 1);
        scene.elect("a", "V1");
        check(&mut scene, no());
        scene.saw("a", Observation::Unhealthy { reason: "unhealthy".to_owned() });
        scene.pass(SECOND);
        scene.says_yes("a", None);
        broken("P11", "does not act as leader", scene);
    }

    #[test]
    fn a_join_before_a_passed_check_is_detected() {
        let mut scene = checked();
        check(&mut scene, no());
        scene.join("a", 1);
        scene.joined("a");
        broken("P11", "joins only while it is healthy", scene);
    }

    #[test]
    fn a_node_that_is_healthy_again_without_a_passed_check_is_detected() {
        let mut scene = scene();
        falls(&mut scene);
        scene.saw("a", Observation::Healthy);
        broken("P11", "healthy after a passed check", scene);
    }
}
