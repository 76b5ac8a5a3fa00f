//! The log brings what nobody can read, or what is not ours.

use super::bench::{Bench, secs};
use crate::{
    machine::Phase,
    store::{Txn, WatchEnd},
};

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

/// Overwrites a key under the node's own lease, as `etcdctl put --ignore-lease` does.
fn put_over(bench: &mut Bench, key: &str, value: &str) {
    let lease = bench.lease_of(key);
    bench.write(Txn::new().put(format!("c/{key}"), value.to_owned(), lease));
}

/// Returns the value of that key, with a replacement in it.
fn edited(bench: &Bench, key: &str, from: &str, to: &str) -> String {
    let entry = bench.store.get(&format!("c/{key}").into()).unwrap();
    let value = String::from_utf8(entry.value.to_vec()).unwrap();
    assert!(value.contains(from), "{value}");
    value.replace(from, to)
}

#[test]
fn p1_a_record_that_does_not_say_what_its_node_wrote_is_written_again() {
    for (from, to) in [
        ("http://b", "http://elsewhere"),
        (r#""metadata":{}"#, r#""metadata":{"weight":"9"}"#),
        (r#""protocol":1"#, r#""protocol":7"#),
        (r#""protocol":1"#, r#""protocol":1,"seen":"7YZZZZZZZZZZZZZZZZZZZZZZZZ""#),
    ] {
        let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
        let record = edited(&b, "view/nodes/b", from, to);
        put_over(&mut b, "view/nodes/b", &record);
        let told = "* another client overwrote c/view/nodes/b, which belongs to this node; correcting it";
        b.says_of(&["* another client", "rewrite", "* session"], &[told, "rewrite"]);
        b.answer_all();
        let own = b.machine.facts.fold.own().unwrap().record.clone().unwrap();
        assert_eq!((own.uri.as_str(), own.metadata.len(), own.protocol), ("http://b", 0, 1), "{to}");
        b.skip();
        b.wait(secs(60));
        b.says_of(&["rewrite"], &[]);
    }
}

#[test]
fn p9_two_that_correct_each_other_do_so_ever_less_often() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let record = edited(&b, "view/nodes/b", "http://b", "http://elsewhere");
        put_over(&mut b, "view/nodes/b", &record);
        pauses.push(b.wait_for("rewrite").as_secs());
        b.answer_all();
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16]);
    b.wait(secs(1_200));
    let record = edited(&b, "view/nodes/b", "http://b", "http://elsewhere");
    put_over(&mut b, "view/nodes/b", &record);
    assert_eq!(b.wait_for("rewrite").as_secs(), 0, "forgiven after a while");
}

#[test]
fn a_change_of_metadata_does_not_wait_for_the_correction_of_the_record() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    for _ in 0..4 {
        let record = edited(&b, "view/nodes/b", "http://b", "http://elsewhere");
        put_over(&mut b, "view/nodes/b", &record);
        b.wait(secs(3));
        b.answer_all();
    }
    b.skip();
    b.update(1, "x");
    b.says_of(&["rewrite"], &["rewrite"]);
    b.answer_all();
    b.says_of(&["reply"], &["reply 1: done"]);
    b.wait(secs(60));
    b.says_of(&["rewrite"], &[]);
}

#[test]
fn p7_another_life_under_the_own_lease_is_no_other_process() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    put_over(&mut b, "view/nodes/b", r#"{"uri":"http://x","incarnation":"x"}"#);
    b.says_of(&["* session", "* stopped"], &["* session lost: the node's record was removed"]);
    b.wait_for("revoke");
    b.ok("revoke");
    b.wait(secs(2));
    b.answer_all();
    assert_eq!(b.status().phase, Phase::Member);
}

#[test]
fn p7_a_leader_whose_key_names_another_or_cannot_be_read_resigns() {
    for value in [r#"{"node":"b","incarnation":"x"}"#, "garbage"] {
        let mut a = Bench::node("a").joined().leading().stable();
        put_over(&mut a, "view/leader", value);
        let told = "* another client overwrote c/view/leader, which belongs to this node; correcting it";
        a.says_of(&["* another client", "resign"], &[told, "resign"]);
        a.answer_all();
        a.skip();
        a.wait(secs(15));
        a.answer_all();
        assert!(a.is_leader());
        a.wait(secs(60));
        a.says_of(&["* another client", "resign"], &[]);
    }
}
