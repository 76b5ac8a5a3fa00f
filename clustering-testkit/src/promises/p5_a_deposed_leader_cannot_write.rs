//! P5. Every write of a leader is guarded by its term: a deposed leader cannot write.
//!
//! - Each version, record of a stable version and fenced write in the ledger claims the term that stood when it was made.
//! - An election key is created, never written over.
//! - A fenced write that its node heard was done is in the log, at that revision and under that term; one that it heard was
//!   refused is not; one whose outcome it does not know is there once at most.
//!
//! Within one era: a store that was put back hands out old terms again.

use std::collections::{BTreeMap, BTreeSet};

use clustering_core::{Term, store::Revision};

use super::{Broken, Kept, Promise};
use crate::history::{
    Entry, Ledger, Observation, WriteOutcome,
    ledger::{Act, Commit},
};

#[derive(Clone, Debug, Default)]
pub(crate) struct Fenced {
    refused: BTreeSet<String>,
    written: BTreeMap<(usize, String), Revision>,
}

impl Promise for Fenced {
    fn name(&self) -> &'static str {
        "P5, a deposed leader cannot write,"
    }

    fn commit(&mut self, commit: &Commit, ledger: &Ledger) -> Kept {
        if ledger.is_by_hand(commit.revision) {
            return Ok(());
        }
        let era = ledger.present();
        for act in &commit.acts {
            match act {
                Act::Published(version) => {
                    let published = era.versions().last().expect("it was published just now");
                    let what = format!("version {version}");
                    under_its_term(commit, ledger, &what, Some(published.term), published.standing)
                        .map_err(|broken| broken.about(version))?;
                }
                Act::Confirmed(version) => {
                    let confirmed = era.confirmed().last().expect("it was recorded just now");
                    let what = format!("the record that {version} is stable");
                    under_its_term(commit, ledger, &what, confirmed.term, confirmed.standing)
                        .map_err(|broken| broken.about(version))?;
                }
                Act::Wrote(write) => {
                    let what = format!("write {:?} to {}", write.id, write.key);
                    under_its_term(commit, ledger, &what, Some(write.term), write.standing)?;
                    let Some(id) = &write.id else { continue };
                    if self.refused.contains(id) {
                        let expected = format!("write {id}, which was refused, is never made");
                        return Err(
                            Broken::new(expected, format!("it is there @{}", commit.revision)).about(id)
                        );
                    }
                    let before = self.written.insert((commit.era, id.clone()), commit.revision);
                    if let Some(before) = before.filter(|before| *before != commit.revision) {
                        let expected = format!("write {id} is made once, and it was @{before}");
                        return Err(
                            Broken::new(expected, format!("it is there @{}", commit.revision)).about(id)
                        );
                    }
                }
                Act::Led(reign) if reign.modified != reign.term.revision() => {
                    let expected = "an election key is created, and never written over";
                    let found = format!("that of term {} was @{}", reign.term, reign.modified);
                    return Err(Broken::new(expected, found).about(reign.term));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn observe(&mut self, entry: &Entry, ledger: &Ledger) -> Kept {
        let Observation::FencedWrite { id, term, outcome } = &entry.observation else { return Ok(()) };
        let mut there = ledger.fenced(id);
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
                        "it was refused and is not made",
                        format!("it is there @{} ({why})", write.revision),
                    ),
                }
            }
            WriteOutcome::Done(revision) => {
                match there.find(|write| write.revision == *revision && write.term == *term) {
                    Some(_) => Ok(()),
                    None if ledger.has_gaps() => Ok(()),
                    None => {
                        let all: Vec<_> =
                            ledger.fenced(id).map(|write| (write.revision, write.term)).collect();
                        let expected = format!("it was done @{revision} under term {term}");
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
    let term = |term: Option<Term>| term.map_or_else(|| "nobody's".to_owned(), |term| term.to_string());
    let expected = format!("{what} is written under the term that stands, {}", term(standing));
    let found = format!("@{} it is written under {}", commit.revision, term(claimed));
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
    fn writes_under_the_terms_that_stand_are_kept() {
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
    fn a_late_version_of_a_deposed_leader_is_found() {
        let mut scene = scene();
        let old = scene.term();
        scene.leave("a");
        scene.elect("b", "V2");
        scene.publish_under("V3", old);
        broken("P5", "version", scene);
    }

    #[test]
    fn a_version_while_nobody_leads_is_found() {
        let mut scene = scene();
        let old = scene.term();
        scene.leave("a");
        scene.publish_under("V3", old);
        broken("P5", "nobody's", scene);
    }

    #[test]
    fn a_late_record_of_a_stable_version_is_found() {
        let mut scene = scene();
        let old = scene.term();
        scene.leave("a");
        scene.elect("b", "V2");
        scene.acknowledge("b", "V2");
        scene.confirm_under("V2", old);
        broken("P5", "is stable", scene);
    }

    #[test]
    fn a_late_write_of_the_users_is_found() {
        let mut scene = scene();
        let old = scene.term();
        scene.leave("a");
        scene.elect("b", "V2");
        scene.write("w1", old);
        broken("P5", "w1", scene);
    }

    #[test]
    fn an_election_key_that_is_written_over_is_found() {
        let mut scene = scene();
        scene.overwrite_leader("b");
        broken("P5", "never written over", scene);
    }

    #[test]
    fn a_write_that_was_refused_and_is_there_is_found_whichever_comes_first() {
        let refused = WriteOutcome::Refused("guard".into());
        let mut scene = scene();
        let term = scene.term();
        let mut late = scene.clone();
        scene.write("w1", term);
        scene.wrote("a", "w1", term, refused.clone());
        broken("P5", "is not made", scene);
        late.wrote("a", "w1", term, refused);
        late.write("w1", term);
        broken("P5", "is never made", late);
    }

    #[test]
    fn a_write_that_was_done_and_is_not_there_is_found() {
        let mut scene = scene();
        let term = scene.term();
        scene.wrote("a", "w1", term, WriteOutcome::Done(Revision::new(3)));
        broken("P5", "it was done @3", scene);
    }

    #[test]
    fn a_write_that_is_made_twice_is_found() {
        let mut scene = scene();
        let term = scene.term();
        scene.write("w1", term);
        scene.write("w1", term);
        broken("P5", "is made once", scene);
    }

    #[test]
    fn what_was_written_by_hand_is_nobody_s_fault() {
        let mut scene = scene();
        let revision = scene.publish_under("V3", Term::new(Revision::new(1)));
        scene.by_hand(revision);
        kept(scene);
    }
}
