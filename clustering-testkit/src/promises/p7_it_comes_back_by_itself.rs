//! P7. A node that lost its session rejoins by itself under a new one, and a second instance never silently shares its
//! name.
//!
//! - A life joins as recorded in the log: with that incarnation, and under a lease that was granted to it.
//! - After losing its session it rejoins under another lease and with another incarnation.
//! - Only a life that takes over names overwrites the record of another life, and only at its start.
//! - At the end, every expected node is present: of the lives under its name that were not killed, exactly one is a
//!   member, and the record belongs to it. The newest version has the node.
//!
//! ([P4](super::p4_stable_means_everyone) checks that acknowledgements of an older session do not count.)

use std::collections::BTreeMap;

use clustering_core::{Incarnation, NodeName, store::LeaseId};

use super::{Broken, Calm, Kept, Promise};
use crate::history::{Entry, Ledger, Life, Observation, ledger::Registration};

#[derive(Clone, Debug, Default)]
pub(crate) struct ComesBack {
    lives: BTreeMap<Life, Session>,
    /// Life to which each lease was granted.
    leases: BTreeMap<u64, Life>,
    /// Registrations that overwrote a record of another lease, until the owner of that lease is known.
    over: Vec<(Life, bool, u64)>,
}

#[derive(Clone, Debug)]
struct Session {
    node: NodeName,
    takes_over: bool,
    state: State,
    lease: Option<u64>,
    last: Option<(Incarnation, Option<u64>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Joining,
    Member,
    Lost,
    Gone,
}

impl Promise for ComesBack {
    fn name(&self) -> &'static str {
        "P7 (a node rejoins by itself)"
    }

    fn observe(&mut self, entry: &Entry, ledger: &Ledger) -> Kept {
        let life = self.lives.entry(entry.life.clone()).or_insert_with(|| Session {
            node: entry.node.clone(),
            takes_over: false,
            state: State::Joining,
            lease: None,
            last: None,
        });
        match &entry.observation {
            Observation::Started { takes_over, .. } => life.takes_over = *takes_over,
            Observation::Granted { lease, .. } => {
                life.lease = Some(*lease);
                self.leases.insert(*lease, entry.life.clone());
            }
            Observation::SessionLost { .. } => life.state = State::Lost,
            Observation::Unregistered | Observation::Stopped { .. } | Observation::Killed => {
                life.state = State::Gone;
            }
            Observation::Joined { incarnation } | Observation::Rejoined { incarnation } => {
                life.state = State::Member;
                self.joined(entry, incarnation, ledger)?;
            }
            _ => return Ok(()),
        }
        self.judge_takeovers()
    }

    fn calm(&mut self, calm: &Calm, ledger: &Ledger) -> Kept {
        calm.members.iter().try_for_each(|name| self.judge_member(name, ledger))
    }
}

impl ComesBack {
    fn joined(&mut self, entry: &Entry, incarnation: &Incarnation, ledger: &Ledger) -> Kept {
        let Some(life) = self.lives.get_mut(&entry.life) else { return Ok(()) };
        let broken = |expected: &str, found: String| {
            Err(Broken::new(expected, found).about(&entry.node).about(incarnation))
        };
        let now = (incarnation.clone(), life.lease);
        if let Some((before, lease)) = life.last.replace(now.clone())
            && (before == now.0 || lease.is_some() && lease == now.1)
        {
            let found = format!("{} joined as {incarnation} again, under lease {lease:x?}", entry.life);
            return broken("a node that lost its session joins under a new one", found);
        }
        let lease = life.lease;
        let all = ledger.eras().iter().rev().flat_map(|era| era.registrations().iter().rev());
        let of_it = all.filter(|registration| {
            registration.name == entry.node
                && registration.member.as_ref().is_some_and(|member| member.incarnation == *incarnation)
        });
        let of_it: Vec<_> = of_it.collect();
        let under = |registration: &Registration| registration.lease.map(LeaseId::get);
        // Two lives that generate ids from the same seed have the same incarnation, but leases are unique.
        let own = of_it.iter().find(|registration| lease.is_none() || under(registration) == lease);
        let replaced = match (own, of_it.first()) {
            (Some(own), _) => own.replaced,
            (None, _) if ledger.has_gaps() => None,
            (None, Some(other)) => {
                let found =
                    format!("{} has lease {lease:x?}, but its record has {:x?}", entry.life, under(other));
                return broken("a node joins under the lease that was granted to it", found);
            }
            (None, None) => {
                let found = format!(
                    "{} reports that it joined as {incarnation}, but the log has no such record",
                    entry.life
                );
                return broken("a node that has joined has a record in the log", found);
            }
        };
        let again = matches!(entry.observation, Observation::Rejoined { .. });
        if let Some(Some(replaced)) = replaced {
            self.over.push((entry.life.clone(), again, replaced.get()));
        }
        Ok(())
    }

    /// Checks registrations that overwrote another record, if the owner of that record is known.
    fn judge_takeovers(&mut self) -> Kept {
        for (life, again, lease) in &self.over {
            let Some(other) = self.leases.get(lease).filter(|other| *other != life) else { continue };
            let Some(session) = self.lives.get(life) else { continue };
            if !session.takes_over || *again {
                let expected =
                    "a name held by another life is taken over only at the start, and only if so configured";
                let found = format!("{life} overwrote the record of {other}");
                return Err(Broken::new(expected, found).about(&session.node));
            }
        }
        Ok(())
    }

    fn judge_member(&self, name: &NodeName, ledger: &Ledger) -> Kept {
        let broken = |expected: &str, found: String| Err(Broken::new(expected, found).about(name));
        let under = || self.lives.iter().filter(|(_, session)| session.node == *name);
        let members: Vec<_> = under().filter(|(_, session)| session.state == State::Member).collect();
        let [(life, session)] = members[..] else {
            let states: Vec<_> =
                under().map(|(life, session)| format!("{life} {:?}", session.state)).collect();
            return broken("at the end, one life of each node is a member", states.join(", "));
        };
        let stands = ledger.present().lease_of(name);
        let lease = session.lease;
        if lease.is_some() && stands != Some(lease.map(LeaseId::new)) {
            let found = format!("{life} has lease {lease:x?}, but the record has {stands:?}");
            return broken("at the end, the record of a node belongs to its member", found);
        }
        match ledger.present().newest().is_some_and(|newest| newest.cut.iter().any(|node| node.name == *name))
        {
            true => Ok(()),
            false => broken("at the end, the newest version has every node", format!("{name} is missing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::promises::scene::{Scene, broken, kept};

    const TTL: Duration = Duration::from_secs(15);

    fn scene() -> Scene {
        let mut scene = Scene::new();
        scene.grants("a", 1, TTL);
        scene.join("a", 1);
        scene.joined("a");
        scene.elect("a", "V1");
        scene
    }

    #[test]
    fn a_node_that_rejoins_under_a_new_session_keeps_the_promise() {
        let mut scene = scene();
        scene.loses("a");
        scene.leave("a");
        scene.grants("a", 2, TTL);
        scene.join("a", 2);
        scene.rejoined("a");
        scene.elect("a", "V2");
        scene.settled(&["a"], "V2");
        kept(scene);
    }

    #[test]
    fn a_node_that_never_rejoins_is_detected() {
        let mut scene = scene();
        scene.settled(&["a"], "V1");
        scene.loses("a");
        scene.calm(&["a"]);
        broken("P7", "is a member", scene);
    }

    #[test]
    fn a_node_that_rejoins_under_its_old_session_is_detected() {
        let mut scene = scene();
        scene.loses("a");
        scene.rejoined("a");
        broken("P7", "under a new one", scene);
    }

    #[test]
    fn a_node_that_joins_without_a_record_is_detected() {
        let mut scene = scene();
        scene.loses("a");
        scene.grants("a", 2, TTL);
        scene.saw("a", Observation::Rejoined { incarnation: "nobody".into() });
        broken("P7", "has a record in the log", scene);
    }

    #[test]
    fn a_node_that_joins_under_a_foreign_lease_is_detected() {
        let mut scene = scene();
        scene.loses("a");
        scene.leave("a");
        scene.grants("a", 2, TTL);
        scene.join("a", 3);
        scene.rejoined("a");
        broken("P7", "granted to it", scene);
    }

    #[test]
    fn a_shared_name_is_detected_in_either_order_of_the_journals() {
        for first in ["a", "a2"] {
            let mut scene = Scene::new();
            scene.join("a", 1);
            scene.join("a", 2);
            let second = |scene: &mut Scene| {
                scene.as_life("a2");
                scene.grants("a", 2, TTL);
                scene.joined("a");
            };
            if first == "a2" {
                second(&mut scene);
            }
            scene.as_life("a");
            scene.grants("a", 1, TTL);
            if first == "a" {
                second(&mut scene);
            }
            broken("P7", "only if so configured", scene);
        }
    }

    #[test]
    fn a_life_whose_name_was_taken_over_must_stop() {
        let mut scene = scene();
        scene.as_life("a2");
        scene.starts_taking_over("a");
        scene.grants("a", 2, TTL);
        scene.join("a", 2);
        scene.joined("a");
        scene.elect("a", "V2");
        let mut silent = scene.clone();
        scene.as_life("a#1");
        scene.saw("a", Observation::Stopped { reason: "taken_over".into() });
        scene.settled(&["a"], "V2");
        kept(scene);
        silent.settled(&["a"], "V2");
        broken("P7", "one life of each node", silent);
    }

    #[test]
    fn a_takeover_when_rejoining_is_detected() {
        let mut scene = scene();
        scene.as_life("a2");
        scene.starts_taking_over("a");
        scene.grants("a", 2, TTL);
        scene.join("a", 2);
        scene.rejoined("a");
        broken("P7", "only at the start", scene);
    }

    #[test]
    fn a_killed_life_does_not_have_to_rejoin() {
        let mut scene = scene();
        scene.leave("a");
        scene.saw("a", Observation::Killed);
        scene.as_life("a2");
        scene.grants("a", 2, TTL);
        scene.join("a", 2);
        scene.joined("a");
        scene.elect("a", "V2");
        scene.settled(&["a"], "V2");
        kept(scene);
    }
}
