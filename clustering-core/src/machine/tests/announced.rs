//! The user's `on_stable` callback has ended.

use super::bench::{Bench, ms, secs};
use crate::{config::Config, outcome::Outcome};

/// Returns the leader a while `on_stable` runs for V1.
fn announcing() -> Bench {
    announcing_with(|_| {})
}

fn announcing_with(change: impl FnOnce(&mut Config)) -> Bench {
    let mut a = Bench::node_with("a", change).joined().leading();
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.skip();
    assert!(a.is_open("announce"));
    a
}

#[test]
fn p4_on_stable_does_not_run_again_for_the_same_version() {
    let mut a = announcing();
    a.announced();
    a.wait(secs(60));
    a.expect(&[]);
}

#[test]
fn p10_an_on_stable_that_panics_is_reported_and_not_repeated() {
    let mut a = announcing();
    a.announce_panics("out of luck");
    a.expect(&["* on_stable of V1 failed and is not retried: out of luck"]);
    a.wait(secs(60));
    a.expect(&[]);
}

#[test]
fn p4_a_newer_version_supersedes_on_stable_and_its_own_call_waits_for_the_end() {
    let mut a = announcing().after(secs(2));
    a.requests("ops");
    a.skip();
    a.ok("publish");
    a.deliver();
    a.expect_only(&["supersede"], &["supersede"]);
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.expect_only(&["announce", "* stable"], &["* stable at V2"]);
    a.announced();
    a.expect(&["* calling on_stable of V2, term 2", "announce V2 in term 2"]);
}

#[test]
fn p4_only_the_newest_of_the_versions_that_became_stable_meanwhile_is_announced() {
    let mut a = announcing();
    for _ in 0..2 {
        a = a.after(secs(2));
        a.requests("ops");
        a.answer_all();
        a.stabilized(Outcome::Ready);
        a.answer_all();
    }
    a.skip();
    a.announced();
    a.expect(&["* calling on_stable of V3, term 2", "announce V3 in term 2"]);
}

#[test]
fn p4_suspended_leadership_supersedes_on_stable_and_resuming_does_not_repeat_it() {
    let mut a = announcing();
    a.advance(secs(5));
    a.advance(secs(5));
    a.expect(&["renew", "* leadership suspended, term 2: no renewal in time", "supersede"]);
    a.ok("renew");
    a.announced();
    a.expect_only(&["announce"], &[]);
}

#[test]
fn p4_losing_leadership_supersedes_on_stable() {
    let mut a = announcing();
    a.delete("view/leader");
    a.expect(&["* nobody leads", "unwatch", "supersede"]);
}

#[test]
fn p4_stopping_supersedes_on_stable_and_waits_for_its_end() {
    let mut a = announcing();
    a.stop();
    a.expect(&["unwatch", "supersede", "leave"]);
    a.ok("leave");
    a.ok("revoke");
    a.expect(&["revoke 1"]);
    a.announced();
    a.expect_only(&["stopped"], &["stopped: it was asked to stop"]);
}

#[test]
fn p10_a_slow_on_stable_is_reported_once_and_never_aborted() {
    let mut a = announcing();
    a.wait(ms(29_999));
    a.expect(&[]);
    a.wait(ms(1));
    a.expect(&["* on_stable of V1 has been running for 30s; later versions wait for it"]);
    a.wait(secs(3600));
    a.expect(&[]);
}

#[test]
fn an_on_stable_that_exceeds_its_timeout_is_aborted_and_the_next_version_is_announced() {
    let mut a = announcing_with(|config| config.on_stable_timeout = Some(secs(10))).after(secs(2));
    a.requests("ops");
    a.answer_all();
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.skip();
    a.wait(secs(8));
    a.expect(&["abort: it was ended after 10s, the on_stable timeout"]);
    a.wait(secs(5));
    a.expect(&[]);
    a.announce_panics("ended");
    a.expect(&[
        "* on_stable of V1 failed and is not retried: ended",
        "* calling on_stable of V2, term 2",
        "announce V2 in term 2",
    ]);
}

/// Its result is no longer needed, but it still delays the next call.
#[test]
fn p10_a_superseded_on_stable_that_hangs_is_reported_and_aborted_too() {
    let mut a = announcing_with(|config| config.on_stable_timeout = Some(secs(60)));
    a.resign(1);
    a.answer_all();
    a.skip();
    a.wait(secs(60));
    a.expect_only(
        &["abort", "* on_stable"],
        &[
            "* on_stable of V1 has been running for 30s; later versions wait for it",
            "abort: it was ended after 60s, the on_stable timeout",
        ],
    );
}
