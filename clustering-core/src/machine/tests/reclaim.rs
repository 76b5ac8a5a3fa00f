//! Reclaiming the slots of removed sessions whose processes do not follow the log (P12).

use super::bench::{Bench, secs};
use crate::{
    record::{HoldsRecord, encode},
    store::{Entry, ErrorKind, LeaseId, Txn},
};

/// Returns a, the leader of the exclusive nodes a and b, after b was evicted while its lease is still alive.
fn evicted_b() -> Bench {
    evicted_by(Bench::exclusive("a"))
}

fn evicted_by(a: Bench) -> Bench {
    let mut a = a.joined().leading();
    a.answer_all();
    let mut a = a.stable().after(secs(2)).with_evicted("b");
    a.skip();
    a
}

fn witness(a: &Bench) -> Option<Entry> {
    a.store.get(&a.keys.holds_key(lease(a))).cloned()
}

fn lease(a: &Bench) -> LeaseId {
    a.others["b"]
}

#[test]
fn p12_a_removed_session_that_keeps_renewing_is_reclaimed_after_two_ttls() {
    let mut a = evicted_b();
    a.wait(secs(29));
    a.expect_only(&["reclaim", "revoke"], &[]);
    a.wait(secs(1));
    a.expect_only(
        &["reclaim", "revoke", "* b was removed"],
        &["* b was removed but renews its lease 2: ending it, so that its slots can be acquired", "reclaim"],
    );
    let created = witness(&a).unwrap().created;
    a.ok("reclaim");
    a.deliver();
    let detached = witness(&a).expect("the witness remains until no hold can be valid");
    assert_eq!((detached.lease, detached.created), (None, created));
    a.expect_only(&["reclaim", "revoke"], &["revoke 2"]);
    a.ok("revoke");
    a.wait(secs(14));
    a.expect_only(&["reclaim", "permit"], &[]);
    a.wait(secs(1));
    a.expect_only(&["reclaim", "permit"], &["reclaim"]);
    a.ok("reclaim");
    a.deliver();
    assert!(witness(&a).is_none());
    a.expect_only(&["permit"], &["permit V3"]);
}

#[test]
fn p12_the_wait_begins_with_the_reply_to_the_revocation() {
    let mut a = evicted_b();
    a.wait(secs(30));
    a.ok("reclaim");
    a.deliver();
    a.wait(secs(10));
    a.fail("revoke", ErrorKind::OutcomeUnknown);
    a.wait(secs(1));
    a.ok("revoke");
    a.skip();
    a.wait(secs(14));
    a.expect_only(&["reclaim"], &[]);
    a.wait(secs(1));
    a.expect_only(&["reclaim"], &["reclaim"]);
}

#[test]
fn p12_a_session_that_left_by_itself_is_never_reclaimed() {
    let mut a = evicted_b();
    let record = HoldsRecord { left: true, ..a.witness("b", 4) };
    let key = a.keys.holds_key(lease(&a));
    let own = lease(&a);
    a.write(Txn::new().put(key, encode(&record), own));
    a.wait(secs(300));
    a.expect_only(&["reclaim", "permit"], &[]);
}

#[test]
fn p12_a_new_leader_revokes_the_lease_of_a_witness_that_an_earlier_leader_has_detached() {
    let mut a = evicted_b();
    let (key, record) = (a.keys.holds_key(lease(&a)), a.witness("b", 4));
    a.write(Txn::new().put(key, encode(&record), None));
    a.expect_only(&["revoke", "reclaim"], &[]);
    a.wait(secs(30));
    a.expect_only(&["revoke", "reclaim"], &["revoke 2"]);
}

#[test]
fn a_session_that_ends_by_itself_is_not_reclaimed() {
    let mut a = evicted_b();
    let lease = lease(&a);
    a.wait(secs(20));
    a.store.revoke(lease).unwrap();
    a.deliver();
    a.answer_all();
    a.skip();
    a.wait(secs(60));
    a.expect_only(&["reclaim", "revoke"], &[]);
}

#[test]
fn p12_an_unreadable_witness_without_a_lease_is_deleted_after_the_longest_ttl() {
    const DAY: u64 = 24 * 3600;
    let mut a = evicted_by(Bench::exclusive_with("a", |config| config.ttl = secs(DAY)));
    let key = a.keys.holds_key(lease(&a));
    a.write(Txn::new().delete(key));
    a.answer_all();
    a.put("view/holds/ff", "garbage");
    a.wait(secs(1));
    a.ok("revoke ff");
    a.wait(secs(DAY - 10));
    a.expect_only(&["reclaim"], &[]);
    a.wait(secs(10));
    a.expect_only(&["reclaim"], &["reclaim"]);
}

#[test]
fn p12_sessions_are_reclaimed_at_the_same_time() {
    let mut a = evicted_b();
    a.joins_exclusively("c", 4);
    a.evicts("c");
    a.answer_until("reclaim");
    a.skip();
    a.wait(secs(31));
    while a.is_open("reclaim") {
        a.ok("reclaim");
        a.deliver();
    }
    a.wait(secs(1));
    a.expect_only(&["reclaim", "revoke"], &["reclaim", "revoke 2", "reclaim", "revoke 3"]);
}
