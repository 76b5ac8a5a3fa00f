//! A node goes of itself, and says so: by the commit that deletes its record. Its lease is revoked after that.

use super::bench::{Bench, ms, secs};
use crate::{
    config::HealthChecks,
    machine::{Output, Phase},
    record::{DepartureRecord, decode},
    store::{ErrorKind, Key, WatchEnd},
};

/// A follower of a, with a stable version.
fn follower() -> Bench {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.acknowledges("a");
    b.confirms();
    b.skip();
    b
}

/// The leader of b, with nothing to do for a while.
fn leading_b() -> Bench {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.after(secs(4))
}

/// What stands of who last went in order.
fn gone(bench: &Bench) -> Option<(String, String)> {
    let record: DepartureRecord = decode(&bench.store.get(bench.keys.departure_key())?.value).unwrap();
    Some((record.node.to_string(), format!("{:?}", record.how)))
}

fn is_gone(bench: &Bench, how: &str) -> bool {
    gone(bench) == Some(("b".to_owned(), how.to_owned()))
}

fn stands(bench: &Bench, key: &str) -> bool {
    bench.store.get(&Key::from(format!("c/{key}"))).is_some()
}

fn timeout_of_leave(bench: &Bench) -> std::time::Duration {
    let timeout = |call: &Output| match call {
        Output::Commit { timeout, .. } => Some(*timeout),
        _ => None,
    };
    bench.open.iter().find_map(timeout).unwrap()
}

#[test]
fn p9_what_its_lease_held_goes_in_one_revision_and_the_lease_makes_no_other() {
    let mut b = follower();
    b.stop();
    b.says(&["leave"]);
    let before = b.store.revision;
    b.ok("leave");
    b.says(&["revoke 2"]);
    assert!(!stands(&b, "view/nodes/b") && !stands(&b, "ready/b"));
    assert!(is_gone(&b, "Left"));
    b.ok("revoke");
    assert_eq!(b.store.revision, before.next());
    b.says_of(&["stopped"], &["stopped: it was asked to stop"]);
}

#[test]
fn p9_the_lead_goes_along() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.joins("b");
    a.stop();
    assert!(!a.is_leader());
    let before = a.store.revision;
    a.ok("leave");
    assert!(!stands(&a, "view/leader") && !stands(&a, "view/nodes/a") && !stands(&a, "ready/a"));
    assert!(stands(&a, "view/nodes/b"));
    a.ok("revoke");
    assert_eq!(a.store.revision, before.next());
}

#[test]
fn whatever_the_store_says_the_lease_is_revoked_next_and_at_once() {
    let kinds = [
        ErrorKind::Unreachable,
        ErrorKind::OutcomeUnknown,
        ErrorKind::Busy,
        ErrorKind::LeaseNotFound,
        ErrorKind::Invalid,
        ErrorKind::GuardFailed { revision: follower().store.revision },
    ];
    for kind in kinds {
        let mut b = follower();
        b.stop();
        b.skip();
        b.fail("leave", kind);
        b.says_of(&["revoke", "leave"], &["revoke 2"]);
        b.ok("revoke");
        assert!(!stands(&b, "view/nodes/b"), "{kind:?}");
        assert_eq!(gone(&b), None, "{kind:?}");
        b.says_of(&["stopped"], &["stopped: it was asked to stop"]);
    }
}

#[test]
fn p10_a_store_that_refuses_it_is_to_be_mended() {
    let mut b = follower();
    b.stop();
    b.skip();
    b.fail("leave", ErrorKind::Refused);
    b.says(&["* operator action needed: the store refused: as the test has it", "revoke 2"]);
}

#[test]
fn one_whose_reply_is_lost_was_done_all_the_same() {
    let mut b = follower();
    b.stop();
    b.lose("leave");
    b.skip();
    assert!(is_gone(&b, "Left"));
    b.ok("revoke");
    b.says_of(&["stopped"], &["stopped: it was asked to stop"]);
}

#[test]
fn p7_one_that_comes_late_changes_nothing() {
    let mut b = follower();
    b.unregister(1);
    let late = b.txn("leave").clone();
    b.drop_call("leave");
    b.ok("revoke");
    assert!(b.store.commit(&late).is_err());
    b.register(2);
    b.answer_all();
    assert_eq!(b.status().phase, Phase::Member);
    assert!(b.store.commit(&late).is_err());
    assert!(stands(&b, "view/nodes/b"));
}

#[test]
fn of_a_record_that_was_changed_or_removed_meanwhile_it_says_nothing() {
    // Its own change, which reached the store before.
    let mut b = follower();
    b.update(1, "x");
    b.lose("rewrite");
    b.stop();
    b.ok("leave");
    assert_eq!(gone(&b), None);
    assert!(stands(&b, "view/nodes/b"));
    b.ok("revoke");
    assert!(!stands(&b, "view/nodes/b"));

    let mut b = follower();
    b.unseen(|b| b.evicts("b"));
    b.stop();
    b.ok("leave");
    assert!(is_gone(&b, "Evicted"));
}

#[test]
fn a_lead_that_was_taken_away_unseen_is_no_reason_to_take_that_of_another() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.joins("b");
    a.unseen(|a| a.delete("view/leader"));
    a.unseen(|a| a.elects("b"));
    a.stop();
    a.ok("leave");
    a.ok("revoke");
    assert!(stands(&a, "view/leader"));
    assert!(!stands(&a, "view/nodes/a"));
}

#[test]
fn p6_nothing_renews_the_lease_and_nobody_leads_meanwhile() {
    for goes in [|a: &mut Bench| a.stop(), |a: &mut Bench| a.unregister(1)] {
        let mut a = Bench::node("a").joined().leading().stable();
        goes(&mut a);
        assert!(!a.is_leader());
        assert_eq!(a.status().session, None);
        a.skip();
        a.wait(secs(4));
        a.says(&[]);
        a.joins("b");
        a.asks("ops");
        a.wait(ms(500));
        a.says_of(&["renew", "publish", "revoke", "confirm", "acknowledge", "stabilize"], &[]);
    }
}

#[test]
fn one_that_is_no_member_has_nothing_to_say() {
    // Its join is on the way.
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.tick();
    b.ok("read");
    b.ok("watch");
    b.ok("grant");
    b.skip();
    b.stop();
    b.says(&["revoke 2"]);
}

#[test]
fn what_is_lost_is_not_left() {
    let mut b = follower();
    b.advance(secs(15));
    b.says(&["* session lost: no renewal succeeded in time", "revoke 2"]);
    b.ok("revoke");
    assert_eq!(gone(&b), None);
}

#[test]
fn p11_one_that_is_unhealthy_leaves_and_comes_back_once_its_lease_is_given_back() {
    let checks = |config: &mut crate::Config| {
        config.health = Some(HealthChecks { failures: 1, ..HealthChecks::default() });
    };
    let mut b = Bench::node_with("b", checks).with(&["a"]).led_by("a");
    b.tick();
    b.health(Ok(()));
    b.answer_all();
    b.wait_for("check health");
    b.skip();
    b.health(Err("ill"));
    b.says_of(&["* session", "leave", "revoke"], &["* session lost: the node is not healthy", "leave"]);
    b.wait_for("check health");
    b.health(Ok(()));
    b.says_of(&["grant", "revoke"], &[]);
    b.ok("leave");
    assert!(is_gone(&b, "Left"));
    b.says_of(&["grant", "revoke"], &["revoke 2"]);
    b.ok("revoke");
    b.says_of(&["grant"], &["grant 15s"]);
    b.answer_all();
    assert_eq!(b.status().phase, Phase::Member);
}

#[test]
fn it_gets_half_of_the_time_to_stop_at_most_so_that_the_lease_is_revoked_in_the_other() {
    for (time, timeout) in [(secs(1), ms(500)), (secs(5), ms(2_500)), (secs(60), ms(2_500))] {
        let mut b = Bench::node_with("b", |config| config.stop_timeout = time).with(&["a"]).joined();
        b.stop();
        assert_eq!(timeout_of_leave(&b), timeout, "of {time:?}");
    }
}

#[test]
fn a_publisher_tells_how_others_went() {
    type Goes = fn(&mut Bench);
    let goes: [(Goes, &str, &str); 3] = [
        (|a| a.leaves("b"), "* b is gone: it left", "publish V3: b left"),
        // By somebody else than this leader.
        (|a| a.evicts("b"), "* b is gone: it was evicted", "publish V3: b was evicted"),
        (|a| a.ends("b"), "* b is gone: its session ended", "publish V3: b's session ended"),
    ];
    for (go, gone, cause) in goes {
        let mut a = leading_b();
        go(&mut a);
        a.says_of(&["* b", "* evicted", "publish"], &[gone, cause]);
    }
}

#[test]
fn who_left_and_came_back_and_crashed_did_not_leave() {
    let mut a = leading_b();
    a.unseen(|a| a.leaves("b"));
    a.unseen(|a| a.joins("b"));
    a.unseen(|a| a.ends("b"));
    // The version that says that it left does not come about.
    a.deliver();
    a.says_of(
        &["* b"],
        &["* b is gone: it left", "* b is present at http://other-b", "* b is gone: its session ended"],
    );
    a.fail("publish", ErrorKind::Busy);
    a.wait(secs(1));
    a.says_of(&["publish"], &["publish V4: b's session ended"]);
}

#[test]
fn the_next_leader_tells_how_the_last_one_went() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    let mut crashed = b.clone();
    // The lease goes in a revision of its own, and the lead with it.
    b.leaves("a");
    b.wait(secs(1));
    b.says_of(&["elect"], &["elect V2: b was elected, a left"]);
    crashed.ends("a");
    crashed.wait(secs(1));
    crashed.says_of(&["elect"], &["elect V2: b was elected, a's session ended"]);
}

#[test]
fn of_those_who_went_in_a_gap_only_the_last_one_is_known_to_have_left() {
    let mut a = leading_b();
    a.joins("c");
    a.answer_all();
    a = a.after(secs(4));
    a.unseen(|a| a.leaves("b"));
    a.unseen(|a| a.leaves("c"));
    a.store.compact();
    a.watch_ends("view/", WatchEnd::Compacted { compacted: a.store.revision });
    a.wait(secs(1));
    a.ok("read view/");
    a.wait(secs(10));
    let told =
        ["* b is gone: its session ended", "* c is gone: it left", "publish V4: b's session ended, c left"];
    a.says_of(&["* b", "* c", "publish"], &told);
}

#[test]
fn what_cannot_be_read_says_nothing_and_is_reported() {
    let mut a = leading_b();
    let key = a.keys.node_key(&super::bench::name("b"));
    a.write(crate::store::Txn::new().delete(key).put("c/view/gone", "{}", None));
    a.says_of(
        &["* b", "* cannot", "publish"],
        &[
            "* b is gone: its session ended",
            "* cannot read c/view/gone: missing field `node`",
            "publish V3: b's session ended",
        ],
    );
}
