//! P11. A node that is not healthy gives up its session.
//!
//! By what the user's check said: after as many failures in a row as are enough, the node says that it is unhealthy before
//! it checks again. From then on, and before the first check has passed, it does not say that it may act as leader, and
//! does not join. It says that it is healthy only after a check that passed.

use std::collections::BTreeMap;

use super::{Broken, Kept, Promise};
use crate::history::{Ending, Entry, Ledger, Life, Moment, Observation};

#[derive(Clone, Debug, Default)]
pub(crate) struct Fit {
    lives: BTreeMap<Life, Checked>,
}

#[derive(Clone, Debug, Default)]
struct Checked {
    /// How many failures are enough, if it is checked at all.
    enough: Option<u32>,
    failed: u32,
    passed: bool,
    fit: bool,
    /// When it said that it is unhealthy.
    fell: Option<Moment>,
}

impl Promise for Fit {
    fn name(&self) -> &'static str {
        "P11, a node that is not healthy gives up its session,"
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
            // It took too long; or the node gave its place up, and nobody wanted to know any more.
            Observation::CheckEnded { ending: Ending::Dropped } => life.passed = false,
            Observation::CheckBegan if life.fit && life.failed >= enough => {
                let found = format!("{} takes part after {} failures in a row", entry.life, life.failed);
                return broken("a node is unhealthy when enough checks have failed", found);
            }
            Observation::Unhealthy { .. } => (life.fit, life.fell) = (false, Some(entry.at)),
            Observation::Healthy if !life.passed => {
                let found = format!("{} says so, and the last check did not pass", entry.life);
                return broken("a node is healthy after a check that passed", found);
            }
            Observation::Healthy => (life.fit, life.fell) = (true, None),
            Observation::Joined { .. } | Observation::Rejoined { .. } if !life.fit => {
                return broken("a node joins while it is healthy", format!("{} joined", entry.life));
            }
            // A question that was asked before may be taken down after.
            Observation::AskedLeader { term: Some(term), .. }
                if life.fell.is_some_and(|fell| entry.at > fell) =>
            {
                let found = format!("asked at {}, {} said that it leads under {term}", entry.at, entry.life);
                return broken("a node that is unhealthy does not act as leader", found);
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

    /// The health of a is checked.
    fn checked() -> Scene {
        let mut scene = Scene::new();
        scene.saw("a", Observation::ChecksHealth { interval: SECOND, deadline: SECOND, failures: 2 });
        scene
    }

    /// It is healthy, and leads.
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
        Ending::Refused("ill".to_owned())
    }

    fn falls(scene: &mut Scene) {
        check(scene, no());
        check(scene, no());
        scene.saw("a", Observation::Unhealthy { reason: "ill".to_owned() });
        scene.loses("a");
    }

    #[test]
    fn one_that_falls_and_comes_back() {
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
    fn one_that_goes_on_is_found() {
        let mut scene = scene();
        check(&mut scene, no());
        check(&mut scene, no());
        check(&mut scene, Ending::Ready);
        broken("P11", "unhealthy when enough checks have failed", scene);
    }

    #[test]
    fn a_lead_after_the_fall_is_found() {
        let mut scene = checked();
        scene.join("a", 1);
        scene.elect("a", "V1");
        check(&mut scene, no());
        scene.saw("a", Observation::Unhealthy { reason: "ill".to_owned() });
        scene.pass(SECOND);
        scene.says_yes("a", None);
        broken("P11", "does not act as leader", scene);
    }

    #[test]
    fn a_join_before_a_check_has_passed_is_found() {
        let mut scene = checked();
        check(&mut scene, no());
        scene.join("a", 1);
        scene.joined("a");
        broken("P11", "joins while it is healthy", scene);
    }

    #[test]
    fn health_without_a_check_that_passed_is_found() {
        let mut scene = scene();
        falls(&mut scene);
        scene.saw("a", Observation::Healthy);
        broken("P11", "healthy after a check that passed", scene);
    }
}
