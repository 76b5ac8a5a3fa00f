//! A node whose version does not become stable looks now and then whether its yes still stands: nobody tells it if what it
//! told was lost where no leader saw it.

use super::bench::{Bench, ms, secs};
use crate::{
    outcome::Outcome,
    store::{ErrorKind, Txn},
};

const TTL: u64 = 15;

/// b follows a, and has acknowledged the newest version, which waits for a.
fn waiting_for_a() -> Bench {
    Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged()
}

/// How long until it looks; the call stays open.
fn looks_in(bench: &mut Bench) -> std::time::Duration {
    let pause = bench.wait_for("read ready/b");
    bench.skip();
    pause
}

/// It reads that its yes does not stand.
fn gives_it_again(b: &mut Bench) {
    b.ok("read ready/b");
    b.expect(&["acknowledge V1"]);
    b.ok("acknowledge");
    b.expect(&["* ready at V1"]);
}

#[test]
fn p8_an_acknowledgement_that_was_deleted_while_nobody_watched_is_given_again() {
    let mut b = waiting_for_a();
    b.unseen(|b| b.delete("ready/b"));
    let pause = looks_in(&mut b);
    assert!((secs(TTL) * 3 / 4..=secs(TTL)).contains(&pause), "{pause:?}");
    gives_it_again(&mut b);
    let stands = b.store.read(&"c/ready/b".into());
    assert_eq!(stands.entries.len(), 1);
}

#[test]
fn p8_so_is_one_that_a_restored_store_lost_while_the_log_stood_as_before() {
    let b = Bench::node("b").with(&["a"]).joined().led_by("a");
    let published = b.store.revision;
    let mut b = b.acknowledged();
    b.store.rewind(published);
    b.disconnects("view/");
    b.answer_all();
    looks_in(&mut b);
    gives_it_again(&mut b);
}

#[test]
fn p8_so_is_one_that_somebody_overwrote() {
    let older = r#"{"version": "01BX5ZZKBKACTAV9WEVGEMMVRZ", "outcome": "ready"}"#;
    for (value, under_its_lease) in
        [(Some("garbage"), true), (Some(older), true), (Some(older), false), (None, false)]
    {
        let mut b = waiting_for_a();
        let stands = &b.store.read(&"c/ready/b".into()).entries[0];
        let value = value.map_or(stands.value.clone(), |value| value.into());
        let lease = stands.lease.filter(|_| under_its_lease);
        b.unseen(|b| b.write(Txn::new().put("c/ready/b", value, lease)));
        looks_in(&mut b);
        gives_it_again(&mut b);
    }
}

#[test]
fn one_that_stands_is_looked_at_with_growing_pauses_and_not_told_again() {
    let mut b = waiting_for_a();
    for whole in [TTL, 2 * TTL, 4 * TTL, 4 * TTL, 4 * TTL] {
        let (least, most) = (secs(whole) * 3 / 4, secs(whole));
        b.wait(least - ms(1));
        assert!(!b.is_open("read ready/b"), "not within {least:?}");
        b.wait(most - least + ms(1));
        b.skip();
        b.ok("read ready/b");
        b.expect(&[]);
    }
}

#[test]
fn p9_nobody_looks_where_the_version_is_stable() {
    let mut b = waiting_for_a();
    b.acknowledges("a");
    b.confirms();
    b.skip();
    b.wait(secs(40 * TTL));
    b.expect(&[]);
}

#[test]
fn p8_a_node_looks_again_when_the_record_that_its_version_is_stable_is_gone() {
    let mut b = waiting_for_a();
    b.acknowledges("a");
    b.confirms();
    b.wait(secs(2 * TTL));
    b.skip();
    b.unseen(|b| b.delete("ready/b"));
    b.deliver_to("ready/");
    b.delete("view/stable");
    looks_in(&mut b);
    b.ok("read ready/b");
    b.expect(&["acknowledge V1"]);
}

#[test]
fn a_node_that_has_not_said_yes_has_nothing_to_look_for() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.wait(secs(3 * TTL));
    assert!(!b.is_open("read ready/b"));
    b.stabilized(Outcome::Refused { reason: "not yet".to_owned() });
    b.ok("acknowledge");
    b.wait(secs(3 * TTL));
    assert!(!b.is_open("read ready/b"));
}

#[test]
fn a_look_that_failed_is_repeated_soon_and_then_with_growing_pauses() {
    let mut b = waiting_for_a();
    b.unseen(|b| b.delete("ready/b"));
    looks_in(&mut b);
    for whole in [100, 200, 400] {
        b.fail("read ready/b", ErrorKind::Unreachable);
        let pause = looks_in(&mut b);
        assert!((ms(whole * 3 / 4)..=ms(whole)).contains(&pause), "{pause:?}");
    }
    b.ok("read ready/b");
    b.expect(&["acknowledge V1"]);
}

#[test]
fn nobody_looks_for_what_was_said_of_an_older_version() {
    let mut b = waiting_for_a();
    b.publishes();
    b.wait(secs(3 * TTL));
    assert!(!b.is_open("read ready/b"));
}

#[test]
fn a_newer_version_does_not_wait_for_a_look() {
    let mut b = waiting_for_a();
    looks_in(&mut b);
    b.publishes();
    b.stabilized(Outcome::Ready);
    b.expect_only(&["acknowledge"], &["acknowledge V2"]);
    // What the look says by now is about another version.
    b.ok("read ready/b");
    b.expect_only(&["acknowledge"], &[]);
    b.ok("acknowledge");
    b.expect(&["* ready at V2"]);
}
