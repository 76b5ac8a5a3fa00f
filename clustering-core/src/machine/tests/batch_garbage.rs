//! The log brings what nobody can read, or what is not ours.

use super::bench::{Bench, secs};
use crate::{machine::Phase, store::WatchEnd};

const GARBAGE: [&str; 5] = ["", "garbage", "[]", "{}", "null"];

#[test]
fn a_node_record_that_cannot_be_read_is_absent_for_everyone() {
    for garbage in GARBAGE {
        let mut a = Bench::node("a").joined().leading().after(secs(2));
        a.put("view/nodes/x", garbage);
        a.says_of(&["publish", "* x"], &[]);
        a.joins("x");
        a.says_of(&["* x"], &["* x is present at http://other-x"]);
        a.answer_all();
        a = a.after(secs(2));
        a.put("view/nodes/x", garbage);
        a.says_of(&["publish", "* x"], &["* x is gone: its session ended", "publish V3: x's session ended"]);
    }
}

#[test]
fn p7_ones_own_record_made_unreadable_is_a_removal() {
    for garbage in GARBAGE {
        let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
        b.put("view/nodes/b", garbage);
        b.says_of(&["* session", "revoke"], &["* session lost: the node's record was removed", "revoke 2"]);
        b.ok("revoke");
        b.wait(secs(1));
        b.skip();
        b.answer_all();
        // What stands there is nobody's, so it is replaced.
        b.says_of(&["take over", "* joined"], &["take over", "* joined again as a life"]);
    }
}

#[test]
fn garbage_under_a_nodes_name_does_not_stop_it_from_joining() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.put("view/nodes/b", "garbage");
    b.tick();
    b.answer_all();
    b.says_of(&["join", "take over"], &["take over"]);
    assert_eq!(b.status().phase, Phase::Member);
}

#[test]
fn keys_that_are_no_names_are_reported_and_count_for_nothing() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    for key in ["view/nodes/", "view/nodes/x/y", "ready/", "ready/x/y"] {
        a.put(key, r#"{"uri": "http://x", "incarnation": "x"}"#);
        a.says_of(&["publish", "confirm", "* x"], &[]);
        a.delete(key);
    }
    a.skip();
    a.put("view/nodes/x/y", "{}");
    a.says(&["* cannot read c/view/nodes/x/y: name \"x/y\" cannot be used: it must not contain a slash"]);
}

#[test]
fn what_a_snapshot_holds_is_reported_as_well() {
    let reported = "* cannot read c/view/nodes/x: expected value at line 1 column 1";
    let mut o = Bench::observer();
    o.put("view/nodes/x", "garbage");
    o.tick();
    o.answer_all();
    o.says_of(&["* cannot"], &[reported]);
    o.unseen(|o| o.put("view/stable", "{}"));
    o.store.compact();
    o.watch_ends("view/", WatchEnd::Compacted { compacted: o.store.revision });
    o.answer_all();
    o.says_of(&["* cannot"], &[reported, "* cannot read c/view/stable: missing field `version`"]);
}

#[test]
fn unknown_keys_under_the_prefix_are_left_alone() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    for key in ["view/released", "view/removed/a", "view/leader/x", "view/versions"] {
        a.put(key, "garbage");
    }
    a.says(&[]);
}

#[test]
fn p4_an_acknowledgement_that_cannot_be_read_does_not_count() {
    for garbage in GARBAGE {
        let mut a = Bench::node("a").joined().leading();
        a.put("ready/a", garbage);
        a.says_of(
            &["confirm", "* cannot read c/ready/a"],
            &[match garbage {
                "" => "* cannot read c/ready/a: EOF while parsing a value at line 1 column 0",
                "garbage" => "* cannot read c/ready/a: expected value at line 1 column 1",
                "{}" => "* cannot read c/ready/a: missing field `version`",
                _ => "* cannot read c/ready/a: it is no JSON object",
            }],
        );
    }
}
