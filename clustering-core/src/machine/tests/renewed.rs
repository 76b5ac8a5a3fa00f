//! The store renewed the lease, or did not.

use super::bench::{Bench, ms, secs};
use crate::{machine::Phase, store::ErrorKind};

#[test]
fn p6_deadlines_count_from_the_sending_of_the_renewal_not_from_its_reply() {
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
fn p6_less_time_than_the_ttl_is_believed_and_more_is_not() {
    for (left, until) in [(secs(4), secs(4)), (secs(3600), secs(15))] {
        let mut a = Bench::node("a").joined().leading();
        a.advance(secs(5));
        a.renew_with(left);
        assert_eq!(a.status().session.unwrap().until, a.now + until);
    }
}

#[test]
fn a_failed_renewal_is_repeated_every_half_second_until_the_deadline() {
    for kind in [ErrorKind::Unreachable, ErrorKind::OutcomeUnknown, ErrorKind::Busy, ErrorKind::Refused] {
        let mut a = Bench::node("a").joined().leading();
        a.advance(secs(5));
        a.fail("renew", kind);
        a.says_of(
            &["* the store is away", "* session", "renew"],
            &[
                "renew",
                match kind {
                    ErrorKind::Unreachable => {
                        "* the store is away: the store cannot be reached: as the test has it"
                    }
                    ErrorKind::OutcomeUnknown => {
                        "* the store is away: the outcome is unknown: as the test has it"
                    }
                    ErrorKind::Busy => "* the store is away: the store is busy: as the test has it",
                    _ => "* the store is away: the store refused: as the test has it",
                },
            ],
        );
        for _ in 0..8 {
            assert_eq!(a.wakes_in(), Some(ms(500)));
            a.advance(ms(500));
            a.fail("renew", kind);
        }
        a.says_of(&["* session", "* the store is away"], &[]);
        a.advance(ms(500));
        a.ok("renew");
        a.says(&["renew", "* the store is back after 4.5s"]);
    }
}

#[test]
fn a_failed_renewal_is_repeated_sooner_if_the_lease_is_short() {
    let mut a = Bench::node_with("a", |config| config.ttl = ms(1_200)).joined().leading();
    a.advance(ms(400));
    a.fail("renew", ErrorKind::Unreachable);
    assert_eq!(a.wakes_in(), Some(ms(500)), "a sixth of the TTL");
}

#[test]
fn p10_a_store_that_is_away_is_back_when_it_answers_not_when_the_session_ends() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.advance(secs(5));
    b.fail("renew", ErrorKind::Unreachable);
    b.skip();
    b.advance(secs(10));
    b.says_of(&["* session", "* the store"], &["* session lost: no renewal succeeded in time"]);
    b.fail("revoke", ErrorKind::Unreachable);
    b.says_of(&["* the store"], &[]);
    assert!(b.status().stale_since.is_some());
    b.wait(secs(1));
    b.ok("revoke");
    b.says_of(&["* the store"], &["* the store is back after 11s"]);

    // That it knows no such lease is an answer.
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.advance(secs(5));
    b.fail("renew", ErrorKind::Unreachable);
    b.skip();
    b.advance(ms(500));
    b.fail("renew", ErrorKind::LeaseNotFound);
    b.says_of(&["* the store"], &["* the store is back after 500ms"]);
}

#[test]
fn p6_a_leader_that_renews_in_the_last_third_leads_on_under_its_term() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.advance(secs(5));
    a.advance(secs(6));
    a.says(&["renew", "* leadership suspended, term 2: no renewal in time"]);
    assert!(!a.is_leader());
    a.unseen(|a| a.joins("b"));
    a.deliver();
    a.says(&["* b is present at http://other-b"]);
    a.ok("renew");
    a.says(&["renew", "* leadership resumed, term 2", "publish V2: b joined"]);
    assert!(a.is_leader());
}

#[test]
fn p7_a_lease_that_is_gone_ends_the_session_at_once() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.advance(secs(5));
    a.skip();
    a.fail("renew", ErrorKind::LeaseNotFound);
    a.says(&["unwatch", "* session lost: the store no longer knows the lease", "revoke 1"]);
    let status = a.status();
    assert_eq!((status.phase, status.leadership, status.acknowledged), (Phase::Joining, None, None));
}

#[test]
fn p7_no_time_left_is_a_lease_that_is_gone() {
    let mut a = Bench::node("a").joined();
    a.advance(secs(5));
    a.renew_with(ms(0));
    a.says_of(&["* session"], &["* session lost: the store no longer knows the lease"]);
}

#[test]
fn a_renewal_that_took_longer_than_its_interval_is_followed_at_once() {
    let mut a = Bench::node("a").joined().leading();
    a.advance(secs(5));
    a.skip();
    a.now = a.now + secs(6);
    a.ok("renew");
    a.says_of(&["renew"], &["renew"]);
}

#[test]
fn renewals_go_on_while_the_node_campaigns_and_waits_for_its_name() {
    let mut b = Bench::node("b").with(&["b"]).joined();
    b.wait(secs(60));
    assert_eq!(b.status().phase, Phase::Joining);
    assert!(b.store.lives_until(crate::store::LeaseId::new(2)).unwrap() > b.now);
}

#[test]
fn a_node_that_lost_its_session_before_it_was_a_member_says_nothing_of_it() {
    let mut b = Bench::node("b").with(&["b"]).joined();
    b.advance(secs(5));
    b.skip();
    b.fail("renew", ErrorKind::LeaseNotFound);
    b.says(&["revoke 2"]);
}

#[test]
fn times_that_are_set_go_before_those_that_follow_from_the_ttl() {
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
fn p6_a_renewal_that_succeeded_counts_also_when_its_reply_comes_late() {
    // Frozen over its deadline, with the reply waiting: the store renewed in time, so the lease lives.
    let mut a = Bench::node("a").joined().leading();
    a.advance(secs(5));
    a.advance(secs(4));
    let renewed = a.now;
    a.store.renew(renewed, a.lease_of("view/leader")).unwrap();
    a.now = a.now + secs(7);
    assert!(!a.is_leader());
    a.skip();
    a.renew_with(secs(15));
    a.says_of(&["* session"], &[]);
    assert_eq!(a.status().session.unwrap().until, renewed - secs(4) + secs(15));
    assert!(!a.is_leader(), "but it was sent too long ago to lead");
}
