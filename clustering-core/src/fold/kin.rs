//! Folds of one process that follow the same log, and share their replicas.
//!
//! Where many nodes share a process, as they do in tests and simulations, each would fold the same changes into a replica
//! of its own: N nodes of N, for N events. So the first to fold a batch keeps what came of it, and the others, who stand
//! where it stood and are brought the same batch, take that.
//!
//! Nothing can be told from outside: what is shared is equal to what each would have come to. Nobody sees a change before
//! its own watch brings it. A node that has its process to itself shares nothing and pays nothing.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{Changed, replica::Replica};
use crate::{
    keyspace::Keyspace,
    store::{Batch, Revision},
};

/// How many steps are kept at least, for those who read a snapshot a moment ago.
const LAST: usize = 16;

/// How many are kept at most for those who are behind, and how many more for each fold: a thousand nodes that join at once
/// are a thousand steps. Who is further behind folds on its own.
const MOST: usize = 1024;
const MOST_PER_FOLD: usize = 4;

/// How many replicas of the same revision are looked at for one that is equal.
const LOOKED_AT: usize = 4;

static ALL: Mutex<Vec<Weak<Kin>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folds of this process that follow the cluster of these keys.
#[derive(Debug)]
pub(crate) struct Kin {
    keyspace: Keyspace,
    steps: Mutex<Steps>,
}

/// The steps that were taken last.
#[derive(Debug, Default)]
struct Steps {
    taken: VecDeque<Step>,
    /// How many were forgotten.
    forgotten: usize,
    /// The number of the step from a replica, by where that lies in memory. The step holds it, so nothing else lies there.
    from: HashMap<usize, usize>,
    /// Numbers of steps by the revision that they came to.
    to: BTreeMap<Revision, Vec<usize>>,
}

/// What a batch made of a replica; or a replica that a snapshot was read into.
#[derive(Debug)]
struct Step {
    from: Option<(Arc<Replica>, Batch)>,
    changed: Arc<[Changed]>,
    to: Arc<Replica>,
}

impl Kin {
    /// What that batch makes of that replica.
    pub(super) fn step(
        self: &Arc<Self>,
        from: &Arc<Replica>,
        batch: &Batch,
    ) -> (Arc<Replica>, Arc<[Changed]>) {
        if let Some(step) = lock(&self.steps).find(from, batch) {
            return step;
        }
        let most = self.most();
        // Two may do so at once, and the second takes what the first one made.
        let mut to = Replica::clone(from);
        let changed = to.apply(&self.keyspace, batch);
        let mut steps = lock(&self.steps);
        steps.find(from, batch).unwrap_or_else(|| {
            let to = steps.equal(&to).unwrap_or_else(|| Arc::new(to));
            let changed: Arc<[Changed]> = changed.into();
            let step =
                Step { from: Some((from.clone(), batch.clone())), changed: changed.clone(), to: to.clone() };
            steps.take(step, most);
            (to, changed)
        })
    }

    /// What is known to come of the batches, up to the first of which that is not known.
    pub(super) fn walk<'a>(
        &self,
        from: &Arc<Replica>,
        batches: impl Iterator<Item = &'a Batch>,
    ) -> VecDeque<(Arc<Replica>, Arc<[Changed]>)> {
        let mut steps = lock(&self.steps);
        steps.forget_taken();
        let mut walked: VecDeque<(Arc<Replica>, Arc<[Changed]>)> = VecDeque::new();
        let mut number = None;
        for batch in batches {
            let from = walked.back().map_or(from, |(to, _)| to);
            // Mostly the one that was taken next.
            let next = number.map(|number| number + 1).filter(|number| steps.begins(*number, from));
            number = next.or_else(|| steps.from.get(&address(from)).copied());
            let Some(step) = number.and_then(|number| steps.fitting(number, batch)) else { break };
            walked.push_back(step);
        }
        walked
    }

    /// How many steps are kept.
    fn most(self: &Arc<Self>) -> usize {
        MOST + MOST_PER_FOLD * Arc::strong_count(self)
    }

    /// Replicas of that revision.
    pub(super) fn known(&self, revision: Revision) -> Vec<Arc<Replica>> {
        lock(&self.steps).at(revision).cloned().collect()
    }

    /// The replica that a snapshot was read into, or one that is equal.
    pub(super) fn join(self: &Arc<Self>, replica: Replica) -> Arc<Replica> {
        let most = self.most();
        let mut steps = lock(&self.steps);
        steps.equal(&replica).unwrap_or_else(|| {
            let to = Arc::new(replica);
            steps.take(Step { from: None, changed: [].into(), to: to.clone() }, most);
            to
        })
    }
}

fn address(replica: &Arc<Replica>) -> usize {
    Arc::as_ptr(replica).addr()
}

impl Step {
    /// Whether nobody stands any more where it begins.
    fn is_over(&self) -> bool {
        self.from.as_ref().is_none_or(|(from, _)| Arc::strong_count(from) == 1)
    }
}

impl Steps {
    fn find(&self, from: &Arc<Replica>, batch: &Batch) -> Option<(Arc<Replica>, Arc<[Changed]>)> {
        self.fitting(*self.from.get(&address(from))?, batch)
    }

    /// Whether that step begins there.
    fn begins(&self, number: usize, from: &Arc<Replica>) -> bool {
        let step = self.taken.get(number - self.forgotten).and_then(|step| step.from.as_ref());
        step.is_some_and(|(begin, _)| Arc::ptr_eq(begin, from))
    }

    /// What came of that step, if it was that batch's.
    fn fitting(&self, number: usize, batch: &Batch) -> Option<(Arc<Replica>, Arc<[Changed]>)> {
        let step = &self.taken[number - self.forgotten];
        let same = |other: &Batch| Arc::ptr_eq(&other.changes, &batch.changes) || other == batch;
        let fits =
            step.from.as_ref().is_some_and(|(_, other)| other.revision == batch.revision && same(other));
        fits.then(|| (step.to.clone(), step.changed.clone()))
    }

    /// The last replicas of that revision.
    fn at(&self, revision: Revision) -> impl Iterator<Item = &Arc<Replica>> {
        let numbers = self.to.get(&revision).into_iter().flatten().rev().take(LOOKED_AT);
        numbers.map(|number| &self.taken[number - self.forgotten].to)
    }

    /// A replica that is equal to that one: folds whose ways were apart meet there.
    fn equal(&self, replica: &Replica) -> Option<Arc<Replica>> {
        self.at(replica.revision).find(|other| ***other == *replica).cloned()
    }

    fn take(&mut self, step: Step, most: usize) {
        while self.taken.len() >= most {
            self.forget();
        }
        self.forget_taken();
        let number = self.forgotten + self.taken.len();
        if let Some((from, _)) = &step.from {
            self.from.insert(address(from), number);
        }
        self.to.entry(step.to.revision).or_default().push(number);
        self.taken.push_back(step);
    }

    /// Forgets the steps that all have taken, but for the last.
    fn forget_taken(&mut self) {
        while self.taken.len() > LAST && self.taken.front().is_some_and(Step::is_over) {
            self.forget();
        }
    }

    /// Forgets the oldest step.
    fn forget(&mut self) {
        let Some(step) = self.taken.pop_front() else { return };
        let number = self.forgotten;
        self.forgotten += 1;
        if let Some((from, _)) = &step.from {
            // At most that of another store's batch: then it is worked out anew.
            self.from.remove(&address(from));
        }
        if let Some(numbers) = self.to.get_mut(&step.to.revision) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.to.remove(&step.to.revision);
            }
        }
    }
}

/// A fold's part in its kin, if it shares. No part of what the fold is: two folds are equal whatever they share.
#[derive(Clone, Debug, Default)]
pub(super) struct Kinship(Option<Arc<Kin>>);

impl Kinship {
    /// That of a fold that follows the cluster of these keys.
    pub(super) fn of(keyspace: &Keyspace) -> Self {
        let mut all = lock(&ALL);
        all.retain(|kin| kin.strong_count() > 0);
        let known = all.iter().filter_map(Weak::upgrade).find(|kin| kin.keyspace == *keyspace);
        Kinship(Some(known.unwrap_or_else(|| {
            let kin = Arc::new(Kin { keyspace: keyspace.clone(), steps: Mutex::default() });
            all.push(Arc::downgrade(&kin));
            kin
        })))
    }

    /// The kin, if there is anybody to share with.
    pub(super) fn kin(&self) -> Option<&Arc<Kin>> {
        let kin = self.0.as_ref()?;
        if Arc::strong_count(kin) > 1 {
            return Some(kin);
        }
        let mut steps = lock(&kin.steps);
        if !steps.taken.is_empty() {
            *steps = Steps::default();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fold::{Fold, Known},
        name::{Namespace, NodeName},
        store::{Change, Entry, Key, Snapshot},
    };

    /// A cluster that no other test has.
    struct Cluster(Keyspace);

    impl Cluster {
        fn new(namespace: &str) -> Self {
            Cluster(Keyspace::new(Namespace::parse(namespace).unwrap()))
        }

        fn fold(&self, me: &str) -> Fold {
            let mut fold = Fold::new(self.0.clone(), Some(NodeName::parse(me).unwrap()));
            fold.share();
            fold
        }

        fn entry(&self, key: Key, value: &str, at: u64) -> Entry {
            let at = Revision::new(at);
            Entry { key, value: value.to_owned().into(), created: at, modified: at, lease: None }
        }

        fn joins(&self, name: &str, at: u64) -> Batch {
            let key = self.0.node_key(&NodeName::parse(name).unwrap());
            let entry = self.entry(key, r#"{"uri":"http://n","incarnation":"1"}"#, at);
            Batch::new(Revision::new(at), [Change::Put(entry)])
        }

        fn version(&self, at: u64) -> Batch {
            let label = crate::version::Version::from_u128(u128::from(at));
            let entry = self.entry(self.0.version_key().clone(), &format!(r#"{{"version":"{label}"}}"#), at);
            Batch::new(Revision::new(at), [Change::Put(entry)])
        }
    }

    fn apply(fold: &mut Fold, batch: &Batch) {
        fold.apply_known(batch, &mut Known::default());
    }

    fn same(one: &Fold, other: &Fold) -> bool {
        Arc::ptr_eq(&one.replica, &other.replica)
    }

    fn steps(fold: &Fold) -> usize {
        fold.kinship.0.as_ref().map_or(0, |kin| lock(&kin.steps).taken.len())
    }

    #[test]
    fn those_who_are_brought_the_same_hold_it_once_and_nobody_is_ahead_of_its_watch() {
        let cluster = Cluster::new("kin/same");
        let mut folds = ["a", "b", "c"].map(|me| cluster.fold(me));
        let empty = Snapshot { revision: Revision::ZERO, entries: Vec::new() };
        folds.iter_mut().for_each(|fold| drop(fold.resync(&empty, false)));
        let batches: Vec<Batch> = (1..100).map(|at| cluster.joins(&format!("n{at}"), at)).collect();
        let [first, second, third] = &mut folds;
        batches.iter().for_each(|batch| apply(first, batch));
        let mut known = second.look_ahead(&batches);
        assert_eq!(known.len(), batches.len(), "all is known by now");
        batches.iter().for_each(|batch| drop(second.apply_known(batch, &mut known)));
        assert!(same(first, second));
        apply(third, &batches[0]);
        assert_eq!((third.present_count(), third.revision().get()), (1, 1));
        batches[1..].iter().for_each(|batch| apply(third, batch));
        assert!(same(first, third));
        assert_eq!(third.own(), None);
    }

    /// One followed the log, one read a snapshot, and only the first knows the view of the version.
    #[test]
    fn ways_that_were_apart_meet_at_the_next_version() {
        let cluster = Cluster::new("kin/meet");
        let (mut old, mut new) = (cluster.fold("a"), cluster.fold("b"));
        for batch in [cluster.joins("a", 1), cluster.version(2), cluster.joins("b", 3)] {
            apply(&mut old, &batch);
        }
        let entries = [cluster.joins("a", 1), cluster.joins("b", 3), cluster.version(2)];
        let entries = entries.iter().flat_map(|batch| &*batch.changes).map(|change| match change {
            Change::Put(entry) => entry.clone(),
            Change::Delete(_) => unreachable!("they are puts"),
        });
        let snapshot = Snapshot { revision: Revision::new(3), entries: entries.collect() };
        new.resync(&snapshot, false);
        assert!(old.newest().is_some() && new.newest().is_none() && !same(&old, &new));
        assert_eq!(new.replica.nodes, old.replica.nodes);
        for fold in [&mut new, &mut old] {
            apply(fold, &cluster.version(4));
        }
        assert!(same(&old, &new));
        let views = [&old, &new].map(|fold| fold.newest().unwrap().me().unwrap().clone());
        assert_eq!(views, ["a", "b"], "each has it as its own");
    }

    #[test]
    fn who_is_alone_keeps_nothing_and_changes_in_place() {
        let cluster = Cluster::new("kin/alone");
        let (mut fold, other) = (cluster.fold("a"), cluster.fold("b"));
        (1..10).for_each(|at| apply(&mut fold, &cluster.joins(&format!("n{at}"), at)));
        assert_eq!(steps(&fold), 9);
        drop(other);
        apply(&mut fold, &cluster.joins("n10", 10));
        let place = Arc::as_ptr(&fold.replica);
        (11..20).for_each(|at| apply(&mut fold, &cluster.joins(&format!("n{at}"), at)));
        assert_eq!((steps(&fold), Arc::as_ptr(&fold.replica)), (0, place));
        assert_eq!(fold.present_count(), 19);
    }

    #[test]
    fn steps_are_kept_for_who_is_behind_but_not_for_ever() {
        let cluster = Cluster::new("kin/forgotten");
        let (mut first, mut second, mut stuck) = (cluster.fold("a"), cluster.fold("b"), cluster.fold("c"));
        apply(&mut stuck, &cluster.joins("n1", 1));
        let both = |first: &mut Fold, second: &mut Fold, at: u64| {
            [first, second]
                .into_iter()
                .for_each(|fold| apply(fold, &cluster.joins(&format!("n{}", at % 9), at)));
        };
        (1..1_000).for_each(|at| both(&mut first, &mut second, at));
        assert!((990..1_010).contains(&steps(&first)), "{}: it may come yet", steps(&first));
        (1_000..2_000).for_each(|at| both(&mut first, &mut second, at));
        assert!(steps(&first) <= LAST + 1, "{}: it is too far behind", steps(&first));
        // It has to fold on its own, and comes to the same.
        (2..2_000).for_each(|at| apply(&mut stuck, &cluster.joins(&format!("n{}", at % 9), at)));
        assert_eq!(stuck.replica, first.replica);
    }

    #[test]
    fn steps_that_all_have_taken_are_forgotten() {
        let cluster = Cluster::new("kin/taken");
        let (mut first, mut second) = (cluster.fold("a"), cluster.fold("b"));
        for at in 1..100 {
            let batch = cluster.joins(&format!("n{}", at % 9), at);
            [&mut first, &mut second].into_iter().for_each(|fold| apply(fold, &batch));
        }
        assert!(steps(&first) <= LAST + 1, "{}", steps(&first));
    }

    #[test]
    fn what_another_store_made_of_the_same_revision_is_not_taken() {
        let cluster = Cluster::new("kin/other");
        let (mut one, mut other) = (cluster.fold("a"), cluster.fold("a"));
        apply(&mut one, &cluster.joins("here", 1));
        apply(&mut other, &cluster.joins("there", 1));
        let names =
            [&one, &other].map(|fold| fold.present().map(|node| node.name.clone()).collect::<Vec<_>>());
        assert_eq!(names, [["here"], ["there"]]);
    }
}
