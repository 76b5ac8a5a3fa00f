//! A node on a mocked store: its reactions to errors that a real store returns rarely.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test, in helpers too")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clustering_core::{
    Builder, Clustering, Discovery, StopReason,
    runtime::{StartError, StopError},
    store::{
        CoordinationStore, ErrorKind, Lease, LeaseId, MockCoordinationStore, Revision, Snapshot, StoreError,
    },
};
use clustering_memory::MemoryStore;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn builder(store: impl CoordinationStore) -> Builder {
    Clustering::builder(store).name("a").uri("http://host:80").seed(1)
}

fn error(kind: ErrorKind) -> StoreError {
    StoreError::new(kind, "the store said so")
}

/// Returns a mock that forwards every call to a real store, unless the test sets another expectation.
fn behind(store: &MemoryStore, but: impl FnOnce(&mut MockCoordinationStore)) -> MockCoordinationStore {
    let mut mock = MockCoordinationStore::new();
    but(&mut mock);
    macro_rules! pass {
        ($expect:ident, |$($argument:ident),*| $call:expr) => {
            let store = store.clone();
            mock.$expect().returning(move |$($argument),*| {
                // The memory store never waits.
                let call = { let store = &store; $call(store, $($argument),*) };
                futures_util::FutureExt::now_or_never(call).expect("the memory store never waits")
            });
        };
    }
    pass!(expect_grant_lease, |ttl| async |store: &MemoryStore, ttl| store.grant_lease(ttl).await);
    pass!(expect_renew_lease, |id| async |store: &MemoryStore, id| store.renew_lease(id).await);
    pass!(expect_revoke_lease, |id| async |store: &MemoryStore, id| store.revoke_lease(id).await);
    pass!(expect_read, |prefix| async |store: &MemoryStore, prefix: &str| store.read(prefix).await);
    pass!(expect_watch, |prefix, after| async |store: &MemoryStore, prefix: &str, after| store
        .watch(prefix, after)
        .await);
    pass!(expect_commit, |txn| async |store: &MemoryStore, txn| store.commit(txn).await);
    mock
}

/// Whichever call the store refuses, for example because of wrong credentials, the start fails at once and leaves
/// nothing behind.
#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_fails_the_start_at_once() {
    for call in ["grant", "read", "watch", "commit"] {
        for kind in [ErrorKind::Refused, ErrorKind::Invalid] {
            let store = MemoryStore::new();
            let mock = behind(&store, |mock| match call {
                "grant" => drop(mock.expect_grant_lease().returning(move |_| Err(error(kind)))),
                "read" => drop(mock.expect_read().returning(move |_| Err(error(kind)))),
                "watch" => drop(mock.expect_watch().returning(move |_, _| Err(error(kind)))),
                _ => drop(mock.expect_commit().returning(move |_| Err(error(kind)))),
            });
            let begun = Instant::now();
            let refused = builder(mock).start().await.unwrap_err();
            assert!(matches!(&refused, StartError::Refused(_)), "{call}: {refused:?}");
            assert!(refused.to_string().contains("the store said so"), "{refused}");
            assert!(begun.elapsed() < SECOND, "{call}: {:?}", begun.elapsed());
            assert_eq!((store.lease_count(), store.open_watches()), (0, 0), "{call}");
            assert_eq!(store.read("").await.unwrap().entries, []);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_is_refused_at_once_too() {
    for call in ["read", "watch"] {
        let store = MemoryStore::new();
        let mock = behind(&store, |mock| match call {
            "read" => drop(mock.expect_read().returning(|_| Err(error(ErrorKind::Refused)))),
            _ => drop(mock.expect_watch().returning(|_, _| Err(error(ErrorKind::Refused)))),
        });
        let observed = tokio::time::timeout(SECOND, Discovery::observe(mock, "cluster")).await;
        match call {
            "read" => assert!(matches!(observed.unwrap(), Err(StartError::Refused(_)))),
            // It has read the log by then, so the refused watch is only reported by an event.
            _ => assert!(observed.unwrap().is_ok_and(|discovery| discovery.nodes().is_empty())),
        }
    }
}

/// If the store is unreachable or busy, the start retries with growing delays until it succeeds.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_or_busy_is_retried_until_it_answers() {
    for kind in [ErrorKind::Unreachable, ErrorKind::Busy, ErrorKind::OutcomeUnknown] {
        let store = MemoryStore::new();
        let tries = Arc::new(AtomicUsize::new(0));
        let (counted, begun) = (tries.clone(), Instant::now());
        let is_away = move || begun.elapsed() < 60 * SECOND;
        let mock = behind(&store, |mock| {
            mock.expect_grant_lease().withf(move |_| is_away()).returning(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                Err(error(kind))
            });
            mock.expect_read().withf(move |_| is_away()).returning(move |_| Err(error(kind)));
        });
        let builder = builder(mock);
        let mut events = builder.events();
        let node = builder.start().await.unwrap();
        assert!(begun.elapsed() >= 60 * SECOND && begun.elapsed() < 66 * SECOND, "{:?}", begun.elapsed());
        let tries = tries.load(Ordering::SeqCst);
        assert!((10..30).contains(&tries), "{tries} tries in a minute");
        let mut told = Vec::new();
        while let Some(event) = events.try_recv().unwrap() {
            told.push(event.to_string());
        }
        assert!(told[0].starts_with("the store is away: "), "{told:#?}");
        assert!(told.iter().any(|event| event.starts_with("the store is back after 6")), "{told:#?}");
        node.wait_stable().await.unwrap();
        node.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_fails_during_a_stop_is_reported_in_time() {
    for kind in [ErrorKind::Unreachable, ErrorKind::Busy, ErrorKind::Refused, ErrorKind::OutcomeUnknown] {
        let store = MemoryStore::new();
        let mock = behind(&store, |mock| {
            mock.expect_revoke_lease().returning(move |_| Err(error(kind)));
        });
        let stop_timeout = 3 * SECOND;
        let builder = builder(mock).configure(|config| config.stop_timeout = Some(stop_timeout));
        let node = builder.start().await.unwrap();
        let begun = Instant::now();
        assert_eq!(node.stop().await, Err(StopError::LeaseNotGivenBack));
        assert_eq!(begun.elapsed(), stop_timeout);
        assert_eq!(store.lease_count(), 1);
        tokio::time::sleep(15 * SECOND).await;
        assert_eq!(store.lease_count(), 0, "the lease expires after its TTL");
    }
}

/// A lease that has already ended need not be revoked.
#[tokio::test(start_paused = true)]
async fn a_stop_after_the_lease_has_ended_is_not_an_error() {
    let store = MemoryStore::new();
    let mock = behind(&store, |mock| {
        mock.expect_revoke_lease().returning(|id| Err(StoreError::lease_not_found(id)));
    });
    let node = builder(mock).start().await.unwrap();
    assert_eq!(node.stop().await, Ok(()));
}

/// The store's code panics in the node's task. The start, or the handles, report that the node has ended.
#[tokio::test(start_paused = true)]
async fn a_store_that_panics_ends_the_node_and_is_reported() {
    let refused = builder(MockCoordinationStore::new()).start().await.unwrap_err();
    assert_eq!(refused, StartError::Stopped(StopReason::Aborted));
    let store = MemoryStore::new();
    let mock = behind(&store, |mock| {
        mock.expect_renew_lease().returning(|_| panic!("a bug in the store"));
    });
    let node = builder(mock).start().await.unwrap();
    node.wait_stable().await.unwrap();
    assert!(node.is_leader());
    assert_eq!(node.ended().await.unwrap().0, StopReason::Aborted);
    assert!(!node.is_leader());
    assert_eq!(node.stop().await, Err(StopError::LeaseNotGivenBack));
}

/// The calls of a start without faults.
#[tokio::test(start_paused = true)]
async fn a_start_takes_a_grant_a_read_a_watch_and_a_join() {
    let mut mock = MockCoordinationStore::new();
    let lease = Lease { id: LeaseId::new(7), ttl: 15 * SECOND };
    mock.expect_grant_lease().times(1).returning(move |_| Ok(lease));
    mock.expect_read()
        .times(1)
        .withf(|prefix| prefix == "cluster/view/")
        .returning(|_| Ok(Snapshot { revision: Revision::new(3), entries: Vec::new() }));
    mock.expect_watch()
        .times(1)
        .withf(|prefix, after| prefix == "cluster/view/" && *after == Revision::new(3))
        .returning(|_, _| Ok(Box::pin(futures_util::stream::pending())));
    mock.expect_commit()
        .times(1)
        .withf(|txn| txn.operations().len() == 1 && &**txn.operations()[0].key() == "cluster/view/nodes/a")
        .returning(|_| Ok(Revision::new(4)));
    mock.expect_renew_lease().returning(move |_| Ok(lease.ttl));
    mock.expect_revoke_lease().times(1).returning(|_| Ok(()));
    // The log never shows the join, so the node is not a member, and it would repeat the join after 5 s. Dropping the
    // start gives the lease back.
    let started = tokio::time::timeout(4 * SECOND, builder(mock).start()).await;
    assert!(started.is_err());
    tokio::time::sleep(SECOND).await;
}
