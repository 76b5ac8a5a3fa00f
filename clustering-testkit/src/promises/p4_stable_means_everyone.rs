//! P4. A version is recorded as stable only if all of its nodes have acknowledged it. The leader records it once, and
//! `on_stable` runs for it at most once, on that leader.
//!
//! In the ledger: at some revision between the version and its stability record, the records of all nodes of the cut
//! were as in the cut, and each node had a positive acknowledgement under the session of the cut. The version is the
//! newest when it is recorded, and was not recorded before. ([P5](super::p5_a_deposed_leader_cannot_write) checks that
//! the leader writes the record.)
//!
//! On the nodes: when a node decides to call `on_stable`, then, as far as it has seen, it leads under the term that
//! recorded the version, is not suspended, and there is no newer version. The callback runs as decided. It runs at most
//! once per version over all nodes. On one life it never runs twice at the same time, and never for an older version
//! than before. Over all nodes, later versions have later terms. (A callback that is still running on a deposed leader
//! may overlap with a callback on its successor: it was told that it is superseded, and its writes are guarded by the
//! term.)

use std::collections::BTreeMap;

use clustering_core::{Term, Version, store::Revision};

use super::{Broken, Kept, Promise};
use crate::history::{
    Entry, Ledger, Life, Observation,
    ledger::{Act, Commit},
};

#[derive(Clone, Debug, Default)]
pub(crate) struct Everyone {
    lives: BTreeMap<Life, Leading>,
    announced: BTreeMap<Version, Announced>,
}

/// A version for which `on_stable` was called.
#[derive(Clone, Debug)]
struct Announced {
    life: Life,
    term: Term,
    era: usize,
    revision: Revision,
}

#[derive(Clone, Debug, Default)]
struct Leading {
    newest: Option<(Version, Revision)>,
    term: Option<Term>,
    suspended: bool,
    decided: Option<(Version, Term)>,
    running: Option<Version>,
    last: Option<(Version, Revision)>,
}

impl Promise for Everyone {
    fn name(&self) -> &'static str {
        "P4 (stable means everyone)"
    }

    fn commit(&mut self, commit: &Commit, ledger: &Ledger) -> Kept {
        let confirms = commit.acts.iter().any(|act| matches!(act, Act::Confirmed(_)));
        if !confirms || ledger.is_by_hand(commit.revision) {
            return Ok(());
        }
        let era = ledger.present();
        let Some(confirmed) = era.confirmed().last() else { return Ok(()) };
        let version = confirmed.version;
        let broken = |expected: &str, found: String| Err(Broken::new(expected, found).about(version));
        if confirmed.again {
            let found = format!("{version} is recorded as stable again @{}", confirmed.revision);
            return broken("a version is recorded as stable once", found);
        }
        let newest = era.newest().filter(|newest| newest.version == version);
        match newest {
            // Versions published during a gap are unknown.
            None if era.has_gaps() && ledger.published(version).is_none() => Ok(()),
            None => {
                let newest = confirmed.newest.map_or_else(|| "none".to_owned(), |newest| newest.to_string());
                let found = format!("{version} is recorded as stable, but the newest version is {newest}");
                broken("only the newest version becomes stable", found)
            }
            Some(published) => match published.everyone {
                Some(everyone) if everyone < confirmed.revision => Ok(()),
                _ if era.has_gaps() => Ok(()),
                _ => {
                    let missing: Vec<_> = era.missing().iter().map(ToString::to_string).collect();
                    let found = format!(
                        "{version} is recorded as stable without a valid acknowledgement of {}",
                        missing.join(", ")
                    );
                    let expected =
                        "at some revision, all nodes of the cut were registered and had acknowledged";
                    let broken = Broken::new(expected, found).about(version);
                    Err(missing.into_iter().fold(broken, Broken::about))
                }
            },
        }
    }

    fn observe(&mut self, entry: &Entry, ledger: &Ledger) -> Kept {
        let life = self.lives.entry(entry.life.clone()).or_default();
        match &entry.observation {
            Observation::VersionPublished { version, revision } => life.newest = Some((*version, *revision)),
            Observation::LeaderChanged { term, own, .. } => {
                life.term = term.filter(|_| *own);
                life.suspended = false;
            }
            Observation::SessionLost { .. } | Observation::Unregistered => life.term = None,
            Observation::LeadershipSuspended { .. } => life.suspended = true,
            Observation::LeadershipResumed { .. } => life.suspended = false,
            Observation::Resynced { rewound: true, .. } => {
                (life.newest, life.last) = (None, None);
            }
            Observation::Announcing { version, term } => {
                life.decided = Some((*version, *term));
                return decided(life, entry, *version, *term, ledger);
            }
            Observation::OnStableBegan { version, term } => {
                return self.began(entry, *version, *term, ledger);
            }
            Observation::OnStableEnded { .. } => life.running = None,
            _ => {}
        }
        Ok(())
    }
}

/// Checks that the node may decide to call `on_stable`.
fn decided(life: &Leading, entry: &Entry, version: Version, term: Term, ledger: &Ledger) -> Kept {
    let broken = |expected: String| {
        let found = format!("{} decided to call on_stable for {version} under term {term}", entry.life);
        Err(Broken::new(expected, found).about(version).about(&entry.node))
    };
    if life.term != Some(term) || life.suspended {
        return broken(
            "on_stable is called by a node that leads under this term and is not suspended".to_owned(),
        );
    }
    let newest = life.newest.map(|(newest, _)| newest);
    if newest != Some(version) {
        return broken(format!("on_stable is called for the newest version that the node saw, {newest:?}"));
    }
    let mut confirmed = ledger.confirmed(version).peekable();
    if confirmed.peek().is_none() && ledger.has_gaps() {
        return Ok(());
    }
    let recorded = confirmed.any(|confirmed| confirmed.term == Some(term));
    let leads = |era: &crate::history::ledger::Era| {
        era.reign_of(term).is_some_and(|reign| reign.leader.as_deref() == Some(entry.node.as_str()))
    };
    match recorded && ledger.eras().iter().any(leads) {
        true => Ok(()),
        false => broken(
            "on_stable is called by the leader that recorded the version, under the same term".to_owned(),
        ),
    }
}

impl Everyone {
    fn began(&mut self, entry: &Entry, version: Version, term: Term, ledger: &Ledger) -> Kept {
        let life = self.lives.entry(entry.life.clone()).or_default();
        let broken = |expected: String| {
            let found = format!("{} called on_stable for {version} under term {term}", entry.life);
            Err(Broken::new(expected, found).about(version).about(&entry.node))
        };
        if let Some(before) = self.announced.get(&version) {
            return broken(format!(
                "on_stable runs once for a version, but it has already run on {}",
                before.life
            ));
        }
        if life.decided != Some((version, term)) {
            return broken(format!("on_stable runs as the node decided: {:?}", life.decided));
        }
        if let Some(running) = life.running {
            return broken(format!("on_stable for {running} ends before another begins"));
        }
        let revision = life.newest.filter(|(newest, _)| *newest == version).map(|(_, revision)| revision);
        let revision = revision.or_else(|| ledger.published(version).map(|published| published.revision));
        if let (Some(revision), Some((last, at))) = (revision, life.last)
            && revision <= at
        {
            return broken(format!(
                "on_stable runs for versions newer than {last}, for which it has already run"
            ));
        }
        life.last = revision.map(|revision| (version, revision));
        life.running = Some(version);
        let era =
            ledger.eras().iter().rev().find(|era| era.confirmed().iter().any(|it| it.version == version));
        let era = era.map_or(ledger.present().number(), |era| era.number());
        // Compares revisions instead of labels: labels go back if an operator deletes the version key and the next
        // publisher has never seen the deleted version.
        let order = revision.unwrap_or_default();
        let same_era = self.announced.values().filter(|announced| announced.era == era);
        let in_order = same_era.into_iter().all(|other| match other.revision < order {
            true => other.term <= term,
            false => term <= other.term,
        });
        let announced = Announced { life: entry.life.clone(), term, era, revision: order };
        self.announced.insert(version, announced);
        match in_order {
            true => Ok(()),
            false => broken("later versions are announced under later terms".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promises::scene::{Scene, broken, kept};

    fn scene() -> Scene {
        let mut scene = Scene::of(&["a", "b"]);
        scene.leads("a");
        scene.sees("a", "V1");
        scene
    }

    fn stable(scene: &mut Scene) {
        scene.acknowledge("a", "V1");
        scene.acknowledge("b", "V1");
        scene.confirm("V1");
    }

    #[test]
    fn a_version_that_all_acknowledged_and_one_leader_announced_keeps_the_promise() {
        let mut scene = scene();
        stable(&mut scene);
        scene.announces("a", "V1");
        scene.announced("a", "V1");
        kept(scene);
    }

    #[test]
    fn an_acknowledgement_counts_even_if_it_is_deleted_later() {
        let mut scene = scene();
        scene.acknowledge("a", "V1");
        scene.acknowledge("b", "V1");
        scene.leave("b");
        scene.confirm("V1");
        kept(scene);
    }

    #[test]
    fn a_missing_acknowledgement_is_detected() {
        let mut scene = scene();
        scene.acknowledge("a", "V1");
        scene.confirm("V1");
        broken("P4", "without a valid acknowledgement of b", scene);
    }

    #[test]
    fn an_acknowledgement_under_another_session_does_not_count() {
        let mut scene = scene();
        scene.acknowledge("a", "V1");
        scene.acknowledge_under("b", "V1", 77, "ready");
        scene.confirm("V1");
        broken("P4", "without a valid acknowledgement of b", scene);
    }

    #[test]
    fn a_refusal_does_not_count_as_an_acknowledgement() {
        let mut scene = scene();
        scene.acknowledge("a", "V1");
        scene.acknowledge_under("b", "V1", 2, "failed");
        scene.confirm("V1");
        broken("P4", "without a valid acknowledgement of b", scene);
    }

    #[test]
    fn acknowledgements_that_were_never_valid_together_do_not_count() {
        let mut scene = scene();
        scene.acknowledge("a", "V1");
        // The record of `a` is written again before `b` acknowledges.
        scene.join("a", 1);
        scene.acknowledge("b", "V1");
        scene.confirm("V1");
        broken("P4", "without a valid acknowledgement of a", scene);
    }

    #[test]
    fn a_stability_record_of_an_older_version_is_detected() {
        let mut scene = scene();
        scene.acknowledge("a", "V1");
        scene.acknowledge("b", "V1");
        scene.publish("V2");
        scene.confirm("V1");
        broken("P4", "only the newest", scene);
    }

    #[test]
    fn a_second_stability_record_is_detected_unless_the_first_was_deleted() {
        let mut scene = scene();
        stable(&mut scene);
        let mut deleted = scene.clone();
        scene.confirm("V1");
        broken("P4", "recorded as stable once", scene);
        deleted.delete("view/stable");
        deleted.confirm("V1");
        kept(deleted);
    }

    #[test]
    fn a_lower_label_may_be_announced_after_the_version_key_was_deleted() {
        let mut scene = scene();
        stable(&mut scene);
        scene.announces("a", "V1");
        scene.announced("a", "V1");
        scene.delete("view/version");
        scene.leave("a");
        scene.elect("b", "V0");
        scene.leads("b");
        scene.sees("b", "V0");
        scene.acknowledge("b", "V0");
        scene.confirm("V0");
        scene.announces("b", "V0");
        kept(scene);
    }

    #[test]
    fn a_second_on_stable_is_detected_on_any_node() {
        for second in ["a", "b"] {
            let mut scene = scene();
            stable(&mut scene);
            scene.announces("a", "V1");
            scene.announced("a", "V1");
            scene.callback_announces(second, "V1");
            broken("P4", "runs once for a version", scene);
        }
    }

    #[test]
    fn an_on_stable_on_a_follower_is_detected() {
        let mut scene = scene();
        stable(&mut scene);
        scene.sees("b", "V1");
        scene.announces("b", "V1");
        broken("P4", "a node that leads", scene);
    }

    #[test]
    fn an_on_stable_on_a_suspended_leader_is_detected() {
        let mut scene = scene();
        stable(&mut scene);
        let term = scene.term();
        scene.saw("a", Observation::LeadershipSuspended { term });
        scene.announces("a", "V1");
        broken("P4", "is not suspended", scene);
    }

    #[test]
    fn an_on_stable_for_a_version_that_was_not_recorded_is_detected() {
        let mut scene = scene();
        scene.announces("a", "V1");
        broken("P4", "the leader that recorded", scene);
    }

    #[test]
    fn an_on_stable_after_a_newer_version_is_detected() {
        let mut scene = scene();
        stable(&mut scene);
        scene.publish("V2");
        scene.sees("a", "V2");
        scene.announces("a", "V1");
        broken("P4", "the newest version that the node saw", scene);
    }

    #[test]
    fn two_on_stables_at_a_time_are_detected() {
        let mut scene = scene();
        stable(&mut scene);
        scene.announces("a", "V1");
        scene.publish("V2");
        scene.sees("a", "V2");
        scene.acknowledge("a", "V2");
        scene.acknowledge("b", "V2");
        scene.confirm("V2");
        let mut one_after_the_other = scene.clone();
        scene.announces("a", "V2");
        broken("P4", "ends before another begins", scene);
        one_after_the_other.announced("a", "V1");
        one_after_the_other.announces("a", "V2");
        kept(one_after_the_other);
    }

    #[test]
    fn an_on_stable_that_the_node_did_not_decide_on_is_detected() {
        let mut scene = scene();
        stable(&mut scene);
        scene.callback_announces("a", "V1");
        broken("P4", "runs as the node decided", scene);
    }
}
