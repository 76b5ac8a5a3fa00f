//! The log delivers the record of the newest stable version.

use super::bench::{Bench, secs};
use crate::{outcome::Outcome, store::Txn};

#[test]
fn a_follower_learns_from_one_key_that_the_version_is_stable() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    assert!(!b.status().consistent);
    b.confirms();
    b.expect(&["* stable at V1"]);
    assert!(b.status().consistent);
    assert_eq!(b.status().stable, Some(b.newest()));
}

#[test]
fn p4_a_follower_never_announces() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.confirms();
    b.expect_only(&["announce"], &[]);
}

#[test]
fn p4_the_leader_announces_once_the_log_shows_a_confirm_whose_reply_was_lost() {
    let mut a = Bench::node("a").joined().leading();
    a.stabilized(Outcome::Ready);
    a.ok("acknowledge");
    a.deliver();
    a.skip();
    a.lose("confirm");
    a.expect(&[]);
    a.deliver();
    a.expect(&["* stable at V1", "* calling on_stable of V1, term 2", "announce V1 in term 2"]);
    a.wait(secs(10));
    a.expect(&[]);
}

#[test]
fn p4_a_version_is_announced_once_even_if_the_stable_record_is_written_again() {
    let mut a = Bench::node("a").joined().leading().stable();
    let value = a.snapshot("view/stable").entries[0].value.clone();
    a.write(Txn::new().put("c/view/stable", value, None));
    a.expect_only(&["announce", "confirm"], &[]);
}

#[test]
fn p4_a_version_recorded_as_stable_in_another_term_is_not_announced() {
    let mut a = Bench::node("a").joined().leading();
    a.stabilized(Outcome::Ready);
    a.ok("acknowledge");
    let version = a.newest();
    a.put("view/stable", &format!(r#"{{"version": "{version}", "term": 1}}"#));
    a.expect_only(&["announce", "* stable"], &["* stable at V1"]);
}

#[test]
fn p4_a_suspended_leader_does_not_announce() {
    let mut a = Bench::node("a").joined().leading();
    a.stabilized(Outcome::Ready);
    a.ok("acknowledge");
    a.deliver();
    a.advance(secs(5));
    a.advance(secs(5));
    a.skip();
    a.ok("confirm");
    a.deliver();
    a.expect(&["* stable at V1"]);
    a.ok("renew");
    a.expect_only(&["announce", "* leadership"], &["* leadership resumed, term 2", "announce V1 in term 2"]);
}

#[test]
fn an_unreadable_stable_record_is_reported_and_written_again() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.put("view/stable", "garbage");
    a.expect(&["* cannot read c/view/stable: expected value at line 1 column 1", "confirm V1"]);
    a.answer_all();
    // The version was already announced.
    a.expect(&["* stable at V1"]);
}

#[test]
fn a_deleted_stable_record_is_written_again() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.delete("view/stable");
    a.expect(&["confirm V1"]);
}

#[test]
fn p4_the_stable_record_of_an_older_version_does_not_apply_to_a_newer_one() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.confirms();
    b.publishes();
    assert!(!b.status().consistent);
    assert!(b.status().stable.is_some());
}
