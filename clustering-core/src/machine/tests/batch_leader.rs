//! The log delivers the election key.

use super::bench::{Bench, ms, secs};
use crate::store::{Txn, WatchEnd};

#[test]
fn the_first_candidate_succeeds_a_leader_whose_session_ended() {
    let mut b = Bench::node("b").with(&["z"]).joined().led_by("z");
    b.priority = Some(50);
    b.joins("c");
    b.publishes();
    b.skip();
    b.ends("z");
    b.expect_only(
        &["*", "elect"],
        &["* nobody leads", "* z is gone: its session ended", "elect V3: b was elected, z's session ended"],
    );
}

#[test]
fn p9_a_later_candidate_waits_and_then_follows_the_elected_leader() {
    let mut c = Bench::node("c").with(&["a", "b"]).led_by("a").joined();
    c.ends("a");
    assert_eq!(c.wakes_in(), Some(ms(50)), "only b goes first");
    c.skip();
    c.elects("b");
    c.expect_only(
        &["*", "elect"],
        &["* b leads, term 6", "* version V2 of 2 nodes: b was elected", "* stabilizing V2, attempt 1"],
    );
    c.wait(secs(60));
    c.expect_only(&["elect"], &[]);
}

#[test]
fn p9_a_candidate_moves_up_when_one_before_it_departs() {
    let mut c = Bench::node("c").with(&["a", "b"]).joined().led_by("a");
    c.ends("a");
    c.expect_only(&["elect"], &[]);
    c.ends("b");
    c.expect_only(&["elect"], &["elect V2: c was elected, a's session ended, b's session ended"]);
}

#[test]
fn p9_a_candidate_that_lost_an_election_is_not_delayed_in_the_next_one() {
    let mut c = Bench::node("c").with(&["a", "b"]).joined();
    c.wait(ms(100));
    c.unseen(|c| c.elects("a"));
    c.ok("elect");
    c.deliver();
    c.ends("a");
    assert_eq!(c.wakes_in(), Some(ms(50)), "b goes first");
}

#[test]
fn p9_a_leader_from_before_a_rewind_is_ranked_like_any_other_candidate() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    let before = b.store.revision;
    b.elects("a");
    b.store.rewind(before);
    b.watch_ends("view/", WatchEnd::Rewound { revision: before });
    b.answer_all();
    assert!(b.status().leader.is_none() && b.status().session.is_some());
    assert_eq!(b.wakes_in(), Some(ms(50)), "a goes first");
}

#[test]
fn an_elect_commit_whose_reply_is_lost_succeeds_once_the_log_shows_it() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    b.lose("elect");
    b.skip();
    b.deliver();
    b.expect(&[
        "* b leads, term 3 (this node)",
        "* version V1 of 2 nodes: b was elected, a joined, b joined",
        "read ready/",
        "* stabilizing V1, attempt 1",
        "stabilize V1 of a b",
    ]);
    assert!(b.is_leader());
}

#[test]
fn p9_a_candidate_starts_to_watch_acknowledgements_before_its_election_and_so_need_not_read_them() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    b.expect_only(
        &["elect", "watch", "read"],
        &["elect V1: b was elected, a joined, b joined", "watch ready/ after 2"],
    );
    b.ok("watch ready/");
    b.ok("elect");
    b.expect_only(&["unwatch"], &[]);
    // The acknowledgement may arrive before the version does. It counts once the version is known.
    b.unseen(|b| b.acknowledges("a"));
    b.deliver_to("ready/");
    b.deliver();
    b.stabilized(crate::Outcome::Ready);
    b.answer_all();
    b.expect_only(&["read", "watch", "confirm"], &["confirm V1"]);
}

#[test]
fn an_elect_commit_that_lost_the_race_is_not_repeated() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    b.unseen(|b| b.elects("a"));
    b.skip();
    b.ok("elect");
    b.expect(&["unwatch"]);
    b.deliver();
    b.wait(secs(10));
    b.expect_only(&["elect"], &[]);
}

#[test]
fn p5_a_leader_whose_key_was_deleted_stops_acting_and_campaigns_after_the_others() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.joins("b");
    a.skip();
    a.delete("view/leader");
    a.expect(&["* nobody leads", "unwatch"]);
    assert!(!a.is_leader());
    a.wait(ms(14_999));
    a.expect(&[]);
    a.wait(ms(1));
    a.expect(&["elect V2: a was elected, b joined", "watch ready/ after 6"]);
}

#[test]
fn a_former_leader_campaigns_normally_once_another_node_has_led() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.joins("b");
    a.delete("view/leader");
    a.elects("b");
    a.skip();
    a.delete("view/leader");
    a.expect_only(&["elect"], &["elect V3: a was elected"]);
}

#[test]
fn a_former_leader_campaigns_normally_in_a_new_session() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.delete("view/leader");
    a.delete("view/nodes/a");
    a.ok("revoke");
    a.wait(secs(1));
    a.answer_all();
    assert!(a.is_leader());
}

#[test]
fn p5_a_node_does_not_lead_by_the_lease_of_an_earlier_session() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.unseen(|a| a.store.revoke(a.lease_of("view/leader")).unwrap());
    // The store has revoked the lease, but the log has not shown the deletion yet.
    a.advance(secs(15));
    a.ok("revoke");
    a.ok("grant");
    assert!(a.status().leader.is_some() && !a.is_leader());
    a.expect_only(&["publish", "confirm", "elect"], &[]);
}

#[test]
fn an_unreadable_election_key_is_reported_and_prevents_campaigns() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.put("view/leader", "garbage");
    b.expect(&[
        "* cannot read c/view/leader: expected value at line 1 column 1",
        "* the election key is unreadable, term 3: no election until it is deleted",
    ]);
    assert_eq!(b.status().leader.unwrap().name, None);
    b.wait(secs(600));
    b.expect(&[]);
    b.delete("view/leader");
    b.expect(&["* nobody leads"]);
    assert_eq!(b.wakes_in(), Some(ms(50)));
}

#[test]
fn p5_a_leader_whose_key_was_overwritten_stops_leading_and_reports_the_new_leader() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.joins("b");
    a.answer_all();
    a.skip();
    let record = r#"{"node": "b", "incarnation": "x"}"#;
    a.write(Txn::new().put("c/view/leader", record, a.lease_of("view/nodes/b")));
    a.expect_only(&["*"], &["* b leads, term 2"]);
    assert!(!a.is_leader());
    a.wait(secs(60));
    a.expect_only(&["elect", "publish"], &[]);
}

#[test]
fn p4_a_version_recorded_as_stable_in_an_earlier_term_is_not_announced() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.acknowledges("a");
    b.confirms();
    b.skip();
    b.ends("a");
    b.answer_all();
    b.expect_only(&["announce", "elect", "* stable"], &["elect V2: b was elected, a's session ended"]);
    b.stabilized(crate::Outcome::Ready);
    b.answer_all();
    b.expect_only(&["announce"], &["announce V2 in term 8"]);
}

#[test]
fn p6_a_suspended_leader_does_not_resume_its_term_after_another_node_was_elected() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.joins("b");
    a.answer_all();
    a.advance(secs(5));
    a.advance(secs(6));
    a.expect_only(&["* leadership"], &["* leadership suspended, term 2: no renewal in time"]);
    a.delete("view/leader");
    a.expect_only(&["* nobody"], &["* nobody leads"]);
    a.elects("b");
    let term = a.status().leader.map(|leader| leader.term);
    a.expect_only(&["* b leads", "* leadership"], &[&format!("* b leads, term {}", term.unwrap())]);
    a.ok("renew");
    a.expect_only(&["* leadership"], &[]);
    assert!(!a.is_leader(), "the node would act under a term that has ended");
    assert_eq!(a.status().leadership, None);
}
