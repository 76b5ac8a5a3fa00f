//! [`FaultyStore`], a store that fails on command.
//!
//! It sits between a node and its store, passes every call through, and injects faults when a test asks for them. If
//! each node has its own faulty store in front of a shared store, a test can disconnect or delay one node alone.
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
//! | [`cut`](FaultyStore::cut) | `Unreachable`, no effect | `Disconnected` |
//! | [`hang`](FaultyStore::hang) | pend before they reach the store | pend |
//! | [`hang_replies`](FaultyStore::hang_replies) | take effect, then pend | pend |
//! | [`heal`](FaultyStore::heal) | pass again, including pending ones | continue |
//! | [`delay`](FaultyStore::delay) | reach the store after a delay | |
//! | [`fail_next`](FaultyStore::fail_next) | fail with the given kind, no effect | |
//! | [`lose_replies`](FaultyStore::lose_replies) | take effect, `OutcomeUnknown` | |
//! | [`hold_next_commit_matching`](FaultyStore::hold_next_commit_matching) | `OutcomeUnknown`, take effect on command | |
//! | [`break_watches`](FaultyStore::break_watches) | | `Disconnected` |
//! | [`compact_watches`](FaultyStore::compact_watches) | | `Compacted` |
//! | [`stall_watches`](FaultyStore::stall_watches) | | pend |
//! | [`by_chance`](FaultyStore::by_chance) | random faults from a seed | `Disconnected`, `Compacted` |
//!
//! The store contract allows all of these faults, so everything above a store must cope with them. The faulty store
//! waits only for the configured delays, on tokio's clock.
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
//! // The commit takes effect, but the node does not learn that. When it repeats the commit, its own guard fails.
//! one.lose_reply_of_next_commit_matching(|txn| txn.operations().iter().any(|op| &**op.key() == "leader"));
//! let elect = Txn::new().guard(Guard::absent("leader")).put("leader", "one", None);
//! assert_eq!(one.commit(elect.clone()).await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
//! assert!(matches!(one.commit(elect).await.unwrap_err().kind(), ErrorKind::GuardFailed { .. }));
//!
//! // Disconnect one node but not the other.
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
//! # Random faults
//!
//! With [`Chances`] and a seed, faults occur at random. The same seed gives the same faults to the same calls:
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
//!     // A tenth of the commits fail, another twentieth lose their replies, and half of them are slow.
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

/// A store that passes every call to another store and fails on command.
///
/// Clones share the other store, the faults and the log. The [module documentation](self) lists all commands.
#[derive(Clone)]
pub struct FaultyStore {
    store: Arc<dyn CoordinationStore>,
    control: Arc<Control>,
}

/// State shared by all handles of one faulty store.
struct Control {
    link: watch::Sender<Link>,
    state: Mutex<State>,
}

/// Parts of the path between a node and the store that work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Calls reach the store, and replies reach the caller.
    Up,
    /// Calls fail without reaching the store.
    Cut,
    /// Calls pend without reaching the store.
    Hung,
    /// Calls reach the store, but their replies pend.
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
    /// Runs `work` on the locked state and then wakes the affected watches. Wakers run foreign code, so the state must
    /// not be locked at that time.
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
    /// Creates a store that passes every call to `store` until told otherwise.
    pub fn new(store: impl CoordinationStore) -> Self {
        let control = Control { link: watch::Sender::new(Link::Up), state: Mutex::default() };
        FaultyStore { store: Arc::new(store), control: Arc::new(control) }
    }

    /// Creates another store with the same faults and the same log as this one.
    pub(crate) fn in_front_of(&self, store: impl CoordinationStore) -> Self {
        FaultyStore { store: Arc::new(store), control: self.control.clone() }
    }

    /// Disconnects the store. From now on every call fails with [`ErrorKind::Unreachable`] (after the
    /// [delay](Self::delay), if one is set) without effect, and every open watch ends with [`WatchEnd::Disconnected`]
    /// and loses the batches that it has not yielded yet. Calls in progress fail as well: if the store has already
    /// answered, the answer is lost and the call fails with [`ErrorKind::OutcomeUnknown`].
    pub fn cut(&self) {
        self.control.link.send_replace(Link::Cut);
        self.break_watches();
    }

    /// Hangs all calls before they reach the store, and all watches. They continue when the store is
    /// [healed](Self::heal), so a commit may arrive late. A commit whose future was dropped never arrives.
    pub fn hang(&self) {
        self.control.link.send_replace(Link::Hung);
    }

    /// Lets calls reach the store and take effect, but hangs their replies, and all watches. They continue when the
    /// store is [healed](Self::heal).
    pub fn hang_replies(&self) {
        self.control.link.send_replace(Link::RepliesHung);
    }

    /// Ends [`cut`](Self::cut), [`hang`](Self::hang), [`hang_replies`](Self::hang_replies) and
    /// [`stall_watches`](Self::stall_watches). The delay and faults that have not occurred yet remain. A watch that was
    /// cut off has ended, even if it has not been polled since.
    pub fn heal(&self) {
        // Restored before the watches are woken, because they check the link.
        self.control.link.send_replace(Link::Up);
        self.control.locked(|state| state.watches.stall(None));
    }

    /// Returns true if calls reach the store and replies reach the caller, that is, if the store is neither
    /// [cut](Self::cut) nor [hung](Self::hang).
    pub fn is_connected(&self) -> bool {
        self.control.link() == Link::Up
    }

    /// Delays all later calls before anything else happens to them. Zero, the initial value, means no delay. Watches
    /// are not delayed.
    pub fn delay(&self, delay: Duration) {
        self.control.locked(|state| state.delay = delay);
    }

    /// Makes the next `n` calls of a kind fail with `kind` without reaching the store.
    ///
    /// Faults for the same kind of call occur in the order in which they were requested. A call that fails because the
    /// store is cut does not use up a fault.
    pub fn fail_next(&self, call: Call, n: usize, kind: ErrorKind) {
        self.control.locked(|state| state.plan.push(call, n, Fault::Fail(kind)));
    }

    /// Makes the next `n` calls of a kind lose their replies: they take effect unless the store refuses them, and fail
    /// with [`ErrorKind::OutcomeUnknown`] in any case.
    pub fn lose_replies(&self, call: Call, n: usize) {
        self.control.locked(|state| state.plan.push(call, n, Fault::LoseReply));
    }

    /// Makes the next commit for which `matches` returns true fail with `kind` without reaching the store.
    ///
    /// Each such request applies to one commit. If several match, the oldest applies. These requests take precedence
    /// over those for the next `n` calls. `matches` is called with this store locked and must not use it.
    pub fn fail_next_commit_matching(
        &self,
        kind: ErrorKind,
        matches: impl FnMut(&Txn) -> bool + Send + 'static,
    ) {
        self.control.locked(|state| state.plan.push_matching(Fault::Fail(kind), matches));
    }

    /// Makes the next commit for which `matches` returns true lose its reply, as with
    /// [`lose_replies`](Self::lose_replies).
    pub fn lose_reply_of_next_commit_matching(&self, matches: impl FnMut(&Txn) -> bool + Send + 'static) {
        self.control.locked(|state| state.plan.push_matching(Fault::LoseReply, matches));
    }

    /// Makes the next commit for which `matches` returns true fail with [`ErrorKind::OutcomeUnknown`], and holds it
    /// back until [`deliver_held`](Self::deliver_held) is called. All other calls overtake it.
    pub fn hold_next_commit_matching(&self, matches: impl FnMut(&Txn) -> bool + Send + 'static) {
        self.control.locked(|state| state.plan.push_matching(Fault::Hold, matches));
    }

    /// Sends the commits that were held back to the store, in their original order, and returns their results. Neither
    /// the link nor other faults affect them.
    ///
    /// If the future is dropped, the commits that were not sent yet are lost.
    pub async fn deliver_held(&self) -> Vec<Result<Revision, StoreError>> {
        let mut results = Vec::new();
        for txn in self.control.locked(|state| state.plan.take_held()) {
            results.push(self.arrive(txn).await);
        }
        results
    }

    /// Starts random faults, in addition to the requested ones. Replaces earlier chances and resets their call
    /// counters.
    pub fn by_chance(&self, chances: Chances) {
        self.control.locked(|state| state.lot.begin(chances));
    }

    /// Stops random faults. Late commits that are already on their way still arrive.
    pub fn calm(&self) {
        self.control.locked(|state| state.lot.end());
    }

    /// Returns the random faults since the last [`by_chance`](Self::by_chance), except for delays, in the order in
    /// which they occurred.
    pub fn met(&self) -> Vec<ChanceRecord> {
        self.control.locked(|state| state.lot.met())
    }

    /// Ends every open watch with [`WatchEnd::Disconnected`]. Batches that a watch has not yielded yet are lost. New
    /// watches can be opened at once.
    pub fn break_watches(&self) {
        let end = |_| WatchEnd::Disconnected { reason: "broken by the test".into() };
        self.control.locked(|state| state.watches.end_all(end));
    }

    /// Ends every open watch with [`WatchEnd::Compacted`], as if the revision after the last one that it has yielded
    /// (or was opened after) had been compacted. The store itself compacts nothing.
    pub fn compact_watches(&self) {
        let end = |seen: Revision| WatchEnd::Compacted { compacted: seen.next() };
        self.control.locked(|state| state.watches.end_all(end));
    }

    /// Ends every open watch whose prefix starts with `prefix`, with the given end.
    pub fn end_watches(&self, prefix: &str, end: WatchEnd) {
        self.control.locked(|state| state.watches.end_under(prefix, |_| end.clone()));
    }

    /// Stalls all watches whose prefix starts with `prefix` until the store is [healed](Self::heal). Other watches and
    /// calls then see changes first. Another call replaces the prefix.
    pub fn stall_watches(&self, prefix: &str) {
        self.control.locked(|state| state.watches.stall(Some(prefix)));
    }

    /// Returns the number of watches open through this store, that is, neither dropped nor ended. A watch that was
    /// broken counts until it is polled.
    pub fn open_watches(&self) -> usize {
        self.control.locked(|state| state.watches.len())
    }

    /// Returns the number of calls of a kind that were started since creation or the last
    /// [`clear_log`](Self::clear_log).
    pub fn attempted(&self, call: Call) -> usize {
        self.control.locked(|state| state.log.attempted(call))
    }

    /// Returns the number of calls of a kind that reached the store behind this one, including those whose reply was
    /// lost.
    pub fn passed(&self, call: Call) -> usize {
        self.control.locked(|state| state.log.passed(call))
    }

    /// Returns the commits that the store behind this one answered, in the order of its answers, including those whose
    /// reply was lost.
    pub fn commits(&self) -> Vec<CommitRecord> {
        self.control.locked(|state| state.log.commits())
    }

    /// Clears the counters and the recorded commits.
    pub fn clear_log(&self) {
        self.control.locked(|state| state.log = Log::default());
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("link", &self.control.link()).finish_non_exhaustive()
    }
}
