//! The log brings requests for a version.

use super::bench::{Bench, secs};
use crate::{
    record::{RequestRecord, VersionRecord, encode},
    store::{Revision, Txn},
};

/// By hand: a request in one revision with a version.
fn asks_and_publishes(bench: &mut Bench) {
    let version = bench.mint_version();
    let record = VersionRecord { version, number: 0, term: None, leader: None, causes: Vec::new() };
    let request = RequestRecord { by: Some("ops".to_owned()), why: None, leader: None };
    let both = Txn::new().put("c/view/request", encode(&request), None);
    bench.names.version(version);
    bench.write(both.put("c/view/version", encode(&record), None));
}

#[test]
fn a_leader_publishes_when_somebody_asks() {
    let mut a = Bench::node("a").joined().leading().after(secs(2));
    a.asks("ops");
    a.says(&["publish V2: ops asked"]);
    a.answer_all();
    a.wait(secs(10));
    a.says_of(&["publish"], &[]);
}

#[test]
fn many_who_ask_at_once_get_one_version() {
    let mut a = Bench::node("a").joined().leading().after(secs(2));
    a.asks("one");
    a.asks("two");
    a.asks("three");
    a.answer_all();
    // The others came before the first was granted.
    a.says_of(&["publish"], &["publish V2: one asked"]);
    a.wait(secs(10));
    a.says(&[]);
}

#[test]
fn a_request_that_cannot_be_read_is_one_all_the_same() {
    let mut a = Bench::node("a").joined().leading().after(secs(2));
    a.put("view/request", "garbage");
    a.says(&["* cannot read c/view/request: expected value at line 1 column 1", "publish V2:  asked"]);
}

#[test]
fn a_request_from_before_the_newest_version_is_granted_already() {
    let mut b = Bench::node("b").with(&["a"]);
    b.asks("ops");
    let mut b = b.led_by("a").joined();
    assert_eq!(b.store.revision, Revision::new(4));
    b.ends("a");
    b.says_of(&["elect"], &["elect V2: b was elected, the previous view is unknown"]);
}

#[test]
fn a_request_that_came_with_a_version_is_granted_by_it() {
    let mut a = Bench::node("a").joined().leading().after(secs(2));
    asks_and_publishes(&mut a);
    a = a.after(secs(2));
    a.joins("b");
    a.says_of(&["publish"], &["publish V3: b joined"]);
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    asks_and_publishes(&mut b);
    b.ask(1, "rebalance");
    b.says_of(&["ask"], &["ask: b, rebalance"]);
}

#[test]
fn a_follower_does_nothing_about_the_requests_of_others() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.asks("ops");
    b.says(&[]);
}
