//! Time passes.

use super::bench::{Bench, ms, secs};
use crate::{machine::Phase, outcome::Outcome, store::ErrorKind};

#[test]
fn the_first_tick_asks_for_a_lease_and_reads_the_log() {
    let mut a = Bench::node("a");
    a.tick();
    a.says(&["grant 15s", "read view/"]);
    assert_eq!(a.wakes_in(), None, "replies bring it on");
}

#[test]
fn an_observer_takes_no_lease() {
    let mut a = Bench::observer();
    a.tick();
    a.says(&["read view/"]);
    assert_eq!(a.status().phase, Phase::Observing);
}

#[test]
fn a_lone_node_joins_leads_and_becomes_stable() {
    let mut a = Bench::node("a");
    a.tick();
    a.answer_all();
    a.says(&[
        "grant 15s",
        "read view/",
        "watch view/ after 0",
        "join",
        "* a is present at http://a",
        "* joined as a life",
        "elect V1: a was elected, a joined",
        "watch ready/ after 1",
        "* a leads, term 2 (this node)",
        "* version V1 of 1 node: a was elected, a joined",
        "* stabilizing V1, attempt 1",
        "stabilize V1 of a",
    ]);
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.says(&[
        "acknowledge V1",
        "* ready at V1",
        "confirm V1",
        "* stable at V1",
        "* calling on_stable of V1, term 2",
        "announce V1 in term 2",
    ]);
    a.announced();
    a.says(&[]);
    assert!(a.status().consistent);
    assert_eq!(a.wakes_in(), Some(secs(5)), "only to renew");
}

#[test]
fn p6_a_lease_is_renewed_after_a_third_of_its_ttl() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.advance(ms(4_999));
    b.says(&[]);
    b.advance(ms(1));
    b.says(&["renew"]);
    assert_eq!(b.wakes_in(), Some(secs(10)), "while it is on its way only the deadline counts");
}

#[test]
fn p6_leadership_is_suspended_at_its_deadline_and_the_session_ends_at_its_own() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.advance(secs(5));
    a.says(&["renew"]);
    a.advance(ms(4_999));
    assert!(a.is_leader());
    a.advance(ms(1));
    a.says(&["* leadership suspended, term 2: no renewal in time"]);
    assert!(!a.is_leader());
    assert_eq!(a.status().phase, Phase::Member, "its session lasts until it is over");
    a.advance(ms(4_999));
    a.says(&[]);
    a.advance(ms(1));
    a.says(&["unwatch", "* session lost: no renewal succeeded in time", "revoke 1"]);
    assert_eq!((a.status().session, a.status().leadership), (None, None));
    assert_eq!(a.status().phase, Phase::Joining);
}

#[test]
fn p6_no_tick_is_needed_for_leadership_to_be_over() {
    let mut a = Bench::node("a").joined().leading();
    let until = a.status().leadership.unwrap().until;
    assert_eq!(until, a.now + secs(10));
    // The process was stopped, and wakes up with a request in its hands.
    a.now = until;
    assert!(!a.is_leader());
    a.resign(1);
    a.says_of(
        &["reply"],
        &["reply 1: this node does not lead: ask the leader, or wait until this node leads"],
    );
}

#[test]
fn p6_a_suspend_beyond_the_session_ends_it_at_once() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.advance(secs(60));
    a.says(&["unwatch", "* session lost: no renewal succeeded in time", "revoke 1"]);
    // The lease had not expired, as the store saw it: now its keys go, and the node joins again.
    a.answer_all();
    a.says(&[
        "grant 15s",
        "* nobody leads",
        "* a is gone: its session ended",
        "join",
        "* a is present at http://a",
        "* joined again as a life",
        "elect V2: a was elected, a came back",
        "watch ready/ after 6",
        "* a leads, term 7 (this node)",
        "* version V2 of 1 node: a was elected, a came back",
        "* stabilizing V2, attempt 1",
        "stabilize V2 of a after V1",
    ]);
}

#[test]
fn candidates_campaign_in_the_order_of_their_age_a_stagger_apart() {
    let mut c = Bench::node("c").with(&["a", "b"]).joined();
    c.says(&[]);
    assert_eq!(c.wakes_in(), Some(ms(100)), "two are older");
    c.advance(ms(99));
    c.says(&[]);
    c.advance(ms(1));
    c.says(&["elect V1: c was elected, a joined, b joined, c joined", "watch ready/ after 3"]);
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
    // The smoothed round trip: an eighth of the last one, which joined.
    assert_eq!(b.wakes_in(), Some(ms(180)));
}

#[test]
fn the_node_that_led_last_is_no_rival_by_age() {
    // a, the oldest, gave up the lead and still stands: b campaigns at once.
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.delete("view/leader");
    b.says_of(&["elect"], &["elect V2: b was elected, the previous view is unknown"]);
}

#[test]
fn p6_no_campaign_past_the_leadership_deadline() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.advance(secs(5));
    b.advance(secs(6));
    b.skip();
    b.ends("a");
    b.says(&["* nobody leads", "* a is gone: its session ended"]);
    b.ok("renew");
    b.says_of(&["elect"], &["elect V2: b was elected, the previous view is unknown"]);
}

#[test]
fn a_refused_stabilize_is_tried_again_with_growing_pauses() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    let mut pauses = Vec::new();
    for _ in 0..8 {
        b.stabilized(Outcome::refused("disk full"));
        b.answer_all();
        pauses.push(b.wait_for("stabilize").as_millis());
    }
    // Up to a quarter is taken off at random.
    for (pause, whole) in pauses.iter().zip([100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
        assert!((whole * 3 / 4..=whole).contains(pause), "{pauses:?}");
    }
}

#[test]
fn a_stabilize_that_runs_long_is_reported_once_and_never_ended() {
    // It begins when no other timer does.
    let mut b = Bench::node("b").with(&["a"]).joined().after(ms(20)).led_by("a");
    b.wait(ms(29_999));
    b.says(&[]);
    b.wait(ms(1));
    b.says(&["* stabilize of V1, attempt 1, has been running for 30s"]);
    b.wait(secs(3600));
    b.says(&[]);
}

#[test]
fn a_stabilize_timeout_ends_it_and_it_is_tried_again() {
    let limit = |config: &mut crate::Config| config.stabilize_timeout = Some(secs(2));
    let mut b = Bench::node_with("b", limit).with(&["a"]).joined().led_by("a");
    b.wait(secs(2));
    b.says(&["abort: it was ended after 2s, the stabilize timeout"]);
    b.wait(secs(5));
    b.says(&[]);
    b.stabilized(Outcome::refused("ended"));
    b.says(&["* stabilize of V1 refused, attempt 1: ended", "acknowledge V1 failed: ended"]);
    b.wait(ms(100));
    b.says(&["* stabilizing V1, attempt 2", "stabilize V1 of a b, attempt 2"]);
}

#[test]
fn p8_laggards_are_named_after_a_while_and_then_ever_less_often() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged().after(secs(29));
    a.answers("b", a.newest(), Some("disk full"));
    assert_eq!(a.status().blocked, None);
    a.wait(ms(1_000));
    a.says(&["* V2 is not stable after 30s: b refused (disk full)"]);
    assert_eq!(a.status().blocked.unwrap().laggards.len(), 1);
    let mut heard = Vec::new();
    for second in 31..=300 {
        a.wait(secs(1));
        let before = heard.len();
        a.says_if("* V2 is not stable", &mut heard);
        if heard.len() > before {
            heard[before] = second.to_string();
        }
    }
    assert_eq!(heard, ["60", "120", "240"]);
}

#[test]
fn p8_one_that_has_not_answered_is_named_too() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.wait(secs(30));
    a.says(&["read ready/a", "* V2 is not stable after 30s: b has not answered"]);
    a.acknowledges("b");
    assert_eq!(a.status().blocked, None);
}

#[test]
fn p8_the_time_of_a_version_counts_from_when_it_was_seen_not_from_when_it_was_judged() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    // It stopped to expect acknowledgements before it heard that it leads, and reading them takes its time.
    b.lose("elect");
    b.deliver();
    b.wait(secs(10));
    b.ok("read ready/");
    b.skip();
    b.wait(ms(19_999));
    b.says_of(&["* V1"], &[]);
    b.wait(ms(1));
    b.says_of(&["* V1"], &["* V1 is not stable after 30s: a has not answered, b has not answered"]);
}

#[test]
fn p8_opt_in_laggards_are_evicted() {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.wait(secs(10));
    a.says(&["evict b"]);
    a.answer_all();
    a.says(&[
        "* b is gone: it was evicted",
        "* evicted b, which kept the version from becoming stable",
        "publish V3: b was evicted",
        "* version V3 of 1 node: b was evicted",
        "* stabilizing V3, attempt 1",
        "stabilize V3 of a after V2",
    ]);
}

#[test]
fn p8_a_version_that_became_stable_has_no_laggards_whatever_happens_later() {
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
    for happens in later {
        let mut a = stable();
        happens(&mut a);
        assert_eq!(a.status().blocked, None);
        a.wait(secs(4));
        a.says_of(&["evict", "resign", "* V2"], &[]);
    }
}

#[test]
fn p8_a_node_that_came_back_has_its_time_in_the_next_version() {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.wait(secs(10));
    a.ok("evict");
    a.deliver();
    a.skip();
    // The version without it is on its way when it is back.
    a.joins("b");
    a.wait(secs(4));
    a.says_of(&["evict"], &[]);
}

#[test]
fn p10_one_that_was_spared_and_leaves_later_was_not_evicted() {
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
    a.says_of(&["* evicted", "* b"], &["* b is gone: its session ended"]);
}

#[test]
fn p10_one_that_left_before_it_could_be_evicted_left() {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.wait(secs(10));
    a.unseen(|a| a.leaves("b"));
    a.ok("evict");
    a.deliver();
    a.says_of(&["* evicted", "* b"], &["* b is gone: it left"]);
}

#[test]
fn p8_others_are_evicted_before_a_leader_steps_down() {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    for other in ["b", "c", "d", "e", "f"] {
        a.joins(other);
    }
    a.ask(1, "together");
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
    a.says_of(&["evict", "* evicted", "resign"], &evicted);
    assert!(a.is_leader(), "with another view it has its time again");
}

#[test]
fn p8_a_leader_that_is_the_laggard_steps_down() {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.acknowledges("b");
    a.skip();
    a.wait(secs(10));
    a.says(&["resign"]);
    assert!(!a.is_leader());
    a.answer_all();
    a.says(&["* nobody leads", "unwatch"]);
    // Others first, for one TTL.
    a.wait(ms(14_999));
    a.says(&[]);
    a.wait(ms(1));
    a.says_of(&["elect"], &["elect V3: a was elected"]);
}

/// Sets up a leader with this many other nodes, the last of which are late or refuse when their time is up.
fn failing(late: &[&str], refusing: &[&str]) -> Bench {
    let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
    for other in ["b", "c", "d", "e"] {
        a.joins(other);
    }
    a.ask(1, "together");
    a.answer_all();
    a = a.acknowledged();
    let version = a.newest();
    for other in ["b", "c", "d", "e"].iter().filter(|other| !late.contains(other)) {
        a.answers(other, version, refusing.contains(other).then_some("no database"));
    }
    a.skip();
    a.wait(secs(10));
    a
}

#[test]
fn p8_nobody_is_evicted_while_more_than_half_of_the_view_is_late_or_refuses() {
    let mut a = failing(&["b"], &["c", "d"]);
    let version = a.newest();
    let told = "* mass failure: 3 of 5 nodes are late or refuse V2; evictions are suspended, look for a common cause";
    a.says_of(&["evict", "* mass failure", "* the mass"], &[told]);
    let failure = a.status().mass_failure.unwrap();
    assert_eq!((failure.version, failure.failing, failure.nodes), (version, 3, 5));
    a.wait(secs(600));
    a.says_of(&["evict", "* mass failure", "* the mass"], &[]);
    a.acknowledges("d");
    let over = "* the mass failure is over: laggards may be evicted again";
    a.says_of(&["evict", "* mass failure", "* the mass"], &[over, "evict b"]);
    assert_eq!(a.status().mass_failure, None);
}

#[test]
fn p8_up_to_half_of_the_view_is_evicted_one_after_the_other() {
    let mut a = failing(&["b"], &["c"]);
    a.says_of(&["evict", "* mass failure"], &["evict b"]);
}

#[test]
fn p8_a_mass_failure_is_over_when_the_version_is_stable_or_another_leads() {
    let over = ["* the mass failure is over: laggards may be evicted again"];
    let mut stable = failing(&["b"], &["c", "d"]);
    stable.skip();
    for other in ["b", "c", "d"] {
        stable.acknowledges(other);
    }
    stable.answer_all();
    stable.says_of(&["* the mass"], &over);
    let mut deposed = failing(&["b"], &["c", "d"]);
    deposed.skip();
    deposed.delete("view/leader");
    deposed.says_of(&["* the mass"], &over);
    assert_eq!(deposed.status().mass_failure, None);
}

#[test]
fn p8_nodes_that_are_gone_or_came_back_are_no_mass_failure() {
    let mut a = failing(&["b", "c"], &[]);
    a.unseen(|a| {
        a.ends("d");
        a.rewrites("e");
    });
    a.deliver_to("view/");
    a.says_of(&["* mass"], &[]);
}

#[test]
fn p8_a_lone_leader_that_refuses_keeps_the_lead() {
    let mut a = Bench::evicting("a").joined().leading();
    a.wait(secs(10));
    a.says(&[
        "* mass failure: 1 of 1 node are late or refuse V1; evictions are suspended, look for a common cause",
    ]);
    assert!(a.is_leader(), "nobody else could lead");
}

#[test]
fn a_commit_that_was_refused_for_no_visible_reason_is_tried_again_after_a_while() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    b.skip();
    b.fail("elect", ErrorKind::GuardFailed { revision: b.store.revision });
    b.wait(ms(4_999));
    b.says(&["unwatch"]);
    b.wait(ms(1));
    b.says(&["elect V2: b was elected, a joined, b joined", "watch ready/ after 2"]);
}
