//! Commits of the user as owner of a slot (P12).

use super::bench::{Bench, secs, slots};
use crate::{
    machine::{Input, RequestId},
    store::{ErrorKind, Guard, Revision, Txn},
};

/// Returns the only node of a cluster, which holds all four slots.
fn alone() -> Bench {
    let mut a = Bench::exclusive("a").joined().leading();
    a.answer_all();
    a.stable().after(secs(2))
}

fn token(a: &Bench) -> Revision {
    *a.status().holdings.unwrap().held.values().next().expect("a held slot")
}

fn commit(a: &mut Bench, id: u64, acquired: Revision, txn: Txn) {
    let slot = slots(&[1]).iter().next().unwrap();
    a.input(Input::CommitAsOwner { id: RequestId(id), slot, acquired, txn });
}

fn put() -> Txn {
    Txn::new().put("mine", "1", None)
}

#[test]
fn p12_a_commit_as_owner_is_guarded_by_the_newest_version() {
    let mut a = alone();
    let token = token(&a);
    commit(&mut a, 1, token, put());
    a.ok("owner commit");
    let revision = a.store.revision;
    a.expect_only(&["reply"], &[&format!("reply 1: committed at {revision}")]);
}

#[test]
fn p12_a_commit_as_owner_is_refused_by_the_store_once_another_version_was_published() {
    let mut a = alone();
    let token = token(&a);
    commit(&mut a, 1, token, put());
    a.unseen(|a| a.publishes_slots(&["x", "x", "x", "x"], false));
    a.ok("owner commit");
    a.expect_only(&["reply", "owner"], &["owner commit"]);
    a.deliver();
    a.expect_only(
        &["reply", "owner"],
        &["reply 1: this node no longer holds the key: take a new hold, or ask the key's new owner"],
    );
    assert!(a.store.get(&"mine".into()).is_none());
}

#[test]
fn a_commit_as_owner_is_repeated_under_a_newer_version_that_leaves_the_slot_here() {
    let mut a = alone();
    let token = token(&a);
    commit(&mut a, 1, token, put());
    a.unseen(|a| a.publishes_slots(&["x", "a", "x", "x"], false));
    a.ok("owner commit");
    a.deliver();
    a.expect_only(&["reply", "owner"], &["owner commit", "owner commit"]);
    a.ok("owner commit");
    let revision = a.store.revision;
    a.expect_only(&["reply"], &[&format!("reply 1: committed at {revision}")]);
}

#[test]
fn a_guard_of_the_user_that_fails_is_reported_and_not_retried() {
    let mut a = alone();
    let token = token(&a);
    commit(&mut a, 1, token, put().guard(Guard::created_at("absent", Revision::new(7))));
    a.ok("owner commit");
    a.ok("read view/version");
    let revision = a.store.revision;
    let failed = format!("reply 1: guard failed: a guard of the commit did not hold at revision {revision}");
    a.expect_only(&["reply", "owner"], &["owner commit", &failed]);
}

#[test]
fn an_owner_commit_whose_outcome_is_unknown_is_not_repeated() {
    let mut a = alone();
    let token = token(&a);
    commit(&mut a, 1, token, put());
    a.fail("owner commit", ErrorKind::OutcomeUnknown);
    a.wait(secs(10));
    a.expect_only(
        &["reply", "owner"],
        &["owner commit", "reply 1: the outcome is unknown: injected by the test"],
    );
}

#[test]
fn p12_a_hold_of_an_earlier_acquisition_cannot_commit() {
    let mut a = alone();
    commit(&mut a, 1, Revision::new(1), put());
    a.expect_only(
        &["reply", "owner"],
        &["reply 1: this node no longer holds the key: take a new hold, or ask the key's new owner"],
    );
}

#[test]
fn an_owner_commit_must_not_write_the_clusters_keys() {
    let mut a = alone();
    let token = token(&a);
    commit(&mut a, 1, token, Txn::new().put("c/view/leader", "x", None));
    a.expect_only(
        &["reply", "owner"],
        &["reply 1: c/view/leader is the cluster's own key: write to keys outside of `view/`, `ready/` and `history/` \
           of its namespace"],
    );
}
