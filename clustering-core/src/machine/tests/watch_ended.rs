//! A watch ended.

use super::bench::{Bench, ms, secs};
use crate::{
    outcome::Outcome,
    store::{ErrorKind, Revision, WatchEnd},
};

#[test]
fn p1_a_broken_watch_resumes_after_the_last_delivered_revision() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.unseen(|b| {
        b.joins("c");
        b.publishes();
    });
    b.disconnects("view/");
    b.expect(&[
        "* the store is away: the watch was disconnected (reset): watch again after the last revision seen",
    ]);
    assert!(b.wakes_in().unwrap() < ms(100), "the retry comes soon, but not from all nodes at once");
    b.wait(ms(100));
    b.expect(&["watch view/ after 3"]);
    b.ok("watch view/");
    b.deliver();
    b.expect_only(
        &["* c", "stabilize", "* the store"],
        &[
            "* the store is back after 100ms",
            "* c is present at http://other-c",
            "stabilize V2 of a b c after V1",
        ],
    );
}

#[test]
fn a_watch_that_breaks_repeatedly_is_reopened_with_backoff() {
    let mut o = Bench::observer().joined();
    o.disconnects("view/");
    for pause in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
        o.wait(secs(1).max(ms(pause)));
        o.ok("watch view/");
        o.disconnects("view/");
        assert_eq!(o.wakes_in(), Some(ms(pause)));
    }
    // A watch that was open for longer than the pause resets the backoff.
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
fn a_watch_that_delivered_changes_resets_the_backoff() {
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
fn a_compacted_watch_leads_to_a_new_snapshot() {
    let mut o = Bench::observer().joined();
    o.skip();
    o.watch_ends("view/", WatchEnd::Compacted { compacted: Revision::new(7) });
    o.expect(&["read view/"]);
}

#[test]
fn the_version_is_not_reported_as_stable_while_changes_are_missing() {
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
fn a_node_does_not_register_while_its_watch_lags() {
    let mut b = Bench::node("b").with(&["b"]).joined();
    b.disconnects("view/");
    b.store.compact();
    b.unseen(|b| b.ends("b"));
    b.wait(ms(100));
    b.skip();
    b.ok("watch view/");
    b.expect_only(&["join"], &[]);
    b.deliver();
    b.expect_only(&["join"], &["join"]);
}

#[test]
fn a_leader_keeps_leading_while_its_watch_is_broken() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.disconnects("view/");
    assert!(a.is_leader());
    assert!(a.status().stale_since.is_some());
}

#[test]
fn acknowledgements_are_read_again_however_their_watch_ended() {
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
        a.expect(&["read ready/"]);
        a.ok("read ready/");
        a.expect(&[&format!("watch ready/ after {}", a.store.revision), "confirm V2"]);
    }
}

#[test]
fn a_watch_of_acknowledgements_that_breaks_repeatedly_is_reopened_with_backoff() {
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
    a.expect(&["read ready/"]);
}

#[test]
fn p8_a_failed_read_of_acknowledgements_is_repeated() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.unseen(|a| a.acknowledges("b"));
    a.disconnects("ready/");
    a.fail("read ready/", ErrorKind::Refused);
    a.expect_only(
        &["* operator action needed"],
        &["* operator action needed: the store refused: injected by the test"],
    );
    a.wait(ms(200));
    a.ok("read ready/");
    a.expect_only(&["confirm"], &["confirm V2"]);
}

#[test]
fn p4_a_running_stabilize_continues_while_the_watch_is_broken() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.disconnects("view/");
    b.skip();
    b.stabilized(Outcome::Ready);
    b.expect(&["acknowledge V1"]);
    b.ok("acknowledge");
    b.expect(&["* ready at V1"]);
}

#[test]
fn p7_a_snapshot_older_than_the_last_delivered_revision_is_a_rewind() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.store.rewind(Revision::new(2));
    b.watch_ends("view/", WatchEnd::Compacted { compacted: Revision::new(9) });
    b.skip();
    b.ok("read view/");
    b.expect_only(
        &["* the store was", "* session"],
        &[
            "* the store was restored to an older state: read a snapshot at revision 2",
            "* session lost: the store was restored to an older state",
        ],
    );
}
