//! Keeping the slots of absent nodes (P12).

use std::time::Duration;

use super::bench::{Bench, name, secs};
use crate::{
    config::{Config, MAX_TTL},
    event::{Event, MassFailure, MassFailureKind},
    machine::Output,
    name::NodeName,
    outcome::Outcome,
    record::{Departure, VersionRecord, decode},
    slots::{Assignment, SlotCount},
    store::WatchEnd,
};

/// Returns the leader of a stable cluster of these nodes, with four slots.
fn leader_of(others: &[&str]) -> Bench {
    leader_with(others, 4, |_| {})
}

fn leader_with(others: &[&str], slots: u16, change: impl FnOnce(&mut Config)) -> Bench {
    let mut a = Bench::exclusive_with("a", |config| {
        config.exclusive = SlotCount::new(slots).ok();
        change(config);
    });
    a = a.joined().leading();
    a.answer_all();
    a = a.stable().after(secs(2));
    a.unseen(|a| others.iter().for_each(|other| a.joins_exclusively(other, slots)));
    a.deliver();
    pass(&mut a, secs(5));
    for other in others {
        assert!(!owned(&a, other).is_empty(), "{other} owns no slots");
    }
    a.after(secs(10))
}

/// Lets everything become stable that needs no time.
fn settle(a: &mut Bench) {
    a.answer_all();
    while ["retract", "stabilize", "announce"].iter().any(|call| a.is_open(call)) {
        if a.is_open("retract") {
            a.retracted(&[]);
        }
        if a.is_open("stabilize") {
            a.stabilized(Outcome::Ready);
        }
        for other in a.others.keys().cloned().collect::<Vec<_>>() {
            a.acknowledges(&other);
        }
        a.answer_all();
        if a.is_open("announce") {
            a.announced();
        }
    }
}

/// Lets time pass, and answers all calls meanwhile.
fn pass(a: &mut Bench, time: Duration) {
    let end = a.now + time;
    while a.now < end {
        let step = end.since(a.now).min(Duration::from_millis(500));
        a.wait(step);
        settle(a);
    }
}

/// Returns the numbers of the slots that the stored assignment gives to the node, whether or not it is present.
fn assigned(a: &Bench, node: &str) -> Vec<u16> {
    let entry = a.store.get(a.keys.slots_key()).expect("an assignment");
    let assignment = Assignment::decode(&entry.value).unwrap();
    assignment.of(&name(node)).map(|slot| slot.number()).collect()
}

fn owned(a: &Bench, node: &str) -> Vec<u16> {
    let slots = a.status().newest.unwrap().slots_of(&name(node));
    slots.iter().map(|slot| slot.number()).collect()
}

/// Returns the names and times in milliseconds that the newest version lists as kept.
fn kept(a: &Bench) -> Vec<(String, u64)> {
    let entry = a.store.get(a.keys.version_key()).expect("a version");
    let record: VersionRecord = decode(&entry.value).unwrap();
    record.kept.into_iter().map(|(name, ms)| (name.to_string(), ms)).collect()
}

fn kept_names(a: &Bench) -> Vec<String> {
    kept(a).into_iter().map(|(name, _)| name).collect()
}

const VERSIONS: &[&str] = &["publish", "elect"];

#[test]
fn a_restart_within_the_grace_moves_nothing() {
    let mut a = leader_of(&["b"]);
    let before = assigned(&a, "b");
    a.leaves_for("b", secs(30));
    settle(&mut a);
    a.expect_only(VERSIONS, &["publish V3: b left"]);
    assert_eq!((assigned(&a, "b"), kept(&a)), (before.clone(), vec![("b".to_owned(), 30_000)]));
    let view = a.status().newest.unwrap();
    let slot = SlotCount::new(4).unwrap().slot(before[0]).unwrap();
    assert_eq!((view.owner_of(slot), view.kept_for(slot)), (None, Some(&name("b"))));
    assert_eq!(view.kept()[&name("b")], secs(30));
    pass(&mut a, secs(20));
    a.joins_exclusively("b", 4);
    pass(&mut a, secs(40));
    a.expect_only(VERSIONS, &["publish V4: b joined"]);
    assert_eq!((owned(&a, "b"), kept(&a)), (before, vec![]));
}

#[test]
fn the_slots_move_when_the_grace_is_over() {
    let mut a = leader_of(&["b"]);
    a.leaves_for("b", secs(30));
    settle(&mut a);
    let since = a.now;
    a.skip();
    a.wait(secs(29));
    settle(&mut a);
    a.expect_only(VERSIONS, &[]);
    a.wait_for("publish");
    assert_eq!(a.now.since(since), secs(30));
    settle(&mut a);
    a.expect_only(VERSIONS, &["publish V4: b did not come back in time"]);
    assert_eq!((assigned(&a, "b"), owned(&a, "a").len(), kept(&a)), (vec![], 4, vec![]));
    pass(&mut a, secs(60));
    a.expect_only(VERSIONS, &[]);
}

#[test]
fn other_versions_do_not_lengthen_the_grace() {
    let mut a = leader_of(&["b", "c"]);
    a.leaves_for("b", secs(30));
    settle(&mut a);
    pass(&mut a, secs(10));
    a.leaves("c");
    pass(&mut a, secs(1));
    assert_eq!(kept(&a), [("b".to_owned(), 20_000)]);
    a.skip();
    pass(&mut a, secs(18));
    a.expect_only(VERSIONS, &[]);
    pass(&mut a, secs(2));
    a.expect_only(VERSIONS, &["publish V6: b did not come back in time"]);
}

#[test]
fn two_nodes_that_leave_one_after_the_other_both_keep_their_slots() {
    let mut a = leader_of(&["b", "c"]);
    let before = (assigned(&a, "b"), assigned(&a, "c"));
    a.unseen(|a| {
        a.leaves_for("b", secs(30));
        a.leaves_for("c", secs(40));
    });
    a.deliver();
    pass(&mut a, secs(2));
    assert_eq!((assigned(&a, "b"), assigned(&a, "c")), before);
    assert_eq!(kept_names(&a), ["b", "c"]);
    a.skip();
    pass(&mut a, secs(29));
    a.expect_only(VERSIONS, &["publish V6: b did not come back in time"]);
    assert_eq!(
        (assigned(&a, "b"), assigned(&a, "c"), kept_names(&a)),
        (vec![], before.1, vec!["c".to_owned()])
    );
}

#[test]
fn a_cordon_ends_the_wait() {
    let mut a = leader_of(&["b"]);
    a.leaves_for("b", secs(300));
    settle(&mut a);
    a.skip();
    a.put("view/cordoned/b", "{}");
    pass(&mut a, secs(5));
    a.expect_only(VERSIONS, &["publish V4: b was cordoned"]);
    assert_eq!((assigned(&a, "b"), kept(&a)), (vec![], vec![]));
}

#[test]
fn a_node_that_ends_keeps_its_slots_for_the_grace_in_its_record() {
    let mut a = leader_of(&[]);
    a.joins_with_grace("b", 4, secs(20));
    pass(&mut a, secs(2));
    let before = owned(&a, "b");
    assert_eq!(before.len(), 2);
    pass(&mut a, secs(10));
    a.skip();
    a.ends("b");
    pass(&mut a, secs(5));
    assert_eq!((assigned(&a, "b"), kept_names(&a)), (before, vec!["b".to_owned()]));
    pass(&mut a, secs(20));
    a.expect_only(VERSIONS, &["publish V3: b's session ended", "publish V4: b did not come back in time"]);
}

#[test]
fn slots_move_at_once_after_an_ordinary_stop_a_crash_without_grace_or_an_eviction() {
    let departures: [fn(&mut Bench); 3] = [|a| a.leaves("b"), |a| a.ends("b"), |a| a.evicts("b")];
    for depart in departures {
        let mut a = leader_of(&["b", "c", "d"]);
        depart(&mut a);
        pass(&mut a, secs(2));
        assert_eq!((assigned(&a, "b"), kept(&a)), (vec![], vec![]));
    }
    let mut a = leader_of(&[]);
    a.joins_with_grace("b", 4, secs(20));
    pass(&mut a, secs(2));
    a.evicts("b");
    pass(&mut a, secs(2));
    assert_eq!((assigned(&a, "b"), kept(&a)), (vec![], vec![]), "an evicted node has no grace");
}

#[test]
fn a_grace_that_was_written_by_hand_lasts_a_day_at_most() {
    let mut a = leader_of(&["b"]);
    a.departs("b", Departure::Left, Duration::from_millis(u64::MAX));
    settle(&mut a);
    assert_eq!(kept(&a), [("b".to_owned(), MAX_TTL.as_millis() as u64)]);
    let mut b = Bench::exclusive("b").joined().leading();
    b.answer_all();
    b = b.stable();
    let record = VersionRecord {
        number: 9,
        kept: [(name("x"), u64::MAX), (name("b"), 5)].into(),
        ..VersionRecord::labelled(b.generate_version())
    };
    b.publishes_as(record);
    b.requests("ops");
    pass(&mut b, secs(30));
    assert_eq!((owned(&b, "b").len(), kept(&b)), (4, vec![]), "neither is an absent owner");
}

#[test]
fn the_next_leader_takes_over_the_kept_names_and_counts_anew() {
    let mut a = leader_of(&["b", "c"]);
    let before = assigned(&a, "b");
    a.leaves_for("b", secs(30));
    settle(&mut a);
    pass(&mut a, secs(10));
    // A process that has just started knows only the version record.
    let mut fresh = Bench::exclusive("d");
    fresh.store = a.store.clone();
    fresh.others = a.others.clone();
    fresh.now = a.now;
    let leader = fresh.store.get(fresh.keys.election_key()).and_then(|entry| entry.lease).unwrap();
    let mut d = fresh.joined();
    d.store.revoke(leader).unwrap();
    d.deliver();
    d.skip();
    pass(&mut d, secs(2));
    assert!(d.is_leader());
    assert_eq!((assigned(&d, "b"), kept_names(&d)), (before, vec!["b".to_owned()]));
    pass(&mut d, secs(25));
    assert_eq!(kept_names(&d), ["b"]);
    pass(&mut d, secs(10));
    assert_eq!((assigned(&d, "b"), kept(&d)), (vec![], vec![]));
}

#[test]
fn a_follower_that_becomes_leader_during_the_grace_counts_on() {
    let mut a = Bench::exclusive("a");
    a.unseen(|a| {
        a.joins_exclusively("b", 4);
        a.joins_exclusively("c", 4);
        a.elects("b");
    });
    let mut a = a.joined();
    a.publishes_slots(&["a", "a", "b", "c"], false);
    settle(&mut a);
    a.leaves_for("c", secs(30));
    a.wait(secs(10));
    settle(&mut a);
    a.skip();
    a.ends("b");
    pass(&mut a, secs(2));
    assert!(a.is_leader());
    assert_eq!(
        (kept_names(&a), assigned(&a, "c"), assigned(&a, "b")),
        (vec!["c".to_owned()], vec![3], vec![])
    );
    a.skip();
    pass(&mut a, secs(15));
    a.expect_only(VERSIONS, &[]);
    pass(&mut a, secs(4));
    a.expect_only(VERSIONS, &["publish V4: c did not come back in time"]);
    assert_eq!(owned(&a, "a").len(), 4);
}

#[test]
fn a_node_that_leaves_between_the_last_look_and_the_commit_is_listed_by_the_next_version() {
    let mut a = leader_of(&["b"]);
    let before = assigned(&a, "b");
    a.joins_exclusively("c", 4);
    a.wait_for("publish");
    a.unseen(|a| a.leaves_for("b", secs(30)));
    a.ok("publish");
    a.deliver();
    assert_eq!(kept(&a), []);
    pass(&mut a, secs(5));
    assert_eq!(kept_names(&a), ["b"]);
    assert!(!assigned(&a, "b").is_empty() && assigned(&a, "b").iter().all(|slot| before.contains(slot)));
    a.skip();
    pass(&mut a, secs(20));
    a.expect_only(VERSIONS, &[]);
}

#[test]
fn a_node_that_is_back_before_its_departure_is_published_keeps_its_slots() {
    let mut a = leader_of(&["b", "c"]);
    let before = assigned(&a, "b");
    a.unseen(|a| {
        a.leaves_for("b", secs(30));
        a.joins_exclusively("b", 4);
    });
    a.deliver();
    pass(&mut a, secs(60));
    // The version may still list the node, which is in it. Readers ignore that.
    let view = a.status().newest.unwrap();
    let slot = SlotCount::new(4).unwrap().slot(before[0]).unwrap();
    assert_eq!((owned(&a, "b"), view.kept_for(slot)), (before, None));
}

#[test]
fn a_node_that_returns_and_leaves_for_good_before_a_version_keeps_its_slots_no_longer() {
    let mut a = leader_of(&["b"]);
    a.leaves_for("b", secs(30));
    a.wait_for("publish");
    a.unseen(|a| {
        a.joins_exclusively("b", 4);
        a.leaves("b");
    });
    // The version lists the first departure, because its commit was sent before the later ones.
    a.ok("publish");
    a.deliver();
    assert_eq!(kept_names(&a), ["b"]);
    a.skip();
    pass(&mut a, secs(5));
    a.expect_only(VERSIONS, &["publish V4: b did not come back in time"]);
    assert_eq!((owned(&a, "a").len(), assigned(&a, "b"), kept(&a)), (4, vec![], vec![]));
}

/// Returns node a, a follower, in a stable cluster of a, b, c and d, led by b, with one slot each.
fn follower() -> Bench {
    let mut a = Bench::exclusive("a");
    a.unseen(|a| {
        ["b", "c", "d"].into_iter().for_each(|node| a.joins_exclusively(node, 4));
        a.elects("b");
    });
    let mut a = a.joined();
    a.publishes_slots(&["a", "b", "c", "d"], false);
    settle(&mut a);
    a
}

/// Publishes a version in which another leader keeps the slots of c for 300 s.
fn publishes_that_c_is_kept(a: &mut Bench) {
    let version = a.generate_version();
    let kept = [(name("c"), 300_000)].into();
    a.publishes_as(VersionRecord { number: 9, kept, ..VersionRecord::labelled(version) });
}

/// After a gap, only the last departure is known exactly. Earlier ones look as if the sessions had ended.
#[test]
fn a_node_that_missed_a_departure_with_grace_takes_over_the_listed_time() {
    let mut a = follower();
    a.unseen(|a| {
        a.leaves_for("c", secs(300));
        publishes_that_c_is_kept(a);
        a.leaves("d");
    });
    let compacted = a.store.revision;
    a.watch_ends("view/", WatchEnd::Compacted { compacted });
    settle(&mut a);
    a.leaves("b");
    pass(&mut a, secs(20));
    assert!(a.is_leader());
    assert_eq!((kept_names(&a), assigned(&a, "c")), (vec!["c".to_owned()], vec![2]));
}

/// A leader that was cut off keeps the slots of every node whose session ends. Other nodes learn this only from the
/// version.
#[test]
fn the_next_leader_also_waits_for_a_node_whose_session_ended_without_grace() {
    let mut a = follower();
    a.ends("c");
    publishes_that_c_is_kept(&mut a);
    settle(&mut a);
    a.leaves("b");
    pass(&mut a, secs(20));
    assert!(a.is_leader());
    assert_eq!((kept_names(&a), assigned(&a, "c")), (vec!["c".to_owned()], vec![2]));
}

#[test]
fn a_gap_in_the_log_does_not_end_the_grace() {
    let mut a = leader_of(&["b", "c"]);
    let before = assigned(&a, "b");
    a.leaves_for("b", secs(30));
    settle(&mut a);
    let compacted = a.store.revision;
    a.watch_ends("view/", WatchEnd::Compacted { compacted });
    settle(&mut a);
    a.leaves("c");
    pass(&mut a, secs(5));
    assert_eq!((assigned(&a, "b"), kept_names(&a)), (before, vec!["b".to_owned()]));
}

#[test]
fn names_that_do_not_fit_into_the_version_record_are_not_kept() {
    let long = |number: usize| name(&format!("{number:03}{}", "x".repeat(252)));
    let names: Vec<NodeName> = (0..400).map(long).collect();
    let mut a = leader_with(&[], 400, |_| {});
    let count = SlotCount::new(400).unwrap();
    let assignment = Assignment::new(count, |slot| names.get(usize::from(slot.number())));
    a.put("view/slots", std::str::from_utf8(&assignment.encode()).unwrap());
    a.unseen(|a| {
        for names in names.chunks(200) {
            let kept = names.iter().map(|name| (name.clone(), 300_000)).collect();
            let version = a.generate_version();
            a.publishes_as(VersionRecord { number: 3, kept, ..VersionRecord::labelled(version) });
        }
        a.requests("ops");
    });
    a.deliver();
    pass(&mut a, secs(10));
    let kept = kept_names(&a);
    assert!((200..300).contains(&kept.len()), "{} names are kept", kept.len());
    let size = a.store.get(a.keys.version_key()).unwrap().value.len();
    assert!(size < crate::store::Limits::VALUE, "{size}");
    for name in &names {
        assert_eq!(assigned(&a, name.as_str()).is_empty(), !kept.contains(&name.to_string()));
    }
    a.skip();
    pass(&mut a, secs(60));
    a.expect_only(VERSIONS, &[]);
}

/// Returns the reports that a mass failure begins or is over.
fn mass_failures(a: &mut Bench) -> Vec<String> {
    let mut events = Vec::new();
    a.collect("* ", &mut events);
    events.retain(|event| event.contains("mass failure"));
    events
}

#[test]
fn after_a_mass_loss_slots_wait_for_a_ttl() {
    let mut a = leader_with(&["b", "c", "d"], 8, |_| {});
    let before = ["b", "c", "d"].map(|node| assigned(&a, node));
    a.skip();
    a.unseen(|a| ["b", "c", "d"].into_iter().for_each(|node| a.ends(node)));
    a.deliver();
    let failure = a.status().mass_failure.expect("a mass failure");
    let MassFailure { kind, failing, nodes, .. } = failure;
    assert_eq!((kind, failing, nodes), (MassFailureKind::Lost, 3, 4));
    // The first loss was published at once, as ever.
    pass(&mut a, secs(5));
    // It may have given slots to nodes whose loss the leader had not seen.
    let holds_still =
        |a: &Bench, node, before: &[u16]| before.iter().all(|slot| assigned(a, node).contains(slot));
    assert!(holds_still(&a, "c", &before[1]) && holds_still(&a, "d", &before[2]));
    assert!(kept_names(&a).contains(&"c".to_owned()));
    a.joins_exclusively("c", 8);
    pass(&mut a, secs(5));
    assert!(!owned(&a, "c").is_empty() && holds_still(&a, "c", &before[1]));
    pass(&mut a, secs(10));
    assert_eq!(assigned(&a, "d"), Vec::<u16>::new());
    assert!(a.status().mass_failure.is_none());
    let events = mass_failures(&mut a);
    assert_eq!(events.len(), 2, "{events:?}");
}

#[test]
fn the_loss_of_half_of_the_nodes_or_fewer_moves_their_slots_at_once() {
    let mut a = leader_of(&["b"]);
    a.ends("b");
    pass(&mut a, secs(1));
    assert_eq!((owned(&a, "a").len(), kept(&a)), (4, vec![]), "one of two");
    let mut a = leader_of(&["b", "c", "d"]);
    a.ends("b");
    pass(&mut a, secs(5));
    a.ends("c");
    pass(&mut a, secs(5));
    assert_eq!((kept(&a), a.status().mass_failure), (vec![], None), "two of four, one after the other");
}

#[test]
fn nodes_that_left_or_were_evicted_are_no_mass_loss() {
    let mut a = leader_of(&["b", "c", "d"]);
    a.unseen(|a| {
        a.leaves("b");
        a.leaves("c");
        a.evicts("d");
    });
    a.deliver();
    pass(&mut a, secs(2));
    assert_eq!((owned(&a, "a").len(), kept(&a)), (4, vec![]));
}

#[test]
fn the_share_of_100_percent_switches_mass_loss_off() {
    let mut a = leader_with(&["b", "c", "d"], 4, |config| config.mass_failure_percent = 100);
    a.unseen(|a| ["b", "c", "d"].into_iter().for_each(|node| a.ends(node)));
    a.deliver();
    pass(&mut a, secs(2));
    assert_eq!((owned(&a, "a").len(), kept(&a)), (4, vec![]));
}

#[test]
fn a_leader_that_lost_its_session_waits_for_every_node_that_ended() {
    let mut a = leader_of(&["b", "c", "d"]);
    let before = assigned(&a, "b");
    // The store forgets the lease of this node, which rejoins and leads again.
    let lease = a.lease_of("view/nodes/a");
    while !a.is_open("renew") {
        let next = a.machine.next_wakeup().expect("a renewal is due");
        a.advance(next.since(a.now));
    }
    a.store.revoke(lease).unwrap();
    a.ok("renew");
    pass(&mut a, secs(2));
    assert!(a.is_leader(), "{:?}", a.status());
    a.skip();
    a.ends("b");
    pass(&mut a, secs(5));
    assert_eq!((assigned(&a, "b"), kept_names(&a)), (before.clone(), vec!["b".to_owned()]), "one of four");
    a.joins_exclusively("b", 4);
    pass(&mut a, secs(40));
    assert_eq!((owned(&a, "b"), kept(&a)), (before, vec![]));
    a.ends("b");
    pass(&mut a, secs(2));
    assert_eq!((assigned(&a, "b"), kept(&a)), (vec![], vec![]), "two TTLs later it is over");
}

#[test]
fn a_removed_leader_that_rejoins_does_not_wait_for_nodes_that_end() {
    let mut a = leader_of(&["b", "c", "d"]);
    a.evicts("a");
    pass(&mut a, secs(10));
    assert!(a.is_leader(), "{:?}", a.status());
    a.ends("b");
    pass(&mut a, secs(3));
    assert_eq!((assigned(&a, "b"), kept(&a)), (vec![], vec![]));
}

#[test]
fn nodes_that_crashed_or_were_evicted_together_are_no_mass_loss() {
    for how in [Departure::Crashed, Departure::Evicted] {
        let mut a = leader_of(&["b", "c", "d"]);
        a.unseen(|a| ["b", "c", "d"].into_iter().for_each(|node| a.departs(node, how, Duration::ZERO)));
        a.deliver();
        pass(&mut a, secs(2));
        assert_eq!((assigned(&a, "b"), kept(&a), a.status().mass_failure), (vec![], vec![], None));
    }
}

#[test]
fn a_single_node_is_no_mass_loss_whatever_the_share() {
    let mut a = leader_with(&["b", "c", "d"], 4, |config| config.mass_failure_percent = 10);
    a.ends("b");
    pass(&mut a, secs(2));
    assert_eq!((assigned(&a, "b"), kept(&a), a.status().mass_failure), (vec![], vec![], None));
}

#[test]
fn a_node_that_ended_and_then_left_does_not_count_for_a_mass_loss() {
    let mut a = leader_of(&["b", "c"]);
    a.unseen(|a| {
        a.ends("b");
        a.joins_exclusively("b", 4);
        a.leaves("b");
        a.ends("c");
    });
    a.deliver();
    assert_eq!(a.status().mass_failure, None);
    pass(&mut a, secs(2));
    assert_eq!((assigned(&a, "c"), kept(&a)), (vec![], vec![]));
}

#[test]
fn a_mass_loss_does_not_shorten_a_longer_grace() {
    let mut a = leader_of(&[]);
    let others = ["b", "c", "d"];
    a.unseen(|a| others.into_iter().for_each(|node| a.joins_with_grace(node, 4, secs(60))));
    a.deliver();
    pass(&mut a, secs(15));
    a.unseen(|a| others.into_iter().for_each(|node| a.ends(node)));
    a.deliver();
    assert!(a.status().mass_failure.is_some());
    pass(&mut a, secs(30));
    assert_eq!(kept_names(&a), others);
}

#[test]
fn after_a_mass_loss_slots_wait_for_a_ttl_but_at_least_for_10_s() {
    for (ttl, waiting) in [(5, 8), (15, 13)] {
        let mut a = leader_with(&["b", "c", "d"], 8, |config| config.ttl = secs(ttl));
        a.unseen(|a| ["b", "c", "d"].into_iter().for_each(|node| a.ends(node)));
        a.deliver();
        pass(&mut a, secs(waiting));
        assert!(kept_names(&a).contains(&"d".to_owned()), "with a TTL of {ttl} s");
    }
}

#[test]
fn a_mass_loss_is_over_once_all_nodes_are_back() {
    let mut a = leader_of(&["b", "c", "d"]);
    a.unseen(|a| ["b", "c", "d"].into_iter().for_each(|node| a.ends(node)));
    a.deliver();
    assert!(a.status().mass_failure.is_some());
    a.unseen(|a| ["b", "c", "d"].into_iter().for_each(|node| a.joins_exclusively(node, 4)));
    a.deliver();
    assert_eq!(a.status().mass_failure, None);
}

#[test]
fn every_node_reports_whose_slots_are_kept() {
    let mut observer = Bench::observer();
    observer.joins_exclusively("a", 4);
    observer.joins_exclusively("b", 4);
    observer.elects("a");
    observer.tick();
    observer.answer_all();
    observer.publishes_slots(&["a", "a", "b", "b"], false);
    observer.leaves("b");
    observer.skip();
    for (kept, reported) in [(30_000, 1), (20_000, 0)] {
        let version = observer.generate_version();
        let kept = [(name("b"), kept), (name("a"), 7)].into();
        observer.publishes_as(VersionRecord { number: 3, kept, ..VersionRecord::labelled(version) });
        let outputs = std::mem::take(&mut observer.outputs);
        let events = outputs.iter().filter(|output| {
            let keep = secs(30);
            matches!(output, Output::Event(Event::SlotsKept { name: node, keep: at }) if *node == name("b") && *at == keep)
        });
        assert_eq!(events.count(), reported);
    }
}

#[test]
fn nodes_that_are_not_exclusive_keep_nothing() {
    let mut a = Bench::node("a").with(&["b"]).joined();
    a.wait(secs(1));
    a.answer_all();
    a.departs("b", Departure::Left, secs(30));
    a.wait(secs(2));
    a.answer_all();
    assert_eq!(kept(&a), []);
}

#[test]
fn a_grace_that_is_no_whole_number_of_milliseconds_is_not_taken_for_a_change_by_another_client() {
    let mut a = leader_with(&["b"], 4, |config| config.restart_grace = Duration::from_micros(1_500));
    a.skip();
    pass(&mut a, secs(60));
    a.expect_only(&["rewrite", "publish", "* another client"], &[]);
}
