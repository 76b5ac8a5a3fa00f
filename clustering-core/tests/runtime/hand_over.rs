//! P12 as a service sees it: slots move from one process to the next without overlap.

use std::sync::{Arc, Mutex};

use clustering_core::{
    Builder, Event, Hold, LostReason, NotHeld, Outcome, Release, Stabilization, StopError,
    runtime::SimulatedSuspends, slots::SlotSet,
};
use tokio::{sync::watch, time::Instant};

use crate::common::{
    Cluster, Node, TTL,
    exclusive::{Judge, SLOTS, exclusive, key_of, knows, slot_of, slots},
    ms, name, secs, soon, stable,
};

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
async fn p12_a_node_that_was_paused_past_the_ttl_finds_its_slots_elsewhere() {
    let (cluster, machine, judge) = (Cluster::new(), SimulatedSuspends::new(), Judge::default());
    let a = cluster.start_with("a", |builder| exclusive(builder).suspends(&machine)).await;
    let b = cluster.start_with("b", exclusive).await;
    stable([&a, &b]).await;
    judge.follow(&b, secs(0));
    let slot = a.held_slots().iter().next().unwrap();
    let hold = a.hold_slot(slot).unwrap();
    // The lease expires in the store while no task of the node runs.
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

/// A callback that records its calls and succeeds only while `open` is true.
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
        let held = || nodes.iter().fold(SlotSet::default(), |all, node| all.union(&node.held_slots()));
        // After a mass loss, the slots of lost nodes wait for them for a TTL.
        soon(&format!("all slots to be held with seed {seed}"), async {
            while held() != slots().collect() {
                tokio::time::sleep(ms(100)).await;
            }
        })
        .await;
        soon("the work", async {
            while judge.slots() != held() {
                tokio::time::sleep(ms(10)).await;
            }
        })
        .await;
    }
}
