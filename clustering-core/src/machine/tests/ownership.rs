//! Holding slots and letting go of them (P12).

use std::time::Duration;

use super::bench::{Bench, ms, name, secs, slots};
use crate::{
    config::Laggards,
    event::StopReason,
    machine::{Output, Phase, Purpose},
    outcome::Outcome,
    record::{HoldsRecord, ReadinessOutcome, ReadinessRecord, decode},
    slots::SlotSet,
    store::{ErrorKind, LeaseId, Txn, WatchEnd},
};

const STEPS: [&str; 9] =
    ["acknowledge", "permit", "confirm", "stabilize", "retract", "release", "leave", "revoke", "publish"];

/// Returns the only node of a cluster, which holds all four slots.
fn alone() -> Bench {
    settled(Bench::exclusive("a"))
}

fn settled(a: Bench) -> Bench {
    let mut a = a.joined().leading();
    a.answer_all();
    a = a.stable();
    assert_eq!(held(&a), slots(&[0, 1, 2, 3]));
    a.after(secs(2))
}

/// Returns b, a follower of the exclusive node a, with two slots each.
fn follower() -> Bench {
    follower_of(Bench::exclusive("b"))
}

fn follower_of(mut b: Bench) -> Bench {
    b.priority = Some(200);
    b.joins_exclusively("a", 4);
    b.priority = Some(100);
    let mut b = b.joined();
    b.elects("a");
    b.stabilized(Outcome::Ready);
    b.answer_all();
    b.publishes_slots(&["a", "a", "b", "b"], false);
    b.answer_all();
    b.permits();
    b.answer_all();
    b.stabilized(Outcome::Ready);
    b.answer_all();
    b.acknowledges("a");
    b.confirms();
    assert_eq!(held(&b), slots(&[2, 3]));
    b.skip();
    b
}

fn held(bench: &Bench) -> SlotSet {
    bench.status().holdings.expect("an exclusive node").held.keys().copied().collect()
}

fn own_witness(bench: &Bench) -> Option<HoldsRecord> {
    let lease = bench.status().holdings?.lease?;
    decode(&bench.store.get(&bench.keys.holds_key(lease))?.value).ok()
}

#[test]
fn p12_slots_are_acquired_only_after_they_are_permitted_and_stabilize_has_succeeded() {
    let mut a = Bench::exclusive("a");
    a.tick();
    a.answer_until("permit");
    a.expect_only(&["permit", "stabilize"], &["permit V1"]);
    a.answer_all();
    a.expect_only(&["permit", "stabilize"], &["stabilize V1 of a"]);
    assert_eq!(held(&a), slots(&[]), "stabilize has not succeeded");
    a.stabilized(Outcome::refused("not yet"));
    assert_eq!(held(&a), slots(&[]), "stabilize has refused");
    a.wait(ms(100));
    a.stabilized(Outcome::Ready);
    assert_eq!(held(&a), slots(&[0, 1, 2, 3]));
}

#[test]
fn p12_the_first_version_is_permitted_only_after_its_node_has_acknowledged_the_release() {
    let mut a = Bench::exclusive("a");
    a.tick();
    a.answer_until("acknowledge");
    a.expect_only(&STEPS, &["acknowledge V1 released"]);
    a.answer_all();
    a.expect_only(&STEPS, &["permit V1", "stabilize V1 of a"]);
}

#[test]
fn p12_a_follower_does_not_stabilize_for_slots_that_are_not_permitted() {
    let mut b = follower();
    b.publishes_slots(&["a", "b", "b", "b"], false);
    b.expect_only(&STEPS, &["acknowledge V3 released"]);
    b.answer_all();
    b.expect_only(&STEPS, &[]);
    b.permits();
    b.expect_only(&STEPS, &["stabilize V3 of a b after V2"]);
    assert_eq!(held(&b), slots(&[2, 3]));
    b.stabilized(Outcome::Ready);
    assert_eq!(held(&b), slots(&[1, 2, 3]));
}

#[test]
fn p12_a_permit_for_an_older_version_permits_nothing() {
    let mut b = follower();
    b.publishes_slots(&["a", "b", "b", "b"], false);
    b.answer_all();
    b.unseen(|b| {
        b.permits();
        b.publishes_slots(&["b", "b", "b", "b"], false);
    });
    b.deliver();
    b.stabilized(Outcome::Ready);
    assert_eq!(held(&b), slots(&[2, 3]), "the run for the older version was superseded");
    b.expect_only(&["stabilize V4"], &[]);
}

#[test]
fn p12_a_version_that_takes_a_slot_ends_its_holds_at_once() {
    let mut b = follower();
    b.publishes_slots(&["a", "a", "a", "b"], true);
    b.expect_only(&["* lost slots", "retract", "acknowledge", "stabilize"], &["* lost slots 2", "retract 2"]);
    assert_eq!(held(&b), slots(&[3]));
}

#[test]
fn p12_a_node_is_not_ready_while_a_hold_of_a_lost_slot_is_outstanding() {
    let mut b = follower();
    b.publishes_slots(&["a", "a", "a", "b"], true);
    b.retracted(&[2]);
    b.skip();
    b.wait(secs(5));
    b.expect_only(&STEPS, &[]);
    b.retracted(&[]);
    b.expect_only(&STEPS, &["stabilize V3 of a b after V2"]);
}

#[test]
fn p12_a_hold_from_before_a_superseded_version_delays_the_release_too() {
    let mut b = follower();
    b.publishes_slots(&["a", "a", "a", "b"], true);
    b.retracted(&[2]);
    b.publishes_slots(&["a", "a", "a", "b"], false);
    b.expect_only(&["acknowledge", "stabilize"], &[]);
    b.retracted(&[]);
    b.expect_only(&["acknowledge", "stabilize"], &["stabilize V4 of a b after V2"]);
}

#[test]
fn p12_a_slot_that_was_lost_and_regained_in_one_batch_must_be_acquired_again() {
    let mut b = follower();
    b.unseen(|b| {
        b.publishes_slots(&["a", "a", "a", "b"], false);
        b.publishes_slots(&["a", "a", "b", "b"], false);
    });
    b.deliver();
    assert_eq!(held(&b), slots(&[3]), "holdings only narrow, version by version");
    b.retracted(&[]);
    b.expect_only(&["acknowledge", "stabilize"], &["acknowledge V4 released"]);
    let before = b.status().holdings.unwrap().held.values().max().copied();
    b.answer_all();
    b.permits();
    b.stabilized(Outcome::Ready);
    assert_eq!(held(&b), slots(&[2, 3]));
    assert!(b.status().holdings.unwrap().held.values().max().copied() > before, "a larger token");
}

#[test]
fn p12_release_is_called_for_lost_slots_and_awaited() {
    let mut b = follower_of(Bench::exclusive_with("b", |config| config.has_release = true));
    b.publishes_slots(&["a", "a", "a", "b"], true);
    b.retracted(&[]);
    b.expect_only(&["release", "stabilize"], &["release 2"]);
    b.released(Outcome::refused("disk full"));
    b.expect_only(
        &["* release", "stabilize"],
        &["* release failed, attempt 1: disk full; next attempt in 88ms"],
    );
    b.wait(ms(100));
    b.expect_only(&["release", "stabilize"], &["release 2, attempt 2"]);
    b.released(Outcome::Ready);
    b.expect_only(&["release", "stabilize"], &["stabilize V3 of a b after V2"]);
}

#[test]
fn a_newer_version_neither_cancels_a_running_release_nor_repeats_it() {
    let mut b = follower_of(Bench::exclusive_with("b", |config| config.has_release = true));
    b.publishes_slots(&["a", "a", "a", "b"], true);
    b.publishes_slots(&["a", "a", "a", "a"], false);
    b.expect_only(&["release", "abort", "supersede"], &["release 2"]);
    b.released(Outcome::Ready);
    b.expect_only(&["release"], &["release 3"]);
}

#[test]
fn release_waits_for_stabilize_and_covers_slots_that_were_loaded_but_never_held() {
    let mut b = follower_of(Bench::exclusive_with("b", |config| config.has_release = true));
    b.publishes_slots(&["a", "b", "b", "b"], false);
    b.answer_all();
    b.permits();
    b.publishes_slots(&["a", "a", "b", "b"], false);
    b.expect_only(&["stabilize", "supersede", "release"], &["stabilize V3 of a b after V2", "supersede"]);
    b.stabilized(Outcome::Ready);
    b.expect_only(&["release"], &["release 1"]);
    assert_eq!(held(&b), slots(&[2, 3]));
}

#[test]
fn after_a_stable_version_only_nodes_that_lose_slots_acknowledge_the_release() {
    let mut b = follower();
    b.publishes_slots(&["a", "b", "b", "b"], true);
    b.expect_only(&STEPS, &[]);
    b.permits();
    b.expect_only(&STEPS, &["stabilize V3 of a b after V2"]);
}

#[test]
fn a_node_that_gains_nothing_is_ready_without_a_permit() {
    let mut b = follower();
    b.publishes_slots(&["a", "a", "b", "b"], false);
    b.expect_only(&STEPS, &["stabilize V3 of a b after V2"]);
    b.stabilized(Outcome::Ready);
    b.expect_only(&STEPS, &["acknowledge V3"]);
}

#[test]
fn p12_the_leader_permits_only_after_all_nodes_that_lose_slots_have_released_them() {
    let mut a = alone();
    a.joins_exclusively("b", 4);
    a.answer_all();
    a.expect_only(&["publish", "permit", "retract"], &["publish V2: b joined", "retract 2-3"]);
    a.retracted(&[3]);
    a.wait(secs(3));
    a.expect_only(&["permit"], &[]);
    a.retracted(&[]);
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.expect_only(&["permit", "confirm"], &["permit V2"]);
    a.acknowledges("b");
    a.answer_all();
    a.expect_only(&["permit", "confirm"], &["confirm V2"]);
}

#[test]
fn p12_after_a_version_that_was_not_stable_the_leader_waits_for_all() {
    let mut a = alone();
    a.joins_exclusively("b", 4);
    a.answer_all();
    a.retracted(&[]);
    a.joins_exclusively("c", 4);
    a.wait(secs(31));
    a.answer_all();
    let newest = a.status().newest.unwrap();
    assert_eq!(newest.len(), 3);
    while a.is_open("retract") {
        a.retracted(&[]);
    }
    while a.is_open("stabilize") {
        a.stabilized(Outcome::Ready);
        a.answer_all();
    }
    a.skip();
    a.wait(secs(1));
    a.expect_only(&["permit"], &[]);
    a.releases("b");
    a.expect_only(&["permit"], &[]);
    a.releases("c");
    a.expect_only(&["permit"], &["permit V3"]);
}

#[test]
fn p12_an_acknowledgement_under_another_lease_releases_nothing() {
    let mut a = alone();
    a.joins_exclusively("b", 4);
    a.answer_all();
    a.retracted(&[]);
    a.request_version(1, "rebalance");
    a.answer_all();
    a.stabilized(Outcome::Ready);
    a.answer_all();
    if a.is_open("stabilize") {
        a.stabilized(Outcome::Ready);
        a.answer_all();
    }
    a.skip();
    let own = a.others["b"];
    let earlier = a.store.grant(a.now, secs(15)).id;
    a.others.insert("b".to_owned(), earlier);
    a.releases("b");
    a.expect_only(&["permit"], &[]);
    a.others.insert("b".to_owned(), own);
    a.releases("b");
    a.expect_only(&["permit"], &["permit V3"]);
}

#[test]
fn p12_a_removed_session_keeps_moving_slots_from_being_acquired_until_its_lease_ends() {
    let mut a = alone().with_evicted("b");
    a.expect_only(&["publish", "permit", "stabilize"], &["publish V3: b was evicted"]);
    assert_eq!(held(&a), slots(&[0, 1]));
    // The process of b never notices its eviction. Its witness disappears when its lease ends.
    let lease = a.others["b"];
    a.store.revoke(lease).unwrap();
    a.deliver();
    a.answer_all();
    a.expect_only(&["permit", "stabilize"], &["permit V3", "stabilize V3 of a after V2"]);
    a.stabilized(Outcome::Ready);
    assert_eq!(held(&a), slots(&[0, 1, 2, 3]));
}

#[test]
fn p12_no_node_is_evicted_while_a_removed_session_may_still_hold_slots() {
    let a = settled(Bench::exclusive_with("a", |config| {
        config.laggards = Laggards::Evict { after: secs(10) };
        config.mass_failure_percent = 100;
    }));
    let mut a = a.with_evicted("b");
    a.skip();
    a.wait(secs(29));
    assert_eq!(a.status().blocked, None);
    a.wait(secs(1));
    a.expect_only(&["evict", "resign"], &[]);
    let blocked = a.status().blocked.expect("a blocked version");
    assert_eq!(blocked.laggards, []);
    let holders: Vec<_> = blocked.holders.iter().filter_map(|holder| holder.node.clone()).collect();
    assert_eq!(holders, [super::bench::name("b")]);
}

#[test]
fn p12_a_version_with_a_node_that_is_not_exclusive_hands_nothing_over() {
    let mut a = alone();
    a.joins("old");
    a.answer_all();
    a.expect_only(
        &["publish", "permit", "retract", "* no slot"],
        &["publish V2: old joined", "* no slot is handed over in V2: 1 node not exclusive: old"],
    );
    a.wait(secs(40));
    a.expect_only(&["permit"], &[]);
    let view = a.status().newest.unwrap();
    assert!(!view.has_handover());
    assert_eq!(view.not_exclusive().len(), 1);
    assert_eq!(held(&a), slots(&[0, 1, 2, 3]), "the node keeps its slots");
    a.stabilized(Outcome::Ready);
    a.answer_all();
    a.acknowledges("old");
    a.answer_all();
    a.expect_only(&["confirm"], &["confirm V2"]);
}

#[test]
fn p12_holds_end_before_the_session_does_and_are_given_out_again_after_a_renewal() {
    let mut a = alone();
    a.tick();
    a.wait(Duration::ZERO);
    let until = a.status().holdings.unwrap().until;
    a.now = until - ms(1);
    a.tick();
    a.expect_only(&["* all holds"], &[]);
    a.advance(ms(1));
    a.expect_only(&["* all holds"], &["* all holds are lost: no renewal in time"]);
    assert_eq!(held(&a), slots(&[0, 1, 2, 3]), "the slots are not lost yet");
    let void = a.status().holdings.unwrap().void;
    assert_eq!(void.since(until), secs(5), "a third of the TTL is left to let go");
    a.ok("renew");
    a.expect_only(&["* holds are"], &["* holds are given out again: a renewal succeeded"]);
}

#[test]
fn p12_a_session_that_expires_loses_all_slots_and_release_is_called_without_them() {
    let mut a = settled(Bench::exclusive_with("a", |config| config.has_release = true));
    let void = a.status().holdings.unwrap().void;
    a.now = void;
    a.tick();
    a.expect_only(
        &["* lost slots", "retract", "release", "revoke"],
        &["* lost slots 0-3", "retract 0-3", "release 0-3"],
    );
    a.released(Outcome::Ready);
    a.expect_only(&["revoke"], &["revoke 1"]);
}

#[test]
fn p12_a_node_that_stops_with_nothing_outstanding_deletes_its_witness_with_its_record() {
    let mut a = alone();
    let lease = LeaseId::new(1);
    a.stop();
    a.expect_only(&STEPS, &["retract 0-3"]);
    a.retracted(&[]);
    a.expect_only(&STEPS, &["leave"]);
    a.ok("leave");
    assert!(a.store.get(&a.keys.holds_key(lease)).is_none());
    a.expect_only(&STEPS, &["revoke 1"]);
}

#[test]
fn p12_a_node_that_stops_with_outstanding_holds_leaves_at_once_and_renews_its_lease_until_they_are_dropped() {
    let mut a = alone();
    a.stop();
    a.retracted(&[1]);
    a.ok("leave");
    assert!(own_witness(&a).expect("the witness stands").left);
    a.expect_only(&STEPS, &["retract 0-3", "leave"]);
    let void = a.status().holdings.unwrap().void;
    a.wait(secs(20));
    a.expect_only(&STEPS, &[]);
    assert!(a.status().holdings.unwrap().void > void, "the lease is renewed");
    a.retracted(&[]);
    a.expect_only(&STEPS, &["revoke 1"]);
    a.ok("revoke");
    assert_eq!(a.status().phase, Phase::Stopped(StopReason::Asked));
}

#[test]
fn p12_a_node_that_cannot_let_go_stops_renewing_at_the_time_limit_and_never_revokes() {
    let mut a = alone();
    a.stop();
    a.retracted(&[1]);
    a.ok("leave");
    a.skip();
    a.wait(secs(30));
    a.expect_only(&["revoke", "stopped"], &["stopped: it was asked to stop"]);
    assert!(a.store.get(&a.keys.holds_key(LeaseId::new(1))).is_some());
}

#[test]
fn p12_a_node_whose_release_is_stuck_leaves_and_rejoins_after_growing_pauses() {
    let mut b = follower_of(Bench::exclusive_with("b", |config| config.release_timeout = Some(secs(60))));
    b.publishes_slots(&["a", "a", "a", "b"], true);
    b.retracted(&[2]);
    b.wait(secs(59));
    b.expect_only(
        &["leave", "* lost slots are not", "* session"],
        &["* lost slots are not released after 30s: holds of slots 2 were not dropped"],
    );
    b.wait(secs(1));
    b.retracted(&[]);
    b.expect_only(&["* session"], &["* session lost: the node did not release its lost slots in time"]);
    b.answer_all();
    let lease = b.status().holdings.unwrap().lease.unwrap();
    assert!(own_witness(&b).expect("the witness stands").left);
    b.wait(secs(29));
    b.expect_only(&["revoke"], &[]);
    // After the time limit for stopping, the node stops renewing its lease, and the hold becomes void.
    b.wait(secs(16));
    b.expect_only(&["revoke"], &["revoke 2"]);
    b.store.revoke(lease).unwrap();
    b.answer_all();
    b.deliver();
    b.wait(secs(1));
    b.answer_all();
    assert_eq!(b.status().phase, Phase::Member);
}

#[test]
fn a_node_that_cannot_let_go_says_why_once_and_then_that_it_has() {
    let mut b = follower_of(Bench::exclusive_with("b", |config| config.has_release = true));
    let said = |b: &Bench| {
        let entry = b.store.get(&b.keys.readiness_key(&name("b"))).expect("an acknowledgement");
        let record: ReadinessRecord = decode(&entry.value).unwrap();
        (record.outcome, record.detail.clone(), record.is_released())
    };
    b.publishes_slots(&["a", "a", "a", "b"], true);
    b.retracted(&[2]);
    b.released(Outcome::Refused { reason: "disk full".into() });
    b.wait(secs(29));
    b.expect_only(&["acknowledge"], &[]);
    b.wait(secs(1));
    b.answer_all();
    let holds = Some("holds of slots 2 were not dropped".to_owned());
    assert_eq!(said(&b), (ReadinessOutcome::Failed, holds, false));
    b.skip();
    b.retracted(&[]);
    b.wait(secs(20));
    b.expect_only(&["acknowledge"], &[]);
    // The next version waits for the callback alone.
    b.publishes_slots(&["a", "a", "a", "a"], true);
    b.retracted(&[]);
    b.answer_all();
    let callback = Some("the release callback failed: disk full".to_owned());
    assert_eq!(said(&b), (ReadinessOutcome::Failed, callback, false));
    while b.is_open("release") {
        b.released(Outcome::Ready);
        b.wait(secs(1));
    }
    b.answer_all();
    b.stabilized(Outcome::Ready);
    b.answer_all();
    assert_eq!(said(&b), (ReadinessOutcome::Ready, None, true));
}

/// If this fails, a node that loses slots in several successive versions leaves, although it releases all of them in
/// time.
#[test]
fn the_release_timeout_counts_from_the_loss_of_slots_that_are_not_released_yet() {
    let mut b = follower_of(Bench::exclusive_with("b", |config| {
        config.has_release = true;
        config.release_timeout = Some(secs(60));
    }));
    b.publishes_slots(&["a", "a", "a", "b"], true);
    b.retracted(&[]);
    b.wait(secs(40));
    b.publishes_slots(&["a", "a", "a", "a"], false);
    b.retracted(&[]);
    b.released(Outcome::Ready);
    b.expect_only(
        &["release", "* lost slots are not"],
        &[
            "release 2",
            "* lost slots are not released after 30s: the release callback has not succeeded",
            "release 3",
        ],
    );
    b.wait(secs(59));
    b.expect_only(
        &["* session", "* lost slots are not"],
        &["* lost slots are not released after 30s: the release callback has not succeeded"],
    );
    b.wait(secs(1));
    b.expect_only(&["* session"], &["* session lost: the node did not release its lost slots in time"]);
}

/// For a slot that is being loaded, `release` is called only after `stabilize` has ended. By then, slots that were lost
/// earlier may have been released.
#[test]
fn the_release_timeout_of_a_slot_that_is_being_loaded_counts_from_its_own_loss() {
    let mut b = follower_of(Bench::exclusive_with("b", |config| {
        config.has_release = true;
        config.release_timeout = Some(secs(60));
    }));
    b.publishes_slots(&["a", "b", "b", "b"], false);
    b.answer_all();
    b.permits();
    assert!(b.is_open("stabilize"));
    b.publishes_slots(&["a", "b", "b", "a"], false);
    b.retracted(&[]);
    b.wait(secs(10));
    b.publishes_slots(&["a", "b", "a", "a"], false);
    b.retracted(&[]);
    b.wait(secs(40));
    b.publishes_slots(&["a", "a", "a", "a"], false);
    b.released(Outcome::Ready);
    b.released(Outcome::Ready);
    b.skip();
    b.wait(secs(59));
    b.expect_only(&["* session"], &[]);
    b.wait(secs(1));
    b.expect_only(&["* session"], &["* session lost: the node did not release its lost slots in time"]);
}

#[test]
fn p12_a_removed_node_stops_renewing_and_waits_for_its_holds_before_it_rejoins() {
    let mut b = follower();
    b.unseen(|b| b.evicts("b"));
    b.deliver();
    b.expect_only(&["retract", "revoke", "leave"], &["retract 2-3"]);
    b.retracted(&[3]);
    let void = b.status().holdings.unwrap().void;
    b.wait(secs(8));
    b.expect_only(&["revoke", "leave"], &[]);
    assert_eq!(b.status().holdings.unwrap().void, void);
    b.retracted(&[]);
    b.expect_only(&["revoke", "leave"], &["revoke 2"]);
}

#[test]
fn p12_after_a_resync_the_node_keeps_its_slots_and_requests_a_version_with_a_known_cut() {
    let mut b = follower();
    b.unseen(|b| b.publishes_slots(&["a", "b", "b", "b"], true));
    b.store.compact();
    b.watch_ends("view/", WatchEnd::Compacted { compacted: b.store.revision });
    b.ok("read");
    assert_eq!(held(&b), slots(&[2, 3]));
    b.expect_only(
        &["request", "acknowledge", "stabilize"],
        &["request: b, the view of the newest version is not known here"],
    );
}

#[test]
fn a_permit_whose_reply_is_lost_is_not_repeated_once_the_log_shows_it() {
    let mut a = Bench::exclusive("a");
    a.tick();
    a.answer_until("permit");
    a.lose("permit");
    a.deliver();
    a.wait(secs(1));
    a.expect_only(&["permit", "stabilize"], &["permit V1", "stabilize V1 of a"]);
}

#[test]
fn p12_a_release_acknowledgement_that_is_lost_is_sent_again() {
    let mut b = follower();
    b.publishes_slots(&["a", "b", "b", "b"], false);
    b.expect_only(&STEPS, &["acknowledge V3 released"]);
    b.fail("acknowledge", ErrorKind::Unreachable);
    b.wait(secs(1));
    b.expect_only(&STEPS, &["acknowledge V3 released"]);
    b.ok("acknowledge");
    b.delete("ready/b");
    b.wait(secs(16));
    b.ok("read ready/b");
    b.expect_only(&STEPS, &["acknowledge V3 released"]);
}

#[test]
fn joins_wait_while_slots_are_handed_over_and_departures_do_not() {
    let mut a = alone();
    a.joins_exclusively("b", 4);
    a.answer_all();
    a.skip();
    a.joins_exclusively("c", 4);
    a.wait(secs(29));
    a.expect_only(&["publish"], &[]);
    a.wait(secs(2));
    a.expect_only(&["publish"], &["publish V3: c joined"]);
    a.answer_all();
    let mut a = a.after(secs(10));
    a.joins_exclusively("d", 4);
    a.wait(secs(5));
    a.expect_only(&["publish"], &[]);
    a.ends("c");
    a.wait(secs(1));
    a.expect_only(&["publish"], &["publish V4: c's session ended, d joined"]);
}

#[test]
fn a_node_with_another_number_of_slots_is_refused_with_both_numbers() {
    let mut b = Bench::exclusive("b");
    b.priority = Some(200);
    b.joins_exclusively("a", 8);
    b.tick();
    b.answer_all();
    b.expect_only(&["join", "stopped"], &[
        "stopped: it is configured with 4 slots, but the cluster has 8: configure 8, or use another namespace",
    ]);

    let mut b = Bench::exclusive("b");
    b.priority = Some(200);
    b.joins_exclusively("a", 4);
    b.priority = Some(100);
    let mut b = b.joined();
    b.elects("a");
    b.stabilized(Outcome::Ready);
    b.publishes_slots(&["a", "a", "b"], false);
    b.answer_all();
    b.expect_only(&["stopped"], &[
        "stopped: it is configured with 4 slots, but the cluster has 3: configure 3, or use another namespace",
    ]);
}

#[test]
fn a_drained_incarnation_leaves_in_order_and_a_restarted_node_stays() {
    let mut b = follower();
    b.put("view/drain/b", r#"{"incarnation": "another", "by": "alice", "why": "maintenance"}"#);
    b.expect_only(&["retract", "stopped"], &[]);
    let incarnation = b.status().session.unwrap().incarnation;
    let request = format!(r#"{{"incarnation": "{incarnation}", "by": "alice", "why": "maintenance"}}"#);
    b.put("view/drain/b", &request);
    b.expect_only(&["retract"], &["retract 2-3"]);
    b.retracted(&[]);
    b.answer_all();
    b.expect_only(&["leave", "stopped"], &["leave", "stopped: alice drained it: maintenance"]);
}

#[test]
fn a_drain_of_the_session_counts_after_the_record_was_rewritten() {
    let mut b = follower();
    let lease = b.status().holdings.unwrap().lease.unwrap();
    let record = r#"{"incarnation": "earlier", "by": "alice", "why": "maintenance"}"#;
    b.write(Txn::new().put("c/view/drain/b", record, lease));
    b.expect_only(&["retract"], &["retract 2-3"]);
}

#[test]
fn a_cordoned_leader_resigns_only_when_another_candidate_is_present() {
    let mut a = alone();
    a.put("view/cordoned/a", "{}");
    a.answer_all();
    a.expect_only(&["publish", "resign"], &["publish V2: a was cordoned"]);
    a.joins("b");
    a.expect_only(&["resign"], &["resign"]);
}

#[test]
fn p12_a_late_join_does_not_bring_a_removed_session_back() {
    let mut b = Bench::exclusive("b");
    b.joins_exclusively("a", 4);
    b.tick();
    b.answer_until("join");
    let late = b.open.iter().find_map(|call| match call {
        Output::Commit { purpose: Purpose::Join, txn, .. } => Some(txn.clone()),
        _ => None,
    });
    b.drop_call("join");
    b.wait(secs(1));
    b.ok("join");
    b.deliver();
    assert_eq!(b.status().phase, Phase::Member);
    b.unseen(|b| b.evicts("b"));
    // The late join would attach the witness to the lease again, after a leader has detached it to revoke that lease.
    let applied = b.store.commit(&late.expect("a join"));
    assert!(applied.is_err(), "the process may still hold slots under the lease of that session");
}

#[test]
fn p12_a_session_that_was_removed_before_the_node_saw_its_record_is_not_registered_again() {
    let mut b = Bench::exclusive("b");
    b.joins_exclusively("a", 4);
    b.tick();
    b.answer_until("join");
    b.unseen(|b| {
        b.lose("join");
        b.evicts("b");
    });
    b.store.compact();
    b.watch_ends("view/", WatchEnd::Compacted { compacted: b.store.revision });
    b.skip();
    b.ok("read");
    b.expect_only(&["join", "revoke"], &["revoke 2"]);
    b.answer_all();
    b.wait(secs(2));
    b.answer_all();
    assert_eq!(b.status().phase, Phase::Member, "the next session registers");
}

#[test]
fn a_departure_that_the_store_refused_is_committed_again_while_slots_are_being_released() {
    let mut a = alone();
    a.stop();
    a.retracted(&[1]);
    a.skip();
    a.fail("leave", ErrorKind::Unreachable);
    a.wait(secs(1));
    a.expect_only(&STEPS, &["leave"]);
    a.ok("leave");
    a.deliver();
    assert!(a.store.get(a.keys.election_key()).is_none(), "the others need a leader meanwhile");
    a.wait(secs(5));
    a.expect_only(&STEPS, &[]);
    a.retracted(&[]);
    a.expect_only(&STEPS, &["revoke 1"]);
}

#[test]
fn a_departure_whose_reply_is_lost_is_not_committed_again() {
    let mut a = alone();
    a.stop();
    a.retracted(&[1]);
    a.skip();
    a.lose("leave");
    a.deliver();
    a.wait(secs(5));
    a.expect_only(&STEPS, &[]);
    a.retracted(&[]);
    a.expect_only(&STEPS, &["revoke 1"]);
}

#[test]
fn a_departure_that_keeps_failing_does_not_delay_the_revocation() {
    let mut a = alone();
    a.stop();
    a.retracted(&[1]);
    a.fail("leave", ErrorKind::Unreachable);
    a.skip();
    a.retracted(&[]);
    a.expect_only(&STEPS, &["revoke 1"]);
}

#[test]
fn a_node_requests_no_lease_while_the_release_of_its_last_session_is_stuck() {
    let mut b = follower_of(Bench::exclusive_with("b", |config| {
        config.release_timeout = Some(secs(60));
        config.has_release = true;
    }));
    b.unseen(|b| b.evicts("b"));
    b.deliver();
    b.retracted(&[]);
    b.skip();
    b.wait(secs(600));
    // It could acquire nothing, and would have to leave again.
    b.expect_only(&["grant", "join", "revoke"], &[]);
    b.released(Outcome::Ready);
    b.answer_all();
    assert_eq!(b.status().phase, Phase::Member, "without a further pause");
}

#[test]
fn a_stabilize_that_takes_long_does_not_keep_the_slots_of_others_from_being_acquired() {
    let mut b = follower();
    b.publishes_slots(&["a", "a", "a", "b"], false);
    b.retracted(&[]);
    b.expect_only(&STEPS, &["retract 2", "stabilize V3 of a b after V2"]);
    b.wait(secs(1));
    b.expect_only(&STEPS, &["acknowledge V3 released"]);
    b.ok("acknowledge");
    b.stabilized(Outcome::Ready);
    b.expect_only(&STEPS, &["acknowledge V3"]);
    b.ok("acknowledge");
    b.deliver();
    b.permits();
    b.expect_only(&STEPS, &[]);
}

#[test]
fn a_stabilize_that_does_not_end_when_it_is_superseded_does_not_keep_slots_from_being_acquired() {
    let mut b = follower();
    b.publishes_slots(&["a", "a", "a", "b"], false);
    b.retracted(&[]);
    b.publishes_slots(&["a", "a", "a", "b"], false);
    b.skip();
    b.wait(secs(1));
    b.expect_only(&STEPS, &["acknowledge V4 released"]);
}

#[test]
fn a_lease_whose_revocation_fails_is_not_renewed_any_more() {
    let mut a = alone();
    a.stop();
    a.retracted(&[]);
    a.ok("leave");
    a.fail("revoke", ErrorKind::Unreachable);
    let void = a.status().holdings.unwrap().void;
    a.skip();
    a.wait(secs(10));
    assert_eq!(a.status().holdings.unwrap().void, void);
}
