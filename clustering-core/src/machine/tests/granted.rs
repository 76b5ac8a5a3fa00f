//! The store granted a lease, or failed to.

use super::bench::{Bench, ms, secs};
use crate::{machine::Phase, store::ErrorKind};

#[test]
fn a_node_does_not_register_before_its_watch_is_open() {
    let mut a = Bench::node("a");
    a.tick();
    a.skip();
    a.ok("grant");
    a.expect(&[]);
    a.ok("read view/");
    a.expect(&["watch view/ after 0"]);
    a.ok("watch");
    a.expect(&["join"]);
}

#[test]
fn a_node_that_already_watches_registers_as_soon_as_its_lease_is_granted() {
    let mut a = Bench::node("a");
    a.tick();
    a.ok("read view/");
    a.ok("watch");
    a.skip();
    a.ok("grant");
    a.expect(&["join"]);
}

#[test]
fn p6_deadlines_count_from_the_time_of_sending_and_use_the_granted_ttl() {
    let mut a = Bench::node("a");
    let sent = a.now;
    a.tick();
    a.now = sent + secs(2);
    a.grant_with(secs(60));
    assert_eq!(a.wakes_in(), Some(secs(18)), "renewed a third of 60 s after the sending");
    a.answer_all();
    let status = a.status();
    assert_eq!(status.session.unwrap().until, sent + secs(60));
    assert_eq!(status.leadership.unwrap().until, sent + secs(40));
}

#[test]
fn a_failed_grant_is_repeated_with_backoff() {
    let mut a = Bench::node("a");
    a.tick();
    a.ok("read view/");
    a.ok("watch");
    a.skip();
    a.fail("grant", ErrorKind::Unreachable);
    a.expect(&["* the store is away: the store cannot be reached: injected by the test"]);
    assert_eq!(a.status().stale_since, Some(a.now));
    for whole in [100, 200, 400] {
        let pause = a.wakes_in().unwrap();
        assert!((ms(whole * 3 / 4)..=ms(whole)).contains(&pause), "{pause:?}");
        a.wait(pause);
        a.expect(&["grant 15s"]);
        a.fail("grant", ErrorKind::OutcomeUnknown);
        a.expect(&[]);
    }
    a.wait(secs(1));
    a.skip();
    a.ok("grant");
    a.expect_only(&["join"], &["join"]);
    assert_eq!(a.status().stale_since, None);
}

#[test]
fn retries_of_failed_grants_are_spread_by_jitter() {
    let mut a = Bench::node("a");
    a.tick();
    let spread = (0..20).map(|_| {
        a.fail("grant", ErrorKind::Refused);
        a.wait_for("grant").as_millis()
    });
    // The pause is 5 s, less up to a quarter at random.
    let (least, most) =
        spread.fold((u128::MAX, 0), |(least, most), pause| (least.min(pause), most.max(pause)));
    assert!((3_750..4_100).contains(&least) && (4_650..=5_000).contains(&most), "{least} to {most}");
}

#[test]
fn a_refused_grant_is_reported_each_time_and_rarely_retried() {
    for kind in [ErrorKind::Refused, ErrorKind::Invalid] {
        let mut a = Bench::node("a");
        a.tick();
        a.skip();
        a.fail("grant", kind);
        a.expect_only(
            &["* operator action needed"],
            &[match kind {
                ErrorKind::Refused => "* operator action needed: the store refused: injected by the test",
                _ => "* operator action needed: invalid call: injected by the test",
            }],
        );
        assert!(a.wakes_in().unwrap() >= ms(3_750));
    }
}

#[test]
fn a_lease_granted_after_a_stop_is_revoked() {
    let mut a = Bench::node("a");
    a.tick();
    a.skip();
    a.stop();
    a.expect(&[]);
    assert_eq!(a.status().phase, Phase::Leaving);
    a.ok("grant");
    a.expect(&["revoke 1"]);
    a.ok("revoke");
    a.expect(&["* stopped: it was asked to stop", "stopped: it was asked to stop"]);
}

#[test]
fn p6_a_lease_that_expired_before_its_reply_arrived_is_revoked_and_replaced() {
    let mut a = Bench::node("a");
    a.tick();
    a.skip();
    a.now = a.now + secs(15);
    a.ok("grant");
    a.expect(&["revoke 1"]);
    a.ok("revoke");
    a.expect(&["grant 15s"]);
}

#[test]
fn the_call_timeout_is_a_sixth_of_the_requested_ttl_and_then_of_the_granted_one() {
    let mut a = Bench::node("a");
    a.tick();
    assert_eq!(a.timeouts(), [ms(2_500), ms(2_500)]);
    a.grant_with(secs(60));
    a.ok("read");
    a.ok("watch");
    assert_eq!(a.timeouts(), [secs(10)]);

    let mut a = Bench::node_with("a", |config| config.call_timeout = Some(ms(700)));
    a.tick();
    assert_eq!(a.timeouts(), [ms(700), ms(700)]);
}
