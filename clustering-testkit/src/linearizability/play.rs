use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use clustering_core::store::{
    Change, CoordinationStore, ErrorKind, Guard, Operation as Write, Revision, Snapshot, StoreError, Txn,
};
use futures_util::{StreamExt, future::join_all};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use tokio::task::yield_now;

use super::{Answer, Call, History, Operation};

/// What is played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Decides what each caller asks. On a store within the process and a runtime of one thread the same seed plays the
    /// same history.
    pub seed: u64,
    /// How many callers there are.
    pub callers: usize,
    /// How many calls each of them makes, one after the other.
    pub calls: usize,
    /// How many keys they quarrel about.
    pub keys: usize,
    /// What the keys start with. Nobody else may write below it meanwhile.
    pub root: String,
}

/// Five callers with 40 calls each about three keys.
impl Default for Plan {
    fn default() -> Self {
        Plan { seed: 1, callers: 5, calls: 40, keys: 3, root: "linearizability/".to_owned() }
    }
}

/// Lets the callers loose on the store and returns what they saw.
///
/// `open` gives each caller its handle, by number; the same store behind all. Handles may fail, and may lose replies. The
/// handle of the number [`Plan::callers`] is not the callers': it reads what there was before and what became of commits
/// whose replies were lost, and should not fail.
///
/// # Panics
///
/// If something stands under the root already, if that last handle fails, or if the store says that a call was wrong.
pub async fn play(plan: &Plan, open: impl AsyncFn(usize) -> Arc<dyn CoordinationStore>) -> History {
    let witness = open(plan.callers).await;
    let start = witness.read(&plan.root).await.expect("the witness reads");
    assert_eq!(start.entries, [], "something stands under {:?}", plan.root);

    let clock = AtomicUsize::new(1);
    let mut callers = Vec::new();
    for number in 0..plan.callers {
        callers.push(Caller::new(number, plan, open(number).await, &clock));
    }
    let told = join_all(callers.into_iter().map(Caller::play)).await;

    let mut history = History::default();
    let effects = effects(&*witness, plan, start.revision).await;
    for told in told.into_iter().flatten() {
        let Told { caller, call, invoked, answer } = told;
        let (answer, returned) = match answer {
            Some((answer, returned)) => (answer, returned),
            None => {
                history.unknown += 1;
                match marker(&call).and_then(|marker| effects.get(&marker)) {
                    Some(revision) => (Answer::Committed(*revision), usize::MAX),
                    None => continue,
                }
            }
        };
        history.operations.push(Operation { caller, call, answer, invoked, returned });
    }
    history
}

/// At which revision each marker was put.
async fn effects(
    witness: &dyn CoordinationStore,
    plan: &Plan,
    after: Revision,
) -> BTreeMap<(String, Vec<u8>), Revision> {
    let end = witness.read(&plan.root).await.expect("the witness reads");
    let last = end.entries.iter().map(|entry| entry.modified).max();
    let mut watch = witness.watch(&plan.root, after).await.expect("the witness watches");
    let mut effects = BTreeMap::new();
    let mut seen = after;
    // Every commit puts a marker that stays, so the last change of all is one of a key that stands.
    while last.is_some_and(|last| seen < last) {
        let batch =
            watch.next().await.expect("a watch has no end but an error").expect("the witness sees all");
        seen = batch.revision;
        for change in &*batch.changes {
            if let Change::Put(entry) = change {
                effects.insert((entry.key.to_string(), entry.value.to_vec()), entry.modified);
            }
        }
    }
    effects
}

/// By what the effect of a commit is known: the first key that it puts, and the value, which no other commit puts.
fn marker(call: &Call) -> Option<(String, Vec<u8>)> {
    let Call::Commit(txn) = call else { return None };
    txn.operations().iter().find_map(|write| match write {
        Write::Put { key, value, .. } => Some((key.to_string(), value.to_vec())),
        Write::Delete { .. } => None,
    })
}

/// What a caller tells of one call.
struct Told {
    caller: usize,
    call: Call,
    invoked: usize,
    /// And the moment of the answer. `None` if it is not known what became of the call.
    answer: Option<(Answer, usize)>,
}

struct Caller<'a> {
    number: usize,
    plan: &'a Plan,
    store: Arc<dyn CoordinationStore>,
    clock: &'a AtomicUsize,
    random: SmallRng,
    /// What it saw last, by which it guards its commits: often out of date.
    seen: Snapshot,
}

impl<'a> Caller<'a> {
    fn new(number: usize, plan: &'a Plan, store: Arc<dyn CoordinationStore>, clock: &'a AtomicUsize) -> Self {
        let random = SmallRng::seed_from_u64(plan.seed.wrapping_mul(1_000).wrapping_add(number as u64));
        let seen = Snapshot { revision: Revision::ZERO, entries: Vec::new() };
        Caller { number, plan, store, clock, random, seen }
    }

    async fn play(mut self) -> Vec<Told> {
        let mut told = Vec::new();
        for number in 0..self.plan.calls {
            for _ in 0..self.random.random_range(0..4) {
                yield_now().await;
            }
            let call = match self.random.random_range(0..10) {
                0..4 => Call::Read(self.plan.root.clone()),
                _ => Call::Commit(self.txn(number)),
            };
            let invoked = self.clock.fetch_add(1, Ordering::SeqCst);
            let result = self.ask(&call).await;
            let returned = self.clock.fetch_add(1, Ordering::SeqCst);
            let answer = match result {
                Ok(answer) => Some((answer, returned)),
                Err(error) => match error.kind() {
                    ErrorKind::GuardFailed { revision } => Some((Answer::GuardFailed(revision), returned)),
                    ErrorKind::OutcomeUnknown if matches!(call, Call::Commit(_)) => None,
                    // Nothing happened, which is nothing to judge.
                    ErrorKind::OutcomeUnknown | ErrorKind::Unreachable | ErrorKind::Busy => continue,
                    _ => panic!("caller {}: {call:?}: {error}", self.number),
                },
            };
            if let Some((Answer::Shown(snapshot), _)) = &answer {
                self.seen = snapshot.clone();
            }
            told.push(Told { caller: self.number, call, invoked, answer });
        }
        told
    }

    async fn ask(&self, call: &Call) -> Result<Answer, StoreError> {
        match call {
            Call::Commit(txn) => self.store.commit(txn.clone()).await.map(Answer::Committed),
            Call::Read(prefix) => self.store.read(prefix).await.map(Answer::Shown),
        }
    }

    /// Puts the marker, puts or deletes one or two of the keys, under guards that hold if nobody was faster.
    fn txn(&mut self, number: usize) -> Txn {
        let caller = self.number;
        let mut txn = Txn::new().put(
            format!("{}marker-{caller}", self.plan.root),
            format!("{caller}.{number}").into_bytes(),
            None,
        );
        let mut keys: Vec<_> =
            (0..self.plan.keys).map(|key| format!("{}key-{key}", self.plan.root)).collect();
        let amount = self.random.random_range(1..=2.min(keys.len()));
        keys = keys.choose_multiple(&mut self.random, amount).cloned().collect();
        for key in keys {
            let seen = self.seen.entries.iter().find(|entry| *entry.key == key);
            let (created, modified) =
                seen.map_or((Revision::ZERO, Revision::ZERO), |entry| (entry.created, entry.modified));
            txn = match self.random.random_range(0..6) {
                0 => txn,
                1 => txn.guard(Guard::absent(key.clone())),
                2 => txn.guard(Guard::created_at(key.clone(), created)),
                _ => txn.guard(Guard::modified_at(key.clone(), modified)),
            };
            txn = match self.random.random_range(0..4) {
                0 => txn.delete(key),
                _ => txn.put(key, format!("{caller}.{number}").into_bytes(), None),
            };
        }
        txn
    }
}
