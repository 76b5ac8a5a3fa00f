//! Tests of the table of holds without a node. The tests do what the driver does.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::advance;

use super::*;
use crate::{
    machine::{Holdings, Input, Token},
    runtime::clock::Clock,
    slots::{SlotCount, SlotSet},
    store::LeaseId,
    time::Timestamp,
};

const TTL: Duration = Duration::from_secs(15);

/// Holds can be moved to any task.
const _: () = {
    const fn is_send_and_static<T: Send + Sync + 'static>() {}
    is_send_and_static::<Hold>();
};

/// Implemented twice for types that are `Clone`, so that using it for such a type is ambiguous and does not compile.
trait NotClone<A> {
    const CHECKED: () = ();
}
impl<T> NotClone<()> for T {}
impl<T: Clone> NotClone<u8> for T {}

/// A cloned hold would not be counted: the table counts only the holds that it gives out.
const _: () = <Hold as NotClone<_>>::CHECKED;

fn slot(number: u16) -> Slot {
    SlotCount::MAX.slot(number).unwrap()
}

fn set(numbers: &[u16]) -> SlotSet {
    numbers.iter().copied().map(slot).collect()
}

/// A table, and the part of a machine that it follows.
struct Table {
    holds: Arc<Holds>,
    keeper: Keeper,
    clock: Clock,
    holdings: Holdings,
}

impl Table {
    /// Creates a table of a node that holds these slots under the token 7, and has just renewed its lease.
    fn new(slots: &[u16]) -> Self {
        let (holds, clock) = (Arc::new(Holds::new()), Clock::start());
        let keeper = Keeper::new(holds.clone(), clock.clone());
        let holdings = Holdings {
            lease: Some(LeaseId::new(1)),
            held: Arc::default(),
            until: Timestamp::ZERO,
            void: Timestamp::ZERO,
            in_use: SlotSet::default(),
            releasing: false,
        };
        let mut table = Table { holds, keeper, clock, holdings };
        table.renew();
        table.hold(slots, 7);
        table
    }

    fn apply(&mut self) {
        self.keeper.apply(Some(&self.holdings), self.clock.now());
        self.keeper.wake();
    }

    fn renew(&mut self) {
        let now = self.clock.now();
        (self.holdings.until, self.holdings.void) = (now + TTL * 2 / 3, now + TTL);
        self.apply();
    }

    /// Sets the held slots. Slots that were not held before are acquired under the token.
    fn hold(&mut self, slots: &[u16], token: u64) {
        let token_of = |number: &u16| {
            let before = self.holdings.held.get(&slot(*number)).copied();
            (slot(*number), before.unwrap_or(Revision::new(token)))
        };
        self.holdings.held = Arc::new(slots.iter().map(token_of).collect::<BTreeMap<_, _>>());
        self.apply();
    }

    /// Returns the next report, which must be for the token.
    fn report(&mut self, token: Token) -> Option<SlotSet> {
        self.keeper.report().map(|report| match report {
            Input::Retracted { token: reported, in_use } if reported == token => in_use,
            other => panic!("unexpected {other:?}"),
        })
    }
}

fn is_done(future: impl Future<Output = ()>) -> bool {
    futures_util::FutureExt::now_or_never(future).is_some()
}

#[tokio::test(start_paused = true)]
async fn p12_a_lost_slot_gives_out_no_holds_and_its_outstanding_holds_are_lost() {
    let mut table = Table::new(&[1, 2]);
    let (one, two) = (table.holds.hold(slot(1)).unwrap(), table.holds.hold(slot(2)).unwrap());
    assert_eq!((one.slot(), one.token()), (slot(1), Revision::new(7)));
    assert!(table.holds.hold(slot(0)).is_none() && table.holds.hold(slot(4095)).is_none());
    assert!(!is_done(one.lost()));
    table.hold(&[2], 0);
    assert!(table.holds.hold(slot(1)).is_none());
    assert!(one.is_lost() && is_done(one.lost()), "lost");
    assert!(one.is_valid(), "the hold protects the slot until it is dropped");
    assert!(!two.is_lost() && !is_done(two.lost()), "the other slot is not affected");
    assert_eq!(table.holds.held(), set(&[2]));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_the_loss_of_a_hold_is_woken_by_the_loss() {
    let mut table = Table::new(&[1]);
    let hold = Arc::new(table.holds.hold(slot(1)).unwrap());
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let hold = hold.clone();
            tokio::spawn(async move { hold.lost().await })
        })
        .collect();
    tokio::task::yield_now().await;
    table.hold(&[], 0);
    for task in waiting {
        tokio::time::timeout(TTL, task).await.expect("woken").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn p12_a_slot_is_reported_as_in_use_until_its_last_hold_is_dropped() {
    let mut table = Table::new(&[1, 2, 3]);
    let (a, b) = (table.holds.hold(slot(1)).unwrap(), table.holds.hold(slot(1)).unwrap());
    let two = table.holds.hold(slot(2)).unwrap();
    table.hold(&[], 0);
    table.keeper.retract(Token::new(5), &set(&[1, 2, 3]));
    assert_eq!(table.report(Token::new(5)), Some(set(&[1, 2])));
    assert_eq!(table.report(Token::new(5)), None, "a report is not repeated");
    drop(a);
    assert_eq!(table.report(Token::new(5)), None, "another hold of the slot is outstanding");
    drop(b);
    assert!(is_done(table.holds.noticed()), "the driver is woken");
    assert_eq!(table.report(Token::new(5)), Some(set(&[2])));
    drop(two);
    assert!(is_done(table.holds.noticed()));
    assert_eq!(table.report(Token::new(5)), Some(set(&[])));
    assert_eq!(table.report(Token::new(5)), None, "the call has ended");
}

#[tokio::test(start_paused = true)]
async fn the_driver_is_not_woken_by_holds_of_slots_that_are_held() {
    let table = Table::new(&[1]);
    drop(table.holds.hold(slot(1)).unwrap());
    assert!(!is_done(table.holds.noticed()));
}

#[tokio::test(start_paused = true)]
async fn p12_holds_of_all_earlier_acquisitions_count_and_those_of_later_ones_do_not() {
    let mut table = Table::new(&[1]);
    let first = table.holds.hold(slot(1)).unwrap();
    table.hold(&[], 0);
    table.hold(&[1], 9);
    let second = table.holds.hold(slot(1)).unwrap();
    assert_eq!((first.token(), second.token()), (Revision::new(7), Revision::new(9)));
    table.hold(&[], 0);
    table.keeper.retract(Token::new(1), &set(&[1]));
    table.hold(&[1], 11);
    let third = table.holds.hold(slot(1)).unwrap();
    assert_eq!(table.report(Token::new(1)), Some(set(&[1])));
    drop(second);
    assert_eq!(table.report(Token::new(1)), None, "the oldest hold is outstanding");
    drop(first);
    assert_eq!(table.report(Token::new(1)), Some(set(&[])));
    assert!(!third.is_lost());
}

#[tokio::test(start_paused = true)]
async fn p12_after_two_thirds_of_the_ttl_holds_are_lost_before_the_driver_wakes() {
    let mut table = Table::new(&[1]);
    let hold = table.holds.hold(slot(1)).unwrap();
    assert_eq!(table.keeper.next_deadline(), Some(table.holdings.until));
    advance(TTL * 2 / 3 - Duration::from_nanos(1)).await;
    assert!(!hold.is_lost() && table.holds.hold(slot(1)).is_some());
    advance(Duration::from_nanos(1)).await;
    assert!(table.holds.hold(slot(1)).is_none() && !table.holds.has(slot(1)) && hold.is_lost());
    assert!(table.holds.held().is_empty());
    assert!(is_done(table.holds.noticed()), "the driver is woken");
    // The lease is renewed before the driver has noticed: the hold stays lost, and the slot is held under the same
    // token.
    table.renew();
    assert!(hold.is_lost() && is_done(hold.lost()) && hold.is_valid());
    let again = table.holds.hold(slot(1)).unwrap();
    assert!(!again.is_lost() && again.token() == hold.token());
}

#[tokio::test(start_paused = true)]
async fn p12_waiters_are_woken_when_the_session_runs_out_and_a_renewal_gives_new_holds() {
    let mut table = Table::new(&[1]);
    let hold = Arc::new(table.holds.hold(slot(1)).unwrap());
    let waiting = tokio::spawn({
        let hold = hold.clone();
        async move { hold.lost().await }
    });
    tokio::task::yield_now().await;
    advance(TTL * 2 / 3).await;
    table.apply();
    waiting.await.unwrap();
    assert_eq!(table.keeper.next_deadline(), Some(table.holdings.void), "the holds are void at that time");
    table.renew();
    assert!(hold.is_lost() && table.holds.has(slot(1)));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_keeps_holds_and_moves_their_deadlines() {
    let mut table = Table::new(&[1]);
    let hold = table.holds.hold(slot(1)).unwrap();
    for _ in 0..5 {
        advance(TTL / 3).await;
        table.renew();
    }
    assert!(hold.is_valid() && !hold.is_lost() && !is_done(hold.lost()));
    advance(TTL - Duration::from_nanos(1)).await;
    assert!(hold.is_valid());
    advance(Duration::from_nanos(1)).await;
    assert!(!hold.is_valid());
}

#[tokio::test(start_paused = true)]
async fn p12_a_void_hold_counts_as_dropped_and_never_becomes_valid_again() {
    let mut table = Table::new(&[1]);
    let hold = table.holds.hold(slot(1)).unwrap();
    table.hold(&[], 0);
    table.keeper.retract(Token::new(3), &set(&[1]));
    assert_eq!(table.report(Token::new(3)), Some(set(&[1])));
    assert_eq!(table.keeper.next_deadline(), Some(table.holdings.void));
    advance(TTL).await;
    assert_eq!(table.report(Token::new(3)), Some(set(&[])));
    table.renew();
    table.hold(&[1], 9);
    assert!(!hold.is_valid(), "the hold was reported as dropped");
    assert!(table.holds.hold(slot(1)).unwrap().is_valid());
}

#[tokio::test(start_paused = true)]
async fn holds_of_a_lease_that_is_kept_after_its_session_stay_valid_while_it_is_renewed() {
    let mut table = Table::new(&[1]);
    let hold = table.holds.hold(slot(1)).unwrap();
    table.hold(&[], 0);
    for _ in 0..5 {
        advance(TTL / 2).await;
        table.renew();
    }
    assert!(hold.is_lost() && hold.is_valid());
    assert!(table.keeper.lease(LeaseId::new(1)).is_valid());
}

#[tokio::test(start_paused = true)]
async fn p12_holds_of_the_last_session_are_lost_and_run_out_under_their_own_lease() {
    let mut table = Table::new(&[1]);
    let hold = table.holds.hold(slot(1)).unwrap();
    advance(TTL / 2).await;
    table.holdings.lease = Some(LeaseId::new(2));
    table.renew();
    assert!(hold.is_lost() && hold.is_valid());
    let next = table.holds.hold(slot(1)).unwrap();
    let (old, new) = (LeaseId::new(1), LeaseId::new(2));
    assert!(table.keeper.lease(old).is_valid() && table.keeper.lease(new).is_valid());
    assert!(!table.keeper.lease(LeaseId::new(3)).is_valid(), "an unknown lease");
    advance(TTL / 2).await;
    assert!(!hold.is_valid() && next.is_valid());
    assert!(!table.keeper.lease(old).is_valid());
}

#[tokio::test(start_paused = true)]
async fn p12_all_holds_are_lost_when_the_driver_is_dropped() {
    let table = Table::new(&[1]);
    let holds = table.holds.clone();
    let hold = holds.hold(slot(1)).unwrap();
    drop(table.keeper);
    assert!(hold.is_lost() && is_done(hold.lost()) && holds.hold(slot(1)).is_none());
    assert!(hold.is_valid(), "no other process can hold the slot before the lease has expired");
    advance(TTL).await;
    assert!(!hold.is_valid());
}

/// State owned by the work. When dropped, it records whether the slot is still in use.
struct State {
    acquisition: Arc<table::Acquisition>,
    clock: Clock,
    was_in_use: Arc<AtomicBool>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.was_in_use.store(self.acquisition.is_in_use(self.clock.now()), Ordering::Relaxed);
    }
}

/// For example, the state may be a connection that must be closed before another node opens its own.
#[tokio::test(start_paused = true)]
async fn p12_a_slot_is_in_use_until_the_state_of_work_that_was_dropped_is_dropped() {
    for is_cancelled in [false, true] {
        let mut table = Table::new(&[1]);
        let hold = table.holds.hold(slot(1)).unwrap();
        let (acquisition, was_in_use) = (hold.acquisition.clone(), Arc::new(AtomicBool::new(false)));
        let state = State {
            acquisition: acquisition.clone(),
            clock: table.clock.clone(),
            was_in_use: was_in_use.clone(),
        };
        let run = |hold: Arc<Hold>| async move {
            let _state = state;
            drop(hold);
            std::future::pending::<()>().await;
        };
        let working = tokio::spawn(work(Arc::new(hold), run, Some(Duration::from_secs(1))));
        tokio::task::yield_now().await;
        if is_cancelled {
            working.abort();
            assert!(working.await.unwrap_err().is_cancelled());
        } else {
            table.hold(&[], 0);
            assert_eq!(working.await.unwrap(), None, "the work was dropped");
        }
        assert!(was_in_use.load(Ordering::Relaxed), "cancelled: {is_cancelled}");
        assert!(!acquisition.is_in_use(table.clock.now()));
    }
}

/// Otherwise the library could not drop such a loop, and the loop would block its thread.
#[tokio::test(start_paused = true)]
async fn a_loop_that_waits_for_a_loss_that_has_happened_lets_other_tasks_run() {
    let mut table = Table::new(&[1]);
    let hold = table.holds.hold(slot(1)).unwrap();
    table.hold(&[], 0);
    let waiting = async {
        for _ in 0..10_000 {
            hold.lost().await;
        }
    };
    assert!(!is_done(waiting));
}

#[tokio::test(start_paused = true)]
async fn a_node_without_holdings_holds_nothing() {
    let mut table = Table::new(&[1]);
    let hold = table.holds.hold(slot(1)).unwrap();
    table.keeper.apply(None, table.clock.now());
    assert!(hold.is_lost() && table.holds.held().is_empty());
    table.holdings.lease = None;
    table.apply();
    assert!(table.holds.held().is_empty());
}

/// Threads take holds as fast as they can while the slot is repeatedly lost and acquired. No thread may have a hold of
/// an acquisition that was reported as free.
#[test]
fn p12_no_hold_is_outstanding_once_its_slot_was_reported_free() {
    const ROUNDS: u64 = 10_000;
    let (holds, clock) = (Arc::new(Holds::new()), Clock::start());
    let mut keeper = Keeper::new(holds.clone(), clock);
    let is_free: Arc<Vec<AtomicBool>> = Arc::new((0..=ROUNDS).map(|_| AtomicBool::new(false)).collect());
    let (over, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (holds, is_free) = (holds.clone(), is_free.clone());
            let (over, taken) = (over.clone(), taken.clone());
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let Some(hold) = holds.hold(slot(0)) else { continue };
                    taken.fetch_add(1, Ordering::Relaxed);
                    for _ in 0..100 {
                        let token = hold.token().get() as usize;
                        assert!(!is_free[token].load(Ordering::SeqCst), "{token} was reported free");
                    }
                }
            })
        })
        .collect();
    for round in 1..=ROUNDS {
        let before = taken.load(Ordering::Relaxed);
        keeper.apply(Some(&always(&[(slot(0), Revision::new(round))])), Timestamp::ZERO);
        // The slot must be lost while threads take holds, so vary the time of the loss.
        while taken.load(Ordering::Relaxed) == before && threads.iter().all(|thread| !thread.is_finished()) {
            std::hint::spin_loop();
        }
        (0..round % 97).for_each(|_| std::hint::spin_loop());
        keeper.apply(Some(&always(&[])), Timestamp::ZERO);
        keeper.wake();
        keeper.retract(Token::new(round), &set(&[0]));
        while !matches!(keeper.report(), Some(Input::Retracted { in_use, .. }) if in_use.is_empty()) {
            std::hint::spin_loop();
        }
        is_free[round as usize].store(true, Ordering::SeqCst);
    }
    over.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Returns holdings of these slots that never run out.
fn always(held: &[(Slot, Revision)]) -> Holdings {
    let far = Timestamp::from_nanos(u64::MAX / 2);
    Holdings {
        lease: Some(LeaseId::new(1)),
        held: Arc::new(held.iter().copied().collect()),
        until: far,
        void: far,
        in_use: SlotSet::default(),
        releasing: false,
    }
}
