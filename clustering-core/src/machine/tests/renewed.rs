//! The store renewed the lease, or failed to.

use super::bench::{Bench, ms, secs};
use crate::{
    machine::{Input, Output, Phase},
    store::{ErrorKind, Revision},
};

#[test]
fn p6_deadlines_count_from_the_time_a_renewal_was_sent() {
    let mut a = Bench::node("a").joined().leading();
    a.advance(secs(5));
    let sent = a.now;
    a.now = sent + secs(2);
    a.ok("renew");
    assert_eq!(a.status().session.unwrap().until, sent + secs(15));
    assert_eq!(a.status().leadership.unwrap().until, sent + secs(10));
    assert_eq!(a.wakes_in(), Some(secs(3)), "the next one is due 5 s after this one was sent");
}

#[test]
fn p6_a_remaining_time_below_the_ttl_shortens_the_session_and_a_longer_one_is_ignored() {
    for (left, until) in [(secs(4), secs(4)), (secs(3600), secs(15))] {
        let mut a = Bench::node("a").joined().leading();
        a.advance(secs(5));
        a.renew_with(left);
        assert_eq!(a.status().session.unwrap().until, a.now + until);
    }
}

#[test]
fn a_reply_of_the_wrong_kind_does_not_discard_the_awaited_reply() {
    let mut a = Bench::node("a").joined().leading();
    a.advance(secs(5));
    let Output::Renew { token, .. } = a.take("renew") else { unreachable!() };
    a.machine.handle(a.now, Input::Committed { token, result: Ok(Revision::new(9)) });
    a.input(Input::Renewed { token, result: Ok(secs(15)) });
    assert_eq!(a.status().session.unwrap().until, a.now + secs(15));
}

#[test]
fn a_failed_renewal_is_repeated_every_half_second_until_the_deadline() {
    for kind in [ErrorKind::Unreachable, ErrorKind::OutcomeUnknown, ErrorKind::Busy, ErrorKind::Refused] {
        let mut a = Bench::node("a").joined().leading();
        a.advance(secs(5));
        a.fail("renew", kind);
        a.expect_only(
            &["* the store is away", "* session", "renew"],
            &[
                "renew",
                match kind {
                    ErrorKind::Unreachable => {
                        "* the store is away: the store cannot be reached: injected by the test"
                    }
                    ErrorKind::OutcomeUnknown => {
                        "* the store is away: the outcome is unknown: injected by the test"
                    }
                    ErrorKind::Busy => "* the store is away: the store is busy: injected by the test",
                    _ => "* the store is away: the store refused: injected by the test",
                },
            ],
        );
        for _ in 0..8 {
            assert_eq!(a.wakes_in(), Some(ms(500)));
            a.advance(ms(500));
            a.fail("renew", kind);
        }
        a.expect_only(&["* session", "* the store is away"], &[]);
        a.advance(ms(500));
        a.ok("renew");
        a.expect(&["renew", "* the store is back after 4.5s"]);
    }
}

#[test]
fn a_failed_renewal_is_repeated_sooner_if_the_lease_is_short() {
    let mut a = Bench::node_with("a", |config| config.ttl = ms(1_200)).joined().leading();
    a.advance(ms(400));
    a.fail("renew", ErrorKind::Unreachable);
    assert_eq!(a.wakes_in(), Some(ms(200)), "a sixth of the TTL");
}

#[test]
fn p10_an_outage_ends_when_the_store_answers_and_not_when_the_session_ends() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.advance(secs(5));
    b.fail("renew", ErrorKind::Unreachable);
    b.skip();
    b.advance(secs(10));
    b.expect_only(&["* session", "* the store"], &["* session lost: no renewal succeeded in time"]);
    b.fail("revoke", ErrorKind::Unreachable);
    b.expect_only(&["* the store"], &[]);
    assert!(b.status().stale_since.is_some());
    b.wait(secs(1));
    b.ok("revoke");
    b.expect_only(&["* the store"], &["* the store is back after 11s"]);

    // An unknown lease is an answer too.
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.advance(secs(5));
    b.fail("renew", ErrorKind::Unreachable);
    b.skip();
    b.advance(ms(500));
    b.fail("renew", ErrorKind::LeaseNotFound);
    b.expect_only(&["* the store"], &["* the store is back after 500ms"]);
}

#[test]
fn p6_a_suspended_leader_whose_renewal_succeeds_resumes_its_term() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.advance(secs(5));
    a.advance(secs(6));
    a.expect(&["renew", "* leadership suspended, term 2: no renewal in time"]);
    assert!(!a.is_leader());
    a.unseen(|a| a.joins("b"));
    a.deliver();
    a.expect(&["* b is present at http://other-b"]);
    a.ok("renew");
    a.expect(&["renew", "* leadership resumed, term 2", "publish V2: b joined"]);
    assert!(a.is_leader());
}

#[test]
fn p7_an_unknown_lease_ends_the_session_immediately() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.advance(secs(5));
    a.skip();
    a.fail("renew", ErrorKind::LeaseNotFound);
    a.expect(&["unwatch", "* session lost: the store no longer knows the lease", "revoke 1"]);
    let status = a.status();
    assert_eq!((status.phase, status.leadership, status.acknowledged), (Phase::Joining, None, None));
}

#[test]
fn p7_a_renewal_with_no_remaining_time_ends_the_session() {
    let mut a = Bench::node("a").joined();
    a.advance(secs(5));
    a.renew_with(ms(0));
    a.expect_only(&["* session"], &["* session lost: the store no longer knows the lease"]);
}

#[test]
fn a_renewal_slower_than_its_interval_is_followed_immediately_by_the_next() {
    let mut a = Bench::node("a").joined().leading();
    a.advance(secs(5));
    a.skip();
    a.now = a.now + secs(6);
    a.ok("renew");
    a.expect_only(&["renew"], &["renew"]);
}

#[test]
fn a_node_that_waits_for_its_name_keeps_its_lease() {
    let mut b = Bench::node("b").with(&["b"]).joined();
    b.wait(secs(60));
    assert_eq!(b.status().phase, Phase::Joining);
    assert!(b.store.lives_until(crate::store::LeaseId::new(2)).unwrap() > b.now);
}

#[test]
fn losing_a_lease_before_the_node_is_a_member_is_not_reported() {
    let mut b = Bench::node("b").with(&["b"]).joined();
    b.advance(secs(5));
    b.skip();
    b.fail("renew", ErrorKind::LeaseNotFound);
    b.expect(&["revoke 2"]);
}

#[test]
fn configured_times_override_those_derived_from_the_ttl() {
    let mut a = Bench::node_with("a", |config| {
        config.renew_every = Some(secs(2));
        config.leadership = Some(secs(8));
    });
    a = a.joined().leading();
    assert_eq!(a.status().leadership.unwrap().until, a.now + secs(8));
    a.advance(secs(2));
    a.skip();
    a.fail("renew", ErrorKind::Unreachable);
    assert_eq!(a.wakes_in(), Some(ms(500)));
}

#[test]
fn p6_a_successful_renewal_counts_even_if_its_reply_arrives_after_the_deadline() {
    // The process is frozen past its deadline while the reply waits. The store renewed in time, so the lease is alive.
    let mut a = Bench::node("a").joined().leading();
    a.advance(secs(5));
    a.advance(secs(4));
    let renewed = a.now;
    a.store.renew(renewed, a.lease_of("view/leader")).unwrap();
    a.now = a.now + secs(7);
    assert!(!a.is_leader());
    a.skip();
    a.renew_with(secs(15));
    a.expect_only(&["* session"], &[]);
    assert_eq!(a.status().session.unwrap().until, renewed - secs(4) + secs(15));
    assert!(!a.is_leader(), "the renewal was sent too long ago to lead");
}
