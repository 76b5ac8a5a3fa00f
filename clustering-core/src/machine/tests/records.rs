//! Records that the machine writes, byte for byte. Other programs read them, so they must not change.

use super::bench::{Bench, ms};
use crate::store::Operation;

/// Returns the keys and values that the commit with this purpose puts, with ULIDs replaced by a placeholder.
fn puts(bench: &Bench, purpose: &str) -> Vec<(String, String)> {
    let put = |operation: &Operation| match operation {
        Operation::Put { key, value, .. } => {
            let text = String::from_utf8(value.to_vec()).expect("JSON is UTF-8");
            Some((key.to_string(), without_ulids(&text)))
        }
        Operation::Delete { .. } => None,
    };
    bench.txn(purpose).operations().iter().filter_map(put).collect()
}

fn without_ulids(json: &str) -> String {
    let is_ulid = |text: &str| text.len() == 26 && text.parse::<crate::Version>().is_ok();
    let part = |text| if is_ulid(text) { "<ULID>" } else { text };
    json.split('"').map(part).collect::<Vec<_>>().join("\"")
}

#[track_caller]
fn assert_puts(bench: &Bench, purpose: &str, expected: &[(&str, &str)]) {
    let puts = puts(bench, purpose);
    let puts: Vec<_> = puts.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(puts, expected);
}

#[test]
fn joining_and_rewriting_write_the_documented_node_record() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.tick();
    b.ok("grant");
    b.ok("read");
    b.ok("watch");
    let record = r#"{"uri":"http://b","incarnation":"<ULID>","metadata":{},"protocol":1,"priority":100}"#;
    assert_puts(&b, "join", &[("c/view/nodes/b", record)]);
    b.answer_all();
    b.update(1, "x");
    let record = r#"{"uri":"http://b","incarnation":"<ULID>","metadata":{"zone":"x"},"protocol":1,"priority":100,"seen":"<ULID>"}"#;
    assert_puts(&b, "rewrite", &[("c/view/nodes/b", record)]);
}

#[test]
fn an_election_writes_the_documented_records() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    assert_puts(
        &b,
        "elect",
        &[
            ("c/view/leader", r#"{"node":"b","incarnation":"<ULID>"}"#),
            (
                "c/view/version",
                r#"{"version":"<ULID>","number":1,"leader":"b","cause":[{"elected":"b"},{"joined":"a"},{"joined":"b"}],"formed":true}"#,
            ),
            (
                "c/history/1",
                r#"{"version":"<ULID>","number":1,"leader":"b","cause":[{"elected":"b"},{"joined":"a"},{"joined":"b"}],"formed":true}"#,
            ),
        ],
    );
}

#[test]
fn publishing_writes_the_documented_version_and_its_causes() {
    let mut a = Bench::node("a").joined().leading();
    a.joins("b");
    a.requests("ops");
    a.request_version(1, "rebalance");
    let causes = r#"{"joined":"b"},{"asked":{"by":"ops","why":null}},{"asked":{"by":"a","why":"rebalance"}}"#;
    let record = format!(
        r#"{{"version":"<ULID>","number":2,"term":2,"leader":"a","cause":[{causes}],"formed":true}}"#
    );
    assert_puts(&a, "publish", &[("c/view/version", &record), ("c/history/2", &record)]);
}

#[test]
fn acknowledging_writes_the_documented_record() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    let mut refusing = b.clone();
    b.stabilized(crate::Outcome::Ready);
    assert_puts(&b, "acknowledge", &[("c/ready/b", r#"{"version":"<ULID>","outcome":"ready"}"#)]);
    refusing.stabilized(crate::Outcome::refused("disk full"));
    let record = r#"{"version":"<ULID>","outcome":"failed","detail":"disk full"}"#;
    assert_puts(&refusing, "acknowledge", &[("c/ready/b", record)]);
}

#[test]
fn confirming_writes_the_documented_stable_record_and_history_entry() {
    let mut a = Bench::node("a").joined().leading().stable().after(ms(7));
    a.delete("view/stable");
    let stable = ("c/view/stable", r#"{"version":"<ULID>","term":2,"nodes":1}"#);
    let (causes, how) =
        (r#"[{"elected":"a"},{"joined":"a"}]"#, r#"{"after_ms":7,"nodes":1,"last":"a","last_after_ms":0}"#);
    let entry = format!(
        r#"{{"version":"<ULID>","number":1,"term":2,"leader":"a","cause":{causes},"formed":true,"stable":{how}}}"#
    );
    assert_puts(&a, "confirm", &[stable, ("c/history/1", &entry)]);
}

#[test]
fn leaving_and_evicting_write_the_documented_departure_record() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stop();
    let record = r#"{"node":"b","incarnation":"<ULID>","how":"left"}"#;
    assert_puts(&b, "leave", &[("c/view/gone", record)]);

    let mut a = Bench::evicting("a").joined().leading().stable().after(ms(2_000));
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.wait(ms(10_000));
    let record = r#"{"node":"b","incarnation":"<ULID>","how":"evicted"}"#;
    assert_puts(&a, "evict", &[("c/view/gone", record)]);
}

#[test]
fn requesting_a_version_writes_the_documented_record() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.request_version(1, "rebalance");
    assert_puts(&b, "request", &[("c/view/request", r#"{"by":"b","why":"rebalance"}"#)]);
}
