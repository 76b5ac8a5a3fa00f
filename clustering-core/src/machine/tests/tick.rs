//! Time passes.

use super::bench::{Bench, ms, secs};
use crate::{
    machine::Phase,
    outcome::Outcome,
    store::{ErrorKind, Revision, WatchEnd},
};

#[test]
fn the_first_tick_requests_a_lease_and_reads_the_log() {
    let mut a = Bench::node("a");
    a.tick();
    a.expect(&["grant 15s", "read view/"]);
    assert_eq!(a.wakes_in(), None, "replies wake the machine");
}

#[test]
fn an_observer_requests_no_lease() {
    let mut a = Bench::observer();
    a.tick();
    a.expect(&["read view/"]);
    assert_eq!(a.status().phase, Phase::Observing);
}

#[test]
fn a_lone_node_joins_leads_and_becomes_stable() {
    let mut a = Bench::node("a");
    a.tick();
    a.answer_all();
    a.expect(&[
        "grant 15s",
        "read view/",
        "watch view/ after 0",
        "join",
        "* a is present at http://a",
        "* joined as <ULID>",
        "elect V1: a was elected, a joined",
        "watch ready/ after 1",
        "* a leads, term 2 (this node)",
        "* version V1 of 1 node: a was elected, a joined",
        "* stabilizing V1, attempt 1",
        "stabilize V1 of a",
    ]);
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.expect(&[
        "acknowledge V1",
        "* ready at V1",
        "confirm V1",
        "* stable at V1",
        "* calling on_stable of V1, term 2",
        "announce V1 in term 2",
    ]);
    a.announced();
    a.expect(&[]);
    assert!(a.status().consistent);
    assert_eq!(a.wakes_in(), Some(secs(5)), "the only wake-up is for the renewal");
}

#[test]
fn p6_a_lease_is_renewed_after_a_third_of_its_ttl() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.advance(ms(4_999));
    b.expect(&[]);
    b.advance(ms(1));
    b.expect(&["renew"]);
    assert_eq!(
        b.wakes_in(),
        Some(secs(10)),
        "while a renewal is in flight, the only wake-up is for the deadline"
    );
}

#[test]
fn p6_leadership_and_session_each_end_at_their_own_deadline() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.advance(secs(5));
    a.expect(&["renew"]);
    a.advance(ms(4_999));
    assert!(a.is_leader());
    a.advance(ms(1));
    a.expect(&["* leadership suspended, term 2: no renewal in time"]);
    assert!(!a.is_leader());
    assert_eq!(a.status().phase, Phase::Member, "the session lasts longer than leadership");
    a.advance(ms(4_999));
    a.expect(&[]);
    a.advance(ms(1));
    a.expect(&["unwatch", "* session lost: no renewal succeeded in time", "revoke 1"]);
    assert_eq!((a.status().session, a.status().leadership), (None, None));
    assert_eq!(a.status().phase, Phase::Joining);
}

#[test]
fn p6_leadership_ends_at_its_deadline_without_a_tick() {
    let mut a = Bench::node("a").joined().leading();
    let until = a.status().leadership.unwrap().until;
    assert_eq!(until, a.now + secs(10));
    // The process was frozen, and resumes with a request to handle.
    a.now = until;
    assert!(!a.is_leader());
    a.resign(1);
    a.expect_only(
        &["reply"],
        &["reply 1: this node does not lead: ask the leader, or wait until this node leads"],
    );
}

#[test]
fn p6_a_suspend_longer_than_the_session_ends_it_immediately() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.advance(secs(60));
    a.expect(&["unwatch", "* session lost: no renewal succeeded in time", "revoke 1"]);
    // The lease has not expired in the store. Revoking it deletes its keys, and the node rejoins.
    a.answer_all();
    a.expect(&[
        "grant 15s",
        "* nobody leads",
        "* a is gone: its session ended",
        "join",
        "* a is present at http://a",
        "* joined again as <ULID>",
        "elect V2: a was elected, a came back",
        "watch ready/ after 6",
        "* a leads, term 7 (this node)",
        "* version V2 of 1 node: a was elected, a came back",
        "* stabilizing V2, attempt 1",
        "stabilize V2 of a after V1",
    ]);
}

#[test]
fn candidates_campaign_one_stagger_apart() {
    let mut c = Bench::node("c").with(&["a", "b"]).joined();
    c.expect(&[]);
    assert_eq!(c.wakes_in(), Some(ms(100)), "two nodes go first");
    c.advance(ms(99));
    c.expect(&[]);
    c.advance(ms(1));
    c.expect(&["elect V1: c was elected, a joined, b joined, c joined", "watch ready/ after 3"]);
}

#[test]
fn the_stagger_is_at_least_twice_the_round_trip() {
    let mut b = Bench::node("b").with(&["a"]);
    b.tick();
    b.now = b.now + ms(80);
    b.ok("grant");
    b.ok("read");
    b.ok("watch");
    b.now = b.now + ms(160);
    b.answer_all();
    b.skip();
    // The smoothed round trip, in which the last one, the join, counts one eighth.
    assert_eq!(b.wakes_in(), Some(ms(180)));
}

#[test]
fn candidates_do_not_wait_for_the_node_that_led_last() {
    // a, the first candidate, gave up its leadership and is still present. b campaigns immediately.
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.delete("view/leader");
    b.expect_only(&["elect"], &["elect V2: b was elected, the previous view is unknown"]);
}

#[test]
fn p6_a_node_past_its_leadership_deadline_does_not_campaign() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.advance(secs(5));
    b.advance(secs(6));
    b.skip();
    b.ends("a");
    b.expect(&["* nobody leads", "* a is gone: its session ended"]);
    b.ok("renew");
    b.expect_only(&["elect"], &["elect V2: b was elected, the previous view is unknown"]);
}

#[test]
fn a_refused_stabilize_is_retried_with_backoff() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    let mut pauses = Vec::new();
    for _ in 0..8 {
        b.stabilized(Outcome::refused("disk full"));
        b.answer_all();
        pauses.push(b.wait_for("stabilize").as_millis());
    }
    // Each pause is shortened by up to a quarter at random.
    for (pause, whole) in pauses.iter().zip([100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
        assert!((whole * 3 / 4..=whole).contains(pause), "{pauses:?}");
    }
}

#[test]
fn a_slow_stabilize_is_reported_once_and_never_aborted() {
    // The stabilize starts at a time at which no other timer starts.
    let mut b = Bench::node("b").with(&["a"]).joined().after(ms(20)).led_by("a");
    b.wait(ms(29_999));
    b.expect(&[]);
    b.wait(ms(1));
    b.expect(&["* stabilize of V1, attempt 1, has been running for 30s"]);
    b.wait(secs(3600));
    b.expect(&[]);
}

#[test]
fn a_stabilize_that_exceeds_its_timeout_is_aborted_and_retried() {
    let limit = |config: &mut crate::Config| config.stabilize_timeout = Some(secs(2));
    let mut b = Bench::node_with("b", limit).with(&["a"]).joined().led_by("a");
    b.wait(secs(2));
    b.expect(&["abort: it was ended after 2s, the stabilize timeout"]);
    b.wait(secs(5));
    b.expect(&[]);
    b.stabilized(Outcome::refused("ended"));
    b.expect(&["* stabilize of V1 refused, attempt 1: ended", "acknowledge V1 failed: ended"]);
    b.wait(ms(100));
    b.expect(&["* stabilizing V1, attempt 2", "stabilize V1 of a b, attempt 2"]);
}

#[test]
fn p8_laggards_are_reported_with_growing_intervals() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged().after(secs(29));
    a.acknowledges_version("b", a.newest(), Some("disk full"));
    assert_eq!(a.status().blocked, None);
    a.wait(ms(1_000));
    a.expect(&["* V2 is not stable after 30s: b refused (disk full)"]);
    assert_eq!(a.status().blocked.unwrap().laggards.len(), 1);
    let mut reports = Vec::new();
    for second in 31..=300 {
        a.wait(secs(1));
        let before = reports.len();
        a.collect("* V2 is not stable", &mut reports);
        if reports.len() > before {
            reports[before] = second.to_string();
        }
    }
    assert_eq!(reports, ["60", "120", "240"]);
}

#[test]
fn p8_a_node_that_has_not_acknowledged_is_reported_as_a_laggard() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.wait(secs(30));
    a.expect(&["read ready/a", "* V2 is not stable after 30s: b has not answered"]);
    a.acknowledges("b");
    assert_eq!(a.status().blocked, None);
}

#[test]
fn p8_the_age_of_a_version_counts_from_when_it_was_seen_and_not_from_the_read_of_acknowledgements() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    // The node stopped watching acknowledgements before it learned that it leads, and reading them takes a while.
    b.lose("elect");
    b.deliver();
    b.wait(secs(10));
    b.ok("read ready/");
    b.skip();
    b.wait(ms(19_999));
    b.expect_only(&["* V1"], &[]);
    b.wait(ms(1));
    b.expect_only(&["* V1"], &["* V1 is not stable after 30s: a has not answered, b has not answered"]);
}

#[test]
fn p8_laggards_are_evicted_if_so_configured() {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.wait(secs(10));
    a.expect(&["evict b"]);
    a.answer_all();
    a.expect(&[
        "* b is gone: it was evicted",
        "* evicted b, which kept the version from becoming stable",
        "publish V3: b was evicted",
        "* version V3 of 1 node: b was evicted",
        "* stabilizing V3, attempt 1",
        "stabilize V3 of a after V2",
    ]);
}

#[test]
fn p8_a_stable_version_has_no_laggards_whatever_happens_later() {
    let stable = || {
        let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
        a.joins("b");
        a.answer_all();
        a = a.acknowledged();
        a.acknowledges("b");
        a.answer_all();
        a.announced();
        a.after(secs(100))
    };
    let later: [fn(&mut Bench); 4] = [
        |a| a.ends("b"),
        |a| a.rewrites("b"),
        |a| a.delete("ready/b"),
        |a| {
            a.update(1, "x");
            a.answer_all();
        },
    ];
    for change in later {
        let mut a = stable();
        change(&mut a);
        assert_eq!(a.status().blocked, None);
        a.wait(secs(4));
        a.expect_only(&["evict", "resign", "* V2"], &[]);
    }
}

#[test]
fn p8_an_evicted_node_that_rejoined_is_not_evicted_again_before_the_next_version() {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.wait(secs(10));
    a.ok("evict");
    a.deliver();
    a.skip();
    // b rejoins while the version without it is in flight.
    a.joins("b");
    a.wait(secs(4));
    a.expect_only(&["evict"], &[]);
}

#[test]
fn p10_a_node_whose_eviction_failed_and_that_crashes_later_is_not_reported_as_evicted() {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.wait(secs(10));
    a.unseen(|a| a.rewrites("b"));
    a.ok("evict");
    a.deliver();
    a.answer_all();
    a.skip();
    a.ends("b");
    a.expect_only(&["* evicted", "* b"], &["* b is gone: its session ended"]);
}

#[test]
fn p10_an_eviction_is_not_reported_after_the_store_was_restored() {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.wait(secs(10));
    a.unseen(|a| a.ok("evict"));
    a.watch_ends("view/", WatchEnd::Rewound { revision: Revision::new(1) });
    a.skip();
    a.ok("read view/");
    a.expect_only(&["* evicted", "* b"], &["* b is gone: it was evicted"]);
}

#[test]
fn p10_a_node_that_left_before_its_eviction_is_reported_as_left() {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.wait(secs(10));
    a.unseen(|a| a.leaves("b"));
    a.ok("evict");
    a.deliver();
    a.expect_only(&["* evicted", "* b"], &["* b is gone: it left"]);
}

#[test]
fn p8_other_laggards_are_evicted_before_the_leader_resigns() {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    for other in ["b", "c", "d", "e", "f"] {
        a.joins(other);
    }
    a.request_version(1, "together");
    a.answer_all();
    for other in ["d", "e", "f"] {
        a.acknowledges(other);
    }
    a.skip();
    a.wait(secs(10));
    a.answer_all();
    let evicted = [
        "evict b",
        "* evicted b, which kept the version from becoming stable",
        "evict c",
        "* evicted c, which kept the version from becoming stable",
    ];
    a.expect_only(&["evict", "* evicted", "resign"], &evicted);
    assert!(a.is_leader(), "with a new version the leader's time starts again");
}

#[test]
fn p8_a_leader_that_is_the_only_laggard_resigns() {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.acknowledges("b");
    a.skip();
    a.wait(secs(10));
    a.expect(&["resign"]);
    assert!(!a.is_leader());
    a.answer_all();
    a.expect(&["* nobody leads", "unwatch"]);
    // Other candidates come first for one TTL.
    a.wait(ms(14_999));
    a.expect(&[]);
    a.wait(ms(1));
    a.expect_only(&["elect"], &["elect V3: a was elected"]);
}

/// Returns a leader with four other nodes, some of which are late or refuse when their time is up.
fn failing(late: &[&str], refusing: &[&str]) -> Bench {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    for other in ["b", "c", "d", "e"] {
        a.joins(other);
    }
    a.request_version(1, "together");
    a.answer_all();
    a = a.acknowledged();
    let version = a.newest();
    for other in ["b", "c", "d", "e"].iter().filter(|other| !late.contains(other)) {
        a.acknowledges_version(other, version, refusing.contains(other).then_some("no database"));
    }
    a.skip();
    a.wait(secs(10));
    a
}

#[test]
fn p8_no_node_is_evicted_while_more_than_half_of_the_view_is_late_or_refuses() {
    let mut a = failing(&["b"], &["c", "d"]);
    let version = a.newest();
    let event = "* mass failure: 3 of 5 nodes are late or refuse V2; evictions are suspended, look for a common cause";
    a.expect_only(&["evict", "* mass failure", "* the mass"], &[event]);
    let failure = a.status().mass_failure.unwrap();
    assert_eq!((failure.version, failure.failing, failure.nodes), (version, 3, 5));
    a.wait(secs(600));
    a.expect_only(&["evict", "* mass failure", "* the mass"], &[]);
    a.acknowledges("d");
    let over = "* the mass failure is over: laggards may be evicted again";
    a.expect_only(&["evict", "* mass failure", "* the mass"], &[over, "evict b"]);
    assert_eq!(a.status().mass_failure, None);
}

#[test]
fn p8_laggards_are_evicted_while_at_most_half_of_the_view_is_late_or_refuses() {
    let mut a = failing(&["b"], &["c"]);
    a.expect_only(&["evict", "* mass failure"], &["evict b"]);
}

#[test]
fn p8_a_mass_failure_ends_when_the_version_is_stable_or_the_leader_changes() {
    let over = ["* the mass failure is over: laggards may be evicted again"];
    let mut stable = failing(&["b"], &["c", "d"]);
    stable.skip();
    for other in ["b", "c", "d"] {
        stable.acknowledges(other);
    }
    stable.answer_all();
    stable.expect_only(&["* the mass"], &over);
    let mut deposed = failing(&["b"], &["c", "d"]);
    deposed.skip();
    deposed.delete("view/leader");
    deposed.expect_only(&["* the mass"], &over);
    assert_eq!(deposed.status().mass_failure, None);
}

#[test]
fn p8_nodes_that_departed_or_changed_do_not_count_towards_a_mass_failure() {
    let mut a = failing(&["b", "c"], &[]);
    a.unseen(|a| {
        a.ends("d");
        a.rewrites("e");
    });
    a.deliver_to("view/");
    a.expect_only(&["* mass"], &[]);
}

#[test]
fn p8_a_lone_leader_that_is_late_does_not_resign() {
    let mut a = Bench::evicting("a").joined().leading();
    a.wait(secs(10));
    a.expect(&[
        "* mass failure: 1 of 1 node are late or refuse V1; evictions are suspended, look for a common cause",
    ]);
    assert!(a.is_leader(), "no other node could lead");
}

#[test]
fn a_commit_whose_guard_failed_without_visible_reason_is_retried_after_a_pause() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    b.skip();
    b.fail("elect", ErrorKind::GuardFailed { revision: b.store.revision });
    b.wait(ms(4_999));
    b.expect(&["unwatch"]);
    b.wait(ms(1));
    b.expect(&["elect V2: b was elected, a joined, b joined", "watch ready/ after 2"]);
}
