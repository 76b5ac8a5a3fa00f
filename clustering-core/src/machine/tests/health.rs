//! Health checks, and what hangs on them (P11).

use super::bench::{Bench, ms, secs};
use crate::{
    config::HealthChecks,
    event::StopReason,
    machine::{Health, Phase},
};

/// Checked every 2 s, with 1 s for an answer; three failures in a row are enough.
fn checked(name: &str) -> Bench {
    Bench::node_with(name, |config| {
        config.health = Some(HealthChecks { interval: secs(2), deadline: secs(1), failures: 3 });
    })
}

/// a leads, alone with b, and is healthy.
fn leading() -> Bench {
    let mut a = checked("a");
    a.tick();
    a.health(Ok(()));
    let mut a = a.joined().leading();
    a.joins("b");
    a.answer_all();
    a.stable()
}

/// The next check fails.
fn fails(bench: &mut Bench, says: &str) {
    bench.wait_for("check health");
    bench.health(Err(says));
}

#[test]
fn p11_a_node_joins_only_after_a_check_has_passed() {
    let mut a = checked("a");
    a.tick();
    a.says_of(&["check", "grant", "*"], &["check health"]);
    assert_eq!(a.status().health, Health::Unknown);
    a.health(Err("no disk"));
    a.says_of(&["check", "grant", "*"], &["* unhealthy: no disk"]);
    assert_eq!(a.status().health, Health::Unhealthy { reason: "no disk".to_owned() });
    a.wait(secs(2));
    a.health(Err("still no disk"));
    a.wait(secs(2));
    a.health(Ok(()));
    a.says_of(&["check", "grant", "*"], &["check health", "check health", "* healthy", "grant 15s"]);
    assert_eq!((a.status().health, a.status().phase), (Health::Healthy, Phase::Joining));
}

#[test]
fn p11_the_failure_that_decides_ends_the_lead_and_the_session_at_once() {
    let mut a = leading();
    fails(&mut a, "ill");
    fails(&mut a, "ill");
    a.skip();
    assert!(a.is_leader());
    fails(&mut a, "very ill");
    assert!(!a.is_leader());
    a.says(&[
        "check health",
        "* unhealthy after 3 failed checks: very ill",
        "unwatch",
        "* session lost: the node is not healthy",
        "leave",
    ]);
    a.answer_all();
    // It follows the log, and does no more.
    a.skip();
    a.wait(secs(60));
    a.says_of(&["grant", "renew", "join", "elect", "stabilize"], &[]);
}

#[test]
fn p11_it_comes_back_under_a_new_session_when_a_check_passes() {
    let mut a = leading();
    (0..3).for_each(|_| fails(&mut a, "ill"));
    a.answer_all();
    a.skip();
    a.wait_for("check health");
    a.health(Ok(()));
    a.says_of(&["grant", "* h"], &["* healthy", "grant 15s"]);
    a.answer_all();
    a.says_of(&["* joined"], &["* joined again as a life"]);
}

#[test]
fn a_check_that_passes_in_between_forgives() {
    let mut a = leading();
    for _ in 0..10 {
        fails(&mut a, "ill");
        fails(&mut a, "ill");
        a.wait_for("check health");
        a.health(Ok(()));
    }
    assert!(a.is_leader());
    a.says_of(&["*"], &[]);
}

#[test]
fn p11_a_check_that_does_not_answer_in_time_is_ended_and_failed() {
    let mut a = leading();
    a.wait_for("check health");
    a.skip();
    a.wait(secs(1));
    a.says(&["abort: the check did not answer within 1s"]);
    // It ends late, and what it says then does not count.
    a.health(Ok(()));
    fails(&mut a, "ill");
    fails(&mut a, "ill");
    a.says_of(&["* un"], &["* unhealthy after 3 failed checks: ill"]);
}

/// Its future is dropped, and yet it does not end: it blocks its thread.
#[test]
fn p11_a_check_that_never_ends_fails_again_for_each_interval() {
    let mut a = leading();
    a.wait_for("check health");
    a.skip();
    // One deadline, and two intervals.
    a.wait(secs(1) + secs(4) - ms(1));
    assert!(a.is_leader());
    a.wait(ms(1));
    a.says_of(
        &["abort", "check", "*"],
        &[
            "abort: the check did not answer within 1s",
            "* unhealthy after 3 failed checks: the check did not answer within 1s",
            "* session lost: the node is not healthy",
        ],
    );
    // No second one beside it. When it ends at last, the next one decides.
    a.answer_all();
    a.wait(secs(600));
    a.says_of(&["check", "grant", "* healthy"], &[]);
    a.health(Ok(()));
    a.says(&["check health"]);
    a.health(Ok(()));
    a.says_of(&["grant"], &["grant 15s"]);
}

/// A process that was stopped as a whole was not asked: the time does not count against it.
#[test]
fn a_freeze_counts_once() {
    let mut a = leading();
    a.wait_for("check health");
    a.skip();
    a.advance(secs(9));
    a.says_of(&["abort", "* un"], &["abort: the check did not answer within 1s"]);
    a.health(Ok(()));
    a.says_of(&["check", "* un"], &["check health"]);
    a.health(Ok(()));
    assert_eq!(a.status().health, Health::Healthy);
}

#[test]
fn p11_a_lease_that_comes_after_the_verdict_is_given_back() {
    let mut a = checked("a");
    a.tick();
    a.health(Ok(()));
    (0..3).for_each(|_| fails(&mut a, "ill"));
    a.skip();
    a.ok("grant");
    a.says(&["revoke 1"]);
    a.answer_all();
    a.says_of(&["join", "grant"], &[]);
}

#[test]
fn p11_a_join_on_its_way_does_not_make_a_member_of_it() {
    let mut a = checked("a");
    a.tick();
    a.health(Ok(()));
    a.ok("grant");
    a.ok("read view/");
    a.ok("watch view/");
    (0..3).for_each(|_| fails(&mut a, "ill"));
    a.ok("join");
    a.deliver();
    a.says_of(&["* joined", "elect"], &[]);
    a.answer_all();
    assert!(a.store.read(a.keys.nodes_prefix()).entries.is_empty());
}

#[test]
fn who_is_not_registered_is_not_asked_and_begins_anew() {
    let mut a = leading();
    a.unregister(1);
    a.answer_all();
    a.skip();
    assert_eq!(a.wakes_in(), None);
    a.wait(secs(60));
    a.says(&[]);
    a.register(2);
    a.says(&["check health"]);
    assert_eq!(a.status().health, Health::Unknown);
    a.health(Ok(()));
    a.answer_all();
    a.says_of(&["reply"], &["reply 2: done"]);
}

#[test]
fn a_check_that_runs_when_the_node_ends_is_ended_and_holds_nothing_up() {
    let mut a = leading();
    a.wait_for("check health");
    a.skip();
    a.stop();
    a.says_of(&["abort", "check"], &["abort: check cancelled"]);
    a.answer_all();
    assert_eq!(a.status().phase, Phase::Stopped(StopReason::Asked));
}

#[test]
fn a_check_that_was_to_be_ended_already_is_not_ended_again() {
    let mut a = leading();
    a.wait_for("check health");
    a.wait(secs(1));
    a.skip();
    a.stop();
    a.says_of(&["abort"], &[]);
    a.answer_all();
    assert_eq!(a.status().phase, Phase::Stopped(StopReason::Asked));
}

#[test]
fn without_checks_nobody_is_asked() {
    let mut a = Bench::node("a").joined().leading();
    a.wait(secs(60));
    a.says_of(&["check"], &[]);
    assert_eq!(a.status().health, Health::Unchecked);
}
