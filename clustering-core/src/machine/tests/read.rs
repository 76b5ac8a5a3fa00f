//! The store returned a snapshot, or failed to.

use super::bench::{Bench, ms, secs};
use crate::{
    outcome::Outcome,
    store::{ErrorKind, Revision, WatchEnd},
};

/// Compacts the store and ends the watch of the log, which has fallen behind.
fn falls_behind(bench: &mut Bench) {
    bench.store.compact();
    bench.watch_ends("view/", WatchEnd::Compacted { compacted: bench.store.revision });
}

#[test]
fn the_watch_starts_at_the_revision_of_the_snapshot() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.tick();
    b.skip();
    b.ok("read view/");
    b.expect(&["* a is present at http://other-a", "* a leads, term 2", "watch view/ after 2"]);
    assert!(
        b.status().newest.is_none(),
        "a snapshot does not show which nodes were present when the version was written"
    );
}

#[test]
fn a_failed_read_is_repeated_with_backoff() {
    let mut a = Bench::observer();
    a.tick();
    a.skip();
    for pause in [100, 200, 400] {
        a.fail("read view/", ErrorKind::Unreachable);
        assert_eq!(a.wakes_in(), Some(ms(pause)));
        a.wait(ms(pause));
    }
    a.expect(&[
        "* the store is away: the store cannot be reached: injected by the test",
        "read view/",
        "read view/",
        "read view/",
    ]);
    a.answer_all();
    a.expect(&["watch view/ after 0", "* the store is back after 700ms"]);
}

#[test]
fn p1_a_resync_keeps_the_view_if_the_version_is_unchanged() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.unseen(|b| b.joins("c"));
    falls_behind(&mut b);
    b.expect(&["read view/"]);
    b.answer_all();
    b.expect(&[
        "* missed changes: read a snapshot at revision 5",
        "* c is present at http://other-c",
        "watch view/ after 5",
    ]);
    let newest = b.status().newest.unwrap();
    assert_eq!(newest.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn p1_a_member_that_missed_a_version_requests_another() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.unseen(Bench::publishes);
    falls_behind(&mut b);
    b.skip();
    b.answer_all();
    b.expect(&[
        "* missed changes: read a snapshot at revision 5",
        "watch view/ after 5",
        "request: b, the view of the newest version is not known here",
    ]);
    assert!(b.status().newest.is_none());
    b.publishes();
    b.expect(&["* version V3 of 2 nodes: ", "* stabilizing V3, attempt 1", "stabilize V3 of a b after V1"]);
}

#[test]
fn p1_a_stabilize_is_superseded_if_a_newer_version_was_missed() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.unseen(Bench::publishes);
    falls_behind(&mut b);
    b.skip();
    b.ok("read view/");
    b.expect_only(&["supersede", "* stabilize"], &["supersede", "* stabilize of V1 superseded"]);
    b.stabilized(Outcome::Ready);
    b.expect_only(&["acknowledge"], &[]);
}

#[test]
fn an_observer_that_missed_a_version_requests_none() {
    let mut o = Bench::observer().with(&["a"]).joined().led_by("a");
    o.unseen(Bench::publishes);
    falls_behind(&mut o);
    o.skip();
    o.answer_all();
    o.expect(&["* missed changes: read a snapshot at revision 3", "watch view/ after 3"]);
    assert!(o.status().newest.is_none());
}

#[test]
fn nodes_that_missed_a_version_share_one_request() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.unseen(|b| {
        b.publishes();
        b.requests("c");
    });
    falls_behind(&mut b);
    b.answer_all();
    b.expect_only(&["request"], &[]);
}

#[test]
fn p1_a_leader_that_missed_a_version_publishes() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(5));
    a.unseen(Bench::publishes);
    falls_behind(&mut a);
    a.skip();
    a.ok("read view/");
    a.expect_only(&["publish"], &["publish V3: the previous view is unknown"]);
}

#[test]
fn a_resync_reports_all_nodes_that_joined_departed_or_changed() {
    let mut d = Bench::node("d").with(&["a", "b", "c"]).joined().led_by("a");
    d.unseen(|d| {
        d.ends("a");
        d.rewrites("b");
        d.joins("e");
    });
    falls_behind(&mut d);
    d.skip();
    d.ok("read view/");
    d.expect(&[
        "* missed changes: read a snapshot at revision 8",
        "* a is gone: its session ended",
        "* b has a new record, at http://other-b",
        "* e is present at http://other-e",
        "* nobody leads",
        "watch view/ after 8",
    ]);
    assert_eq!(d.wakes_in(), Some(ms(100)), "b and c go first");
}

#[test]
fn p7_after_a_rewind_the_node_discards_its_state_and_rejoins() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.store.rewind(Revision::new(1));
    a.watch_ends("view/", WatchEnd::Rewound { revision: Revision::new(1) });
    a.expect(&["read view/"]);
    a.ok("read view/");
    a.expect(&[
        "* the store was restored to an older state: read a snapshot at revision 1",
        "* nobody leads",
        "watch view/ after 1",
        "unwatch",
        "* session lost: the store was restored to an older state",
        "revoke 1",
    ]);
    assert!(a.status().newest.is_none());
    a.answer_all();
    a.expect(&[
        "grant 15s",
        // The log has not shown yet that the record was deleted with the lease.
        "take over",
        "* a is gone: its session ended",
        "join",
        "* a is present at http://a",
        "* joined again as <ULID>",
        "elect V2: a was elected, a joined",
        "watch ready/ after 3",
        "* a leads, term 4 (this node)",
        "* version V2 of 1 node: a was elected, a joined",
        "* stabilizing V2, attempt 1",
        "stabilize V2 of a after V1",
    ]);
}

#[test]
fn p4_after_a_rewind_on_stable_runs_again_for_newer_versions() {
    let mut a = Bench::node("a");
    for _ in 0..5 {
        a.joins("x");
        a.ends("x");
    }
    let mut a = a.joined().leading().stable();
    a.store.rewind(Revision::new(2));
    a.watch_ends("view/", WatchEnd::Rewound { revision: Revision::new(2) });
    a.answer_all();
    a.skip();
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.expect(&[
        "acknowledge V2",
        "* ready at V2",
        "confirm V2",
        "* stable at V2",
        "* calling on_stable of V2, term 4",
        "announce V2 in term 4",
    ]);
}

/// Advances the store's revision without delivering the changes to the machine.
fn advances_unseen(bench: &mut Bench) {
    bench.unseen(|bench| {
        for _ in 0..10 {
            bench.joins("x");
            bench.ends("x");
        }
    });
}

/// Restores the store to this revision.
fn restore(bench: &mut Bench, revision: u64) {
    let revision = Revision::new(revision);
    bench.store.rewind(revision);
    bench.watch_ends("view/", WatchEnd::Rewound { revision });
    bench.answer_all();
}

#[test]
fn p2_after_a_rewind_the_leader_does_not_wait_for_a_lost_publish() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.request_version(1, "x");
    advances_unseen(&mut a);
    a.ok("publish");
    restore(&mut a, 1);
    let mut a = a.after(secs(2));
    a.joins("b");
    a.expect_only(&["publish"], &["publish V4: b joined"]);
}

#[test]
fn a_request_that_a_restored_store_lost_is_repeated() {
    let mut o = Bench::observer().with(&["a"]).joined().led_by("a");
    o.request_version(1, "x");
    advances_unseen(&mut o);
    o.ok("request");
    o.skip();
    restore(&mut o, 2);
    o.expect_only(&["request"], &["request: observer, x"]);
}
