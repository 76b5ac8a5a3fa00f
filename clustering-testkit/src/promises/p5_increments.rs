//! P5 for a counter: leaders that use it increment the counter with each write and append the id of the write to a list
//! in the same commit.
//!
//! - Each write finds the count of the previous one and increments it by one, so none is lost.
//! - Each write appends its id to the list, which keeps all earlier ids.
//! - No id occurs twice: a write whose reply was lost takes effect once or not at all.
//!
//! Each era is checked separately, starting from its initial count.

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
    /// The last count, if it is known.
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
        "P5 (leader writes are neither lost nor duplicated)"
    }

    fn commit(&mut self, commit: &Commit, ledger: &Ledger) -> Kept {
        let era = ledger.present();
        if era.has_gaps() {
            return Ok(());
        }
        if self.era != commit.era {
            *self = Increments { era: commit.era, ..Increments::default() };
        }
        let counter = format!("{}{}", Ledger::LEADER_COMMITS, Ledger::COUNTER);
        let counts = |act: &Act| matches!(act, Act::Wrote(write) if write.key == counter);
        if !commit.acts.iter().any(counts) {
            return Ok(());
        }
        let Some(Counter { id, count }) = read(era, &counter) else {
            return Err(Broken::new(
                "a counter that can be parsed",
                format!("an invalid value @{}", commit.revision),
            ));
        };
        self.count(&id, count, era, commit.revision).map_err(|broken| broken.about(&id))
    }
}

impl Increments {
    fn count(&mut self, id: &str, count: u64, era: &Era, revision: Revision) -> Kept {
        let broken = |expected: String, found: String| Err(Broken::new(expected, found));
        // The first era starts with an empty store, so the count before its first write is 0.
        let before = self.count.replace(count).or((era.number() == 0).then_some(0));
        if let Some(before) = before.filter(|before| before + 1 != count) {
            let expected = format!("a write increments the counter from {before} to {}", before + 1);
            return broken(expected, format!("{id} set it to {count} @{revision}"));
        }
        if !self.made.insert(id.to_owned()) {
            return broken(
                format!("write {id} takes effect once"),
                format!("it took effect again @{revision} and set the counter to {count}"),
            );
        }
        let key = format!("{}{}", Ledger::LEADER_COMMITS, Ledger::page_of(count));
        let ids = read(era, &key).map_or_else(Vec::new, |Listed { ids }| ids);
        let mut expected = match (self.pages.get(&key), before) {
            (Some(ids), _) => ids.clone(),
            (None, Some(_)) => Vec::new(),
            (None, None) => ids.iter().filter(|listed| *listed != id).cloned().collect(),
        };
        expected.push(id.to_owned());
        if ids != expected {
            let expected = format!("the list keeps all its ids and ends with {id}: {expected:?}");
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

    /// Returns a scene in which `a` leads and has counted to 2.
    fn scene() -> Scene {
        let mut scene = Scene::of(&["a", "b"]);
        scene.counts("a-1", 1, &["a-1"]);
        scene.counts("a-2", 2, &["a-1", "a-2"]);
        scene
    }

    #[test]
    fn increments_of_consecutive_leaders_keep_the_promise() {
        let mut scene = scene();
        scene.leave("a");
        scene.elect("b", "V2");
        scene.counts("b-1", 3, &["a-1", "a-2", "b-1"]);
        kept(scene);
    }

    #[test]
    fn a_full_page_of_the_list_is_followed_by_a_new_one() {
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
    fn a_lost_increment_is_detected() {
        let mut scene = scene();
        scene.counts("a-3", 2, &["a-1", "a-3"]);
        broken("P5", "from 2 to 3", scene);
    }

    #[test]
    fn an_id_that_is_missing_in_the_list_is_detected() {
        let mut scene = scene();
        scene.counts("a-3", 3, &["a-1", "a-3"]);
        broken("P5", "keeps all its ids", scene);
    }

    #[test]
    fn a_repeated_increment_is_detected() {
        let mut scene = scene();
        scene.counts("a-2", 3, &["a-1", "a-2", "a-2"]);
        broken("P5", "takes effect once", scene);
    }

    #[test]
    fn a_count_that_does_not_start_at_one_is_detected() {
        let mut scene = Scene::of(&["a"]);
        scene.counts("a-1", 5, &["a-1"]);
        broken("P5", "from 0 to 1", scene);
    }

    #[test]
    fn a_restored_store_continues_from_its_own_count() {
        let mut scene = scene();
        scene.era();
        scene.join("a", 3);
        scene.elect("a", "V2");
        scene.counts("a-9", 2, &["a-1", "a-9"]);
        scene.counts("a-10", 3, &["a-1", "a-9", "a-10"]);
        kept(scene.clone());
        scene.counts("a-11", 3, &["a-1", "a-9", "a-11"]);
        broken("P5", "from 3 to 4", scene);
    }
}
