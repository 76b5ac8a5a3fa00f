//! The user's on_stable has ended.

use super::bench::{Bench, secs};
use crate::outcome::Outcome;

/// a leads, V1 is stable, and its callback runs.
fn announcing() -> Bench {
    let mut a = Bench::node("a").joined().leading();
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.skip();
    assert!(a.is_open("announce"));
    a
}

#[test]
fn p4_it_does_not_run_again() {
    let mut a = announcing();
    a.announced();
    a.wait(secs(60));
    a.says(&[]);
}

#[test]
fn p10_a_panic_is_told_and_it_does_not_run_again() {
    let mut a = announcing();
    a.announce_panics("out of luck");
    a.says(&["* on_stable of V1 failed: out of luck"]);
    a.wait(secs(60));
    a.says(&[]);
}

#[test]
fn p4_a_newer_version_supersedes_it_and_the_next_waits_for_its_end() {
    let mut a = announcing().after(secs(2));
    a.asks("ops");
    a.skip();
    a.ok("publish");
    a.deliver();
    a.says_of(&["supersede"], &["supersede"]);
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.says_of(&["announce", "* stable"], &["* stable at V2"]);
    a.announced();
    a.says(&["* on_stable of V2, term 2", "announce V2 in term 2"]);
}

#[test]
fn p4_versions_that_became_stable_meanwhile_are_skipped() {
    let mut a = announcing();
    for _ in 0..2 {
        a = a.after(secs(2));
        a.asks("ops");
        a.answer_all();
        a.stabilized(Outcome::Ready);
        a.answer_all();
    }
    a.skip();
    a.announced();
    a.says(&["* on_stable of V3, term 2", "announce V3 in term 2"]);
}

#[test]
fn p4_a_suspended_leader_supersedes_it_and_does_not_run_it_again() {
    let mut a = announcing();
    a.advance(secs(5));
    a.advance(secs(5));
    a.says(&["renew", "* leadership suspended, term 2: no renewal in time", "supersede"]);
    a.ok("renew");
    a.announced();
    a.says_of(&["announce"], &[]);
}

#[test]
fn p4_losing_the_lead_supersedes_it() {
    let mut a = announcing();
    a.delete("view/leader");
    a.says(&["* nobody leads", "unwatch", "supersede"]);
}

#[test]
fn p4_stopping_supersedes_it_and_waits_for_it() {
    let mut a = announcing();
    a.stop();
    a.says(&["unwatch", "leave", "supersede"]);
    a.ok("leave");
    a.ok("revoke");
    a.says(&["revoke 1"]);
    a.announced();
    a.says_of(&["stopped"], &["stopped: it was asked to stop"]);
}
