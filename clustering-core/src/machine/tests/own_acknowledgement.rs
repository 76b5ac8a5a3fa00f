//! A node whose version does not become stable reads its own acknowledgement from time to time, since neither the log
//! nor the leader shows that it was lost.

use super::bench::{Bench, ms, secs};
use crate::{
    outcome::Outcome,
    store::{ErrorKind, Txn},
};

const TTL: u64 = 15;

/// Returns b, a follower that has acknowledged the newest version, while the leader a has not.
fn waiting_for_a() -> Bench {
    Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged()
}

/// Waits until the node reads its acknowledgement, and returns how long that took. The call stays open.
fn time_until_read(bench: &mut Bench) -> std::time::Duration {
    let pause = bench.wait_for("read ready/b");
    bench.skip();
    pause
}

/// Answers the open read, which shows that the acknowledgement is missing, and checks that the node repeats it.
fn acknowledges_again(b: &mut Bench) {
    b.ok("read ready/b");
    b.expect(&["acknowledge V1"]);
    b.ok("acknowledge");
    b.expect(&["* ready at V1"]);
}

#[test]
fn p8_a_node_repeats_its_acknowledgement_after_an_unnoticed_deletion() {
    let mut b = waiting_for_a();
    b.unseen(|b| b.delete("ready/b"));
    let pause = time_until_read(&mut b);
    assert!((secs(TTL) * 3 / 4..=secs(TTL)).contains(&pause), "{pause:?}");
    acknowledges_again(&mut b);
    let snapshot = b.store.read(&"c/ready/b".into());
    assert_eq!(snapshot.entries.len(), 1);
}

#[test]
fn p8_a_node_repeats_its_acknowledgement_if_a_restored_store_lost_only_that() {
    let b = Bench::node("b").with(&["a"]).joined().led_by("a");
    let published = b.store.revision;
    let mut b = b.acknowledged();
    b.store.rewind(published);
    b.disconnects("view/");
    b.answer_all();
    time_until_read(&mut b);
    acknowledges_again(&mut b);
}

#[test]
fn p8_a_node_repeats_its_acknowledgement_after_another_client_overwrote_it() {
    let older = r#"{"version": "01BX5ZZKBKACTAV9WEVGEMMVRZ", "outcome": "ready"}"#;
    for (value, under_its_lease) in
        [(Some("garbage"), true), (Some(older), true), (Some(older), false), (None, false)]
    {
        let mut b = waiting_for_a();
        let existing = &b.store.read(&"c/ready/b".into()).entries[0];
        let value = value.map_or(existing.value.clone(), |value| value.into());
        let lease = existing.lease.filter(|_| under_its_lease);
        b.unseen(|b| b.write(Txn::new().put("c/ready/b", value, lease)));
        time_until_read(&mut b);
        acknowledges_again(&mut b);
    }
}

#[test]
fn an_existing_acknowledgement_is_read_with_backoff_and_not_repeated() {
    let mut b = waiting_for_a();
    for whole in [TTL, 2 * TTL, 4 * TTL, 4 * TTL, 4 * TTL] {
        let (least, most) = (secs(whole) * 3 / 4, secs(whole));
        b.wait(least - ms(1));
        assert!(!b.is_open("read ready/b"), "a read within {least:?}");
        b.wait(most - least + ms(1));
        b.skip();
        b.ok("read ready/b");
        b.expect(&[]);
    }
}

#[test]
fn p9_a_node_does_not_read_its_acknowledgement_of_a_stable_version() {
    let mut b = waiting_for_a();
    b.acknowledges("a");
    b.confirms();
    b.skip();
    b.wait(secs(40 * TTL));
    b.expect(&[]);
}

#[test]
fn p8_a_node_reads_its_acknowledgement_again_once_the_stable_record_is_deleted() {
    let mut b = waiting_for_a();
    b.acknowledges("a");
    b.confirms();
    b.wait(secs(2 * TTL));
    b.skip();
    b.unseen(|b| b.delete("ready/b"));
    b.deliver_to("ready/");
    b.delete("view/stable");
    time_until_read(&mut b);
    b.ok("read ready/b");
    b.expect(&["acknowledge V1"]);
}

#[test]
fn a_node_that_has_not_acknowledged_reads_nothing() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.wait(secs(3 * TTL));
    assert!(!b.is_open("read ready/b"));
    b.stabilized(Outcome::Refused { reason: "not yet".to_owned() });
    b.ok("acknowledge");
    b.wait(secs(3 * TTL));
    assert!(!b.is_open("read ready/b"));
}

#[test]
fn a_failed_read_is_repeated_with_backoff() {
    let mut b = waiting_for_a();
    b.unseen(|b| b.delete("ready/b"));
    time_until_read(&mut b);
    for whole in [100, 200, 400] {
        b.fail("read ready/b", ErrorKind::Unreachable);
        let pause = time_until_read(&mut b);
        assert!((ms(whole * 3 / 4)..=ms(whole)).contains(&pause), "{pause:?}");
    }
    b.ok("read ready/b");
    b.expect(&["acknowledge V1"]);
}

#[test]
fn a_node_does_not_read_its_acknowledgement_of_an_older_version() {
    let mut b = waiting_for_a();
    b.publishes();
    b.wait(secs(3 * TTL));
    assert!(!b.is_open("read ready/b"));
}

#[test]
fn the_acknowledgement_of_a_newer_version_does_not_wait_for_a_read() {
    let mut b = waiting_for_a();
    time_until_read(&mut b);
    b.publishes();
    b.stabilized(Outcome::Ready);
    b.expect_only(&["acknowledge"], &["acknowledge V2"]);
    // The read was for the older version, so its result is ignored.
    b.ok("read ready/b");
    b.expect_only(&["acknowledge"], &[]);
    b.ok("acknowledge");
    b.expect(&["* ready at V2"]);
}
