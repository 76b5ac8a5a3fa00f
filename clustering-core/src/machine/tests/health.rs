//! Health checks and their consequences (P11).

use super::bench::{Bench, ms, secs};
use crate::{
    config::HealthChecks,
    event::StopReason,
    machine::{Health, Phase},
};

/// Returns a node that is checked every 2 s, with a deadline of 1 s, and is unhealthy after three failures in a row.
fn checked(name: &str) -> Bench {
    Bench::node_with(name, |config| {
        config.health = Some(HealthChecks { interval: secs(2), deadline: secs(1), failures: 3 });
    })
}

/// Returns the leader a of a healthy cluster of a and b.
fn leading() -> Bench {
    let mut a = checked("a");
    a.tick();
    a.health(Ok(()));
    let mut a = a.joined().leading();
    a.joins("b");
    a.answer_all();
    a.stable()
}

/// Lets the next check fail.
fn fails(bench: &mut Bench, reason: &str) {
    bench.wait_for("check health");
    bench.health(Err(reason));
}

#[test]
fn p11_a_node_joins_only_after_a_check_has_passed() {
    let mut a = checked("a");
    a.tick();
    a.expect_only(&["check", "grant", "*"], &["check health"]);
    assert_eq!(a.status().health, Health::Unknown);
    a.health(Err("no disk"));
    a.expect_only(&["check", "grant", "*"], &["* unhealthy: no disk"]);
    assert_eq!(a.status().health, Health::Unhealthy { reason: "no disk".to_owned() });
    a.wait(secs(2));
    a.health(Err("still no disk"));
    a.wait(secs(2));
    a.health(Ok(()));
    a.expect_only(&["check", "grant", "*"], &["check health", "check health", "* healthy", "grant 15s"]);
    assert_eq!((a.status().health, a.status().phase), (Health::Healthy, Phase::Joining));
}

#[test]
fn p11_the_third_failure_in_a_row_ends_leadership_and_session_immediately() {
    let mut a = leading();
    fails(&mut a, "sick");
    fails(&mut a, "sick");
    a.skip();
    assert!(a.is_leader());
    fails(&mut a, "very sick");
    assert!(!a.is_leader());
    a.expect(&[
        "check health",
        "* unhealthy after 3 failed checks: very sick",
        "unwatch",
        "* session lost: the node is not healthy",
        "leave",
    ]);
    a.answer_all();
    // The node follows the log and does nothing else.
    a.skip();
    a.wait(secs(60));
    a.expect_only(&["grant", "renew", "join", "elect", "stabilize"], &[]);
}

#[test]
fn p11_an_unhealthy_node_rejoins_when_a_check_passes() {
    let mut a = leading();
    (0..3).for_each(|_| fails(&mut a, "sick"));
    a.answer_all();
    a.skip();
    a.wait_for("check health");
    a.health(Ok(()));
    a.expect_only(&["grant", "* h"], &["* healthy", "grant 15s"]);
    a.answer_all();
    a.expect_only(&["* joined"], &["* joined again as <ULID>"]);
}

#[test]
fn a_check_that_passes_resets_the_count_of_failures() {
    let mut a = leading();
    for _ in 0..10 {
        fails(&mut a, "sick");
        fails(&mut a, "sick");
        a.wait_for("check health");
        a.health(Ok(()));
    }
    assert!(a.is_leader());
    a.expect_only(&["*"], &[]);
}

#[test]
fn p11_a_check_that_misses_its_deadline_is_aborted_and_counts_as_failed() {
    let mut a = leading();
    a.wait_for("check health");
    a.skip();
    a.wait(secs(1));
    a.expect(&["abort: the check did not answer within 1s"]);
    // The check ends late, and its result is ignored.
    a.health(Ok(()));
    fails(&mut a, "sick");
    fails(&mut a, "sick");
    a.expect_only(&["* un"], &["* unhealthy after 3 failed checks: sick"]);
}

/// The future of the check is dropped, but it blocks its thread and does not end.
#[test]
fn p11_a_check_that_never_ends_counts_as_failed_once_per_interval() {
    let mut a = leading();
    a.wait_for("check health");
    a.skip();
    // The failures occur after the deadline and after each of two intervals.
    a.wait(secs(1) + secs(4) - ms(1));
    assert!(a.is_leader());
    a.wait(ms(1));
    a.expect_only(
        &["abort", "check", "*"],
        &[
            "abort: the check did not answer within 1s",
            "* unhealthy after 3 failed checks: the check did not answer within 1s",
            "* session lost: the node is not healthy",
        ],
    );
    // No second check runs beside it. Once it ends, the next check decides.
    a.answer_all();
    a.wait(secs(600));
    a.expect_only(&["check", "grant", "* healthy"], &[]);
    a.health(Ok(()));
    a.expect(&["check health"]);
    a.health(Ok(()));
    a.expect_only(&["grant"], &["grant 15s"]);
}

/// A check cannot answer while its whole process is frozen, so the missed intervals do not count as further failures.
#[test]
fn a_frozen_process_counts_as_one_failed_check() {
    let mut a = leading();
    a.wait_for("check health");
    a.skip();
    a.advance(secs(9));
    a.expect_only(&["abort", "* un"], &["abort: the check did not answer within 1s"]);
    a.health(Ok(()));
    a.expect_only(&["check", "* un"], &["check health"]);
    a.health(Ok(()));
    assert_eq!(a.status().health, Health::Healthy);
}

#[test]
fn p11_a_lease_granted_to_an_unhealthy_node_is_revoked() {
    let mut a = checked("a");
    a.tick();
    a.health(Ok(()));
    (0..3).for_each(|_| fails(&mut a, "sick"));
    a.skip();
    a.ok("grant");
    a.expect(&["revoke 1"]);
    a.answer_all();
    a.expect_only(&["join", "grant"], &[]);
}

#[test]
fn p11_an_unhealthy_node_whose_join_is_in_flight_does_not_become_a_member() {
    let mut a = checked("a");
    a.tick();
    a.health(Ok(()));
    a.ok("grant");
    a.ok("read view/");
    a.ok("watch view/");
    (0..3).for_each(|_| fails(&mut a, "sick"));
    a.ok("join");
    a.deliver();
    a.expect_only(&["* joined", "elect"], &[]);
    a.answer_all();
    assert!(a.store.read(a.keys.nodes_prefix()).entries.is_empty());
}

#[test]
fn an_unregistered_node_is_not_checked_and_starts_over_when_it_registers() {
    let mut a = leading();
    a.unregister(1);
    a.answer_all();
    a.skip();
    assert_eq!(a.wakes_in(), None);
    a.wait(secs(60));
    a.expect(&[]);
    a.register(2);
    a.expect(&["check health"]);
    assert_eq!(a.status().health, Health::Unknown);
    a.health(Ok(()));
    a.answer_all();
    a.expect_only(&["reply"], &["reply 2: done"]);
}

#[test]
fn stopping_aborts_a_running_check_and_does_not_wait_for_it() {
    let mut a = leading();
    a.wait_for("check health");
    a.skip();
    a.stop();
    a.expect_only(&["abort", "check"], &["abort: check cancelled"]);
    a.answer_all();
    assert_eq!(a.status().phase, Phase::Stopped(StopReason::Asked));
}

#[test]
fn stopping_does_not_abort_a_check_that_was_already_aborted() {
    let mut a = leading();
    a.wait_for("check health");
    a.wait(secs(1));
    a.skip();
    a.stop();
    a.expect_only(&["abort"], &[]);
    a.answer_all();
    assert_eq!(a.status().phase, Phase::Stopped(StopReason::Asked));
}

#[test]
fn without_configured_checks_none_is_run() {
    let mut a = Bench::node("a").joined().leading();
    a.wait(secs(60));
    a.expect_only(&["check"], &[]);
    assert_eq!(a.status().health, Health::Unchecked);
}
