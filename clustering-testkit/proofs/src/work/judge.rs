use std::collections::{BTreeMap, BTreeSet};

use clustering_core::Version;
use clustering_testkit::history::{Moment, Observation, WriteOutcome};

use super::{Counted, Event, Line, Place};

/// Judges the logs of workers.
#[derive(Debug, Default)]
pub struct Judge<'a> {
    lives: Vec<(&'a str, &'a [Line])>,
}

/// Summary of work without violations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Number of times that a process began to hold a key, and held it for some time.
    pub holds: usize,
    /// Number of times that a key went from one process to another.
    pub moves: usize,
}

/// Time for which a process certainly held a key: from the moment after it took the hold to the last moment at which it
/// found the hold valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held<'a> {
    from: Moment,
    until: Moment,
    life: &'a str,
    token: u64,
}

impl<'a> Judge<'a> {
    /// Adds the log of a life of a node.
    pub fn with(mut self, life: &'a str, log: &'a [Line]) -> Self {
        self.lives.push((life, log));
        self
    }

    /// Checks that at no moment two processes held one key, and that tokens grow with each change of the holder.
    ///
    /// # Errors
    ///
    /// Returns the first violation.
    pub fn check_holds(&self) -> Result<Judged, String> {
        let mut judged = Judged::default();
        for (key, mut held) in self.held() {
            held.sort_unstable();
            judged.holds += held.len();
            // All earlier holds ended before this one began, or belong to the same life.
            let mut last: Option<Held<'_>> = None;
            for next in held {
                let Some(former) = last.replace(next).filter(|last| last.life != next.life) else {
                    continue;
                };
                if next.from < former.until {
                    return Err(format!("P12: {key} was held twice: {former:?} and {next:?}"));
                }
                if next.token <= former.token {
                    return Err(format!("P12: the token of {key} did not grow: {former:?} and {next:?}"));
                }
                judged.moves += 1;
            }
        }
        Ok(judged)
    }

    /// Returns the times for which keys were held, for the [checker](clustering_testkit::promises) of P12.
    pub fn observations(&self) -> Vec<(Moment, Observation)> {
        let observation = |(key, held): (&str, Held<'_>)| {
            (held.from, Observation::Holds { key: key.to_owned(), until: Some(held.until) })
        };
        let all = self.held().into_iter();
        all.flat_map(|(key, held)| held.into_iter().map(move |held| (key, held))).map(observation).collect()
    }

    /// Checks that each node now holds exactly the slots that the newest version assigns to it, and that all slots are
    /// held. The logs must be those of the running nodes.
    ///
    /// # Errors
    ///
    /// Returns the first node for which this is not so, or the missing slots.
    pub fn check_slots(&self, newest: Option<Version>, slots: u16) -> Result<(), String> {
        let mut missing: BTreeSet<u16> = (0..slots).collect();
        for (life, log) in &self.lives {
            let last = log.iter().rev().find_map(|line| match &line.event {
                Event::Slots { version, held, owned } => Some((version, held, owned)),
                _ => None,
            });
            let (version, held, owned) = last.ok_or_else(|| format!("{life} has recorded nothing"))?;
            if Some(*version) != newest || held != owned {
                return Err(format!("{life} holds {held:?} of {owned:?} in {version}, newest is {newest:?}"));
            }
            if let Some(twice) = held.iter().find(|slot| !missing.remove(slot)) {
                return Err(format!("{life} holds slot {twice}, like another node"));
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!("nobody holds the slots {missing:?}")),
        }
    }

    /// Checks that both counters of all keys were incremented after that time.
    ///
    /// # Errors
    ///
    /// Returns the missing increments.
    pub fn check_increments(&self, keys: impl Iterator<Item = String>, since: Moment) -> Result<(), String> {
        let places = |key: String| [(key.clone(), Place::Store), (key, Place::File)];
        let mut missing: BTreeSet<_> = keys.flat_map(places).collect();
        for line in self.lines().filter(|line| line.at > since) {
            if let Event::Tried { key, place, outcome: WriteOutcome::Done(_), .. } = &line.event {
                missing.remove(&(key.clone(), *place));
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!("no increments of {missing:?}")),
        }
    }

    /// Returns the times for which each key was held.
    fn held(&self) -> BTreeMap<&'a str, Vec<Held<'a>>> {
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for (life, log) in &self.lives {
            let mut open = BTreeMap::<&str, Held<'a>>::new();
            for line in *log {
                match &line.event {
                    Event::Began { key, token } => {
                        let begun = Held { from: line.at, until: line.at, life, token: *token };
                        let former = open.insert(key, begun);
                        all.entry(&**key).or_default().extend(former);
                    }
                    Event::Valid { key } => {
                        if let Some(held) = open.get_mut(&**key) {
                            held.until = held.until.max(line.at);
                        }
                    }
                    _ => {}
                }
            }
            for (key, held) in open {
                all.entry(key).or_default().push(held);
            }
        }
        for held in all.values_mut() {
            held.retain(|held| held.until > held.from);
        }
        all
    }

    /// Checks the increments of a key's counter at one place, in the order of their values: none is lost or doubled,
    /// and no former holder made one after the next holder's first increment.
    ///
    /// # Errors
    ///
    /// Returns the first violation.
    pub fn check_counts(&self, key: &str, place: Place, counts: &[Counted]) -> Result<(), String> {
        let broken = |what: String| Err(format!("P12: the {place:?} counter of {key}: {what}"));
        for (number, counted) in (1..).zip(counts) {
            if counted.count != number {
                return broken(format!("an increment is lost or doubled: {counted:?} is number {number}"));
            }
        }
        if let Some(pair) = counts.windows(2).find(|pair| pair[0].token > pair[1].token) {
            return broken(format!("a former holder incremented it: {pair:?}"));
        }
        let ids: BTreeSet<&str> = counts.iter().map(|counted| &*counted.id).collect();
        let mut tried = BTreeSet::new();
        for line in self.lines() {
            match &line.event {
                Event::Trying { key: of, place: at, id } if of == key && *at == place => {
                    tried.insert(&**id);
                }
                Event::Tried { key: of, place: at, id, outcome } if of == key && *at == place => {
                    match outcome {
                        WriteOutcome::Done(_) if !ids.contains(&**id) => {
                            return broken(format!("{id} is lost"));
                        }
                        WriteOutcome::Refused(why) if ids.contains(&**id) => {
                            return broken(format!("{id} was refused ({why}), and made"));
                        }
                        _ => {}
                    }
                }
                Event::Surprised { key: of, what } if of == key => return broken(what.clone()),
                _ => {}
            }
        }
        match ids.difference(&tried).next() {
            Some(id) => broken(format!("nobody made {id}")),
            None => Ok(()),
        }
    }

    fn lines(&self) -> impl Iterator<Item = &'a Line> + use<'a, '_> {
        self.lives.iter().flat_map(|(_, log)| *log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: u64, event: Event) -> Line {
        Line { at: Moment::from_nanos(at), event }
    }

    fn held(from: u64, until: u64, token: u64) -> Vec<Line> {
        let key = || "k".to_owned();
        vec![line(from, Event::Began { key: key(), token }), line(until, Event::Valid { key: key() })]
    }

    #[test]
    fn two_holders_at_one_moment_are_found() {
        let (a, b, c) = (held(1, 5, 1), held(4, 9, 2), held(6, 9, 2));
        let overlap = Judge::default().with("a", &a).with("b", &b).check_holds();
        assert!(overlap.unwrap_err().contains("held twice"));
        let judged = Judge::default().with("a", &a).with("b", &c).check_holds().unwrap();
        assert_eq!(judged, Judged { holds: 2, moves: 1 });
    }

    #[test]
    fn a_token_that_does_not_grow_is_found() {
        let (a, b) = (held(1, 5, 2), held(6, 9, 2));
        let stuck = Judge::default().with("a", &a).with("b", &b).check_holds();
        assert!(stuck.unwrap_err().contains("did not grow"));
    }

    #[test]
    fn slots_that_are_not_held_by_exactly_their_owner_are_found() {
        let version = Version::from_u128(1);
        let slots = |held: &[u16], owned: &[u16]| {
            [line(1, Event::Slots { version, held: held.to_vec(), owned: owned.to_vec() })]
        };
        let check =
            |a: &[Line], b: &[Line]| Judge::default().with("a", a).with("b", b).check_slots(Some(version), 3);
        let first = slots(&[0, 1], &[0, 1]);
        check(&first, &slots(&[2], &[2])).unwrap();
        assert!(check(&first, &slots(&[], &[2])).unwrap_err().contains("b holds [] of [2]"));
        assert!(check(&first, &slots(&[], &[])).unwrap_err().contains("nobody holds the slots {2}"));
        assert!(check(&first, &slots(&[1, 2], &[1, 2])).unwrap_err().contains("slot 1, like another"));
        assert!(check(&first, &[]).unwrap_err().contains("b has recorded nothing"));
    }

    #[test]
    fn lost_and_doubled_increments_are_found() {
        let key = || "k".to_owned();
        let tried = |id: &str, outcome| {
            let (id, place) = (id.to_owned(), Place::Store);
            let trying = Event::Trying { key: key(), place, id: id.clone() };
            [line(1, trying), line(2, Event::Tried { key: key(), place, id, outcome })]
        };
        let done = || WriteOutcome::Done(clustering_core::store::Revision::ZERO);
        let log = [tried("a", done()), tried("b", WriteOutcome::Refused("no".to_owned()))].concat();
        let counted = |id: &str, count| Counted { id: id.to_owned(), count, token: 1 };
        let check =
            |counts: &[Counted]| Judge::default().with("x", &log).check_counts("k", Place::Store, counts);
        check(&[counted("a", 1)]).unwrap();
        assert!(check(&[]).unwrap_err().contains("a is lost"));
        assert!(check(&[counted("a", 1), counted("b", 2)]).unwrap_err().contains("refused"));
        assert!(check(&[counted("a", 1), counted("c", 1)]).unwrap_err().contains("lost or doubled"));
        assert!(check(&[counted("a", 1), counted("c", 2)]).unwrap_err().contains("nobody made c"));
    }
}
