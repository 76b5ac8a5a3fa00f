//! The user's on_stable has ended.

use super::bench::{Bench, ms, secs};
use crate::{config::Config, outcome::Outcome};

/// a leads, V1 is stable, and its callback runs.
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
    a.says(&["* on_stable of V1 failed and is not retried: out of luck"]);
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
    a.says(&["* calling on_stable of V2, term 2", "announce V2 in term 2"]);
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
    a.says(&["* calling on_stable of V3, term 2", "announce V3 in term 2"]);
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

#[test]
fn p10_an_on_stable_that_runs_long_is_reported_once_and_never_ended() {
    let mut a = announcing();
    a.wait(ms(29_999));
    a.says(&[]);
    a.wait(ms(1));
    a.says(&["* on_stable of V1 has been running for 30s; later versions wait for it"]);
    a.wait(secs(3600));
    a.says(&[]);
}

#[test]
fn an_on_stable_timeout_ends_it_and_the_next_version_is_announced() {
    let mut a = announcing_with(|config| config.on_stable_timeout = Some(secs(10))).after(secs(2));
    a.asks("ops");
    a.answer_all();
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.skip();
    a.wait(secs(8));
    a.says(&["abort: it was ended after 10s, the on_stable timeout"]);
    a.wait(secs(5));
    a.says(&[]);
    a.announce_panics("ended");
    a.says(&[
        "* on_stable of V1 failed and is not retried: ended",
        "* calling on_stable of V2, term 2",
        "announce V2 in term 2",
    ]);
}

/// Its result is no longer needed, but it still delays the next call.
#[test]
fn p10_a_superseded_on_stable_that_hangs_is_reported_and_ended_too() {
    let mut a = announcing_with(|config| config.on_stable_timeout = Some(secs(60)));
    a.resign(1);
    a.answer_all();
    a.skip();
    a.wait(secs(60));
    a.says_of(
        &["abort", "* on_stable"],
        &[
            "* on_stable of V1 has been running for 30s; later versions wait for it",
            "abort: it was ended after 60s, the on_stable timeout",
        ],
    );
}
