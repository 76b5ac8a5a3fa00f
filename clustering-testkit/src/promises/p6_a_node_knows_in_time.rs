//! P6. A node knows in time that its session is over.
//!
//! A node claims to lead only before its leadership deadline: two thirds of the TTL, or the configured duration, after
//! the *sending* of the last successful renewal (or the grant). The deadline that the node reports is no later.
//! According to the log, the node leads under the claimed term.

use std::{collections::BTreeMap, time::Duration};

use super::{Broken, Kept, Promise};
use crate::history::{Entry, Ledger, Life, Moment, Observation};

#[derive(Clone, Debug, Default)]
pub(crate) struct InTime {
    lives: BTreeMap<Life, Lease>,
}

#[derive(Clone, Debug, Default)]
struct Lease {
    leadership: Option<Duration>,
    ttl: Duration,
    /// True if grants and renewals are recorded.
    known: bool,
    until: Option<Moment>,
    /// Time at which the end of the session was recorded.
    lost: Option<Moment>,
    lease: u64,
}

impl Lease {
    fn extended(&mut self, sent: Moment, left: Duration) {
        let share = self.leadership.unwrap_or(self.ttl * 2 / 3);
        self.until = self.until.max(Some(sent + share.min(left)));
    }
}

impl Promise for InTime {
    fn name(&self) -> &'static str {
        "P6 (a node knows in time that its session is over)"
    }

    fn observe(&mut self, entry: &Entry, ledger: &Ledger) -> Kept {
        let life = self.lives.entry(entry.life.clone()).or_default();
        match &entry.observation {
            Observation::Started { leadership, .. } => life.leadership = *leadership,
            Observation::Granted { lease, sent, ttl } => {
                (life.known, life.lease, life.ttl) = (true, *lease, *ttl);
                (life.until, life.lost) = (None, None);
                life.extended(*sent, *ttl);
            }
            Observation::Renewed { lease, sent, left } if *lease == life.lease => life.extended(*sent, *left),
            Observation::SessionLost { .. } | Observation::Unregistered | Observation::Stopped { .. } => {
                life.lost = Some(entry.at);
            }
            Observation::AskedLeader { term: Some(term), until } if life.known => {
                let said = until.map_or_else(String::new, |until| format!(" until {until}"));
                let found = format!("at {}, {} claimed to lead{said}", entry.at, entry.life);
                let broken = |expected: String| Err(Broken::new(expected, &found).about(&entry.node));
                // A claim may be recorded after an event that followed it.
                let lost = life.lost.is_some_and(|lost| entry.at > lost);
                let Some(deadline) = life.until.filter(|_| !lost) else {
                    return broken("a node without a session does not claim to lead".to_owned());
                };
                if entry.at > deadline || until.is_some_and(|until| until > deadline) {
                    return broken(format!(
                        "a claim until {deadline} at the latest, according to the last successful renewal"
                    ));
                }
                let leads = ledger.eras().iter().any(|era| {
                    let reign = era.reign_of(*term);
                    reign.is_some_and(|reign| reign.leader.as_deref() == Some(entry.node.as_str()))
                });
                if !leads && !ledger.has_gaps() {
                    return broken(format!("the log has {} as the leader under term {term}", entry.node));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promises::scene::{Scene, broken, kept};

    const TTL: Duration = Duration::from_secs(15);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Returns a scene in which the lease of `a` was granted at 0 s.
    fn scene() -> Scene {
        let mut scene = Scene::new();
        scene.grants("a", 1, TTL);
        scene.join("a", 1);
        scene.elect("a", "V1");
        scene
    }

    #[test]
    fn a_node_may_lead_until_two_thirds_of_the_ttl_after_sending_the_last_renewal() {
        let mut scene = scene();
        scene.pass(secs(10));
        scene.says_yes("a", None);
        scene.renews("a", 1, secs(3), TTL);
        // The renewal is sent at 10 s and answered at 13 s.
        scene.pass(secs(7));
        scene.says_yes("a", None);
        scene.says_yes("a", Some(Moment::after_origin(secs(20))));
        scene.pass(secs(1));
        scene.says_no("a");
        kept(scene);
    }

    #[test]
    fn a_claim_after_the_deadline_is_detected() {
        let mut scene = scene();
        scene.pass(secs(10) + Duration::from_millis(1));
        scene.says_yes("a", None);
        broken("P6", "a claim until 10.0", scene);
    }

    #[test]
    fn a_deadline_that_counts_from_the_reply_is_detected() {
        let mut scene = scene();
        scene.renews("a", 1, secs(3), TTL);
        scene.says_yes("a", Some(Moment::after_origin(secs(13))));
        broken("P6", "a claim until 10.0", scene);
    }

    #[test]
    fn a_failed_renewal_does_not_extend_the_deadline() {
        let mut scene = scene();
        let sent = Moment::after_origin(secs(5));
        scene.pass(secs(11));
        scene.saw("a", Observation::RenewalFailed { lease: 1, sent, error: "silence".into() });
        scene.says_yes("a", None);
        broken("P6", "a claim until 10.0", scene);
    }

    #[test]
    fn a_shorter_ttl_in_a_renewal_does_not_shorten_the_deadline_of_the_grant() {
        let mut scene = scene();
        scene.renews("a", 1, secs(0), secs(4));
        scene.pass(secs(10));
        scene.says_yes("a", None);
        kept(scene.clone());
        // The time allowed by the grant is over too.
        scene.pass(secs(1));
        scene.says_yes("a", None);
        broken("P6", "a claim until 10.0", scene);
    }

    #[test]
    fn a_claim_without_a_session_is_detected() {
        let mut scene = scene();
        scene.loses("a");
        scene.pass(secs(1));
        scene.says_yes("a", None);
        broken("P6", "without a session", scene);
    }

    #[test]
    fn a_claim_under_the_term_of_another_node_is_detected() {
        let mut scene = scene();
        scene.grants("b", 2, TTL);
        scene.join("b", 2);
        scene.says_yes("b", None);
        broken("P6", "the log has b as the leader", scene);
    }
}
