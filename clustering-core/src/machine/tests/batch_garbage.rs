//! The log delivers unreadable records, and keys that another client overwrote.

use super::bench::{Bench, secs};
use crate::{
    machine::Phase,
    store::{Txn, WatchEnd},
};

const GARBAGE: [&str; 5] = ["", "garbage", "[]", "{}", "null"];

#[test]
fn an_unreadable_node_record_counts_as_absent() {
    for garbage in GARBAGE {
        let mut a = Bench::node("a").joined().leading().after(secs(2));
        a.put("view/nodes/x", garbage);
        a.expect_only(&["publish", "* x"], &[]);
        a.joins("x");
        a.expect_only(&["* x"], &["* x is present at http://other-x"]);
        a.answer_all();
        a = a.after(secs(2));
        a.put("view/nodes/x", garbage);
        a.expect_only(
            &["publish", "* x"],
            &["* x is gone: its session ended", "publish V3: x's session ended"],
        );
    }
}

#[test]
fn p7_a_node_whose_record_was_made_unreadable_rejoins_as_if_it_had_been_removed() {
    for garbage in GARBAGE {
        let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
        b.put("view/nodes/b", garbage);
        b.expect_only(
            &["* session", "revoke"],
            &["* session lost: the node's record was removed", "revoke 2"],
        );
        b.ok("revoke");
        b.wait(secs(1));
        b.skip();
        b.answer_all();
        // The unreadable record belongs to no process, so it is replaced.
        b.expect_only(&["take over", "* joined"], &["take over", "* joined again as <ULID>"]);
    }
}

#[test]
fn a_node_joins_over_an_unreadable_record_under_its_name() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.put("view/nodes/b", "garbage");
    b.tick();
    b.answer_all();
    b.expect_only(&["join", "take over"], &["take over"]);
    assert_eq!(b.status().phase, Phase::Member);
}

#[test]
fn keys_with_invalid_names_are_reported_and_ignored() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    for key in ["view/nodes/", "view/nodes/x/y", "ready/", "ready/x/y"] {
        a.put(key, r#"{"uri": "http://x", "incarnation": "x"}"#);
        a.expect_only(&["publish", "confirm", "* x"], &[]);
        a.delete(key);
    }
    a.skip();
    a.put("view/nodes/x/y", "{}");
    a.expect(&["* cannot read c/view/nodes/x/y: name \"x/y\" cannot be used: it must not contain a slash"]);
}

#[test]
fn unreadable_records_in_a_snapshot_are_reported_too() {
    let report = "* cannot read c/view/nodes/x: expected value at line 1 column 1";
    let mut o = Bench::observer();
    o.put("view/nodes/x", "garbage");
    o.tick();
    o.answer_all();
    o.expect_only(&["* cannot"], &[report]);
    o.unseen(|o| o.put("view/stable", "{}"));
    o.store.compact();
    o.watch_ends("view/", WatchEnd::Compacted { compacted: o.store.revision });
    o.answer_all();
    o.expect_only(&["* cannot"], &[report, "* cannot read c/view/stable: missing field `version`"]);
}

#[test]
fn unknown_keys_under_the_prefix_are_ignored() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    for key in ["view/releases", "view/removed/a", "view/leader/x", "view/versions"] {
        a.put(key, "garbage");
    }
    a.expect(&[]);
}

#[test]
fn p4_an_unreadable_acknowledgement_does_not_count() {
    for garbage in GARBAGE {
        let mut a = Bench::node("a").joined().leading();
        a.put("ready/a", garbage);
        a.expect_only(
            &["confirm", "* cannot read c/ready/a"],
            &[match garbage {
                "" => "* cannot read c/ready/a: EOF while parsing a value at line 1 column 0",
                "garbage" => "* cannot read c/ready/a: expected value at line 1 column 1",
                "{}" => "* cannot read c/ready/a: missing field `version`",
                _ => "* cannot read c/ready/a: it is not a JSON object",
            }],
        );
    }
}

/// Overwrites a key under the node's own lease, as `etcdctl put --ignore-lease` does.
fn overwrite(bench: &mut Bench, key: &str, value: &str) {
    let lease = bench.lease_of(key);
    bench.write(Txn::new().put(format!("c/{key}"), value.to_owned(), lease));
}

/// Returns the value of the key with `from` replaced by `to`.
fn replaced(bench: &Bench, key: &str, from: &str, to: &str) -> String {
    let entry = bench.store.get(&format!("c/{key}").into()).unwrap();
    let value = String::from_utf8(entry.value.to_vec()).unwrap();
    assert!(value.contains(from), "{value}");
    value.replace(from, to)
}

#[test]
fn p1_a_node_corrects_its_record_after_another_client_overwrote_it() {
    for (from, to) in [
        ("http://b", "http://elsewhere"),
        (r#""metadata":{}"#, r#""metadata":{"weight":"9"}"#),
        (r#""protocol":1"#, r#""protocol":7"#),
        (r#""protocol":1"#, r#""protocol":1,"seen":"7YZZZZZZZZZZZZZZZZZZZZZZZZ""#),
    ] {
        let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
        let record = replaced(&b, "view/nodes/b", from, to);
        overwrite(&mut b, "view/nodes/b", &record);
        let event = "* another client overwrote c/view/nodes/b, which belongs to this node; correcting it";
        b.expect_only(&["* another client", "rewrite", "* session"], &[event, "rewrite"]);
        b.answer_all();
        let own = b.machine.facts.fold.own().unwrap().record.clone().unwrap();
        assert_eq!((own.uri.as_str(), own.metadata.len(), own.protocol), ("http://b", 0, 1), "{to}");
        b.skip();
        b.wait(secs(60));
        b.expect_only(&["rewrite"], &[]);
    }
}

#[test]
fn p9_two_clients_that_correct_each_other_back_off() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let record = replaced(&b, "view/nodes/b", "http://b", "http://elsewhere");
        overwrite(&mut b, "view/nodes/b", &record);
        pauses.push(b.wait_for("rewrite").as_secs());
        b.answer_all();
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16]);
    b.wait(secs(1_200));
    let record = replaced(&b, "view/nodes/b", "http://b", "http://elsewhere");
    overwrite(&mut b, "view/nodes/b", &record);
    assert_eq!(b.wait_for("rewrite").as_secs(), 0, "the backoff resets after a quiet period");
}

#[test]
fn a_change_of_metadata_does_not_wait_for_the_correction_of_the_record() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    for _ in 0..4 {
        let record = replaced(&b, "view/nodes/b", "http://b", "http://elsewhere");
        overwrite(&mut b, "view/nodes/b", &record);
        b.wait(secs(3));
        b.answer_all();
    }
    b.skip();
    b.update(1, "x");
    b.expect_only(&["rewrite"], &["rewrite"]);
    b.answer_all();
    b.expect_only(&["reply"], &["reply 1: done"]);
    b.wait(secs(60));
    b.expect_only(&["rewrite"], &[]);
}

#[test]
fn p7_an_unknown_incarnation_under_the_nodes_own_lease_does_not_count_as_another_process() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    overwrite(&mut b, "view/nodes/b", r#"{"uri":"http://x","incarnation":"x"}"#);
    b.expect_only(&["* session", "* stopped"], &["* session lost: the node's record was removed"]);
    b.wait_for("revoke");
    b.ok("revoke");
    b.wait(secs(2));
    b.answer_all();
    assert_eq!(b.status().phase, Phase::Member);
}

#[test]
fn p7_a_leader_resigns_if_its_key_names_another_node_or_is_unreadable() {
    for value in [r#"{"node":"b","incarnation":"x"}"#, "garbage"] {
        let mut a = Bench::node("a").joined().leading().stable();
        overwrite(&mut a, "view/leader", value);
        let event = "* another client overwrote c/view/leader, which belongs to this node; correcting it";
        a.expect_only(&["* another client", "resign"], &[event, "resign"]);
        a.answer_all();
        a.skip();
        a.wait(secs(15));
        a.answer_all();
        assert!(a.is_leader());
        a.wait(secs(60));
        a.expect_only(&["* another client", "resign"], &[]);
    }
}
