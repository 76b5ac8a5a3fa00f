//! The store granted a lease, or did not.

use super::bench::{Bench, ms, secs};
use crate::{machine::Phase, store::ErrorKind};

#[test]
fn nothing_is_registered_before_the_watch_is_open() {
    let mut a = Bench::node("a");
    a.tick();
    a.skip();
    a.ok("grant");
    a.says(&[]);
    a.ok("read view/");
    a.says(&["watch view/ after 0"]);
    a.ok("watch");
    a.says(&["join"]);
}

#[test]
fn a_lease_that_comes_last_registers_at_once() {
    let mut a = Bench::node("a");
    a.tick();
    a.ok("read view/");
    a.ok("watch");
    a.skip();
    a.ok("grant");
    a.says(&["join"]);
}

#[test]
fn p6_deadlines_count_from_the_sending_and_from_the_ttl_that_was_granted() {
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
fn a_grant_that_failed_is_tried_again_with_growing_pauses() {
    let mut a = Bench::node("a");
    a.tick();
    a.ok("read view/");
    a.ok("watch");
    a.skip();
    a.fail("grant", ErrorKind::Unreachable);
    a.says(&["* the store is away: the store cannot be reached: as the test has it"]);
    assert_eq!(a.status().stale_since, Some(a.now));
    for whole in [100, 200, 400] {
        let pause = a.wakes_in().unwrap();
        assert!((ms(whole * 3 / 4)..=ms(whole)).contains(&pause), "{pause:?}");
        a.wait(pause);
        a.says(&["grant 15s"]);
        a.fail("grant", ErrorKind::OutcomeUnknown);
        a.says(&[]);
    }
    a.wait(secs(1));
    a.skip();
    a.ok("grant");
    a.says_of(&["join"], &["join"]);
    assert_eq!(a.status().stale_since, None);
}

#[test]
fn nodes_that_failed_together_do_not_come_back_together() {
    let mut a = Bench::node("a");
    a.tick();
    let spread = (0..20).map(|_| {
        a.fail("grant", ErrorKind::Refused);
        a.wait_for("grant").as_millis()
    });
    // Of 5 s, up to a quarter is taken off at random.
    let (least, most) =
        spread.fold((u128::MAX, 0), |(least, most), pause| (least.min(pause), most.max(pause)));
    assert!((3_750..4_100).contains(&least) && (4_650..=5_000).contains(&most), "{least} to {most}");
}

#[test]
fn a_store_that_refuses_is_reported_each_time_and_asked_seldom() {
    for kind in [ErrorKind::Refused, ErrorKind::Invalid] {
        let mut a = Bench::node("a");
        a.tick();
        a.skip();
        a.fail("grant", kind);
        a.says_of(
            &["* operator action needed"],
            &[match kind {
                ErrorKind::Refused => "* operator action needed: the store refused: as the test has it",
                _ => "* operator action needed: invalid call: as the test has it",
            }],
        );
        assert!(a.wakes_in().unwrap() >= ms(3_750));
    }
}

#[test]
fn a_lease_that_nobody_wants_any_more_is_given_back() {
    let mut a = Bench::node("a");
    a.tick();
    a.skip();
    a.stop();
    a.says(&[]);
    assert_eq!(a.status().phase, Phase::Leaving);
    a.ok("grant");
    a.says(&["revoke 1"]);
    a.ok("revoke");
    a.says(&["* stopped: it was asked to stop", "stopped: it was asked to stop"]);
}

#[test]
fn p6_a_grant_whose_reply_took_longer_than_the_lease_is_no_session() {
    let mut a = Bench::node("a");
    a.tick();
    a.skip();
    a.now = a.now + secs(15);
    a.ok("grant");
    a.says(&["revoke 1"]);
    a.ok("revoke");
    a.says(&["grant 15s"]);
}

#[test]
fn calls_may_take_a_sixth_of_the_ttl_asked_for_and_then_of_the_one_granted() {
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
