//! The log brings versions.

use super::bench::{Bench, ms, secs};
use crate::{
    machine::Phase,
    outcome::Outcome,
    record::{VersionRecord, encode},
    store::{Revision, Txn, WatchEnd},
    version::Version,
};

/// A version with that label.
fn labelled(version: Version) -> VersionRecord {
    VersionRecord { version, number: 0, term: None, leader: None, causes: Vec::new() }
}

#[test]
fn p1_a_version_written_together_with_a_node_has_it_in_its_view() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    let version = b.mint_version();
    let value = encode(&labelled(version));
    // The version sorts after the node here, and the watch may bring them in any order.
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
fn p3_a_newer_version_supersedes_the_one_that_runs_and_waits_for_its_end() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.publishes();
    b.says(&["* version V2 of 2 nodes: ", "supersede", "* stabilize of V1 superseded"]);
    // Another one: superseded already, and V2 is skipped.
    b.publishes();
    b.says(&["* version V3 of 2 nodes: "]);
    b.stabilized(Outcome::Ready);
    b.says(&["* stabilizing V3, attempt 1", "stabilize V3 of a b after V1"]);
    b.stabilized(Outcome::Ready);
    b.says(&["acknowledge V3"]);
}

#[test]
fn p3_a_pause_between_tries_ends_when_a_newer_version_comes() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stabilized(Outcome::refused("not yet"));
    b.answer_all();
    b.skip();
    b.publishes();
    b.says(&["* version V2 of 2 nodes: ", "* stabilizing V2, attempt 1", "stabilize V2 of a b"]);
}

#[test]
fn p2_order_comes_from_revisions_not_from_ulids() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    // Published by a leader whose clock is years behind.
    b.publishes_as(labelled(Version::from_u128(1)));
    b.says(&["* version V2 of 2 nodes: ", "* stabilizing V2, attempt 1", "stabilize V2 of a b after V1"]);
}

#[test]
fn p2_the_next_version_is_minted_above_one_from_the_far_future() {
    let mut a = Bench::node("a").joined().leading().after(secs(2));
    a.publishes_as(labelled(future()));
    a.skip();
    a.wait(secs(2));
    a.joins("b");
    a.says_of(&["publish"], &["publish V3: b joined"]);
    a.answer_all();
    assert!(a.newest() > future());
    // The log still decides even after the largest possible ULID, which no clock can mint.
    let last = a.newest();
    a.publishes_as(labelled(Version::from_u128(u128::MAX)));
    a.wait(secs(2));
    a.ends("b");
    a.answer_all();
    let newest = a.status().newest.unwrap();
    assert_eq!((newest.version(), newest.len()), (a.newest(), 1));
    assert!(newest.version() > last && newest.version().is_plausible());
}

/// A label of the year 9000, by a clock that is far ahead.
fn future() -> Version {
    Version::from_u128(221_845_392_000_000 << 80)
}

#[test]
fn p2_versions_are_minted_above_what_nodes_had_seen_when_they_joined() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins_having_seen("b", Some(future()));
    a.answer_all();
    assert!(a.newest() > future(), "published");

    let mut b = Bench::node("b").with(&["a"]);
    b.joins_having_seen("c", Some(future()));
    let mut b = b.joined();
    b.wait_for("elect");
    b.answer_all();
    assert!(b.newest() > future(), "elected");
    b.ends("c");
    b.skip();
    b.wait(secs(10));
    b.answer_all();
    assert!(b.newest() > future(), "also when that node is gone");
}

#[test]
fn p2_a_label_out_of_range_that_a_node_says_it_saw_is_ignored() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins_having_seen("b", "7Z000000000000000000000000".parse().ok());
    a.answer_all();
    assert!(a.newest() < future());
}

#[test]
fn p2_a_version_that_missed_what_a_node_had_seen_is_followed_by_another() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    // c joins while the version is in flight: c is in the version's cut, but the publisher did not know of it.
    a.unseen(|a| a.joins_having_seen("c", Some(future())));
    a.skip();
    a.ok("publish");
    a.deliver();
    a.says_of(&["publish"], &["publish V3: nodes had seen newer versions"]);
    a.answer_all();
    assert!(a.newest() > future());
    a.wait(secs(60));
    a.says_of(&["publish"], &[]);
}

/// Returns the version that the node's record names as seen.
fn seen(bench: &Bench) -> Option<Version> {
    bench.machine.facts.fold.own().unwrap().record.as_ref().unwrap().seen
}

#[test]
fn p2_a_node_joins_with_the_newest_version_that_it_saw_also_after_a_restore() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    assert_eq!(seen(&b), None, "it had seen none");
    let backup = b.store.clone();
    b.publishes_as(labelled(future()));
    b.publishes_as(labelled(Version::from_u128(u128::MAX)));
    b.skip();
    b.wait(secs(20));
    b.says_of(&["rewrite"], &[]);
    b.store = backup;
    b.watch_ends("view/", WatchEnd::Rewound { revision: Revision::new(1) });
    b.answer_all();
    assert_eq!(b.status().phase, Phase::Member);
    assert_eq!(seen(&b), Some(future()), "the newest in range");
    // As leader it mints labels above that.
    b.ends("a");
    b.wait(secs(1));
    b.answer_all();
    assert!(b.is_leader() && b.newest() > future());
}

#[test]
fn a_version_that_cannot_be_read_is_reported_and_the_leader_publishes_over_it() {
    let mut a = Bench::node("a").joined().leading();
    a.put("view/version", "garbage");
    a.says(&[
        "* cannot read c/view/version: expected value at line 1 column 1",
        "publish V2: the previous view is unknown",
        "supersede",
        "* stabilize of V1 superseded",
    ]);
    a.answer_all();
    assert_eq!(a.status().newest.unwrap().version(), a.newest());
}

#[test]
fn a_version_that_cannot_be_read_makes_followers_wait() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.put("view/version", "{}");
    b.says(&["* cannot read c/view/version: missing field `version`"]);
    assert!(b.status().newest.is_none());
    b.publishes();
    b.says_of(&["stabilize"], &["stabilize V2 of a b after V1"]);
}

#[test]
fn a_candidate_elects_over_a_version_that_cannot_be_read() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.put("view/version", "garbage");
    b.ends("a");
    b.says_of(&["elect"], &["elect V2: b was elected, the previous view is unknown"]);
    b.ok("elect");
    b.deliver();
    assert!(b.is_leader());
}

#[test]
fn p2_a_deleted_version_is_published_anew_above_the_last_label() {
    let mut a = Bench::node("a").joined().leading().stable();
    let last = a.newest();
    a.delete("view/version");
    a.says(&["publish V2: a joined"]);
    a.answer_all();
    assert!(a.newest() > last);
    a.says(&[
        "* version V2 of 1 node: a joined",
        "* stabilizing V2, attempt 1",
        "stabilize V2 of a after V1",
    ]);
}

#[test]
fn p4_the_same_label_written_again_is_a_new_version_for_everyone() {
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
    // An operator writes the version again, letter by letter. What was acknowledged was another cut.
    a.publishes_as(labelled(a.newest()));
    assert!(!a.status().consistent);
    a.says(&["* version V2 of 2 nodes: ", "* stabilizing V2, attempt 1", "stabilize V2 of a b after V2"]);
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.says_of(&["confirm"], &[]);
}

#[test]
fn a_node_that_is_not_in_the_view_stabilizes_nothing() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    assert!(b.status().newest.is_none());
    b.joins("c");
    b.says(&["* c is present at http://other-c"]);
    let mut b = Bench::node("b").with(&["a", "b"]).joined();
    b.elects("a");
    b.says_of(&["stabilize"], &[]);
}

#[test]
fn p7_a_session_begun_after_the_cut_is_not_in_it() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stabilized(Outcome::refused("not yet"));
    b.answer_all();
    b.skip();
    b.advance(secs(15));
    b.answer_all();
    b.wait(secs(4));
    b.says_of(&["stabilize", "acknowledge", "* joined"], &["* joined again as a life"]);
    b.publishes();
    b.says_of(&["stabilize"], &["stabilize V2 of a b"]);
}
