//! The user writes as leader.

use super::bench::{Bench, secs};
use crate::store::{ErrorKind, Guard, Revision, Txn};

fn write(key: &str) -> Txn {
    Txn::new().guard(Guard::absent("other")).put(key.to_owned(), "x", None)
}

#[test]
fn p5_the_write_bears_the_term_and_the_users_own_guards() {
    let mut a = Bench::node("a").joined().leading();
    a.fence(1, write("jobs/1"));
    let guards = a.txn("fenced").guards();
    assert_eq!(guards, [Guard::absent("other"), Guard::created_at("c/view/leader", Revision::new(2))]);
    a.ok("fenced");
    a.says(&["fenced write", "reply 1: committed at 3"]);
}

#[test]
fn p5_it_is_refused_once_another_leads() {
    let mut a = Bench::node("a").joined().leading();
    a.joins("b");
    a.fence(1, write("jobs/1"));
    a.unseen(|a| {
        a.delete("view/leader");
        a.elects("b");
    });
    a.skip();
    a.ok("fenced");
    a.says(&["reply 1: guard failed: a guard of the commit did not hold at revision 5"]);
}

#[test]
fn p5_p6_nothing_is_sent_by_one_that_may_not_act() {
    let refusal = "reply 1: this node does not lead: ask the leader, or wait until this node leads";
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.fence(1, write("jobs/1"));
    b.says(&[refusal]);

    let mut a = Bench::node("a").joined().leading();
    a.now = a.now + secs(10);
    a.fence(1, write("jobs/1"));
    a.says_of(&["fenced", "reply"], &[refusal]);

    let mut a = Bench::node("a").joined().leading();
    a.resign(2);
    a.fence(1, write("jobs/1"));
    a.says_of(&["fenced", "reply"], &[refusal]);

    let mut a = Bench::node("a").joined().leading();
    a.stop();
    a.fence(1, write("jobs/1"));
    a.says_of(&["fenced", "reply"], &[refusal]);
}

#[test]
fn the_clusters_own_keys_are_not_the_users_to_write() {
    let mut a = Bench::node("a").joined().leading();
    for key in ["c/view/version", "c/view/anything", "c/ready/a", "c/history/7"] {
        a.fence(1, write(key));
        a.says(&[&format!(
            "reply 1: {key} is the cluster's own key: write to keys outside of `view/`, `ready/` and \
             `history/` of its namespace"
        )]);
        a.fence(1, Txn::new().delete(key));
        a.skip();
    }
    a.fence(
        2,
        Txn::new().guard(Guard::modified_at("c/view/version", Revision::new(2))).put("c/mine", "x", None),
    );
    a.says(&["fenced write"]);
}

#[test]
fn the_users_errors_are_the_users_also_that_of_their_lease() {
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
        a.fence(1, write("jobs/1"));
        a.skip();
        a.fail("fenced", kind);
        a.says(&[&format!("reply 1: {text}: as the test has it")]);
        assert!(a.is_leader());
        a.wait(secs(4));
        a.says(&[]);
    }
}

#[test]
fn several_writes_are_on_their_way_at_once() {
    let mut a = Bench::node("a").joined().leading();
    a.fence(1, write("jobs/1"));
    a.fence(2, write("jobs/2"));
    a.answer_all();
    a.says(&["fenced write", "fenced write", "reply 1: committed at 3", "reply 2: committed at 4"]);
}
