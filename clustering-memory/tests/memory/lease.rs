use clustering_core::store::{CoordinationStore, CoordinationStoreExt, ErrorKind, LeaseId, Revision, Txn};
use clustering_memory::{MAX_TTL, MemoryStore};
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Duration, Instant, advance};

use crate::{SECOND, TICK, all_shown, batch, lease, put, ready, shown, watch, watch_all};

#[tokio::test(start_paused = true)]
async fn an_expiry_reaches_a_watch_without_any_call() {
    let store = MemoryStore::new();
    let granted = Instant::now();
    let lease = lease(&store, 15 * SECOND).await;
    store.commit(Txn::new().put("b", "1", lease.id).put("a", "2", lease.id)).await.unwrap();
    let mut watch = watch(&store, "", store.revision()).await;

    assert_eq!(shown(&batch(&mut watch).await), "2: -a -b");
    assert!(granted.elapsed() >= 15 * SECOND);
    assert!(granted.elapsed() <= 15 * SECOND + TICK);
}

#[tokio::test(start_paused = true)]
async fn a_lease_lives_until_its_whole_ttl_has_passed() {
    let nanosecond = Duration::from_nanos(1);
    let store = MemoryStore::new();
    let lease = lease(&store, 15 * SECOND).await;
    put(&store, "k", Some(&lease)).await;
    advance(15 * SECOND - nanosecond).await;
    assert!(store.get("k").await.unwrap().is_some());
    advance(nanosecond).await;
    assert_eq!(store.get("k").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_lasts_a_whole_ttl_from_when_it_was_handled() {
    let store = MemoryStore::new();
    let lease = lease(&store, 15 * SECOND).await;
    advance(14 * SECOND).await;
    assert_eq!(store.renew_lease(lease.id).await.unwrap(), 15 * SECOND);
    advance(15 * SECOND - TICK).await;
    assert_eq!(store.leases()[0].remaining, TICK);
    advance(TICK).await;
    assert_eq!(store.lease_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_watch_follows_renewals() {
    let store = MemoryStore::new();
    let start = Instant::now();
    let lease = lease(&store, 15 * SECOND).await;
    put(&store, "k", Some(&lease)).await;
    let mut watch = watch(&store, "", store.revision()).await;

    let renewing = async {
        for _ in 0..3 {
            tokio::time::sleep(10 * SECOND).await;
            store.renew_lease(lease.id).await.unwrap();
        }
    };
    let (seen, ()) = tokio::join!(batch(&mut watch), renewing);
    assert_eq!(shown(&seen), "2: -k");
    assert!(start.elapsed() >= 45 * SECOND && start.elapsed() <= 45 * SECOND + TICK);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_watch_wakes_for_a_newer_lease_that_expires_sooner() {
    let store = MemoryStore::new();
    let long = lease(&store, 100 * SECOND).await;
    put(&store, "long", Some(&long)).await;
    let mut watch = watch(&store, "", store.revision()).await;
    assert!(watch.next().now_or_never().is_none(), "it now waits for the long lease to expire");

    let start = Instant::now();
    let short = lease(&store, 2 * SECOND).await;
    put(&store, "short", Some(&short)).await;
    assert_eq!(shown(&batch(&mut watch).await), "2: +short");
    assert_eq!(shown(&batch(&mut watch).await), "3: -short");
    assert!(start.elapsed() <= 2 * SECOND + TICK);
}

#[tokio::test(start_paused = true)]
async fn a_key_moved_to_a_shorter_lease_vanishes_sooner() {
    let store = MemoryStore::new();
    let (long, short) = (lease(&store, 100 * SECOND).await, lease(&store, 2 * SECOND).await);
    put(&store, "k", Some(&long)).await;
    let mut watch = watch(&store, "", store.revision()).await;
    assert!(watch.next().now_or_never().is_none());

    let start = Instant::now();
    put(&store, "k", Some(&short)).await;
    assert_eq!(shown(&batch(&mut watch).await), "2: +k");
    assert_eq!(shown(&batch(&mut watch).await), "3: -k");
    assert!(start.elapsed() <= 2 * SECOND + TICK);
    assert_eq!(store.leases()[0].keys, 0, "the long lease lost the key when it moved");
}

#[tokio::test(start_paused = true)]
async fn leases_that_expired_between_two_accesses_end_in_the_order_of_their_deadlines() {
    let store = MemoryStore::new();
    let mut watch = watch_all(&store).await;
    for (name, seconds) in [("a", 10), ("b", 5), ("c", 7), ("d", 5), ("e", 30)] {
        let lease = lease(&store, seconds * SECOND).await;
        let put = Txn::new().put(format!("{name}1"), "", lease.id).put(format!("{name}2"), "", lease.id);
        store.commit(put).await.unwrap();
    }
    assert_eq!(ready(&mut watch).len(), 5);
    advance(20 * SECOND).await;
    let expected = ["6: -b1 -b2", "7: -d1 -d2", "8: -c1 -c2", "9: -a1 -a2"];
    assert_eq!(all_shown(&ready(&mut watch)), expected);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_lease_without_keys_makes_no_revision() {
    let store = MemoryStore::new();
    let lease = lease(&store, SECOND).await;
    put(&store, "k", Some(&lease)).await;
    put(&store, "k", None).await;
    advance(SECOND).await;
    assert_eq!((store.lease_count(), store.revision()), (0, Revision::new(2)));
    assert!(store.get("k").await.unwrap().is_some(), "the key was detached from the lease");
}

#[tokio::test(start_paused = true)]
async fn a_key_deleted_and_put_again_outlives_its_former_lease() {
    let store = MemoryStore::new();
    let lease = lease(&store, SECOND).await;
    put(&store, "k", Some(&lease)).await;
    store.delete("k").await.unwrap();
    put(&store, "k", None).await;
    advance(SECOND).await;
    assert!(store.get("k").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn nothing_brings_an_ended_lease_back() {
    let store = MemoryStore::new();
    let (expired, revoked) = (lease(&store, SECOND).await, lease(&store, 9 * SECOND).await);
    advance(SECOND).await;
    store.revoke_lease(revoked.id).await.unwrap();
    for id in [expired.id, revoked.id, LeaseId::new(u64::MAX)] {
        let put = store.put("k", "".into(), Some(id)).await.unwrap_err();
        let renewal = store.renew_lease(id).await.unwrap_err();
        let revocation = store.revoke_lease(id).await.unwrap_err();
        for error in [put, renewal, revocation] {
            assert_eq!(error.kind(), ErrorKind::LeaseNotFound);
        }
    }
    assert_eq!(store.revision(), Revision::ZERO);
}

#[tokio::test]
async fn a_granted_ttl_is_at_least_the_smallest_ttl() {
    let store = MemoryStore::builder().smallest_ttl(2 * SECOND).build();
    assert_eq!(lease(&store, SECOND).await.ttl, 2 * SECOND);
    assert_eq!(lease(&store, 3 * SECOND).await.ttl, 3 * SECOND);
    assert_eq!(
        lease(&MemoryStore::new(), TICK).await.ttl,
        TICK,
        "the default store grants every TTL as requested"
    );
}

#[tokio::test(start_paused = true)]
async fn a_ttl_out_of_range_is_refused_and_the_longest_works() {
    let store = MemoryStore::new();
    for ttl in [Duration::ZERO, MAX_TTL + TICK, Duration::MAX] {
        assert_eq!(store.grant_lease(ttl).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let lease = lease(&store, MAX_TTL).await;
    put(&store, "k", Some(&lease)).await;
    assert_eq!(store.renew_lease(lease.id).await.unwrap(), MAX_TTL);
    let mut watch = watch(&store, "", store.revision()).await;
    assert!(watch.next().now_or_never().is_none(), "tokio's timer accepts a deadline that far in the future");
}
