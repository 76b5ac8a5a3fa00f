//! The user commits as leader.

use super::bench::{Bench, secs};
use crate::store::{ErrorKind, Guard, Revision, Txn};

fn write(key: &str) -> Txn {
    Txn::new().guard(Guard::absent("other")).put(key.to_owned(), "x", None)
}

#[test]
fn p5_a_leader_commit_carries_the_term_and_the_users_own_guards() {
    let mut a = Bench::node("a").joined().leading();
    a.commit_as_leader(1, write("jobs/1"));
    let guards = a.txn("leader commit").guards();
    assert_eq!(guards, [Guard::absent("other"), Guard::created_at("c/view/leader", Revision::new(2))]);
    a.ok("leader commit");
    a.expect(&["leader commit", "reply 1: committed at 3"]);
}

#[test]
fn p5_a_leader_commit_fails_once_another_node_leads() {
    let mut a = Bench::node("a").joined().leading();
    a.joins("b");
    a.commit_as_leader(1, write("jobs/1"));
    a.unseen(|a| {
        a.delete("view/leader");
        a.elects("b");
    });
    a.skip();
    a.ok("leader commit");
    a.expect(&["reply 1: guard failed: a guard of the commit did not hold at revision 5"]);
}

#[test]
fn p5_p6_a_node_that_may_not_act_as_leader_sends_no_leader_commit() {
    let refusal = "reply 1: this node does not lead: ask the leader, or wait until this node leads";
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.commit_as_leader(1, write("jobs/1"));
    b.expect(&[refusal]);

    let mut a = Bench::node("a").joined().leading();
    a.now = a.now + secs(10);
    a.commit_as_leader(1, write("jobs/1"));
    a.expect_only(&["leader commit", "reply"], &[refusal]);

    let mut a = Bench::node("a").joined().leading();
    a.resign(2);
    a.commit_as_leader(1, write("jobs/1"));
    a.expect_only(&["leader commit", "reply"], &[refusal]);

    let mut a = Bench::node("a").joined().leading();
    a.stop();
    a.commit_as_leader(1, write("jobs/1"));
    a.expect_only(&["leader commit", "reply"], &[refusal]);
}

#[test]
fn a_leader_commit_cannot_write_the_clusters_own_keys() {
    let mut a = Bench::node("a").joined().leading();
    for key in ["c/view/version", "c/view/anything", "c/ready/a", "c/history/7"] {
        a.commit_as_leader(1, write(key));
        a.expect(&[&format!(
            "reply 1: {key} is the cluster's own key: write to keys outside of `view/`, `ready/` and \
             `history/` of its namespace"
        )]);
        a.commit_as_leader(1, Txn::new().delete(key));
        a.skip();
    }
    a.commit_as_leader(
        2,
        Txn::new().guard(Guard::modified_at("c/view/version", Revision::new(2))).put("c/mine", "x", None),
    );
    a.expect(&["leader commit"]);
}

#[test]
fn errors_of_a_leader_commit_are_returned_to_the_user_and_do_not_affect_the_session() {
    let kinds = [
        (ErrorKind::Unreachable, "the store cannot be reached"),
        (ErrorKind::OutcomeUnknown, "the outcome is unknown"),
        (ErrorKind::Busy, "the store is busy"),
        (ErrorKind::Refused, "the store refused"),
        (ErrorKind::Invalid, "invalid call"),
        (ErrorKind::LeaseNotFound, "lease not found"),
    ];
    for (kind, text) in kinds {
        let mut a = Bench::node("a").joined().leading();
        a.commit_as_leader(1, write("jobs/1"));
        a.skip();
        a.fail("leader commit", kind);
        a.expect(&[&format!("reply 1: {text}: injected by the test")]);
        assert!(a.is_leader());
        a.wait(secs(4));
        a.expect(&[]);
    }
}

#[test]
fn several_leader_commits_can_be_in_flight() {
    let mut a = Bench::node("a").joined().leading();
    a.commit_as_leader(1, write("jobs/1"));
    a.commit_as_leader(2, write("jobs/2"));
    a.answer_all();
    a.expect(&["leader commit", "leader commit", "reply 1: committed at 3", "reply 2: committed at 4"]);
}
