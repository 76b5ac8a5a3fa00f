//! The log brings the election key.

use super::bench::{Bench, ms, secs};
use crate::store::{Txn, WatchEnd};

#[test]
fn a_leader_that_vanishes_is_followed_by_the_oldest_candidate() {
    let mut b = Bench::node("b").with(&["z"]).joined().led_by("z");
    b.joins("c");
    b.publishes();
    b.skip();
    b.ends("z");
    b.says_of(
        &["*", "elect"],
        &["* nobody leads", "* z is gone: its session ended", "elect V3: b was elected, z's session ended"],
    );
}

#[test]
fn p9_a_younger_candidate_waits_and_follows_whoever_was_elected() {
    let mut c = Bench::node("c").with(&["a", "b"]).led_by("a").joined();
    c.ends("a");
    assert_eq!(c.wakes_in(), Some(ms(50)), "only b is older");
    c.skip();
    c.elects("b");
    c.says_of(
        &["*", "elect"],
        &["* b leads, term 6", "* version V2 of 2 nodes: b was elected", "* stabilizing V2, attempt 1"],
    );
    c.wait(secs(60));
    c.says_of(&["elect"], &[]);
}

#[test]
fn p9_a_candidate_moves_up_when_an_older_one_goes() {
    let mut c = Bench::node("c").with(&["a", "b"]).joined().led_by("a");
    c.ends("a");
    c.says_of(&["elect"], &[]);
    c.ends("b");
    c.says_of(&["elect"], &["elect V2: c was elected, a's session ended, b's session ended"]);
}

#[test]
fn p9_a_candidate_that_lost_a_race_has_its_turn_as_soon_when_the_winner_goes() {
    let mut c = Bench::node("c").with(&["a", "b"]).joined();
    c.wait(ms(100));
    c.unseen(|c| c.elects("a"));
    c.ok("elect");
    c.deliver();
    c.ends("a");
    assert_eq!(c.wakes_in(), Some(ms(50)), "b is older");
}

#[test]
fn p9_who_led_in_a_history_that_is_gone_has_its_turn_like_all_others() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    let before = b.store.revision;
    b.elects("a");
    b.store.rewind(before);
    b.watch_ends("view/", WatchEnd::Rewound { revision: before });
    b.answer_all();
    assert!(b.status().leader.is_none() && b.status().session.is_some());
    assert_eq!(b.wakes_in(), Some(ms(50)), "a is older");
}

#[test]
fn elect_is_won_by_the_log_whatever_the_reply_says() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    b.lose("elect");
    b.skip();
    b.deliver();
    b.says(&[
        "* b leads, term 3 (this node)",
        "* version V1 of 2 nodes: b was elected, a joined, b joined",
        "read ready/",
        "* stabilizing V1, attempt 1",
        "stabilize V1 of a b",
    ]);
    assert!(b.is_leader());
}

#[test]
fn p9_a_candidate_watches_acknowledgements_before_it_leads_and_reads_none() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    b.says_of(
        &["elect", "watch", "read"],
        &["elect V1: b was elected, a joined, b joined", "watch ready/ after 2"],
    );
    b.ok("watch ready/");
    b.ok("elect");
    b.says_of(&["unwatch"], &[]);
    // It may come first, and counts when the log has brought the version.
    b.unseen(|b| b.acknowledges("a"));
    b.deliver_to("ready/");
    b.deliver();
    b.stabilized(crate::Outcome::Ready);
    b.answer_all();
    b.says_of(&["read", "watch", "confirm"], &["confirm V1"]);
}

#[test]
fn elect_that_lost_the_race_is_not_repeated() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    b.unseen(|b| b.elects("a"));
    b.skip();
    b.ok("elect");
    b.says(&["unwatch"]);
    b.deliver();
    b.wait(secs(10));
    b.says_of(&["elect"], &[]);
}

#[test]
fn p5_a_leader_whose_key_was_deleted_does_not_act_and_lets_others_go_first() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.joins("b");
    a.skip();
    a.delete("view/leader");
    a.says(&["* nobody leads", "unwatch"]);
    assert!(!a.is_leader());
    a.wait(ms(14_999));
    a.says(&[]);
    a.wait(ms(1));
    a.says(&["elect V2: a was elected, b joined", "watch ready/ after 6"]);
}

#[test]
fn the_hold_off_ends_when_another_has_led() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.joins("b");
    a.delete("view/leader");
    a.elects("b");
    a.skip();
    a.delete("view/leader");
    a.says_of(&["elect"], &["elect V3: a was elected"]);
}

#[test]
fn a_hold_off_does_not_outlive_its_session() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.delete("view/leader");
    a.delete("view/nodes/a");
    a.ok("revoke");
    a.wait(secs(1));
    a.answer_all();
    assert!(a.is_leader());
}

#[test]
fn p5_a_lead_under_the_lease_of_an_earlier_session_is_not_ones_own() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.unseen(|a| a.store.revoke(a.lease_of("view/leader")).unwrap());
    // The lease is gone in the store, the log has not told yet.
    a.advance(secs(15));
    a.ok("revoke");
    a.ok("grant");
    assert!(a.status().leader.is_some() && !a.is_leader());
    a.says_of(&["publish", "confirm", "elect"], &[]);
}

#[test]
fn a_leader_that_cannot_be_read_is_reported_and_nobody_campaigns_against_it() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.put("view/leader", "garbage");
    b.says(&[
        "* cannot read c/view/leader: expected value at line 1 column 1",
        "* the election key is unreadable, term 3: no election until it is deleted",
    ]);
    assert_eq!(b.status().leader.unwrap().name, None);
    b.wait(secs(600));
    b.says(&[]);
    b.delete("view/leader");
    b.says(&["* nobody leads"]);
    assert_eq!(b.wakes_in(), Some(ms(50)));
}

#[test]
fn p5_a_leader_whose_key_was_overwritten_does_not_lead_and_says_so() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.joins("b");
    a.answer_all();
    a.skip();
    let record = r#"{"node": "b", "incarnation": "x"}"#;
    a.write(Txn::new().put("c/view/leader", record, a.lease_of("view/nodes/b")));
    a.says_of(&["*"], &["* b leads, term 2"]);
    assert!(!a.is_leader());
    a.wait(secs(60));
    a.says_of(&["elect", "publish"], &[]);
}

#[test]
fn p4_what_was_recorded_in_an_earlier_term_is_not_announced() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.acknowledges("a");
    b.confirms();
    b.skip();
    b.ends("a");
    b.answer_all();
    b.says_of(&["announce", "elect", "* stable"], &["elect V2: b was elected, a's session ended"]);
    b.stabilized(crate::Outcome::Ready);
    b.answer_all();
    b.says_of(&["announce"], &["announce V2 in term 8"]);
}

#[test]
fn p6_a_suspended_leader_hears_that_another_leads_and_does_not_go_on_under_its_old_term() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.joins("b");
    a.answer_all();
    a.advance(secs(5));
    a.advance(secs(6));
    a.says_of(&["* leadership"], &["* leadership suspended, term 2: no renewal in time"]);
    a.delete("view/leader");
    a.says_of(&["* nobody"], &["* nobody leads"]);
    a.elects("b");
    let term = a.status().leader.map(|leader| leader.term);
    a.says_of(&["* b leads", "* leadership"], &[&format!("* b leads, term {}", term.unwrap())]);
    a.ok("renew");
    a.says_of(&["* leadership"], &[]);
    assert!(!a.is_leader(), "it would act under a term that is over");
    assert_eq!(a.status().leadership, None);
}
