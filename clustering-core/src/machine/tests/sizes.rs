//! Records of the maximum size that a store accepts, written by other clients. The machine copies parts of them into
//! its commits, which must not exceed the limits, since the store would refuse them forever.
//!
//! [`invariants`](super::invariants) validates every commit of every test; the tests here supply the large records.

use proptest::{collection::vec, prelude::*, sample::select};

use super::bench::{Bench, ms, secs};
use crate::{
    config::Laggards,
    fuzz::cases,
    outcome::Outcome,
    record::{Cause, HistoryRecord},
    store::Limits,
};

const LABEL: &str = "01HF7ZZZ00000000000000000";

/// Returns a JSON object of at most the size that a store accepts, with `fill` repeated as often as there is room.
fn filled(before: &str, fill: &str, after: &str) -> String {
    let room = Limits::VALUE - before.len() - after.len();
    format!("{before}{}{after}", fill.repeat(room / fill.len()))
}

impl Bench {
    /// Lets this many seconds pass while all calls and callbacks are answered.
    fn run_for(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            self.wait(ms(250));
            self.answer_all();
            while self.is_open("stabilize") {
                self.stabilized(Outcome::Ready);
                self.answer_all();
            }
            if self.is_open("announce") {
                self.announced();
            }
        }
        self.skip();
    }
}

#[test]
fn p8_a_version_with_a_cause_of_64_kib_becomes_stable() {
    let record = |causes: &str, fill: &str, end: &str| {
        let before = format!(r#"{{"version": "{LABEL}0", "number": 7, "leader": "x", "cause": [{causes}"#);
        filled(&before, fill, &format!("{end}]}}"))
    };
    for version in [
        record(r#"{"asked": {"by": "ops", "why": ""#, "x", "\"}}"),
        record(r#"{"asked": {"why": "ops", "by": ""#, r"\u0001", "\"}}"),
        record(r#"{"drained": ""#, "x", "\"}"),
        record(r#"{"drained": ["#, "1e15, ", "1]}"),
        record("1", ", 1e15", ""),
        record("\"resync\"", ", \"resync\"", ""),
    ] {
        let mut a = Bench::node("a").joined().leading().stable();
        a.put("view/version", &version);
        a.run_for(2);
        assert!(a.status().consistent, "{:?}", a.status());
        let entry = a.store.get(&"c/history/7".into()).expect("the version is in the history");
        let entry = HistoryRecord::decode(&entry.value).unwrap();
        assert!(entry.stable.is_some() && entry.published.causes.len() <= 33);
    }
}

#[test]
fn p8_a_node_whose_record_takes_64_kib_is_evicted() {
    for (before, fill, after) in [
        (r#"{"uri": "", "incarnation": ""#, "x", "\"}"),
        (r#"{"uri": "", "incarnation": ""#, r"\u0001", "\"}"),
        (r#"{"incarnation": "x", "uri": ""#, "x", "\"}"),
    ] {
        let mut a = Bench::evicting("a").joined().leading().stable();
        a.put("view/nodes/b", &filled(before, fill, after));
        a.run_for(30);
        assert!(a.status().consistent, "{:?}", a.status());
        assert!(a.store.get(&"c/view/nodes/b".into()).is_none());
    }
}

/// If the incarnation fits into the record, the eviction is still recorded.
#[test]
fn a_departure_record_is_left_out_only_if_it_would_be_too_large() {
    for (size, causes) in
        [(60_000, Cause::Evicted(super::bench::name("b"))), (65_500, Cause::Ended(super::bench::name("b")))]
    {
        let mut a = Bench::evicting("a").joined().leading().stable();
        a.put("view/nodes/b", &format!(r#"{{"uri": "", "incarnation": "{}"}}"#, "x".repeat(size)));
        a.run_for(30);
        let newest = a.status().newest.unwrap();
        assert_eq!((newest.len(), newest.causes()), (1, &[causes][..]));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(&'static str, String),
    LoseLead,
}

/// Generates records of each kind, with a text of any size in one of their fields.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = select(vec![
        ("view/version", r#"{"version": "LABEL0", "number": 9, "cause": [{"asked": {"by": "#, "}}]}"),
        ("view/version", r#"{"version": "LABEL1", "number": 9, "cause": [{"new": {"": "#, "}}]}"),
        ("view/version", r#"{"version": "LABEL2", "number": 9, "cause": ["resync", "#, "]}"),
        ("view/version", r#"{"version": "LABEL3", "number": 9, "leader": "#, "}"),
        ("view/nodes/b", r#"{"uri": "http://b", "incarnation": "#, "}"),
        ("view/nodes/b", r#"{"incarnation": "x", "uri": "#, "}"),
        ("view/nodes/c", r#"{"incarnation": "x", "uri": "http://c", "metadata": {"zone": "#, "}}"),
        ("view/request", r#"{"by": "#, "}"),
        ("view/request", r#"{"by": "ops", "why": "#, "}"),
        ("view/stable", r#"{"version": "LABEL0", "new": "#, "}"),
        ("view/gone", r#"{"node": "c", "how": "left", "incarnation": "#, "}"),
        ("ready/b", r#"{"version": "LABEL0", "outcome": "failed", "detail": "#, "}"),
    ]);
    let fill = select(vec!["x", "ü", r"\u0001", r#"\""#]);
    let size = prop_oneof![1 => 0..Limits::VALUE, 2 => Just(Limits::VALUE)];
    let put = (record, fill, size).prop_map(|((key, before, after), fill, size)| {
        let before = before.replace("LABEL", LABEL);
        let room = (Limits::VALUE - before.len() - after.len() - 2).min(size);
        Step::Put(key, format!("{before}\"{}\"{after}", fill.repeat(room / fill.len())))
    });
    vec(prop_oneof![8 => put, 1 => Just(Step::LoseLead)], 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases().cases / 4, ..cases() })]

    #[test]
    fn fuzz_p8_no_record_of_any_size_keeps_the_cluster_from_becoming_stable(steps in steps()) {
        let mut a = Bench::node_with("a", |config| {
            config.laggards = Laggards::Evict { after: secs(10) };
            config.mass_failure_percent = 100;
        });
        a = a.joined().leading().stable();
        for step in steps {
            match step {
                Step::Put(key, value) => a.put(key, &value),
                Step::LoseLead => a.delete("view/leader"),
            }
            a.run_for(1);
        }
        // A forged record that a version is stable would spare nodes that never acknowledged it.
        a.delete("view/stable");
        a.run_for(60);
        prop_assert!(a.status().consistent, "{:?}", a.status());
        prop_assert_eq!(a.status().newest.map(|view| view.len()), Some(1));
        a.stop();
        a.answer_all();
    }
}

#[test]
fn a_request_with_a_reason_of_any_length_is_written() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.request_version(1, &"\u{1}".repeat(Limits::VALUE));
    b.answer_all();
    assert!(b.store.get(b.keys.request_key()).is_some());
    b.wait(secs(1));
}
