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

/// Parameters of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed that determines the calls of each caller. On an in-process store and a single-threaded runtime, the same
    /// seed produces the same history.
    pub seed: u64,
    /// Number of callers.
    pub callers: usize,
    /// Number of sequential calls per caller.
    pub calls: usize,
    /// Number of keys that the callers compete for.
    pub keys: usize,
    /// Prefix of all keys. No other client may write under it during the run.
    pub root: String,
}

/// Five callers that make 40 calls each on three keys.
impl Default for Plan {
    fn default() -> Self {
        Plan { seed: 1, callers: 5, calls: 40, keys: 3, root: "linearizability/".to_owned() }
    }
}

/// Runs the callers concurrently against the store and returns their calls and answers.
///
/// `open` returns the handle for each caller, by number. All handles must lead to the same store. The callers' handles
/// may fail and lose replies. The handle with the number [`Plan::callers`] is used to read the initial state and the
/// effects of commits whose replies were lost, so it should not fail.
///
/// # Panics
///
/// Panics if there are already keys under the root, if that last handle fails, or if the store rejects a call as wrong.
pub async fn play(plan: &Plan, open: impl AsyncFn(usize) -> Arc<dyn CoordinationStore>) -> History {
    let witness = open(plan.callers).await;
    let start = witness.read(&plan.root).await.expect("the witness reads");
    assert_eq!(start.entries, [], "there are already keys under {:?}", plan.root);

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

/// Returns the revision at which each marker was put.
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
    // Every commit puts a marker that is never deleted, so the last change is to a key that still exists.
    while last.is_some_and(|last| seen < last) {
        let batch = watch.next().await.expect("a watch ends with an error").expect("the witness sees all");
        seen = batch.revision;
        for change in &*batch.changes {
            if let Change::Put(entry) = change {
                effects.insert((entry.key.to_string(), entry.value.to_vec()), entry.modified);
            }
        }
    }
    effects
}

/// Returns the first key and value that a commit puts. They identify the commit, because no other commit puts that
/// value.
fn marker(call: &Call) -> Option<(String, Vec<u8>)> {
    let Call::Commit(txn) = call else { return None };
    txn.operations().iter().find_map(|write| match write {
        Write::Put { key, value, .. } => Some((key.to_string(), value.to_vec())),
        Write::Delete { .. } => None,
    })
}

/// One call as seen by its caller.
struct Told {
    caller: usize,
    call: Call,
    invoked: usize,
    /// The answer and its time, or `None` if the outcome is unknown.
    answer: Option<(Answer, usize)>,
}

struct Caller<'a> {
    number: usize,
    plan: &'a Plan,
    store: Arc<dyn CoordinationStore>,
    clock: &'a AtomicUsize,
    random: SmallRng,
    /// Snapshot of the caller's last read, often out of date. Guards are taken from it.
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
                    // Nothing happened, so there is nothing to judge.
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

    /// Builds a commit that puts the caller's marker and puts or deletes one or two keys, with guards that hold unless
    /// another caller was faster.
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
