//! P12 as a service sees it: no two processes hold one key, and a hold that is lost is noticed in time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use clustering_core::{
    Builder, Discovery, Ended, Event, Hold, InCallback, LostReason, NotHeld, Outcome, Release, Route,
    Stabilization, StopError, StopReason, WaitError, WorkError,
    machine::RequestError,
    runtime::SimulatedSuspends,
    slots::{Slot, SlotCount, SlotSet},
    store::{ErrorKind, Guard, Revision, Txn},
};
use futures_util::FutureExt;
use tokio::{sync::watch, time::Instant};

use crate::common::{Cluster, Node, TTL, ms, name, secs, soon, stable};

const SLOTS: u16 = 8;

fn exclusive(builder: Builder) -> Builder {
    builder.exclusive(SLOTS)
}

fn slots() -> impl Iterator<Item = Slot> {
    SlotCount::new(SLOTS).unwrap().iter().collect::<Vec<_>>().into_iter()
}

/// Returns a key of the slot.
fn key_of(slot: Slot) -> String {
    let count = SlotCount::new(SLOTS).unwrap();
    (0..).map(|number| format!("key-{number}")).find(|key| count.slot_of(key) == slot).unwrap()
}

/// Returns a slot that the newest version of `node` gives to `owner`.
fn slot_of(node: &Node, owner: &Node) -> Slot {
    let view = node.now().newest.unwrap();
    view.slots_of(owner.name()).iter().next().expect("the owner has a slot")
}

/// Waits until the node's newest version has this many nodes.
async fn knows(node: &Node, nodes: usize) {
    node.until("the node knows all nodes", |status| {
        status.newest.as_ref().is_some_and(|view| view.len() == nodes)
    })
    .await;
}

fn write(value: &str) -> Txn {
    Txn::new().put("app/key", value.to_owned(), None)
}

/// Records for each slot the node that works on it, and fails the test if two nodes work on one slot.
#[derive(Clone, Default)]
struct Judge {
    workers: Arc<Mutex<BTreeMap<Slot, Vec<String>>>>,
    most: Arc<AtomicUsize>,
}

impl Judge {
    /// Records that a node works on a slot until the returned value is dropped.
    fn work(&self, slot: Slot, node: &str) -> Working {
        let mut workers = self.workers.lock().unwrap();
        let of = workers.entry(slot).or_default();
        of.push(node.to_owned());
        assert_eq!(of.len(), 1, "slot {slot}: {of:?}");
        let working = workers.values().map(Vec::len).sum();
        self.most.fetch_max(working, Ordering::Relaxed);
        Working { judge: self.clone(), slot, node: node.to_owned() }
    }

    fn working(&self) -> BTreeMap<Slot, Vec<String>> {
        self.workers.lock().unwrap().iter().map(|(slot, nodes)| (*slot, nodes.clone())).collect()
    }

    /// Returns the slots on which a node works.
    fn slots(&self) -> SlotSet {
        self.working().into_iter().filter(|(_, nodes)| !nodes.is_empty()).map(|(slot, _)| slot).collect()
    }

    /// Makes the node work on each slot that it holds, until the slot is lost and for `linger` after that.
    fn follow(&self, node: &Node, linger: Duration) {
        let (judge, of) = (self.clone(), node.name().to_string());
        node.for_each_held_slot(move |hold| {
            let (judge, of) = (judge.clone(), of.clone());
            async move {
                let _working = judge.work(hold.slot(), &of);
                hold.lost().await;
                tokio::time::sleep(linger).await;
                assert!(hold.is_valid(), "{of} works on {} without protection", hold.slot());
            }
        });
    }
}

struct Working {
    judge: Judge,
    slot: Slot,
    node: String,
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut workers = self.judge.workers.lock().unwrap();
        workers.get_mut(&self.slot).unwrap().retain(|node| *node != self.node);
    }
}

#[tokio::test(start_paused = true)]
async fn p12_a_joining_node_acquires_a_slot_only_after_its_owner_has_dropped_its_holds() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", exclusive).await;
    stable([&a]).await;
    assert_eq!(a.held_slots(), slots().collect());
    let holds: Vec<Hold> = slots().map(|slot| a.hold_slot(slot).unwrap()).collect();
    let b = cluster.start_with("b", exclusive).await;
    knows(&a, 2).await;
    knows(&b, 2).await;
    let slot = slot_of(&a, &b);
    let (moved, key) = (&holds[usize::from(slot.number())], key_of(slot));
    soon("the loss", moved.lost()).await;
    let version = a.newest_version().unwrap();
    match a.hold(&key) {
        Err(NotHeld::Elsewhere { node, version: at }) => assert_eq!((&node.name, at), (b.name(), version)),
        other => panic!("{other:?}"),
    }
    assert_eq!(b.hold(&key).unwrap_err(), NotHeld::Moving);
    assert!(!a.owns(&key) && !b.owns(&key));
    tokio::time::sleep(secs(60)).await;
    assert!(moved.is_valid() && b.held_slots().is_empty(), "the hand-over waits for the hold");
    let kept = holds.iter().filter(|hold| !hold.is_lost()).count();
    assert_eq!(kept, usize::from(SLOTS / 2), "holds of slots that do not move are not affected");
    let old = moved.token();
    drop(holds);
    let hold = soon("the hold", b.wait_hold(&key)).await.unwrap();
    assert!(hold.token() > old && hold.slot() == slot && b.owns(&key));
    assert_eq!(b.slot_of(&key), Some(slot));
    stable([&a, &b]).await;
    assert_eq!((a.held_slots().len(), b.held_slots().len()), (4, 4));
    assert!(a.held_slots().intersection(&b.held_slots()).is_empty());
    // The next owner acquires the slot under a later version.
    let dropping = tokio::spawn(async move {
        hold.lost().await;
        hold.token()
    });
    b.stop().await.unwrap();
    let last = dropping.await.unwrap();
    let again = soon("the hold", a.wait_hold(&key)).await.unwrap();
    assert!(again.token() > last);
}

#[tokio::test(start_paused = true)]
async fn p12_a_node_that_stops_waits_for_its_holds_and_the_others_wait_for_it() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.start_with("a", exclusive).await, cluster.start_with("b", exclusive).await);
    stable([&a, &b]).await;
    let slot = a.held_slots().iter().next().unwrap();
    let hold = a.hold_slot(slot).unwrap();
    let stopping = tokio::spawn({
        let a = a.cluster.clone();
        async move { a.stop().await }
    });
    soon("the loss", hold.lost()).await;
    knows(&b, 1).await;
    assert!(matches!(a.hold_slot(slot), Err(NotHeld::Stopping | NotHeld::Elsewhere { .. })));
    tokio::time::sleep(secs(20)).await;
    assert!(hold.is_valid(), "the lease is renewed for as long as the hold is needed");
    assert!(!stopping.is_finished() && b.hold_slot(slot).unwrap_err() == NotHeld::Moving);
    drop(hold);
    stopping.await.unwrap().unwrap();
    let key = key_of(slot);
    drop(soon("the hold", b.wait_hold(&key)).await.unwrap());
    stable([&b]).await;
    assert_eq!(b.held_slots().len(), usize::from(SLOTS));
    assert_eq!(a.hold_slot(slot).unwrap_err(), NotHeld::Stopping);
}

#[tokio::test(start_paused = true)]
async fn p12_a_stop_that_times_out_on_a_hold_leaves_the_slot_protected() {
    let cluster = Cluster::new();
    let patient =
        |builder: Builder| exclusive(builder).configure(|config| config.stop_timeout = Some(secs(20)));
    let (a, b) = (cluster.start_with("a", patient).await, cluster.start_with("b", exclusive).await);
    stable([&a, &b]).await;
    let slot = a.held_slots().iter().next().unwrap();
    let hold = a.hold_slot(slot).unwrap();
    assert_eq!(soon("the stop", a.stop()).await, Err(StopError::LeaseNotGivenBack));
    assert!(hold.is_lost());
    while hold.is_valid() {
        assert!(b.hold_slot(slot).is_err(), "the hold of the ended node is valid");
        tokio::time::sleep(ms(50)).await;
    }
    drop(soon("the hold", b.wait_hold(key_of(slot))).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn p12_the_slots_of_a_crashed_node_move_only_after_its_holds_are_void() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.start_with("a", exclusive).await, cluster.start_with("b", exclusive).await);
    stable([&a, &b]).await;
    let slot = a.held_slots().iter().next().unwrap();
    let hold = a.hold_slot(slot).unwrap();
    let cut = Instant::now();
    a.line.cut();
    // The node itself notices after two thirds of the TTL that its renewals fail.
    soon("the loss", hold.lost()).await;
    assert!(cut.elapsed() <= TTL * 2 / 3 && hold.is_valid(), "there is time to finish");
    assert_eq!(a.hold_slot(slot).unwrap_err(), NotHeld::NoSession);
    a.log.next("suspended", |event| *event == Event::HoldsSuspended).await;
    let next = soon("the hold", async {
        loop {
            match b.hold_slot(slot) {
                Ok(next) => break next,
                Err(_) => tokio::time::sleep(ms(10)).await,
            }
        }
    });
    let next = next.await;
    assert!(!hold.is_valid() && next.token() > hold.token());
    assert!(cut.elapsed() < TTL * 2, "{:?}", cut.elapsed());
}

#[tokio::test(start_paused = true)]
async fn p12_a_renewal_in_time_gives_out_new_holds_but_a_lost_hold_stays_lost() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", exclusive).await;
    stable([&a]).await;
    let slot = slots().next().unwrap();
    let hold = a.hold_slot(slot).unwrap();
    a.line.cut();
    soon("the loss", hold.lost()).await;
    a.line.heal();
    a.log.next("resumed", |event| *event == Event::HoldsResumed).await;
    let again = soon("the hold", a.wait_hold(key_of(slot))).await.unwrap();
    assert!(hold.is_lost() && !again.is_lost() && again.token() == hold.token());
    assert_eq!(a.commit_as_owner(&hold, write("lost")).await, Err(RequestError::NotHeld));
    a.commit_as_owner(&again, write("held")).await.unwrap();
    assert!(a.log.count(|event| matches!(event, Event::SessionLost { .. })) == 0);
}

#[tokio::test(start_paused = true)]
async fn p12_after_a_pause_past_the_ttl_no_hold_is_given_out_before_any_task_has_run() {
    for slept in [TTL * 2 / 3, TTL, secs(3600)] {
        let (cluster, machine) = (Cluster::new(), SimulatedSuspends::new());
        let a = cluster.start_with("a", |builder| exclusive(builder).suspends(&machine)).await;
        stable([&a]).await;
        let slot = slots().next().unwrap();
        let hold = Arc::new(a.hold_slot(slot).unwrap());
        let waiting = tokio::spawn({
            let hold = hold.clone();
            async move { hold.lost().await }
        });
        tokio::task::yield_now().await;
        a.line.hang();
        let resumed = Instant::now();
        machine.suspend(slept);
        // No task has run since the suspend, so only the clock can show the loss.
        assert_eq!(a.hold_slot(slot).unwrap_err(), NotHeld::NoSession, "suspended for {slept:?}");
        assert!(!a.owns(key_of(slot)) && a.held_slots().is_empty());
        assert!(hold.is_lost());
        assert_eq!(hold.is_valid(), slept < TTL);
        soon("the loss", waiting).await.unwrap();
        assert_eq!(resumed.elapsed(), secs(0), "woken late after {slept:?}");
        a.line.heal();
        soon("the hold", async {
            while a.hold_slot(slot).is_err() {
                tokio::time::sleep(ms(100)).await;
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn p12_a_node_that_was_paused_past_the_ttl_finds_its_slots_elsewhere() {
    let (cluster, machine, judge) = (Cluster::new(), SimulatedSuspends::new(), Judge::default());
    let a = cluster.start_with("a", |builder| exclusive(builder).suspends(&machine)).await;
    let b = cluster.start_with("b", exclusive).await;
    stable([&a, &b]).await;
    judge.follow(&b, secs(0));
    let slot = a.held_slots().iter().next().unwrap();
    let hold = a.hold_slot(slot).unwrap();
    // The store sees the lease expire, while no task of the node runs.
    a.line.hang();
    soon("it moves", async {
        while !judge.slots().contains(slot) {
            tokio::time::sleep(ms(100)).await;
        }
    })
    .await;
    assert!(!hold.is_valid() && hold.is_lost() && a.hold_slot(slot).is_err());
    a.line.heal();
    machine.suspend(secs(1));
    stable([&a, &b]).await;
    assert_eq!((a.held_slots().len(), b.held_slots().len()), (4, 4));
    assert!(!hold.is_valid());
}

/// A callback that succeeds only while the test has opened it. Records its calls.
#[derive(Clone)]
struct Gated {
    open: watch::Sender<bool>,
    calls: watch::Sender<Vec<Release>>,
}

impl Gated {
    fn new(open: bool) -> Self {
        Gated { open: watch::Sender::new(open), calls: watch::Sender::new(Vec::new()) }
    }

    async fn call(self, release: Release) -> Outcome {
        self.calls.send_modify(|calls| calls.push(release));
        match *self.open.borrow() {
            true => Outcome::Ready,
            false => Outcome::refused("the disk is full"),
        }
    }

    async fn called(&self, calls: usize) -> Release {
        let mut made = self.calls.subscribe();
        let made = soon("a call", made.wait_for(|made| made.len() >= calls)).await.unwrap();
        made[calls - 1].clone()
    }
}

fn releasing(builder: Builder, gated: &Gated) -> Builder {
    let gated = gated.clone();
    exclusive(builder).release(move |release| gated.clone().call(release))
}

#[tokio::test(start_paused = true)]
async fn p12_a_refused_release_is_retried_and_the_slots_move_only_after_it_succeeds() {
    let (cluster, gated) = (Cluster::new(), Gated::new(false));
    let a = cluster.start_with("a", |builder| releasing(builder, &gated)).await;
    stable([&a]).await;
    let b = cluster.start_with("b", exclusive).await;
    let first = gated.called(1).await;
    assert_eq!((first.attempt(), first.lost().len(), first.still_held()), (1, 4, true));
    assert_eq!(first.version(), a.newest_version());
    assert_eq!(first.view().unwrap().slots_of(b.name()), *first.lost());
    assert_eq!(first.cluster().upgrade().unwrap().name(), a.name());
    let second = gated.called(2).await;
    assert_eq!((second.attempt(), second.lost()), (2, first.lost()));
    let refused = |event: &Event| match event {
        Event::ReleaseRefused { attempt, reason, .. } => Some((*attempt, reason.clone())),
        _ => None,
    };
    assert_eq!(a.log.next_of("refused", refused).await, (1, "the disk is full".to_owned()));
    assert!(b.held_slots().is_empty());
    gated.open.send_replace(true);
    stable([&a, &b]).await;
    assert_eq!(b.held_slots(), *first.lost());
}

#[tokio::test(start_paused = true)]
async fn p12_a_release_after_the_session_was_lost_has_still_held_false() {
    let (cluster, gated) = (Cluster::new(), Gated::new(true));
    let a = cluster.start_with("a", |builder| releasing(builder, &gated)).await;
    stable([&a]).await;
    a.line.cut();
    let release = gated.called(1).await;
    assert!(!release.still_held() && release.lost().len() == usize::from(SLOTS));
    assert_eq!((release.version(), release.view()), (None, None));
    a.log.next("lost", |event| *event == Event::SessionLost { reason: LostReason::Expired }).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_calls_release_for_all_slots_while_they_are_protected() {
    let (cluster, gated) = (Cluster::new(), Gated::new(true));
    let a = cluster.start_with("a", |builder| releasing(builder, &gated)).await;
    stable([&a]).await;
    a.stop().await.unwrap();
    let release = gated.called(1).await;
    assert!(release.view().is_none() && release.lost().len() == usize::from(SLOTS));
    assert_eq!(gated.calls.borrow().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn stabilize_gets_the_gained_kept_and_lost_slots() {
    let cluster = Cluster::new();
    let changes = Arc::new(Mutex::new(Vec::new()));
    let recorded = |changes: &Arc<Mutex<Vec<[SlotSet; 3]>>>| {
        let changes = changes.clone();
        move |builder: Builder| {
            exclusive(builder).stabilize(move |change: Stabilization| {
                let sets = [change.gained().clone(), change.kept().clone(), change.lost().clone()];
                changes.lock().unwrap().push(sets);
                async {}
            })
        }
    };
    let a = cluster.start_with("a", recorded(&changes)).await;
    stable([&a]).await;
    let b = cluster.start_with("b", exclusive).await;
    stable([&a, &b]).await;
    let moved = b.held_slots();
    b.stop().await.unwrap();
    stable([&a]).await;
    let all: SlotSet = slots().collect();
    let none = SlotSet::default();
    let expected = [
        [all.clone(), none.clone(), none.clone()],
        [none.clone(), all.difference(&moved), moved.clone()],
        [moved.clone(), all.difference(&moved), none],
    ];
    assert_eq!(*changes.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn p12_a_commit_as_owner_applies_only_while_the_slot_is_held() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", exclusive).await;
    stable([&a]).await;
    let holds: Vec<Hold> = slots().map(|slot| a.hold_slot(slot).unwrap()).collect();
    a.commit_as_owner(&holds[0], write("first")).await.unwrap();
    // A failed guard of the user is distinguished from the loss of the slot.
    let wrong = write("second").guard(Guard::absent("app/key"));
    let error = a.commit_as_owner(&holds[0], wrong).await.unwrap_err();
    assert!(
        matches!(&error, RequestError::Store(error) if matches!(error.kind(), ErrorKind::GuardFailed { .. }))
    );
    let guarded =
        (0..15).fold(write("third"), |txn, number| txn.guard(Guard::absent(format!("app/{number}"))));
    a.commit_as_owner(&holds[0], guarded).await.unwrap();
    let reserved = Txn::new().put("cluster/view/released", "{}", None);
    let error = a.commit_as_owner(&holds[0], reserved).await.unwrap_err();
    assert!(matches!(error, RequestError::Reserved { .. }), "{error}");
    let b = cluster.start_with("b", exclusive).await;
    knows(&a, 2).await;
    let kept = a.held_slots();
    assert_eq!(kept.len(), usize::from(SLOTS / 2));
    for hold in &holds {
        let result = soon("a result", a.commit_as_owner(hold, write("after"))).await;
        match kept.contains(hold.slot()) {
            true => drop(result.unwrap()),
            false => assert_eq!(result, Err(RequestError::NotHeld)),
        }
    }
    drop((holds, b));
}

/// The version changes while the commit is in flight, before the node sees the change.
#[tokio::test(start_paused = true)]
async fn p12_a_late_commit_as_owner_applies_only_if_the_node_still_holds_the_slot() {
    let cluster = Cluster::new();
    let leader = cluster.start_with("leader", exclusive).await;
    let a = cluster.start_with("a", exclusive).await;
    stable([&leader, &a]).await;
    let holds: Vec<Hold> = a.held_slots().iter().map(|slot| a.hold_slot(slot).unwrap()).collect();
    let before = a.newest_version();
    a.line.stall_watches("cluster/view/");
    let b = cluster.start_with("b", exclusive).await;
    knows(&leader, 3).await;
    assert_eq!(a.newest_version(), before);
    let commits: Vec<_> = holds
        .into_iter()
        .map(|hold| {
            let a = a.cluster.clone();
            tokio::spawn(async move {
                let result = a.commit_as_owner(&hold, write("late")).await;
                (hold.slot(), result)
            })
        })
        .collect();
    tokio::time::sleep(ms(20)).await;
    a.line.heal();
    stable([&leader, &a, &b]).await;
    let (mut applied, mut refused) = (0, 0);
    for commit in commits {
        let (slot, result) = soon("the commit", commit).await.unwrap();
        match a.held_slots().contains(slot) {
            true => {
                result.unwrap();
                applied += 1;
            }
            false => {
                assert_eq!(result, Err(RequestError::NotHeld), "slot {slot}");
                refused += 1;
            }
        }
    }
    assert!(applied > 0 && refused > 0, "{applied} and {refused}");
}

#[tokio::test(start_paused = true)]
async fn p12_while_a_node_is_not_exclusive_nothing_is_acquired_and_hold_names_it() {
    let cluster = Cluster::new();
    let plain = cluster.start("plain").await;
    let a = cluster.start_with("a", exclusive).await;
    stable([&a, &plain]).await;
    let lacking = NotHeld::NotExclusive { nodes: vec![name("plain")] };
    assert_eq!(a.hold("key").unwrap_err(), lacking);
    assert_eq!(soon("an answer", a.wait_hold("key")).await.unwrap_err(), lacking);
    assert!(lacking.to_string().ends_with("call `Builder::exclusive` on plain"), "{lacking}");
    assert_eq!(plain.hold("key").unwrap_err(), NotHeld::NotExclusive { nodes: vec![name("plain")] });
    assert_eq!(plain.hold_slot(slots().next().unwrap()).unwrap_err(), lacking);
    assert_eq!((plain.slot_of("key"), plain.held_slots()), (None, SlotSet::default()));
    assert!(a.held_slots().is_empty());
    plain.stop().await.unwrap();
    stable([&a]).await;
    let hold = a.hold("key").unwrap();
    // Slots that are held stay held when such a node joins.
    let late = cluster.start("late").await;
    stable([&a, &late]).await;
    assert!(hold.is_valid());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_own_node_inside_a_callback_fails_instead_of_deadlocking() {
    let cluster = Cluster::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let stops = Arc::new(AtomicBool::new(false));
    let (recorded, stopping) = (seen.clone(), stops.clone());
    let change = move |builder: Builder| {
        exclusive(builder).stabilize(move |change: Stabilization| {
            let (recorded, stopping) = (recorded.clone(), stopping.clone());
            async move {
                let own = change.cluster().upgrade().unwrap();
                let in_callback = WaitError::InCallback(InCallback);
                let key = key_of(slots().next().unwrap());
                let results = [
                    own.wait_stable().await == Err(in_callback.clone()),
                    own.wait_stable_after(change.version()).await == Err(in_callback.clone()),
                    own.wait_leader().await == Err(in_callback),
                    own.ended().await == Err(InCallback),
                    own.wait_hold(&key).await.unwrap_err() == NotHeld::InCallback(InCallback),
                    own.wait_hold_at(&key, change.version()).await.unwrap_err()
                        == NotHeld::InCallback(InCallback),
                    own.while_held(&key, |_| async {}).await
                        == Err(WorkError::NotHeld(NotHeld::InCallback(InCallback))),
                ];
                recorded.lock().unwrap().push(results);
                if stopping.load(Ordering::Relaxed) {
                    assert_eq!(own.stop().await, Err(StopError::InCallback));
                }
            }
        })
    };
    let a = cluster.start_with("a", change).await;
    stable([&a]).await;
    assert_eq!(*seen.lock().unwrap(), [[true; 7]]);
    stops.store(true, Ordering::Relaxed);
    a.request_version("again").await.unwrap();
    assert_eq!(soon("the end", a.ended()).await, Ok(Ended(StopReason::Asked)), "the node has stopped");
}

/// A callback may wait for other nodes. A task that it spawns may also wait for its own node.
#[tokio::test(start_paused = true)]
async fn a_callback_may_wait_for_other_nodes_and_spawn_tasks_that_wait() {
    let cluster = Cluster::new();
    let other = cluster.start("other").await;
    let (sender, mut stable_at) = tokio::sync::mpsc::unbounded_channel();
    let (waiting, waited_for) = (sender.clone(), other.cluster.clone());
    let a = cluster
        .start_with("a", move |builder| {
            builder.stabilize(move |change: Stabilization| {
                let (waiting, own) = (waiting.clone(), change.cluster().upgrade().unwrap());
                let is_free = waited_for.ended().now_or_never().is_none();
                tokio::spawn(async move {
                    let _ = waiting.send(own.wait_stable().await.unwrap());
                });
                std::future::ready(is_free)
            })
        })
        .await;
    let version = stable([&a, &other]).await;
    assert_eq!(soon("the version", stable_at.recv()).await, Some(version));
}

#[tokio::test(start_paused = true)]
async fn work_on_a_held_key_returns_its_result_and_then_drops_the_hold() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", exclusive).await;
    let token = soon("the work", a.while_held("key", |hold| async move { hold.token() })).await.unwrap();
    assert!(token > Revision::ZERO);
    let b = cluster.start_with("b", exclusive).await;
    stable([&a, &b]).await;
    let key = key_of(b.held_slots().iter().next().unwrap());
    let error = soon("the work", a.while_held(&key, |_| async {})).await.unwrap_err();
    assert!(matches!(error, WorkError::NotHeld(NotHeld::Elsewhere { .. })), "{error}");
}

#[tokio::test(start_paused = true)]
async fn p12_work_that_ignores_the_loss_is_dropped_before_the_node_has_to_leave() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", |builder| exclusive(builder).release_timeout(secs(20))).await;
    stable([&a]).await;
    let all: Vec<_> = slots()
        .map(|slot| {
            let a = a.cluster.clone();
            tokio::spawn(async move { a.while_held(key_of(slot), |_| std::future::pending::<()>()).await })
        })
        .collect();
    tokio::time::sleep(ms(1)).await;
    let joined = Instant::now();
    let b = cluster.start_with("b", exclusive).await;
    stable([&a, &b]).await;
    assert!(joined.elapsed() >= secs(18) && joined.elapsed() < secs(20), "{:?}", joined.elapsed());
    assert_eq!(a.log.count(|event| matches!(event, Event::SessionLost { .. })), 0);
    let ended: Vec<_> = all.iter().filter(|task| task.is_finished()).collect();
    assert_eq!(ended.len(), usize::from(SLOTS / 2));
    let (mut dropped, mut running) = (0, 0);
    for task in all {
        if task.is_finished() {
            assert_eq!(task.await.unwrap(), Err(WorkError::Dropped));
            dropped += 1;
        } else {
            running += 1;
            task.abort();
        }
    }
    assert_eq!((dropped, running), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn p12_work_that_ignores_the_end_of_the_session_is_dropped_when_its_hold_is_void() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", |builder| exclusive(builder).release_timeout(None)).await;
    stable([&a]).await;
    let left = a.session_left();
    let cut = Instant::now();
    let work = tokio::spawn({
        let a = a.cluster.clone();
        async move { a.while_held("key", |_| std::future::pending::<()>()).await }
    });
    a.line.cut();
    assert_eq!(soon("the end of the work", work).await.unwrap(), Err(WorkError::Dropped));
    let passed = cut.elapsed();
    assert!(passed >= left && passed < left + ms(10), "{passed:?} instead of {left:?}");
}

#[tokio::test(start_paused = true)]
async fn p12_each_held_slot_has_one_task_that_ends_with_the_slot() {
    let (cluster, judge) = (Cluster::new(), Judge::default());
    let all: SlotSet = slots().collect();
    let a = cluster.start_with("a", exclusive).await;
    judge.follow(&a, ms(50));
    let busy = async |expected: &BTreeMap<&str, usize>| {
        soon("the tasks", async {
            loop {
                let working = judge.working();
                let of = |name: &str| working.values().flatten().filter(|node| *node == name).count();
                if expected.iter().all(|(name, tasks)| of(name) == *tasks) && judge.slots() == all {
                    return;
                }
                tokio::time::sleep(ms(10)).await;
            }
        })
        .await;
    };
    busy(&[("a", 8)].into()).await;
    let b = cluster.start_with("b", exclusive).await;
    judge.follow(&b, ms(500));
    busy(&[("a", 4), ("b", 4)].into()).await;
    let c = cluster.start_with("c", exclusive).await;
    judge.follow(&c, ms(0));
    stable([&a, &b, &c]).await;
    b.stop().await.unwrap();
    busy(&[("a", 4), ("c", 4)].into()).await;
    a.crash();
    busy(&[("c", 8)].into()).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_returns_or_panics_is_started_again_with_the_next_acquisition() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", exclusive).await;
    stable([&a]).await;
    let started = Arc::new(Mutex::new(BTreeMap::<Slot, usize>::new()));
    let counted = started.clone();
    let mut tasks = a.for_each_held_slot(move |hold| {
        *counted.lock().unwrap().entry(hold.slot()).or_default() += 1;
        let panics = hold.slot().number().is_multiple_of(2);
        async move { assert!(!panics, "on purpose") }
    });
    let b = cluster.start_with("b", exclusive).await;
    stable([&a, &b]).await;
    let moved = b.held_slots();
    b.stop().await.unwrap();
    stable([&a]).await;
    a.stop().await.unwrap();
    soon("the end of the tasks", tasks.ended()).await;
    soon("the end, again", tasks.ended()).await;
    for (slot, count) in started.lock().unwrap().iter() {
        assert_eq!(*count, if moved.contains(*slot) { 2 } else { 1 }, "slot {slot}");
    }
    assert_eq!(started.lock().unwrap().len(), usize::from(SLOTS));
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_request_waits_for_the_version_under_which_it_was_forwarded() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", exclusive).await;
    let b = cluster.start_with("b", exclusive).await;
    stable([&a, &b]).await;
    let slot = a.held_slots().iter().next().unwrap();
    // b does not see the log for a while, and assumes that a still owns the slot.
    b.line.stall_watches("cluster/view/");
    let stopping = tokio::spawn({
        let a = a.cluster.clone();
        async move { a.stop().await }
    });
    let old = b.newest_version().unwrap();
    let c = cluster.start_with("c", exclusive).await;
    soon("a version", c.until("newer", |status| status.newest.is_some())).await;
    let version = c.newest_version().unwrap();
    assert!(version > old && matches!(b.hold_slot(slot), Err(NotHeld::Elsewhere { .. })));
    let waiting = tokio::spawn({
        let b = b.cluster.clone();
        let key = key_of(slot);
        async move { b.wait_hold_at(&key, version).await }
    });
    tokio::time::sleep(ms(500)).await;
    assert!(!waiting.is_finished(), "b would send the request back");
    b.line.heal();
    let result = soon("an answer", waiting).await.unwrap();
    let owner = b.now().newest.unwrap().owner_of(slot).unwrap().name.clone();
    match result {
        Ok(hold) => assert_eq!((hold.slot(), &owner), (slot, b.name())),
        Err(NotHeld::Elsewhere { node, .. }) => assert_eq!((&node.name, &owner), (c.name(), c.name())),
        Err(other) => panic!("{other}"),
    }
    soon("the stop", stopping).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_waiters_get_a_hold_and_a_dropped_wait_leaves_no_hold() {
    let cluster = Cluster::new();
    let (a, gate) = {
        let (gate, passes) = watch::channel(false);
        let stabilize = move |_| {
            let mut passes = passes.clone();
            async move { passes.wait_for(|open| *open).await.is_ok() }
        };
        (cluster.start_with("a", |builder| exclusive(builder).stabilize(stabilize)).await, gate)
    };
    knows(&a, 1).await;
    assert!(a.wait_hold("key").now_or_never().is_none());
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let a = a.cluster.clone();
            tokio::spawn(async move { a.wait_hold("key").await })
        })
        .collect();
    tokio::time::sleep(secs(5)).await;
    assert_eq!(a.hold("key").unwrap_err(), NotHeld::Moving);
    gate.send(true).unwrap();
    let mut holds = Vec::new();
    for task in waiting {
        holds.push(soon("the hold", task).await.unwrap().unwrap());
    }
    // A wait in progress ends when the node stops.
    drop(holds);
    a.stop().await.unwrap();
    assert_eq!(soon("an answer", a.wait_hold("key")).await.unwrap_err(), NotHeld::Stopping);
}

/// Nodes join, stop, crash and are cut off at random, with workers that drop their holds late. No two nodes work on one
/// slot, and at the end all slots are held.
#[tokio::test(start_paused = true)]
async fn p12_no_two_nodes_work_on_one_slot_in_random_churn() {
    for seed in 0..8_u64 {
        let (cluster, judge) = (Cluster::new(), Judge::default());
        let mut ids = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = move |bound: u64| {
            ids ^= ids << 13;
            ids ^= ids >> 7;
            ids ^= ids << 17;
            ids % bound
        };
        let mut nodes: Vec<Node> = Vec::new();
        for step in 0..12 {
            match below(5) {
                0 if nodes.len() > 1 => {
                    let node = nodes.remove(below(nodes.len() as u64) as usize);
                    node.stop().await.unwrap();
                }
                1 if nodes.len() > 1 => nodes.remove(below(nodes.len() as u64) as usize).crash(),
                2 if !nodes.is_empty() => {
                    let line = nodes[below(nodes.len() as u64) as usize].line.clone();
                    line.cut();
                    tokio::time::sleep(secs(below(30))).await;
                    line.heal();
                }
                3 => tokio::time::sleep(ms(below(5_000))).await,
                _ => {
                    let node = cluster.start_with(&format!("n{step}"), exclusive).await;
                    judge.follow(&node, ms(below(2_000)));
                    nodes.push(node);
                }
            }
        }
        if nodes.is_empty() {
            continue;
        }
        stable(&nodes).await;
        let held = nodes.iter().fold(SlotSet::default(), |all, node| all.union(&node.held_slots()));
        assert_eq!(held, slots().collect(), "seed {seed}");
        soon("the work", async {
            while judge.slots() != held {
                tokio::time::sleep(ms(10)).await;
            }
        })
        .await;
    }
}

/// A router sends requests to a node that serves, refuses or delays them, and never to a node that is gone.
#[tokio::test(start_paused = true)]
async fn a_route_is_known_except_while_its_slot_is_handed_over() {
    let cluster = Cluster::new();
    let early = Discovery::observe(cluster.store.clone(), "cluster").await.unwrap();
    assert_eq!(early.route("key"), Route::Unowned);
    let a = cluster.start_with("a", exclusive).await;
    stable([&a]).await;
    let late = Discovery::observe(cluster.store.clone(), "cluster").await.unwrap();
    assert!(late.newest().is_none());
    let at = |route: Route| match route {
        Route::At(node) => node.name.clone(),
        other => panic!("{other:?}"),
    };
    let observers = [early, late, a.discovery()];
    for observer in &observers {
        let route = soon("a route", observer.wait_route("key")).await.unwrap();
        assert_eq!((at(route), at(observer.route("key"))), (name("a"), name("a")));
        assert_eq!(observer.find("key").unwrap().name, name("a"));
    }
    let holds: Vec<Hold> = slots().map(|slot| a.hold_slot(slot).unwrap()).collect();
    let b = cluster.start_with("b", exclusive).await;
    knows(&b, 2).await;
    tokio::time::sleep(secs(5)).await;
    let moved = key_of(slot_of(&b, &b));
    let kept = key_of(slot_of(&b, &a));
    let newcomer = Discovery::observe(cluster.store.clone(), "cluster").await.unwrap();
    for observer in observers.iter().chain([&newcomer]) {
        match observer.route(&moved) {
            Route::Moving { from, to: Some(to) } => {
                assert_eq!(to.name, name("b"));
                assert!(from.is_none_or(|from| from.name == name("a")));
            }
            other => panic!("{other:?}"),
        }
        assert!(observer.wait_route(&moved).now_or_never().is_none());
    }
    assert_eq!(at(observers[0].route(&kept)), name("a"), "a slot that does not move keeps its route");
    let waiting = tokio::spawn({
        let (observer, moved) = (observers[0].clone(), moved.clone());
        async move { observer.wait_route(&moved).await }
    });
    drop(holds);
    assert_eq!(at(soon("a route", waiting).await.unwrap().unwrap()), name("b"));
    stable([&a, &b]).await;
    for observer in observers.iter().chain([&newcomer]) {
        assert_eq!(at(soon("a route", observer.wait_route(&moved)).await.unwrap()), name("b"));
        assert_eq!(observer.find(&moved).unwrap().name, name("b"));
    }
    let hold = b.hold(&moved).unwrap();
    let stopping = tokio::spawn({
        let b = b.cluster.clone();
        async move { b.stop().await }
    });
    soon("the loss", hold.lost()).await;
    let gone = [name("b")];
    for observer in [&observers[0], &observers[1]] {
        soon("the departure", async {
            while observer.node(&gone[0]).is_some() {
                tokio::time::sleep(ms(1)).await;
            }
        })
        .await;
        match observer.route(&moved) {
            Route::Moving { from: None, to } => assert!(to.is_none_or(|to| to.name == name("a"))),
            other => panic!("{other:?}"),
        }
    }
    drop(hold);
    stopping.await.unwrap().unwrap();
    assert_eq!(at(soon("a route", observers[0].wait_route(&moved)).await.unwrap()), name("a"));
    a.stop().await.unwrap();
    drop(a);
    let last = soon("a route", newcomer.wait_route(&moved));
    assert!(
        tokio::time::timeout(secs(5), last).await.is_err(),
        "the last version remains, but its owner is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn routes_of_a_cluster_that_is_not_exclusive_are_the_owners_in_the_newest_version() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let late = Discovery::observe(cluster.store.clone(), "cluster").await.unwrap();
    for key in ["a", "b", "c", "d"] {
        let owner = nodes[0].view().unwrap().find(key).unwrap().clone();
        for discovery in [&late, &nodes[1].discovery()] {
            assert!(matches!(discovery.route(key), Route::At(node) if node.name == owner.name));
        }
    }
}
