//! A store that fails on command: [`FaultyStore`].
//!
//! It stands between a node and its store, passes everything through, and breaks when a test says so. Give each node
//! one of its own over the same store, and any node can be cut off, left hanging or lied to alone.
//!
//! ```text
//!   node 1 ── FaultyStore ──┐
//!   node 2 ── FaultyStore ──┼── the store
//!   node 3 ── FaultyStore ──┘
//!        └ cut, hang, lose a reply, ...
//! ```
//!
//! | command | calls | open watches |
//! |---|---|---|
//! | [`cut`](FaultyStore::cut) | `Unreachable`, nothing happened | `Disconnected` |
//! | [`hang`](FaultyStore::hang) | pend before they reach the store | pend |
//! | [`hang_replies`](FaultyStore::hang_replies) | take effect, then pend | pend |
//! | [`heal`](FaultyStore::heal) | pass again, also those that pend | go on |
//! | [`delay`](FaultyStore::delay) | reach the store that much later | |
//! | [`fail_next`](FaultyStore::fail_next) | fail as told, nothing happened | |
//! | [`lose_replies`](FaultyStore::lose_replies) | take effect, `OutcomeUnknown` | |
//! | [`hold_next_commit_matching`](FaultyStore::hold_next_commit_matching) | `OutcomeUnknown`, take effect on command | |
//! | [`break_watches`](FaultyStore::break_watches) | | `Disconnected` |
//! | [`compact_watches`](FaultyStore::compact_watches) | | `Compacted` |
//! | [`stall_watches`](FaultyStore::stall_watches) | | pend |
//! | [`by_chance`](FaultyStore::by_chance) | any of these, by a seed | `Disconnected`, `Compacted` |
//!
//! All of this is within the store contract: what runs on the store must cope with it. No time passes but the delays that
//! were set, by tokio's clock.
//!
//! ```
//! use clustering_core::store::{CoordinationStore, CoordinationStoreExt, ErrorKind, Guard, Txn};
//! use clustering_memory::MemoryStore;
//! use clustering_testkit::faulty::{Call, FaultyStore};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let shared = MemoryStore::new();
//! let (one, two) = (FaultyStore::new(shared.clone()), FaultyStore::new(shared.clone()));
//!
//! // The commit takes effect, and the node does not know. Repeating it tells: its own guard is in the way.
//! one.lose_reply_of_next_commit_matching(|txn| txn.operations().iter().any(|op| &**op.key() == "leader"));
//! let elect = Txn::new().guard(Guard::absent("leader")).put("leader", "one", None);
//! assert_eq!(one.commit(elect.clone()).await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
//! assert!(matches!(one.commit(elect).await.unwrap_err().kind(), ErrorKind::GuardFailed { .. }));
//!
//! // One node is cut off, the other is not.
//! one.cut();
//! assert_eq!(one.get("leader").await.unwrap_err().kind(), ErrorKind::Unreachable);
//! assert!(two.get("leader").await?.is_some());
//!
//! one.heal();
//! assert!(one.get("leader").await?.is_some());
//! assert_eq!((one.attempted(Call::Read), one.passed(Call::Read)), (2, 1));
//! assert_eq!(one.commits().iter().filter(|commit| commit.result.is_ok()).count(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # By chance
//!
//! With [`Chances`], and a seed, faults come by themselves. The same seed gives the same faults to the same calls:
//!
//! ```
//! # use std::time::Duration;
//! # use clustering_core::store::{CoordinationStore, CoordinationStoreExt, Txn};
//! # use clustering_memory::MemoryStore;
//! # use clustering_testkit::faulty::{Call, Chances, FaultyStore, Met};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! async fn failed_of_100(seed: u64) -> Vec<usize> {
//!     let store = FaultyStore::new(MemoryStore::new());
//!     // A tenth of the commits fails, of another twentieth the reply is lost, half of them is slow.
//!     let ms = Duration::from_millis;
//!     let chances = Chances::new(seed).fail(100).lose_replies(50).delay(500, ms(1)..=ms(200));
//!     store.by_chance(chances.only([Call::Commit]));
//!     let mut failed = Vec::new();
//!     for n in 0..100 {
//!         if store.commit(Txn::new().put("key", n.to_string(), None)).await.is_err() {
//!             failed.push(n);
//!         }
//!     }
//!     assert_eq!(failed.len(), store.met().len());
//!     store.calm();
//!     store.put("key", "at last".into(), None).await.unwrap();
//!     failed
//! }
//!
//! let failed = failed_of_100(7).await;
//! assert!((5..30).contains(&failed.len()));
//! assert_eq!(failed, failed_of_100(7).await);
//! assert_ne!(failed, failed_of_100(8).await);
//! # }
//! ```

mod calls;
mod chances;
mod log;
mod plan;
mod watches;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::Waker,
    time::Duration,
};

use clustering_core::store::{CoordinationStore, ErrorKind, Revision, StoreError, Txn, WatchEnd};
use tokio::sync::watch;

use self::{
    chances::Lot,
    log::Log,
    plan::{Fault, Plan},
    watches::Watches,
};
pub use self::{
    chances::{ChanceRecord, Chances, Met},
    log::{Call, CommitRecord},
};

/// A store that passes everything to another one and breaks on command.
///
/// Clones share the other store, the faults and the log. See the [module](self) for the commands at a glance.
#[derive(Clone)]
pub struct FaultyStore {
    store: Arc<dyn CoordinationStore>,
    control: Arc<Control>,
}

/// What the handles of one faulty store share.
struct Control {
    link: watch::Sender<Link>,
    state: Mutex<State>,
}

/// How far calls get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// There and back.
    Up,
    /// Nowhere, and the caller is told.
    Cut,
    /// Nowhere, and nobody is told.
    Hung,
    /// There, but not back.
    RepliesHung,
}

#[derive(Debug, Default)]
struct State {
    delay: Duration,
    plan: Plan,
    lot: Lot,
    log: Log,
    watches: Watches,
}

impl Control {
    /// Does something with the state, and then wakes the watches that it concerns: a waker runs foreign code, which
    /// must not find the state locked.
    fn locked<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let (result, woken) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (work(&mut state), state.watches.take_woken())
        };
        woken.into_iter().for_each(Waker::wake);
        result
    }

    fn link(&self) -> Link {
        *self.link.borrow()
    }
}

impl FaultyStore {
    /// One that passes everything to `store` until it is told otherwise.
    pub fn new(store: impl CoordinationStore) -> Self {
        let control = Control { link: watch::Sender::new(Link::Up), state: Mutex::default() };
        FaultyStore { store: Arc::new(store), control: Arc::new(control) }
    }

    /// From now on every call fails with [`ErrorKind::Unreachable`] (after the [delay](Self::delay), if one is set)
    /// and changes nothing; every open watch ends with [`WatchEnd::Disconnected`], without what it had not yielded
    /// yet. Calls under way are cut as well: where the store has answered already, the answer is lost and the call
    /// fails with [`ErrorKind::OutcomeUnknown`].
    pub fn cut(&self) {
        self.control.link.send_replace(Link::Cut);
        self.break_watches();
    }

    /// From now on calls do not reach the store and get no answer, and watches yield nothing. What pends goes on when
    /// the store is [healed](Self::heal), so a commit may arrive late; one whose future was dropped never arrives.
    pub fn hang(&self) {
        self.control.link.send_replace(Link::Hung);
    }

    /// From now on calls reach the store and take effect, but get no answer, and watches yield nothing. What pends
    /// goes on when the store is [healed](Self::heal).
    pub fn hang_replies(&self) {
        self.control.link.send_replace(Link::RepliesHung);
    }

    /// Ends [`cut`](Self::cut), [`hang`](Self::hang), [`hang_replies`](Self::hang_replies) and
    /// [`stall_watches`](Self::stall_watches). Delay and faults not met yet remain. A watch that was cut has ended, also
    /// if nobody has polled it since.
    pub fn heal(&self) {
        // Before the watches are woken, for they look at it.
        self.control.link.send_replace(Link::Up);
        self.control.locked(|state| state.watches.stall(None));
    }

    /// Whether calls reach the store and their answers come back: it is neither [cut](Self::cut) nor
    /// [hung](Self::hang).
    pub fn is_connected(&self) -> bool {
        self.control.link() == Link::Up
    }

    /// Calls that begin from now on wait that long before anything else happens to them. Zero, as in the beginning:
    /// they don't wait. Watches are not delayed.
    pub fn delay(&self, delay: Duration) {
        self.control.locked(|state| state.delay = delay);
    }

    /// The next `n` calls of that kind that get as far as the store fail with `kind`, and the store does not see them.
    ///
    /// Faults of one kind of call are met in the order in which they were commanded. Calls that are cut meet none.
    pub fn fail_next(&self, call: Call, n: usize, kind: ErrorKind) {
        self.control.locked(|state| state.plan.push(call, n, Fault::Fail(kind)));
    }

    /// The next `n` calls of that kind that get as far as the store are made, and their replies are lost: they take
    /// effect if the store does not refuse them, and fail with [`ErrorKind::OutcomeUnknown`] in any case.
    pub fn lose_replies(&self, call: Call, n: usize) {
        self.control.locked(|state| state.plan.push(call, n, Fault::LoseReply));
    }

    /// The next commit for which `matches` is true fails with `kind`, and the store does not see it.
    ///
    /// Of several such commands the first that matches counts, and each counts once. They go before those by number.
    /// `matches` runs under the lock of this store and must not use it.
    pub fn fail_next_commit_matching(
        &self,
        kind: ErrorKind,
        matches: impl FnMut(&Txn) -> bool + Send + 'static,
    ) {
        self.control.locked(|state| state.plan.push_matching(Fault::Fail(kind), matches));
    }

    /// The next commit for which `matches` is true is made, and its reply is lost, as in
    /// [`lose_replies`](Self::lose_replies).
    pub fn lose_reply_of_next_commit_matching(&self, matches: impl FnMut(&Txn) -> bool + Send + 'static) {
        self.control.locked(|state| state.plan.push_matching(Fault::LoseReply, matches));
    }

    /// The next commit for which `matches` is true fails with [`ErrorKind::OutcomeUnknown`] and is kept back, to
    /// reach the store when [`deliver_held`](Self::deliver_held) is called: it overtakes nothing, everything
    /// overtakes it.
    pub fn hold_next_commit_matching(&self, matches: impl FnMut(&Txn) -> bool + Send + 'static) {
        self.control.locked(|state| state.plan.push_matching(Fault::Hold, matches));
    }

    /// Makes the commits that were kept back, in the order in which they came, and returns how each went. Neither the
    /// link nor a fault is in their way.
    ///
    /// If the future is dropped, those not made yet are lost.
    pub async fn deliver_held(&self) -> Vec<Result<Revision, StoreError>> {
        let mut results = Vec::new();
        for txn in self.control.locked(|state| state.plan.take_held()) {
            results.push(self.arrive(txn).await);
        }
        results
    }

    /// From now on faults come by chance, beside those that are commanded. Replaces the chances it had, and begins to
    /// count calls anew.
    pub fn by_chance(&self, chances: Chances) {
        self.control.locked(|state| state.lot.begin(chances));
    }

    /// No faults by chance any more. Late commits that are on their way still arrive.
    pub fn calm(&self) {
        self.control.locked(|state| state.lot.end());
    }

    /// The faults that came by chance since [`by_chance`](Self::by_chance), delays excepted, in the order in which they
    /// came.
    pub fn met(&self) -> Vec<ChanceRecord> {
        self.control.locked(|state| state.lot.met())
    }

    /// Every open watch ends with [`WatchEnd::Disconnected`], without what it had not yielded yet. New ones can be
    /// opened at once.
    pub fn break_watches(&self) {
        let end = |_| WatchEnd::Disconnected { reason: "broken by the test".into() };
        self.control.locked(|state| state.watches.end_all(end));
    }

    /// Every open watch ends with [`WatchEnd::Compacted`], as if the first revision after the last one that it
    /// yielded, or that it was opened after, had been compacted. The store itself forgets nothing.
    pub fn compact_watches(&self) {
        let end = |seen: Revision| WatchEnd::Compacted { compacted: seen.next() };
        self.control.locked(|state| state.watches.end_all(end));
    }

    /// Every open watch whose prefix starts with `prefix` ends with `end`.
    pub fn end_watches(&self, prefix: &str, end: WatchEnd) {
        self.control.locked(|state| state.watches.end_under(prefix, |_| end.clone()));
    }

    /// Watches whose prefix starts with `prefix` yield nothing more, until the store is [healed](Self::heal): what
    /// reaches the store through other watches and calls is seen first. A further call replaces the prefix.
    pub fn stall_watches(&self, prefix: &str) {
        self.control.locked(|state| state.watches.stall(Some(prefix)));
    }

    /// How many watches are open through this store: neither dropped nor ended. One that was broken counts until it
    /// is polled.
    pub fn open_watches(&self) -> usize {
        self.control.locked(|state| state.watches.len())
    }

    /// How many calls of that kind were begun, since the start or the last [`clear_log`](Self::clear_log).
    pub fn attempted(&self, call: Call) -> usize {
        self.control.locked(|state| state.log.attempted(call))
    }

    /// How many calls of that kind reached the store behind, whatever became of the reply.
    pub fn passed(&self, call: Call) -> usize {
        self.control.locked(|state| state.log.passed(call))
    }

    /// The commits that the store behind answered, in the order of its answers, whatever became of the reply.
    pub fn commits(&self) -> Vec<CommitRecord> {
        self.control.locked(|state| state.log.commits())
    }

    /// Begins the log anew.
    pub fn clear_log(&self) {
        self.control.locked(|state| state.log = Log::default());
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("link", &self.control.link()).finish_non_exhaustive()
    }
}
