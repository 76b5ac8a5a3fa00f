//! Requests reach the node that holds their key, or wait while the key moves.

use clustering_core::{Discovery, Hold, NotHeld, Route};
use futures_util::FutureExt;

use crate::common::{
    Cluster,
    exclusive::{exclusive, key_of, knows, slot_of, slots},
    ms, name, secs, soon, stable,
};

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
