//! The history of versions.

use super::{
    bench::{Bench, ms, secs},
    render::value,
};
use crate::{
    record::{Cause, HistoryRecord, VersionRecord},
    store::Entry,
    version::Version,
};

fn entry(bench: &Bench, number: u64) -> Option<HistoryRecord> {
    let entry: &Entry = bench.store.get(&format!("c/history/{number}").into())?;
    Some(HistoryRecord::decode(&entry.value).unwrap())
}

fn number(bench: &Bench, purpose: &str) -> u64 {
    value::<VersionRecord>(bench.txn(purpose), "version").unwrap().number
}

#[test]
fn an_entry_names_the_last_node_to_acknowledge_and_the_time_it_took() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.joins("c");
    a.answer_all();
    a.wait(ms(100));
    a.acknowledges("c");
    a = a.acknowledged();
    a.wait(ms(250));
    assert_eq!(entry(&a, 2).unwrap().stable, None);
    a.acknowledges("b");
    a.fail("confirm", crate::store::ErrorKind::Unreachable);
    a.wait_for("confirm");
    a.answer_all();
    let settled = entry(&a, 2).unwrap().stable.unwrap();
    assert_eq!((settled.nodes, settled.last.unwrap().as_str()), (3, "b"));
    // The store did not answer at first. This delay is not counted as the node's.
    assert_eq!(settled.last_after_ms, 350);
    assert!(settled.after_ms > 350, "{}", settled.after_ms);
}

#[test]
fn a_superseded_version_is_kept_with_its_causes_and_without_a_stable_time() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.ends("b");
    a.wait(secs(5));
    a.answer_all();
    let (second, third) = (entry(&a, 2).unwrap(), entry(&a, 3).unwrap());
    assert_eq!((second.published.number, second.stable), (2, None));
    assert_eq!(second.published.causes, [Cause::Joined(super::bench::name("b"))]);
    assert_eq!(third.published.causes, [Cause::Ended(super::bench::name("b"))]);
}

#[test]
fn version_128_is_written_to_entry_0() {
    let mut a = Bench::node("a").joined().leading();
    let record = VersionRecord { number: 127, ..VersionRecord::labelled(a.generate_version()) };
    a.publishes_as(record);
    a.wait(secs(2));
    a.joins("b");
    a.answer_all();
    assert_eq!(entry(&a, 0).unwrap().published.number, 128);
}

#[test]
fn numbering_continues_across_unnumbered_and_deleted_versions() {
    let mut a = Bench::node("a").joined().leading().stable();
    let version = a.generate_version();
    a.publishes_as(VersionRecord::labelled(version));
    let mut a = a.stable();
    assert_eq!(entry(&a, 0), None, "an unnumbered version has no entry, even once it is stable");
    a.request_version(1, "x");
    assert_eq!(number(&a, "publish"), 2);
    // A node that saw a version continues after its number even if the version was deleted.
    a.answer_all();
    a.delete("view/version");
    assert_eq!(number(&a, "publish"), 3);
}

#[test]
fn the_largest_version_number_is_followed_by_1() {
    let mut a = Bench::node("a").joined().leading();
    let version = a.generate_version();
    a.publishes_as(VersionRecord { number: u64::MAX, ..VersionRecord::labelled(version) });
    a.request_version(1, "x");
    assert_eq!(number(&a, "publish"), 1);
}

/// Users choose the texts of reasons, and the size of a record is limited.
#[test]
fn long_reasons_of_requests_are_truncated() {
    let mut a = Bench::node("a").joined().leading();
    let long = "ü".repeat(15_000);
    a.put("view/request", &format!(r#"{{"by": "{long}", "why": "{long}"}}"#));
    a.request_version(1, &long);
    let record: VersionRecord = value(a.txn("publish"), "version").unwrap();
    let short = |text: &str| assert!((1..=1030).contains(&text.len()), "{}", text.len());
    assert_eq!(record.causes.len(), 2);
    for cause in record.causes {
        let Cause::Asked { by, why } = cause else { panic!("{cause}") };
        short(&by);
        short(&why.unwrap());
    }
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.request_version(1, &long);
    let request: crate::record::RequestRecord = value(b.txn("request"), "request").unwrap();
    short(&request.why.unwrap());
}

#[test]
fn a_version_with_a_lower_number_can_be_the_newest() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.publishes_as(VersionRecord { number: 1, ..VersionRecord::labelled(Version::from_u128(1)) });
    assert_eq!(b.status().newest.unwrap().version(), Version::from_u128(1));
}
