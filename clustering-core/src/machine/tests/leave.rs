//! A node leaves on its own: it commits the deletion of its record together with its departure, then revokes its lease.

use super::bench::{Bench, ms, secs};
use crate::{
    config::HealthChecks,
    machine::{Output, Phase},
    record::{DepartureRecord, decode},
    store::{ErrorKind, Key, WatchEnd},
};

/// Returns b, a follower of a, with a stable version.
fn follower() -> Bench {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.acknowledges("a");
    b.confirms();
    b.skip();
    b
}

/// Returns the leader a of a cluster of a and b, after a quiet period.
fn leading_b() -> Bench {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.after(secs(4))
}

/// Returns the last recorded departure: the node, and how it departed.
fn departure(bench: &Bench) -> Option<(String, String)> {
    let record: DepartureRecord = decode(&bench.store.get(bench.keys.departure_key())?.value).unwrap();
    Some((record.node.to_string(), format!("{:?}", record.how)))
}

fn has_departed(bench: &Bench, how: &str) -> bool {
    departure(bench) == Some(("b".to_owned(), how.to_owned()))
}

fn exists(bench: &Bench, key: &str) -> bool {
    bench.store.get(&Key::from(format!("c/{key}"))).is_some()
}

fn leave_timeout(bench: &Bench) -> std::time::Duration {
    let timeout = |call: &Output| match call {
        Output::Commit { timeout, .. } => Some(*timeout),
        _ => None,
    };
    bench.open.iter().find_map(timeout).unwrap()
}

#[test]
fn p9_leaving_costs_exactly_one_revision() {
    let mut b = follower();
    b.stop();
    b.expect(&["leave"]);
    let before = b.store.revision;
    b.ok("leave");
    b.expect(&["revoke 2"]);
    assert!(!exists(&b, "view/nodes/b") && !exists(&b, "ready/b"));
    assert!(has_departed(&b, "Left"));
    b.ok("revoke");
    assert_eq!(b.store.revision, before.next());
    b.expect_only(&["stopped"], &["stopped: it was asked to stop"]);
}

#[test]
fn p9_a_leaving_leader_deletes_the_election_key_in_the_same_revision() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.joins("b");
    a.stop();
    assert!(!a.is_leader());
    let before = a.store.revision;
    a.ok("leave");
    assert!(!exists(&a, "view/leader") && !exists(&a, "view/nodes/a") && !exists(&a, "ready/a"));
    assert!(exists(&a, "view/nodes/b"));
    a.ok("revoke");
    assert_eq!(a.store.revision, before.next());
}

#[test]
fn a_failed_leave_is_followed_immediately_by_revoking_the_lease() {
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
        b.expect_only(&["revoke", "leave"], &["revoke 2"]);
        b.ok("revoke");
        assert!(!exists(&b, "view/nodes/b"), "{kind:?}");
        assert_eq!(departure(&b), None, "{kind:?}");
        b.expect_only(&["stopped"], &["stopped: it was asked to stop"]);
    }
}

#[test]
fn p10_a_leave_that_the_store_refuses_is_reported_for_operator_action() {
    let mut b = follower();
    b.stop();
    b.skip();
    b.fail("leave", ErrorKind::Refused);
    b.expect(&["* operator action needed: the store refused: injected by the test", "revoke 2"]);
}

#[test]
fn a_leave_whose_reply_was_lost_still_takes_effect() {
    let mut b = follower();
    b.stop();
    b.lose("leave");
    b.skip();
    assert!(has_departed(&b, "Left"));
    b.ok("revoke");
    b.expect_only(&["stopped"], &["stopped: it was asked to stop"]);
}

#[test]
fn p7_a_leave_that_arrives_late_does_not_remove_the_rejoined_node() {
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
    assert!(exists(&b, "view/nodes/b"));
}

#[test]
fn a_leave_writes_no_departure_if_the_record_was_changed_or_removed_meanwhile() {
    // The node's own rewrite reached the store before the leave.
    let mut b = follower();
    b.update(1, "x");
    b.lose("rewrite");
    b.stop();
    b.ok("leave");
    assert_eq!(departure(&b), None);
    assert!(exists(&b, "view/nodes/b"));
    b.ok("revoke");
    assert!(!exists(&b, "view/nodes/b"));

    let mut b = follower();
    b.unseen(|b| b.evicts("b"));
    b.stop();
    b.ok("leave");
    assert!(has_departed(&b, "Evicted"));
}

#[test]
fn a_leaving_former_leader_does_not_delete_its_successors_election_key() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.joins("b");
    a.unseen(|a| a.delete("view/leader"));
    a.unseen(|a| a.elects("b"));
    a.stop();
    a.ok("leave");
    a.ok("revoke");
    assert!(exists(&a, "view/leader"));
    assert!(!exists(&a, "view/nodes/a"));
}

#[test]
fn p6_a_leaving_node_neither_leads_nor_renews_its_lease() {
    for leave in [|a: &mut Bench| a.stop(), |a: &mut Bench| a.unregister(1)] {
        let mut a = Bench::node("a").joined().leading().stable();
        leave(&mut a);
        assert!(!a.is_leader());
        assert_eq!(a.status().session, None);
        a.skip();
        a.wait(secs(4));
        a.expect(&[]);
        a.joins("b");
        a.requests("ops");
        a.wait(ms(500));
        a.expect_only(&["renew", "publish", "revoke", "confirm", "acknowledge", "stabilize"], &[]);
    }
}

#[test]
fn a_node_that_is_not_a_member_revokes_its_lease_without_a_leave_commit() {
    // The join is in flight.
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.tick();
    b.ok("read");
    b.ok("watch");
    b.ok("grant");
    b.skip();
    b.stop();
    b.expect(&["revoke 2"]);
}

#[test]
fn a_node_that_lost_its_session_does_not_record_a_departure() {
    let mut b = follower();
    b.advance(secs(15));
    b.expect(&["* session lost: no renewal succeeded in time", "revoke 2"]);
    b.ok("revoke");
    assert_eq!(departure(&b), None);
}

#[test]
fn p11_an_unhealthy_node_leaves_and_rejoins_once_its_lease_is_revoked() {
    let checks = |config: &mut crate::Config| {
        config.health = Some(HealthChecks { failures: 1, ..HealthChecks::default() });
    };
    let mut b = Bench::node_with("b", checks).with(&["a"]).led_by("a");
    b.tick();
    b.health(Ok(()));
    b.answer_all();
    b.wait_for("check health");
    b.skip();
    b.health(Err("sick"));
    b.expect_only(&["* session", "leave", "revoke"], &["* session lost: the node is not healthy", "leave"]);
    b.wait_for("check health");
    b.health(Ok(()));
    b.expect_only(&["grant", "revoke"], &[]);
    b.ok("leave");
    assert!(has_departed(&b, "Left"));
    b.expect_only(&["grant", "revoke"], &["revoke 2"]);
    b.ok("revoke");
    b.expect_only(&["grant"], &["grant 15s"]);
    b.answer_all();
    assert_eq!(b.status().phase, Phase::Member);
}

#[test]
fn a_leave_takes_at_most_half_of_the_stop_timeout() {
    for (time, timeout) in [(secs(1), ms(500)), (secs(5), ms(2_500)), (secs(60), ms(2_500))] {
        let mut b = Bench::node_with("b", |config| config.stop_timeout = Some(time)).with(&["a"]).joined();
        b.stop();
        assert_eq!(leave_timeout(&b), timeout, "of {time:?}");
    }
}

#[test]
fn a_publisher_names_how_each_node_departed() {
    type Depart = fn(&mut Bench);
    let departures: [(Depart, &str, &str); 3] = [
        (|a| a.leaves("b"), "* b is gone: it left", "publish V3: b left"),
        // Another client evicts the node.
        (|a| a.evicts("b"), "* b is gone: it was evicted", "publish V3: b was evicted"),
        (|a| a.ends("b"), "* b is gone: its session ended", "publish V3: b's session ended"),
    ];
    for (depart, event, cause) in departures {
        let mut a = leading_b();
        depart(&mut a);
        a.expect_only(&["* b", "* evicted", "publish"], &[event, cause]);
    }
}

#[test]
fn a_node_that_left_and_rejoined_and_crashed_is_reported_as_crashed() {
    let mut a = leading_b();
    a.unseen(|a| a.leaves("b"));
    a.unseen(|a| a.joins("b"));
    a.unseen(|a| a.ends("b"));
    // The version with the cause "b left" is never committed.
    a.deliver();
    a.expect_only(
        &["* b"],
        &["* b is gone: it left", "* b is present at http://other-b", "* b is gone: its session ended"],
    );
    a.fail("publish", ErrorKind::Busy);
    a.wait(secs(1));
    a.expect_only(&["publish"], &["publish V4: b's session ended"]);
}

#[test]
fn a_new_leader_names_how_its_predecessor_departed() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    let mut crashed = b.clone();
    // The leave commit deletes the election key too.
    b.leaves("a");
    b.wait(secs(1));
    b.expect_only(&["elect"], &["elect V2: b was elected, a left"]);
    crashed.ends("a");
    crashed.wait(secs(1));
    crashed.expect_only(&["elect"], &["elect V2: b was elected, a's session ended"]);
}

#[test]
fn after_missed_changes_only_the_last_departure_is_known_as_a_leave() {
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
    let expected =
        ["* b is gone: its session ended", "* c is gone: it left", "publish V4: b's session ended, c left"];
    a.expect_only(&["* b", "* c", "publish"], &expected);
}

#[test]
fn an_unreadable_departure_record_is_reported_and_ignored() {
    let mut a = leading_b();
    let key = a.keys.node_key(&super::bench::name("b"));
    a.write(crate::store::Txn::new().delete(key).put("c/view/gone", "{}", None));
    a.expect_only(
        &["* b", "* cannot", "publish"],
        &[
            "* b is gone: its session ended",
            "* cannot read c/view/gone: missing field `node`",
            "publish V3: b's session ended",
        ],
    );
}
