//! P5. Every write of a leader is guarded by its term, so a deposed leader cannot write.
//!
//! - Each version, stability record and leader commit in the ledger names the term that was current when it was
//!   written.
//! - An election key is created and never overwritten.
//! - A leader commit that succeeded according to its node is in the log, at that revision and under that term. If it
//!   was refused, it is not in the log. If its outcome is unknown, it is in the log at most once.
//!
//! Each era is checked separately, because a restored store assigns the same terms again.

use std::collections::{BTreeMap, BTreeSet};

use clustering_core::{Term, store::Revision};

use super::{Broken, Kept, Promise};
use crate::history::{
    Entry, Ledger, Observation, WriteOutcome,
    ledger::{Act, Commit},
};

#[derive(Clone, Debug, Default)]
pub(crate) struct LeaderCommits {
    refused: BTreeSet<String>,
    written: BTreeMap<(usize, String), Revision>,
}

impl Promise for LeaderCommits {
    fn name(&self) -> &'static str {
        "P5 (a deposed leader cannot write)"
    }

    fn commit(&mut self, commit: &Commit, ledger: &Ledger) -> Kept {
        if ledger.is_by_hand(commit.revision) {
            return Ok(());
        }
        let era = ledger.present();
        for act in &commit.acts {
            match act {
                Act::Published(version) => {
                    let published = era.versions().last().expect("the ledger has just applied a version");
                    let what = format!("version {version}");
                    under_its_term(commit, ledger, &what, Some(published.term), published.standing)
                        .map_err(|broken| broken.about(version))?;
                }
                Act::Confirmed(version) => {
                    let confirmed =
                        era.confirmed().last().expect("the ledger has just applied a stability record");
                    let what = format!("the record that {version} is stable");
                    under_its_term(commit, ledger, &what, confirmed.term, confirmed.standing)
                        .map_err(|broken| broken.about(version))?;
                }
                Act::Wrote(write) => {
                    let what = format!("write {:?} to {}", write.id, write.key);
                    under_its_term(commit, ledger, &what, Some(write.term), write.standing)?;
                    let Some(id) = &write.id else { continue };
                    if self.refused.contains(id) {
                        let expected = format!("write {id} was refused and never takes effect");
                        return Err(
                            Broken::new(expected, format!("it took effect @{}", commit.revision)).about(id)
                        );
                    }
                    let before = self.written.insert((commit.era, id.clone()), commit.revision);
                    if let Some(before) = before.filter(|before| *before != commit.revision) {
                        let expected = format!("write {id} takes effect once, and did so @{before}");
                        return Err(Broken::new(
                            expected,
                            format!("it took effect again @{}", commit.revision),
                        )
                        .about(id));
                    }
                }
                Act::Led(reign) if reign.modified != reign.term.revision() => {
                    let expected = "an election key is created and never overwritten";
                    let found = format!("the key of term {} was overwritten @{}", reign.term, reign.modified);
                    return Err(Broken::new(expected, found).about(reign.term));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn observe(&mut self, entry: &Entry, ledger: &Ledger) -> Kept {
        let Observation::LeaderCommit { id, term, outcome } = &entry.observation else { return Ok(()) };
        let mut there = ledger.leader_commits(id);
        let broken = |expected: &str, found: String| {
            Err(Broken::new(format!("write {id}: {expected}"), found).about(id).about(&entry.node))
        };
        match outcome {
            WriteOutcome::Unknown(_) => Ok(()),
            WriteOutcome::Refused(why) => {
                self.refused.insert(id.clone());
                match there.next() {
                    None => Ok(()),
                    Some(write) => broken(
                        "it was refused and is not in the log",
                        format!("the log has it @{} ({why})", write.revision),
                    ),
                }
            }
            WriteOutcome::Done(revision) => {
                match there.find(|write| write.revision == *revision && write.term == *term) {
                    Some(_) => Ok(()),
                    None if ledger.has_gaps() => Ok(()),
                    None => {
                        let all: Vec<_> =
                            ledger.leader_commits(id).map(|write| (write.revision, write.term)).collect();
                        let expected = format!("it was committed @{revision} under term {term}");
                        broken(&expected, format!("the log has it at {all:?}"))
                    }
                }
            }
        }
    }
}

fn under_its_term(
    commit: &Commit,
    ledger: &Ledger,
    what: &str,
    claimed: Option<Term>,
    standing: Option<Term>,
) -> Kept {
    if claimed.is_some() && claimed == standing {
        return Ok(());
    }
    if standing.is_none() && ledger.present().has_gaps() && ledger.present().reigns().is_empty() {
        return Ok(());
    }
    let term = |term: Option<Term>| term.map_or_else(|| "none".to_owned(), |term| term.to_string());
    let expected = format!("{what} is written under the current term ({})", term(standing));
    let found = format!("@{} it was written under term {}", commit.revision, term(claimed));
    Err(Broken::new(expected, found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promises::scene::{Scene, broken, kept};

    fn scene() -> Scene {
        Scene::of(&["a", "b"])
    }

    #[test]
    fn writes_under_the_current_term_keep_the_promise() {
        let mut scene = scene();
        let term = scene.term();
        let revision = scene.write("w1", term);
        scene.wrote("a", "w1", term, WriteOutcome::Done(revision));
        scene.leave("a");
        scene.elect("b", "V2");
        scene.wrote("a", "w2", term, WriteOutcome::Refused("guard".into()));
        scene.wrote("a", "w3", term, WriteOutcome::Unknown("silence".into()));
        scene.acknowledge("b", "V2");
        scene.confirm("V2");
        let term = scene.term();
        scene.write("w4", term);
        kept(scene);
    }

    #[test]
    fn a_version_of_a_deposed_leader_is_detected() {
        let mut scene = scene();
        let old = scene.term();
        scene.leave("a");
        scene.elect("b", "V2");
        scene.publish_under("V3", old);
        broken("P5", "version", scene);
    }

    #[test]
    fn a_version_without_a_leader_is_detected() {
        let mut scene = scene();
        let old = scene.term();
        scene.leave("a");
        scene.publish_under("V3", old);
        broken("P5", "the current term (none)", scene);
    }

    #[test]
    fn a_stability_record_of_a_deposed_leader_is_detected() {
        let mut scene = scene();
        let old = scene.term();
        scene.leave("a");
        scene.elect("b", "V2");
        scene.acknowledge("b", "V2");
        scene.confirm_under("V2", old);
        broken("P5", "is stable", scene);
    }

    #[test]
    fn a_leader_commit_under_an_old_term_is_detected() {
        let mut scene = scene();
        let old = scene.term();
        scene.leave("a");
        scene.elect("b", "V2");
        scene.write("w1", old);
        broken("P5", "w1", scene);
    }

    #[test]
    fn an_overwritten_election_key_is_detected() {
        let mut scene = scene();
        scene.overwrite_leader("b");
        broken("P5", "never overwritten", scene);
    }

    #[test]
    fn a_refused_write_that_takes_effect_is_detected_in_either_order() {
        let refused = WriteOutcome::Refused("guard".into());
        let mut scene = scene();
        let term = scene.term();
        let mut late = scene.clone();
        scene.write("w1", term);
        scene.wrote("a", "w1", term, refused.clone());
        broken("P5", "is not in the log", scene);
        late.wrote("a", "w1", term, refused);
        late.write("w1", term);
        broken("P5", "never takes effect", late);
    }

    #[test]
    fn a_successful_write_that_is_not_in_the_log_is_detected() {
        let mut scene = scene();
        let term = scene.term();
        scene.wrote("a", "w1", term, WriteOutcome::Done(Revision::new(3)));
        broken("P5", "it was committed @3", scene);
    }

    #[test]
    fn a_write_that_takes_effect_twice_is_detected() {
        let mut scene = scene();
        let term = scene.term();
        scene.write("w1", term);
        scene.write("w1", term);
        broken("P5", "takes effect once", scene);
    }

    #[test]
    fn writes_by_hand_are_not_checked() {
        let mut scene = scene();
        let revision = scene.publish_under("V3", Term::new(Revision::new(1)));
        scene.by_hand(revision);
        kept(scene);
    }
}
