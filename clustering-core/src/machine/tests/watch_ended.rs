//! A watch ended.

use super::bench::{Bench, ms, secs};
use crate::{
    outcome::Outcome,
    store::{ErrorKind, Revision, WatchEnd},
};

#[test]
fn p1_a_broken_watch_goes_on_after_the_last_revision_folded() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.unseen(|b| {
        b.joins("c");
        b.publishes();
    });
    b.disconnects("view/");
    b.says(&[
        "* the store is away: the watch was disconnected (reset): watch again after the last revision seen",
    ]);
    assert!(b.wakes_in().unwrap() < ms(100), "soon, but not all nodes at once");
    b.wait(ms(100));
    b.says(&["watch view/ after 3"]);
    b.ok("watch view/");
    b.deliver();
    b.says_of(
        &["* c", "stabilize", "* the store"],
        &[
            "* the store is back after 100ms",
            "* c is present at http://other-c",
            "stabilize V2 of a b c after V1",
        ],
    );
}

#[test]
fn a_watch_that_breaks_again_and_again_is_opened_ever_more_seldom() {
    let mut o = Bench::observer().joined();
    o.disconnects("view/");
    for pause in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
        o.wait(secs(1).max(ms(pause)));
        o.ok("watch view/");
        o.disconnects("view/");
        assert_eq!(o.wakes_in(), Some(ms(pause)));
    }
    // One that was open for longer than that was a good one.
    o.wait(secs(5));
    o.ok("watch view/");
    o.wait(secs(5));
    o.disconnects("view/");
    assert_eq!(o.wakes_in(), Some(secs(5)));
    o.wait(secs(5));
    o.ok("watch view/");
    o.wait(secs(5) + ms(1));
    o.disconnects("view/");
    assert!(o.wakes_in().unwrap() < ms(100));
}

#[test]
fn a_watch_that_yields_was_a_good_one() {
    let mut o = Bench::observer().joined();
    for _ in 0..5 {
        o.disconnects("view/");
        assert!(o.wakes_in().unwrap() < ms(100));
        o.wait(ms(100));
        o.ok("watch view/");
        o.joins("a");
    }
}

#[test]
fn compacted_means_to_read_anew() {
    let mut o = Bench::observer().joined();
    o.skip();
    o.watch_ends("view/", WatchEnd::Compacted { compacted: Revision::new(7) });
    o.says(&["read view/"]);
}

#[test]
fn nothing_is_said_to_be_stable_while_changes_are_missing() {
    for end in [
        WatchEnd::Compacted { compacted: Revision::new(7) },
        WatchEnd::Disconnected { reason: "reset".to_owned() },
    ] {
        let mut a = Bench::node("a").joined().leading().stable();
        assert!(a.status().consistent && a.status().is_stable());
        a.watch_ends("view/", end);
        assert!(!a.status().consistent && !a.status().is_stable());
        a.wait(ms(200));
        a.answer_all();
        assert!(a.status().consistent && a.status().is_stable());
    }
}

#[test]
fn a_node_does_not_register_while_it_does_not_watch() {
    let mut b = Bench::node("b").with(&["b"]).joined();
    b.disconnects("view/");
    b.store.compact();
    b.unseen(|b| b.ends("b"));
    b.wait(ms(100));
    b.skip();
    b.ok("watch view/");
    b.says_of(&["join"], &[]);
    b.deliver();
    b.says_of(&["join"], &["join"]);
}

#[test]
fn a_leader_leads_on_while_its_watch_is_broken() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.disconnects("view/");
    assert!(a.is_leader());
    assert!(a.status().stale_since.is_some());
}

#[test]
fn acknowledgements_are_read_anew_whatever_ended_their_watch() {
    let ends = [
        WatchEnd::Disconnected { reason: "reset".to_owned() },
        WatchEnd::Compacted { compacted: Revision::new(7) },
        WatchEnd::Rewound { revision: Revision::new(1) },
    ];
    for end in ends {
        let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
        a.joins("b");
        a.answer_all();
        a = a.acknowledged();
        a.unseen(|a| a.acknowledges("b"));
        a.watch_ends("ready/", end);
        a.says(&["read ready/"]);
        a.ok("read ready/");
        a.says(&[&format!("watch ready/ after {}", a.store.revision), "confirm V2"]);
    }
}

#[test]
fn the_acknowledgements_watch_that_ends_at_once_is_read_ever_more_seldom_and_forgiven() {
    let mut a = Bench::node("a").joined().leading().stable();
    let mut pauses = Vec::new();
    for _ in 0..4 {
        a.disconnects("ready/");
        pauses.push(a.wait_for("read ready/").as_millis());
        a.ok("read ready/");
        a.ok("watch ready/");
    }
    assert_eq!(pauses, [0, 100, 200, 400]);
    a.wait(secs(6));
    a.skip();
    a.disconnects("ready/");
    a.says(&["read ready/"]);
}

#[test]
fn p8_a_read_of_acknowledgements_that_failed_is_repeated() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.unseen(|a| a.acknowledges("b"));
    a.disconnects("ready/");
    a.fail("read ready/", ErrorKind::Refused);
    a.says_of(
        &["* operator action needed"],
        &["* operator action needed: the store refused: as the test has it"],
    );
    a.wait(ms(200));
    a.ok("read ready/");
    a.says_of(&["confirm"], &["confirm V2"]);
}

#[test]
fn p4_what_runs_goes_on_while_the_watch_is_broken() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.disconnects("view/");
    b.skip();
    b.stabilized(Outcome::Ready);
    b.says(&["acknowledge V1"]);
    b.ok("acknowledge");
    b.says(&["* ready at V1"]);
}

#[test]
fn p7_a_snapshot_from_before_what_was_folded_is_a_rewind_too() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.store.rewind(Revision::new(2));
    b.watch_ends("view/", WatchEnd::Compacted { compacted: Revision::new(9) });
    b.skip();
    b.ok("read view/");
    b.says_of(
        &["* the store was", "* session"],
        &[
            "* the store was restored to an older state: read a snapshot at revision 2",
            "* session lost: the store was restored to an older state",
        ],
    );
}
