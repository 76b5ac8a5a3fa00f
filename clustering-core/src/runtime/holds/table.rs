use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::Hold;
use crate::{
    runtime::{clock::Clock, liveness::Presence},
    slots::{Slot, SlotSet},
    store::Revision,
    time::Timestamp,
};

/// The slots that a node holds at this moment, for its handles.
///
/// Giving out a hold takes no lock: it only loads a pointer, changes a counter and reads the clock. Only the driver
/// changes the table, through its [`Keeper`](super::keeper::Keeper).
#[derive(Debug)]
pub(crate) struct Holds {
    slots: ArcSwap<Slots>,
    changes: watch::Sender<()>,
    notices: Arc<Notices>,
}

/// Notifications from the holds to the driver.
#[derive(Debug, Default)]
struct Notices {
    /// Wakes the driver.
    wake: Notify,
    /// Slots whose work was dropped because it did not end in time, each with the time since the work was told to end.
    dropped: Mutex<VecDeque<(Slot, Duration)>>,
}

/// The current acquisition of each held slot, by the slot's number.
#[derive(Debug, Default)]
pub(super) struct Slots(Box<[Option<Arc<Acquisition>>]>);

impl Slots {
    pub(super) fn new(acquisitions: impl IntoIterator<Item = Arc<Acquisition>>) -> Self {
        let mut slots = Vec::new();
        for acquisition in acquisitions {
            let place = usize::from(acquisition.slot.number());
            if slots.len() <= place {
                slots.resize(place + 1, None);
            }
            slots[place] = Some(acquisition);
        }
        Slots(slots.into())
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Arc<Acquisition>> {
        self.0.get(usize::from(slot.number()))?.as_ref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Acquisition>> {
        self.0.iter().flatten()
    }
}

impl Holds {
    pub(crate) fn new() -> Self {
        Holds { slots: ArcSwap::default(), changes: watch::channel(()).0, notices: Arc::default() }
    }

    /// Returns a hold of the slot if the node holds it at this moment.
    pub(crate) fn hold(&self, slot: Slot) -> Option<Hold> {
        self.slots.load().get(slot)?.hold()
    }

    /// True if the node holds the slot at this moment.
    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.slots.load().get(slot).is_some_and(|acquisition| !acquisition.is_lost())
    }

    /// Returns the slots that the node holds at this moment.
    pub(crate) fn held(&self) -> SlotSet {
        let slots = self.slots.load();
        slots
            .iter()
            .filter(|acquisition| !acquisition.is_lost())
            .map(|acquisition| acquisition.slot)
            .collect()
    }

    /// Returns a watch that wakes with each change of the table.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Waits until the holds of a lost slot have been dropped, a hold has noticed that the time limit of its lease has
    /// passed, or work was dropped. Cancel safe.
    pub(crate) async fn noticed(&self) {
        self.notices.wake.notified().await;
    }

    /// Returns the next slot whose work was dropped, with the time since the work was told to end.
    pub(crate) fn next_dropped_work(&self) -> Option<(Slot, Duration)> {
        self.notices.dropped.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn slots(&self) -> Arc<Slots> {
        self.slots.load_full()
    }

    pub(super) fn replace(&self, slots: Slots) {
        self.slots.store(Arc::new(slots));
    }

    /// Wakes all tasks that wait for a change of the table.
    pub(super) fn announce(&self) {
        self.changes.send_replace(());
    }

    pub(super) fn acquire(
        &self,
        slot: Slot,
        token: Revision,
        lease: Arc<LeaseClock>,
        presence: Option<Presence>,
    ) -> Arc<Acquisition> {
        Arc::new(Acquisition {
            slot,
            token,
            lease,
            lost: AtomicBool::new(false),
            outstanding: AtomicUsize::new(0),
            wake: Notify::new(),
            notices: self.notices.clone(),
            _presence: presence,
        })
    }
}

/// One acquisition of a slot. All holds that were given out for this acquisition end together.
pub(crate) struct Acquisition {
    pub(super) slot: Slot,
    pub(super) token: Revision,
    pub(super) lease: Arc<LeaseClock>,
    /// True once no further hold is given out and the outstanding holds are lost. Never becomes false again.
    lost: AtomicBool,
    /// Number of holds that were not dropped yet.
    outstanding: AtomicUsize,
    /// Wakes all tasks that wait for the loss of the holds, or for the time at which they are void.
    wake: Notify,
    notices: Arc<Notices>,
    /// Dropped with the last hold.
    _presence: Option<Presence>,
}

impl Acquisition {
    /// Gives out a hold, unless the acquisition is lost.
    ///
    /// This runs at the same time as the driver's [`lose`](Self::lose), without a lock. This method increments the
    /// count *before* it reads the mark; the driver sets the mark *before* it reads the count. All four operations are
    /// sequentially consistent, so at least one side sees the other's change: either this call sees the mark and gives
    /// out no hold, or the driver counts the hold and waits for it.
    ///
    /// A call that gives out no hold may be counted briefly. The driver then waits until the count goes down again,
    /// which wakes the driver like the drop of a hold.
    pub(super) fn hold(self: &Arc<Self>) -> Option<Hold> {
        self.outstanding.fetch_add(1, SeqCst);
        // From here on, dropping the hold decrements the count.
        let hold = Hold { acquisition: self.clone() };
        (!self.is_lost()).then_some(hold)
    }

    /// Decrements the count for a dropped hold.
    ///
    /// The pairing with [`lose`](Self::lose) is the same as in [`hold`](Self::hold), in the other direction: either the
    /// driver reads the lower count, or this call reads the mark and wakes the driver.
    pub(super) fn drop_hold(&self) {
        if self.outstanding.fetch_sub(1, SeqCst) == 1 && self.lost.load(SeqCst) {
            self.notices.wake.notify_one();
        }
    }

    /// Reports to the driver that work on the slot was dropped this long after it was told to end.
    pub(super) fn work_dropped(&self, after: Duration) {
        let dropped = (self.slot, after);
        self.notices.dropped.lock().unwrap_or_else(PoisonError::into_inner).push_back(dropped);
        self.notices.wake.notify_one();
    }

    /// Marks the acquisition as lost, so that no further hold is given out. [`wake`](Self::wake) notifies the
    /// outstanding holds.
    pub(super) fn lose(&self) {
        self.lost.store(true, SeqCst);
    }

    /// True if the acquisition is marked as lost, or if the time until which its holds may be given out has passed.
    ///
    /// The first caller that notices the end of that time marks the acquisition, so that it stays lost even if a
    /// renewal succeeds later. The driver then creates a new acquisition.
    pub(super) fn is_lost(&self) -> bool {
        if self.lost.load(SeqCst) {
            return true;
        }
        let is_over = !self.lease.gives();
        if is_over {
            self.lose();
            self.lease.lapsed.store(true, SeqCst);
            self.notices.wake.notify_one();
            self.wake();
        }
        is_over
    }

    /// True if the acquisition is marked as lost. Does not read the clock.
    pub(super) fn is_marked(&self) -> bool {
        self.lost.load(SeqCst)
    }

    /// True if holds are outstanding and not void.
    pub(super) fn is_in_use(&self, now: Timestamp) -> bool {
        self.outstanding.load(SeqCst) > 0 && now < self.lease.void()
    }

    pub(super) fn wake(&self) {
        self.wake.notify_waiters();
    }

    /// Waits until `is` returns true. Checks it first, and again with each [`wake`](Self::wake). Cancel safe.
    pub(super) async fn wait_until(&self, is: impl Fn(&Self) -> bool) {
        loop {
            let mut woken = std::pin::pin!(self.wake.notified());
            // Listen before the check, so that a wake in between is not missed.
            woken.as_mut().enable();
            if is(self) {
                return;
            }
            woken.await;
        }
    }
}

impl fmt::Debug for Acquisition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquisition")
            .field("slot", &self.slot)
            .field("token", &self.token)
            .field("lost", &self.lost)
            .field("outstanding", &self.outstanding)
            .finish_non_exhaustive()
    }
}

/// The deadlines of a lease by the node's own clock. The driver moves them with each renewal; holds read them.
#[derive(Debug)]
pub(crate) struct LeaseClock {
    clock: Clock,
    /// Time until which holds are given out, in nanoseconds.
    until: AtomicU64,
    /// Time at which all holds become void, in nanoseconds.
    void: AtomicU64,
    /// True if a hold noticed that `until` has passed, before the driver did.
    lapsed: AtomicBool,
}

impl LeaseClock {
    pub(super) fn new(clock: Clock, until: Timestamp, void: Timestamp) -> Self {
        LeaseClock {
            clock,
            until: AtomicU64::new(until.as_nanos()),
            void: AtomicU64::new(void.as_nanos()),
            lapsed: AtomicBool::new(false),
        }
    }

    /// Moves the deadlines. A hold that is given out by the new `until` must not be void by the old `void`, so `void`
    /// moves first.
    pub(super) fn set(&self, until: Timestamp, void: Timestamp) {
        self.void.store(void.as_nanos(), SeqCst);
        self.until.store(until.as_nanos(), SeqCst);
    }

    pub(super) fn void(&self) -> Timestamp {
        Timestamp::from_nanos(self.void.load(SeqCst))
    }

    /// Returns the instant at which the holds become void, for tokio's timer.
    pub(super) fn void_instant(&self) -> tokio::time::Instant {
        self.clock.instant(self.void())
    }

    /// True if holds may be given out now.
    fn gives(&self) -> bool {
        self.clock.now().as_nanos() < self.until.load(SeqCst)
    }

    /// True if holds are not void now.
    pub(crate) fn is_valid(&self) -> bool {
        self.clock.now() < self.void()
    }

    /// True if a hold has noticed since the last call that `until` has passed.
    pub(super) fn take_lapsed(&self) -> bool {
        self.lapsed.load(SeqCst) && self.lapsed.swap(false, SeqCst)
    }
}
