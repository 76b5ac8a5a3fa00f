//! The log delivers versions.

use super::bench::{Bench, ms, secs};
use crate::{
    machine::Phase,
    outcome::Outcome,
    record::{VersionRecord, encode},
    store::{Revision, Txn, WatchEnd},
    version::Version,
};

/// Returns a version record with this label.
fn labelled(version: Version) -> VersionRecord {
    VersionRecord::labelled(version)
}

#[test]
fn p1_a_version_contains_the_nodes_written_in_the_same_revision() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    let version = b.generate_version();
    let value = encode(&labelled(version));
    // One of the nodes sorts before the version and the other after it. A watch may deliver them in either order.
    for (first, node) in [(true, "A"), (false, "z")] {
        let record = r#"{"uri": "http://x", "incarnation": "x"}"#;
        let key = format!("c/view/nodes/{node}");
        let txn = match first {
            true => Txn::new().put("c/view/version", value.clone(), None).put(key, record, None),
            false => Txn::new().put(key, record, None).put("c/view/version", value.clone(), None),
        };
        b.write(txn);
        assert!(b.machine.newest().unwrap().iter().any(|present| present.name == node));
    }
}

#[test]
fn p3_a_newer_version_supersedes_the_running_stabilize_and_waits_for_its_end() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.publishes();
    b.expect(&["* version V2 of 2 nodes: ", "supersede", "* stabilize of V1 superseded"]);
    // V1 is already superseded, and V2 is skipped.
    b.publishes();
    b.expect(&["* version V3 of 2 nodes: "]);
    b.stabilized(Outcome::Ready);
    b.expect(&["* stabilizing V3, attempt 1", "stabilize V3 of a b after V1"]);
    b.stabilized(Outcome::Ready);
    b.expect(&["acknowledge V3"]);
}

#[test]
fn p3_a_newer_version_is_stabilized_without_waiting_for_the_retry_of_the_older_one() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stabilized(Outcome::refused("not yet"));
    b.answer_all();
    b.skip();
    b.publishes();
    b.expect(&["* version V2 of 2 nodes: ", "* stabilizing V2, attempt 1", "stabilize V2 of a b"]);
}

#[test]
fn p2_versions_are_ordered_by_revision_and_not_by_ulid() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    // Published by a leader whose clock is years behind.
    b.publishes_as(labelled(Version::from_u128(1)));
    b.expect(&["* version V2 of 2 nodes: ", "* stabilizing V2, attempt 1", "stabilize V2 of a b after V1"]);
}

#[test]
fn p2_the_label_after_one_from_the_far_future_is_larger() {
    let mut a = Bench::node("a").joined().leading().after(secs(2));
    a.publishes_as(labelled(future()));
    a.skip();
    a.wait(secs(2));
    a.joins("b");
    a.expect_only(&["publish"], &["publish V3: b joined"]);
    a.answer_all();
    assert!(a.newest() > future());
    // The log decides even after the largest possible ULID, above which no label can be created.
    let last = a.newest();
    a.publishes_as(labelled(Version::from_u128(u128::MAX)));
    a.wait(secs(2));
    a.ends("b");
    a.answer_all();
    let newest = a.status().newest.unwrap();
    assert_eq!((newest.version(), newest.len()), (a.newest(), 1));
    assert!(newest.version() > last && newest.version().is_plausible());
}

/// Returns a label of the year 9000, from a clock that is far ahead.
fn future() -> Version {
    Version::from_u128(221_845_392_000_000 << 80)
}

#[test]
fn p2_labels_are_larger_than_those_that_nodes_had_seen_before_they_joined() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins_having_seen("b", Some(future()));
    a.answer_all();
    assert!(a.newest() > future(), "a published label");

    let mut b = Bench::node("b").with(&["a"]);
    b.joins_having_seen("c", Some(future()));
    let mut b = b.joined();
    b.wait_for("elect");
    b.answer_all();
    assert!(b.newest() > future(), "the label of an election");
    b.ends("c");
    b.skip();
    b.wait(secs(10));
    b.answer_all();
    assert!(b.newest() > future(), "even after that node has departed");
}

#[test]
fn p2_an_implausible_label_in_a_nodes_seen_field_is_ignored() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins_having_seen("b", "7Z000000000000000000000000".parse().ok());
    a.answer_all();
    assert!(a.newest() < future());
}

#[test]
fn p2_a_version_labelled_below_a_nodes_seen_field_is_followed_by_another() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    // c joins while the version is in flight: c is in the version's view, but the publisher did not know of it.
    a.unseen(|a| a.joins_having_seen("c", Some(future())));
    a.skip();
    a.ok("publish");
    a.deliver();
    a.expect_only(&["publish"], &["publish V3: nodes had seen newer versions"]);
    a.answer_all();
    assert!(a.newest() > future());
    a.wait(secs(60));
    a.expect_only(&["publish"], &[]);
}

/// Returns the version that the node's record names as seen.
fn seen(bench: &Bench) -> Option<Version> {
    bench.machine.facts.fold.own().unwrap().record.as_ref().unwrap().seen
}

#[test]
fn p2_a_nodes_seen_field_names_the_newest_version_even_after_a_restore() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    assert_eq!(seen(&b), None, "the node had not seen any version");
    let backup = b.store.clone();
    b.publishes_as(labelled(future()));
    b.publishes_as(labelled(Version::from_u128(u128::MAX)));
    b.skip();
    b.wait(secs(20));
    b.expect_only(&["rewrite"], &[]);
    b.store = backup;
    b.watch_ends("view/", WatchEnd::Rewound { revision: Revision::new(1) });
    b.answer_all();
    assert_eq!(b.status().phase, Phase::Member);
    assert_eq!(seen(&b), Some(future()), "the newest plausible version");
    // As leader, the node creates labels above that.
    b.ends("a");
    b.wait(secs(1));
    b.answer_all();
    assert!(b.is_leader() && b.newest() > future());
}

#[test]
fn the_leader_reports_an_unreadable_version_and_replaces_it() {
    let mut a = Bench::node("a").joined().leading();
    a.put("view/version", "garbage");
    a.expect(&[
        "* cannot read c/view/version: expected value at line 1 column 1",
        "publish V2: the previous view is unknown",
        "supersede",
        "* stabilize of V1 superseded",
    ]);
    a.answer_all();
    assert_eq!(a.status().newest.unwrap().version(), a.newest());
}

#[test]
fn followers_report_an_unreadable_version_and_wait_for_the_next() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.put("view/version", "{}");
    b.expect(&["* cannot read c/view/version: missing field `version`"]);
    assert!(b.status().newest.is_none());
    b.publishes();
    b.expect_only(&["stabilize"], &["stabilize V2 of a b after V1"]);
}

#[test]
fn a_candidate_replaces_an_unreadable_version() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.put("view/version", "garbage");
    b.ends("a");
    b.expect_only(&["elect"], &["elect V2: b was elected, the previous view is unknown"]);
    b.ok("elect");
    b.deliver();
    assert!(b.is_leader());
}

#[test]
fn p2_a_deleted_version_is_replaced_by_one_with_a_larger_label() {
    let mut a = Bench::node("a").joined().leading().stable();
    let last = a.newest();
    a.delete("view/version");
    a.expect(&["publish V2: a joined"]);
    a.answer_all();
    assert!(a.newest() > last);
    a.expect(&[
        "* version V2 of 1 node: a joined",
        "* stabilizing V2, attempt 1",
        "stabilize V2 of a after V1",
    ]);
}

#[test]
fn p4_the_same_label_written_again_is_a_new_version() {
    let mut a = Bench::node("a").joined().leading();
    a.joins("b");
    a.answer_all();
    a.wait(ms(200));
    a.answer_all();
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.stabilized(Outcome::Ready);
    let mut a = a.after(secs(2));
    a.answer_all();
    a.acknowledges("b");
    a.answer_all();
    a.announced();
    assert!(a.status().consistent);
    a.skip();
    // An operator writes the same version again. The acknowledgements were for its earlier revision.
    a.publishes_as(labelled(a.newest()));
    assert!(!a.status().consistent);
    a.expect(&["* version V2 of 2 nodes: ", "* stabilizing V2, attempt 1", "stabilize V2 of a b after V2"]);
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.expect_only(&["confirm"], &[]);
}

#[test]
fn a_node_that_is_not_in_the_view_stabilizes_nothing() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    assert!(b.status().newest.is_none());
    b.joins("c");
    b.expect(&["* c is present at http://other-c"]);
    let mut b = Bench::node("b").with(&["a", "b"]).joined();
    b.elects("a");
    b.expect_only(&["stabilize"], &[]);
}

#[test]
fn p7_a_session_that_began_after_a_version_is_not_part_of_it() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stabilized(Outcome::refused("not yet"));
    b.answer_all();
    b.skip();
    b.advance(secs(15));
    b.answer_all();
    b.wait(secs(4));
    b.expect_only(&["stabilize", "acknowledge", "* joined"], &["* joined again as <ULID>"]);
    b.publishes();
    b.expect_only(&["stabilize"], &["stabilize V2 of a b"]);
}
