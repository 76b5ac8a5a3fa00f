//! The log delivers requests for new versions.

use super::bench::{Bench, secs};
use crate::{
    record::{RequestRecord, VersionRecord, encode},
    store::{Revision, Txn},
};

/// Another client writes a request and a version in one revision.
fn requests_and_publishes(bench: &mut Bench) {
    let version = bench.generate_version();
    let record = VersionRecord::labelled(version);
    let request = RequestRecord { by: Some("ops".to_owned()), why: None, leader: None };
    let both = Txn::new().put("c/view/request", encode(&request), None);
    bench.names.version(version);
    bench.write(both.put("c/view/version", encode(&record), None));
}

#[test]
fn a_leader_publishes_when_another_client_requests_a_version() {
    let mut a = Bench::node("a").joined().leading().after(secs(2));
    a.requests("ops");
    a.expect(&["publish V2: ops asked"]);
    a.answer_all();
    a.wait(secs(10));
    a.expect_only(&["publish"], &[]);
}

#[test]
fn many_requests_at_once_share_one_version() {
    let mut a = Bench::node("a").joined().leading().after(secs(2));
    a.requests("one");
    a.requests("two");
    a.requests("three");
    a.answer_all();
    // The other requests arrived before the first one was fulfilled.
    a.expect_only(&["publish"], &["publish V2: one asked"]);
    a.wait(secs(10));
    a.expect(&[]);
}

#[test]
fn an_unreadable_request_still_counts() {
    let mut a = Bench::node("a").joined().leading().after(secs(2));
    a.put("view/request", "garbage");
    a.expect(&["* cannot read c/view/request: expected value at line 1 column 1", "publish V2:  asked"]);
}

#[test]
fn a_request_older_than_the_newest_version_is_already_fulfilled() {
    let mut b = Bench::node("b").with(&["a"]);
    b.requests("ops");
    let mut b = b.led_by("a").joined();
    assert_eq!(b.store.revision, Revision::new(4));
    b.ends("a");
    b.expect_only(&["elect"], &["elect V2: b was elected, the previous view is unknown"]);
}

#[test]
fn a_request_from_the_same_revision_as_a_version_is_already_fulfilled() {
    let mut a = Bench::node("a").joined().leading().after(secs(2));
    requests_and_publishes(&mut a);
    a = a.after(secs(2));
    a.joins("b");
    a.expect_only(&["publish"], &["publish V3: b joined"]);
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    requests_and_publishes(&mut b);
    b.request_version(1, "rebalance");
    b.expect_only(&["request"], &["request: b, rebalance"]);
}

#[test]
fn a_follower_ignores_the_requests_of_others() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.requests("ops");
    b.expect(&[]);
}
