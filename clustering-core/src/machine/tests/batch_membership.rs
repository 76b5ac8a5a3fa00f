//! The log delivers node records: the node's own, and those of others.

use super::bench::{Bench, ms, name, secs};
use crate::{
    config::{Config, NameConflict},
    machine::Phase,
    store::{ErrorKind, LeaseId},
};

fn policy(conflict: NameConflict) -> impl FnOnce(&mut Config) {
    move |config| config.name_conflict = conflict
}

#[test]
fn p7_a_node_becomes_a_member_by_the_log_and_not_by_the_reply() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.tick();
    b.ok("grant");
    b.ok("read");
    b.ok("watch");
    b.skip();
    b.ok("join");
    b.expect(&[]);
    assert_eq!(b.status().phase, Phase::Joining);
    b.deliver();
    b.expect(&["* b is present at http://b", "* joined as <ULID>"]);
    assert_eq!(b.status().phase, Phase::Member);
}

#[test]
fn p7_a_join_whose_reply_is_lost_still_counts() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.tick();
    b.ok("grant");
    b.ok("read");
    b.ok("watch");
    b.lose("join");
    b.skip();
    b.deliver();
    b.expect(&["* b is present at http://b", "* joined as <ULID>"]);
    b.wait(secs(4));
    b.expect(&[]);
}

#[test]
fn nodes_that_join_change_and_depart_are_reported() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.joins("c");
    assert_eq!(b.machine.node_named(&name("c")).unwrap().uri.as_str(), "http://other-c");
    assert_eq!(b.machine.present_count(), 3);
    b.rewrites("c");
    assert_eq!(b.machine.present_count(), 3);
    b.ends("c");
    assert_eq!(b.machine.present_count(), 2);
    assert!(b.machine.node_named(&name("c")).is_none());
    b.expect(&[
        "* c is present at http://other-c",
        "* c has a new record, at http://other-c",
        "* c is gone: its session ended",
    ]);
}

#[test]
fn p7_the_policy_wait_waits_until_the_name_is_free() {
    let mut b = Bench::node("b").with(&["a", "b"]).led_by("a");
    b.tick();
    b.answer_all();
    b.expect_only(
        &["* the name", "join", "take"],
        &["* the name is held by the process at http://other-b; waiting until it is free"],
    );
    b.wait(secs(60));
    b.expect(&[]);
    assert_eq!((b.status().phase, b.status().session), (Phase::Joining, None));
    b.ends("b");
    b.expect(&["* b is gone: its session ended", "join"]);
}

#[test]
fn p7_the_policy_wait_reports_each_holder_of_the_name_once() {
    let mut b = Bench::node("b").with(&["b"]).joined();
    b.put("view/else", "{}");
    b.expect(&[]);
    b.rewrites("b");
    b.expect(&[
        "* b has a new record, at http://other-b",
        "* the name is held by the process at http://other-b; waiting until it is free",
    ]);
}

#[test]
fn p7_a_takeover_replaces_the_record_and_deletes_the_acknowledgement() {
    let mut b = Bench::node_with("b", policy(NameConflict::TakeOver)).with(&["a", "b"]).led_by("a");
    b.tick();
    b.answer_all();
    b.expect_only(
        &["take", "join", "* joined", "* b"],
        &[
            "* b is present at http://other-b",
            "take over",
            "* b has a new record, at http://b",
            "* joined as <ULID>",
        ],
    );
}

#[test]
fn p5_taking_over_the_leaders_name_ends_its_leadership() {
    let b = Bench::node_with("b", policy(NameConflict::TakeOver)).with(&["b"]).led_by("b").joined();
    assert!(b.status().leadership.is_some(), "the node is elected after the takeover");
}

#[test]
fn p5_taking_over_a_leader_that_rewrote_its_record_ends_its_leadership_too() {
    let mut b = Bench::node_with("b", policy(NameConflict::TakeOver)).with(&["b"]).led_by("b");
    b.rewrites("b");
    b.tick();
    b.ok("grant");
    b.ok("read");
    b.ok("watch");
    let deleted = b.txn("take over").operations().iter().any(|operation| operation.key().ends_with("leader"));
    assert!(deleted);
}

#[test]
fn p7_a_takeover_does_not_affect_another_leader() {
    let mut b = Bench::node_with("b", policy(NameConflict::TakeOver)).with(&["a", "b"]).led_by("a").joined();
    assert_eq!(b.status().leader.unwrap().name.unwrap(), "a");
    assert_eq!(b.status().phase, Phase::Member);
    b.wait(secs(1));
    b.expect(&[]);
}

#[test]
fn p7_the_policy_fail_stops_the_node_and_revokes_its_lease() {
    let mut b = Bench::node_with("b", policy(NameConflict::Fail)).with(&["a", "b"]).led_by("a");
    b.tick();
    b.ok("read");
    b.ok("watch");
    b.skip();
    b.ok("grant");
    b.expect(&["revoke 3"]);
    b.ok("revoke");
    b.expect(&[
        "unwatch",
        "* stopped: its name is held by another process, at http://other-b",
        "stopped: its name is held by another process, at http://other-b",
    ]);
}

#[test]
fn p7_a_member_whose_record_another_process_replaced_stops() {
    for conflict in [NameConflict::Wait, NameConflict::TakeOver, NameConflict::Fail] {
        let mut b = Bench::node_with("b", policy(conflict)).with(&["a"]).led_by("a").joined();
        b.joins("b");
        b.expect(&["* b has a new record, at http://other-b", "revoke 2"]);
        b.ok("revoke");
        b.expect(&[
            "unwatch",
            "* stopped: another process, at http://other-b, took over its name",
            "stopped: another process, at http://other-b, took over its name",
        ]);
    }
}

#[test]
fn p7_a_node_that_rejoins_and_finds_its_name_taken_applies_its_policy() {
    let policies = [
        (NameConflict::Wait, "* the name is held by the process at http://other-b; waiting until it is free"),
        (NameConflict::TakeOver, "* stopped: another process, at http://other-b, took over its name"),
        (NameConflict::Fail, "* stopped: its name is held by another process, at http://other-b"),
    ];
    for (conflict, event) in policies {
        let mut b = Bench::node_with("b", policy(conflict)).with(&["a"]).led_by("a").joined();
        b.unseen(|b| {
            b.store.revoke(b.lease_of("view/nodes/b")).unwrap();
            b.joins("b");
        });
        b.advance(secs(15));
        b.ok("revoke");
        b.deliver();
        b.skip();
        b.answer_all();
        b.expect_only(&["* the name", "* stopped", "take over", "join"], &[event]);
    }
}

#[test]
fn p7_a_nodes_own_stale_record_is_not_a_name_conflict() {
    // The store has revoked the lease of the last session, but the log has not shown the deletion yet.
    let mut b = Bench::node_with("b", policy(NameConflict::Fail)).with(&["a"]).led_by("a").joined();
    b.advance(secs(15));
    b.ok("revoke");
    b.skip();
    b.ok("grant");
    b.expect(&["take over"]);
    b.ok("take over");
    b.expect(&[]);
    b.deliver();
    b.expect(&["* b is gone: its session ended", "join"]);
}

#[test]
fn p7_a_record_that_was_deleted_while_the_lease_lives_ends_the_session() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.delete("view/nodes/a");
    a.expect(&[
        "* a is gone: its session ended",
        "unwatch",
        "* session lost: the node's record was removed",
        "revoke 1",
    ]);
    assert!(!a.is_leader());
}

#[test]
fn p7_a_record_of_this_process_under_a_foreign_lease_ends_the_session() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    let record = b.store.get(&"c/view/nodes/b".into()).unwrap().value.clone();
    let other = b.store.grant(b.now, secs(15)).id;
    b.write(crate::store::Txn::new().put("c/view/nodes/b", record, other));
    b.expect_only(&["* session"], &["* session lost: the node's record was removed"]);
}

#[test]
fn p4_an_identical_rewrite_of_the_nodes_record_keeps_its_session() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    let record = b.store.get(&"c/view/nodes/b".into()).unwrap().value.clone();
    b.write(crate::store::Txn::new().put("c/view/nodes/b", record, b.lease_of("view/nodes/b")));
    b.publishes();
    b.expect_only(&["* session", "stabilize"], &["stabilize V2 of a b after V1"]);
    b.stabilized(crate::Outcome::Ready);
    b.answer_all();
    b.expect_only(&["* ready"], &["* ready at V2"]);
}

#[test]
fn p1_a_leader_publishes_a_single_change_immediately() {
    type Change = fn(&mut Bench, &str);
    let changes: [(&str, Change); 3] =
        [("b joined", Bench::joins), ("b changed", Bench::rewrites), ("b's session ended", Bench::ends)];
    let mut a = Bench::node("a").joined().leading();
    for (version, (cause, change)) in (2..).zip(changes) {
        a = a.after(secs(1));
        change(&mut a, "b");
        a.expect_only(&["publish"], &[&format!("publish V{version}: {cause}")]);
        a.ok("publish");
        a.deliver();
    }
}

#[test]
fn p9_the_publication_backoff_grows_while_changes_follow_each_other() {
    let mut a = Bench::node("a").joined().leading().after(secs(1));
    let mut gaps = Vec::new();
    for n in 0..9 {
        a.joins(&format!("n{n}"));
        gaps.push(a.wait_for("publish").as_millis());
        a.ok("publish");
        a.deliver();
    }
    assert_eq!(gaps, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    // After a quiet second the backoff resets.
    a.wait(ms(1000));
    a.joins("late");
    assert!(a.is_open("publish"));
}

#[test]
fn p9_a_new_leader_continues_with_its_predecessors_publication_backoff() {
    for (apart, waits) in [(ms(900), 1600), (ms(1_100), 200), (secs(6), 200)] {
        let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").after(secs(6));
        b.priority = Some(50);
        for n in 0..4 {
            b.joins(&format!("n{n}"));
            b.wait(apart);
            b.publishes();
        }
        b.ends("a");
        b.ok("elect");
        b.deliver();
        b.joins("late");
        assert_eq!(b.wait_for("publish"), ms(waits), "a version each {apart:?}");
    }
}

#[test]
fn p9_the_publication_backoff_counts_from_the_first_unpublished_change() {
    let mut a = Bench::node("a").joined().leading().after(secs(1));
    a.joins("b");
    a.ok("publish");
    a.deliver();
    a.joins("c");
    a.wait(ms(60));
    a.joins("d");
    a.wait(ms(39));
    assert!(!a.is_open("publish"));
    a.skip();
    a.wait(ms(1));
    a.expect(&["publish V3: c joined, d joined"]);
}

#[test]
fn p9_a_change_that_was_undone_before_publication_costs_no_version() {
    let mut a = Bench::node("a").joined().leading().after(secs(1));
    a.joins("b");
    a.ok("publish");
    a.deliver();
    // c joins and departs within the pause.
    a.joins("c");
    a.ends("c");
    a.skip();
    a.wait(secs(10));
    a.expect(&[]);
}

#[test]
fn p4_a_node_that_rewrote_its_record_participates_again_from_the_next_version() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.update(1, "x");
    b.ok("rewrite");
    b.deliver();
    b.expect(&[
        "rewrite",
        "* b has a new record, at http://b",
        "reply 1: done",
        "supersede",
        "* stabilize of V1 superseded",
    ]);
    b.stabilized(crate::Outcome::Ready);
    b.expect(&[]);
    b.publishes();
    b.expect(&["* version V2 of 2 nodes: ", "* stabilizing V2, attempt 1", "stabilize V2 of a b after V1"]);
}

#[test]
fn p7_a_join_that_arrives_after_its_session_was_lost_is_refused() {
    // The join is in flight when the session ends. Its lease has been revoked, so the store refuses it.
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.tick();
    b.ok("read");
    b.ok("watch");
    b.ok("grant");
    let late = b.txn("join").clone();
    b.advance(secs(15));
    b.ok("revoke");
    assert_eq!(b.store.commit(&late).unwrap_err().kind(), ErrorKind::LeaseNotFound, "{:?}", LeaseId::new(1));
}
