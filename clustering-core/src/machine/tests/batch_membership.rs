//! The log brings node records: the node's own, and those of others.

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
fn p7_the_log_makes_a_member_not_the_reply() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.tick();
    b.ok("grant");
    b.ok("read");
    b.ok("watch");
    b.skip();
    b.ok("join");
    b.says(&[]);
    assert_eq!(b.status().phase, Phase::Joining);
    b.deliver();
    b.says(&["* b is present at http://b", "* joined as a life"]);
    assert_eq!(b.status().phase, Phase::Member);
}

#[test]
fn p7_a_join_whose_reply_never_comes_counts_all_the_same() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.tick();
    b.ok("grant");
    b.ok("read");
    b.ok("watch");
    b.lose("join");
    b.skip();
    b.deliver();
    b.says(&["* b is present at http://b", "* joined as a life"]);
    b.wait(secs(4));
    b.says(&[]);
}

#[test]
fn others_are_told_of_as_they_come_change_and_go() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.joins("c");
    assert_eq!(b.machine.node_named(&name("c")).unwrap().uri.as_str(), "http://other-c");
    assert_eq!(b.machine.present_count(), 3);
    b.rewrites("c");
    assert_eq!(b.machine.present_count(), 3);
    b.ends("c");
    assert_eq!(b.machine.present_count(), 2);
    assert!(b.machine.node_named(&name("c")).is_none());
    b.says(&[
        "* c is present at http://other-c",
        "* c has a new record, at http://other-c",
        "* c is gone: its session ended",
    ]);
}

#[test]
fn p7_wait_waits_until_the_other_of_that_name_is_gone() {
    let mut b = Bench::node("b").with(&["a", "b"]).led_by("a");
    b.tick();
    b.answer_all();
    b.says_of(
        &["* the name", "join", "take"],
        &["* the name is held by the process at http://other-b; waiting until it is free"],
    );
    b.wait(secs(60));
    b.says(&[]);
    assert_eq!((b.status().phase, b.status().session), (Phase::Joining, None));
    b.ends("b");
    b.says(&["* b is gone: its session ended", "join"]);
}

#[test]
fn p7_wait_tells_of_each_holder_once() {
    let mut b = Bench::node("b").with(&["b"]).joined();
    b.put("view/else", "{}");
    b.says(&[]);
    b.rewrites("b");
    b.says(&[
        "* b has a new record, at http://other-b",
        "* the name is held by the process at http://other-b; waiting until it is free",
    ]);
}

#[test]
fn p7_take_over_replaces_the_other_and_its_acknowledgement() {
    let mut b = Bench::node_with("b", policy(NameConflict::TakeOver)).with(&["a", "b"]).led_by("a");
    b.tick();
    b.answer_all();
    b.says_of(
        &["take", "join", "* joined", "* b"],
        &[
            "* b is present at http://other-b",
            "take over",
            "* b has a new record, at http://b",
            "* joined as a life",
        ],
    );
}

#[test]
fn p5_take_over_of_the_leader_ends_its_lead() {
    let b = Bench::node_with("b", policy(NameConflict::TakeOver)).with(&["b"]).led_by("b").joined();
    assert!(b.status().leadership.is_some(), "and then it is elected itself");
}

#[test]
fn p5_take_over_ends_the_lead_also_of_one_that_changed_its_record_while_leading() {
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
fn p7_take_over_leaves_the_lead_of_another_alone() {
    let mut b = Bench::node_with("b", policy(NameConflict::TakeOver)).with(&["a", "b"]).led_by("a").joined();
    assert_eq!(b.status().leader.unwrap().name.unwrap(), "a");
    assert_eq!(b.status().phase, Phase::Member);
    b.wait(secs(1));
    b.says(&[]);
}

#[test]
fn p7_fail_gives_up_and_gives_the_lease_back() {
    let mut b = Bench::node_with("b", policy(NameConflict::Fail)).with(&["a", "b"]).led_by("a");
    b.tick();
    b.ok("read");
    b.ok("watch");
    b.skip();
    b.ok("grant");
    b.says(&["revoke 3"]);
    b.ok("revoke");
    b.says(&[
        "unwatch",
        "* stopped: its name is held by another process, at http://other-b",
        "stopped: its name is held by another process, at http://other-b",
    ]);
}

#[test]
fn p7_a_foreign_record_in_the_members_place_means_that_it_was_taken_over() {
    for conflict in [NameConflict::Wait, NameConflict::TakeOver, NameConflict::Fail] {
        let mut b = Bench::node_with("b", policy(conflict)).with(&["a"]).led_by("a").joined();
        b.joins("b");
        b.says(&["* b has a new record, at http://other-b", "revoke 2"]);
        b.ok("revoke");
        b.says(&[
            "unwatch",
            "* stopped: another process, at http://other-b, took over its name",
            "stopped: another process, at http://other-b, took over its name",
        ]);
    }
}

#[test]
fn p7_a_node_that_rejoins_and_finds_its_name_taken_does_as_the_policy_says() {
    let policies = [
        (NameConflict::Wait, "* the name is held by the process at http://other-b; waiting until it is free"),
        (NameConflict::TakeOver, "* stopped: another process, at http://other-b, took over its name"),
        (NameConflict::Fail, "* stopped: its name is held by another process, at http://other-b"),
    ];
    for (conflict, says) in policies {
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
        b.says_of(&["* the name", "* stopped", "take over", "join"], &[says]);
    }
}

#[test]
fn p7_ones_own_ghost_is_no_conflict() {
    // The lease of the last session is gone in the store, but the log has not told yet.
    let mut b = Bench::node_with("b", policy(NameConflict::Fail)).with(&["a"]).led_by("a").joined();
    b.advance(secs(15));
    b.ok("revoke");
    b.skip();
    b.ok("grant");
    b.says(&["take over"]);
    b.ok("take over");
    b.says(&[]);
    b.deliver();
    b.says(&["* b is gone: its session ended", "join"]);
}

#[test]
fn p7_a_record_that_was_deleted_while_the_lease_lives_ends_the_session() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.delete("view/nodes/a");
    a.says(&[
        "* a is gone: its session ended",
        "unwatch",
        "* session lost: the node's record was removed",
        "revoke 1",
    ]);
    assert!(!a.is_leader());
}

#[test]
fn p7_an_incarnation_of_this_process_under_another_lease_is_not_mine() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    let record = b.store.get(&"c/view/nodes/b".into()).unwrap().value.clone();
    let other = b.store.grant(b.now, secs(15)).id;
    b.write(crate::store::Txn::new().put("c/view/nodes/b", record, other));
    b.says_of(&["* session"], &["* session lost: the node's record was removed"]);
}

#[test]
fn p4_ones_own_record_that_somebody_put_again_is_the_same_session() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    let record = b.store.get(&"c/view/nodes/b".into()).unwrap().value.clone();
    b.write(crate::store::Txn::new().put("c/view/nodes/b", record, b.lease_of("view/nodes/b")));
    b.publishes();
    b.says_of(&["* session", "stabilize"], &["stabilize V2 of a b after V1"]);
    b.stabilized(crate::Outcome::Ready);
    b.answer_all();
    b.says_of(&["* ready"], &["* ready at V2"]);
}

#[test]
fn p1_a_leader_publishes_a_lone_change_at_once() {
    type Change = fn(&mut Bench, &str);
    let changes: [(&str, Change); 3] =
        [("b joined", Bench::joins), ("b changed", Bench::rewrites), ("b's session ended", Bench::ends)];
    let mut a = Bench::node("a").joined().leading();
    for (version, (cause, change)) in (2..).zip(changes) {
        a = a.after(secs(1));
        change(&mut a, "b");
        a.says_of(&["publish"], &[&format!("publish V{version}: {cause}")]);
        a.ok("publish");
        a.deliver();
    }
}

#[test]
fn p9_changes_in_rows_are_published_ever_more_seldom() {
    let mut a = Bench::node("a").joined().leading().after(secs(1));
    let mut gaps = Vec::new();
    for n in 0..9 {
        a.joins(&format!("n{n}"));
        gaps.push(a.wait_for("publish").as_millis());
        a.ok("publish");
        a.deliver();
    }
    assert_eq!(gaps, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    // After a calm second a change is a lone one again.
    a.wait(ms(1000));
    a.joins("late");
    assert!(a.is_open("publish"));
}

#[test]
fn p9_a_new_leader_goes_on_with_the_row_that_it_saw() {
    for (apart, waits) in [(ms(900), 1600), (ms(1_100), 200), (secs(6), 200)] {
        let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").after(secs(6));
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
fn p9_the_wait_counts_from_the_first_unpublished_change() {
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
    a.says(&["publish V3: c joined, d joined"]);
}

#[test]
fn p9_a_change_that_was_undone_in_time_costs_no_version() {
    let mut a = Bench::node("a").joined().leading().after(secs(1));
    a.joins("b");
    a.ok("publish");
    a.deliver();
    // It comes and goes within the gap.
    a.joins("c");
    a.ends("c");
    a.skip();
    a.wait(secs(10));
    a.says(&[]);
}

#[test]
fn p4_a_rewritten_record_takes_part_again_only_in_the_next_version() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.update(1, "x");
    b.ok("rewrite");
    b.deliver();
    b.says(&[
        "rewrite",
        "* b has a new record, at http://b",
        "reply 1: done",
        "supersede",
        "* stabilize of V1 superseded",
    ]);
    b.stabilized(crate::Outcome::Ready);
    b.says(&[]);
    b.publishes();
    b.says(&["* version V2 of 2 nodes: ", "* stabilizing V2, attempt 1", "stabilize V2 of a b after V1"]);
}

#[test]
fn p7_a_late_join_of_a_lost_session_does_not_register() {
    // The join is on its way when the session is over: its lease is revoked, so it can no longer apply.
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
