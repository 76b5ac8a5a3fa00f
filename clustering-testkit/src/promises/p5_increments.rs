//! P5, for what leaders count: nodes that write as leaders count one up with each write, and add its id to a
//! list in the same commit.
//!
//! - Each write finds the count of the one before, and none is lost: the count goes up by one.
//! - The list grows by the id of the write, and has all those before it.
//! - No id comes twice: a write whose reply was lost is there once or not at all.
//!
//! Within one era, from what it begins with.

use std::collections::{BTreeMap, BTreeSet};

use clustering_core::store::Revision;
use serde::Deserialize;

use super::{Broken, Kept, Promise};
use crate::history::{
    Ledger,
    ledger::{Act, Commit, Era},
};

#[derive(Debug, Default)]
pub(crate) struct Increments {
    era: usize,
    /// The count, if it is known.
    count: Option<u64>,
    pages: BTreeMap<String, Vec<String>>,
    made: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Counter {
    id: String,
    count: u64,
}

#[derive(Deserialize)]
struct Listed {
    ids: Vec<String>,
}

impl Promise for Increments {
    fn name(&self) -> &'static str {
        "P5, what leaders count is neither lost nor doubled,"
    }

    fn commit(&mut self, commit: &Commit, ledger: &Ledger) -> Kept {
        let era = ledger.present();
        if era.has_gaps() {
            return Ok(());
        }
        if self.era != commit.era {
            *self = Increments { era: commit.era, ..Increments::default() };
        }
        let counter = format!("{}{}", Ledger::FENCED, Ledger::COUNTER);
        let counts = |act: &Act| matches!(act, Act::Wrote(write) if write.key == counter);
        if !commit.acts.iter().any(counts) {
            return Ok(());
        }
        let Some(Counter { id, count }) = read(era, &counter) else {
            return Err(Broken::new(
                "a count that can be read",
                format!("something else @{}", commit.revision),
            ));
        };
        self.count(&id, count, era, commit.revision).map_err(|broken| broken.about(&id))
    }
}

impl Increments {
    fn count(&mut self, id: &str, count: u64, era: &Era, revision: Revision) -> Kept {
        let broken = |expected: String, found: String| Err(Broken::new(expected, found));
        // A history that begins with nothing begins to count at nothing.
        let before = self.count.replace(count).or((era.number() == 0).then_some(0));
        if let Some(before) = before.filter(|before| before + 1 != count) {
            let expected = format!("a write that finds {before} makes it {}", before + 1);
            return broken(expected, format!("{id} made it {count} @{revision}"));
        }
        if !self.made.insert(id.to_owned()) {
            return broken(
                format!("write {id} is made once"),
                format!("it counts again @{revision}, to {count}"),
            );
        }
        let key = format!("{}{}", Ledger::FENCED, Ledger::page_of(count));
        let ids = read(era, &key).map_or_else(Vec::new, |Listed { ids }| ids);
        let mut expected = match (self.pages.get(&key), before) {
            (Some(ids), _) => ids.clone(),
            (None, Some(_)) => Vec::new(),
            (None, None) => ids.iter().filter(|listed| *listed != id).cloned().collect(),
        };
        expected.push(id.to_owned());
        if ids != expected {
            let expected = format!("the list keeps all its ids, and {id} comes last: {expected:?}");
            return broken(expected, format!("@{revision} it is {ids:?}"));
        }
        self.pages.insert(key, ids);
        Ok(())
    }
}

fn read<T: for<'a> Deserialize<'a>>(era: &Era, key: &str) -> Option<T> {
    serde_json::from_slice(era.value(key)?).ok()
}

#[cfg(test)]
mod tests {
    use crate::promises::scene::{Scene, broken, kept};

    /// a leads, and has counted to 2.
    fn scene() -> Scene {
        let mut scene = Scene::of(&["a", "b"]);
        scene.counts("a-1", 1, &["a-1"]);
        scene.counts("a-2", 2, &["a-1", "a-2"]);
        scene
    }

    #[test]
    fn steps_one_after_the_other_are_fine_whoever_leads() {
        let mut scene = scene();
        scene.leave("a");
        scene.elect("b", "V2");
        scene.counts("b-1", 3, &["a-1", "a-2", "b-1"]);
        kept(scene);
    }

    #[test]
    fn pages_begin_anew() {
        let mut scene = scene();
        let mut ids = vec!["a-1".to_owned(), "a-2".to_owned()];
        for count in 3..=100 {
            ids.push(format!("a-{count}"));
            scene.counts(&format!("a-{count}"), count, &ids.iter().map(String::as_str).collect::<Vec<_>>());
        }
        scene.counts("a-101", 101, &["a-101"]);
        kept(scene);
    }

    #[test]
    fn a_lost_step_is_found() {
        let mut scene = scene();
        scene.counts("a-3", 2, &["a-1", "a-3"]);
        broken("P5", "finds 2 makes it 3", scene);
    }

    #[test]
    fn a_step_that_is_missing_in_the_list_is_found() {
        let mut scene = scene();
        scene.counts("a-3", 3, &["a-1", "a-3"]);
        broken("P5", "keeps all its ids", scene);
    }

    #[test]
    fn a_doubled_step_is_found() {
        let mut scene = scene();
        scene.counts("a-2", 3, &["a-1", "a-2", "a-2"]);
        broken("P5", "is made once", scene);
    }

    #[test]
    fn a_count_that_begins_elsewhere_is_found() {
        let mut scene = Scene::of(&["a"]);
        scene.counts("a-1", 5, &["a-1"]);
        broken("P5", "finds 0 makes it 1", scene);
    }

    #[test]
    fn a_store_that_was_restored_goes_on_from_what_it_has() {
        let mut scene = scene();
        scene.era();
        scene.join("a", 3);
        scene.elect("a", "V2");
        scene.counts("a-9", 2, &["a-1", "a-9"]);
        scene.counts("a-10", 3, &["a-1", "a-9", "a-10"]);
        kept(scene.clone());
        scene.counts("a-11", 3, &["a-1", "a-9", "a-11"]);
        broken("P5", "finds 3 makes it 4", scene);
    }
}
