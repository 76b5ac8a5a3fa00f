//! Removing nodes whose processes are gone.

use super::bench::{Bench, ms, secs};
use crate::{
    config::{CrashDetection, NameConflict},
    event::{
        Evidence::{Refused, Replaced},
        StoreCall,
    },
    record::{Departure, DepartureRecord, decode},
    store::{ErrorKind, Guard, Txn, WatchEnd},
};

const QUIET: [&str; 5] = ["watch processes", "remove", "revoke", "* the process", "* removed as"];

/// Returns b, which watches these other nodes in a version published by the first of them.
fn watching(others: &[&str]) -> Bench {
    watching_with(Bench::watching("b"), others)
}

fn watching_with(mut b: Bench, others: &[&str]) -> Bench {
    // With a higher priority, so that one of the others leads.
    b.priority = Some(200);
    for other in others {
        b.joins_watched(other, other);
    }
    let mut b = b.joined().led_by(others[0]);
    b.skip();
    b
}

/// Returns the exclusive b, which watches the exclusive c in a version published by c.
fn watching_exclusively(trust_refused: bool) -> Bench {
    let mut b = Bench::watching_exclusively("b", trust_refused);
    b.priority = Some(200);
    b.joins_watched_exclusively("c");
    b.joined().led_by("c")
}

/// Returns how the last node departed that departed by a commit.
fn departed(b: &Bench) -> DepartureRecord {
    decode(&b.store.get(b.keys.departure_key()).expect("a departure record").value).unwrap()
}

fn endpoint_of(b: &Bench, node: &str) -> Option<String> {
    let node = b.machine.present().find(|it| it.name == *node).expect("a node");
    node.endpoint.as_ref().map(|endpoint| endpoint.address.clone())
}

#[test]
fn a_node_watches_the_three_before_it_in_the_ring_of_the_newest_version() {
    let mut b = Bench::watching("b");
    b.priority = Some(200);
    for other in ["a", "c", "d", "e", "f"] {
        b.joins_watched(other, other);
    }
    let mut b = b.joined();
    b.expect_only(&QUIET, &[]);
    b.elects("a");
    b.expect_only(&QUIET, &["watch processes at a:1 d:1 f:1"]);
    // A node that joins between others changes the set only with the next version.
    b.joins_watched("i", "i");
    b.expect_only(&QUIET, &[]);
    b.publishes();
    b.expect_only(&QUIET, &["watch processes at d:1 f:1 i:1"]);
    b.publishes();
    b.expect_only(&QUIET, &[]);
}

#[test]
fn every_node_has_three_watchers() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let mut watchers = std::collections::BTreeMap::new();
    for name in names {
        let mut node = Bench::watching(name);
        node.priority = Some(200);
        names.iter().filter(|other| **other != name).for_each(|other| node.joins_watched(other, other));
        let mut node = node.joined();
        node.elects(if name == "a" { "b" } else { "a" });
        let mut lines = Vec::new();
        node.collect("watch processes at ", &mut lines);
        for address in lines[0].trim_start_matches("watch processes at ").split(' ') {
            *watchers.entry(address.to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(watchers.into_values().collect::<Vec<_>>(), [3; 7]);
}

#[test]
fn nodes_without_an_endpoint_take_no_part_in_crash_detection() {
    let mut b = Bench::watching("b").with(&["a"]);
    b.priority = Some(200);
    b.joins_watched("c", "c");
    let mut b = b.joined();
    b.elects("a");
    b.expect_only(&QUIET, &["watch processes at c:1"]);

    let mut b = Bench::node("b");
    b.priority = Some(200);
    b.joins_watched("c", "c");
    let mut b = b.joined();
    b.elects("c");
    b.reports("c", Refused);
    b.expect_only(&QUIET, &[]);
}

#[test]
fn a_node_that_is_no_member_or_stops_watches_nothing() {
    let mut b = watching(&["a"]);
    b.stop();
    b.expect_only(&QUIET, &["watch processes at "]);

    let mut b = watching(&["a"]);
    b.unregister(1);
    b.expect_only(&QUIET, &["watch processes at "]);

    let mut b = watching(&["a"]);
    b.reports("a", Refused);
    b.delete("view/nodes/b");
    b.skip();
    b.reports("a", Refused);
    b.wait(ms(300));
    b.expect_only(&["remove"], &[]);
}

#[test]
fn p8_a_node_whose_process_is_gone_is_removed_as_crashed() {
    let mut b = watching(&["e", "f"]);
    b.reports("f", Refused);
    b.expect_only(
        &QUIET,
        &[
            "* the process of f is gone, its endpoint refuses connections: removing the node",
            "remove crashed f",
        ],
    );
    b.reports("f", Refused);
    b.answer_all();
    b.expect_only(
        &[&QUIET[..], &["* f is gone"]].concat(),
        &["* f is gone: its process is gone", "watch processes at e:1"],
    );
    assert_eq!((departed(&b).node.as_str(), departed(&b).how), ("f", Departure::Crashed));
    assert!(b.store.get(b.keys.election_key()).is_some(), "the leader is another node");
}

#[test]
fn p5_the_removal_of_the_leader_deletes_its_election_key() {
    let mut b = watching(&["f", "e"]);
    b.acknowledges("f");
    b.reports("f", Refused);
    b.answer_all();
    b.wait_for("elect");
    b.expect_only(
        &["remove", "elect"],
        &["remove crashed f", "elect V2: b was elected, the process of f is gone"],
    );
    assert!(b.store.get(&"c/ready/f".into()).is_none());
}

#[test]
fn p5_a_removal_decided_before_the_node_was_elected_is_refused_and_repeated() {
    let mut b = watching(&["e", "f"]);
    b.unseen(|b| {
        b.delete("view/leader");
        b.elects("f");
    });
    b.reports("f", Refused);
    b.ok("remove");
    assert!(b.store.get(&"c/view/nodes/f".into()).is_some(), "the guard on the leader failed");
    b.skip();
    b.deliver();
    b.answer_all();
    b.wait_for("elect");
    b.expect_only(
        &["remove", "elect"],
        &["remove crashed f", "remove crashed f", "elect V3: b was elected, the process of f is gone"],
    );
}

#[test]
fn p7_a_removal_is_refused_if_another_process_has_taken_the_name() {
    let mut b = watching(&["e", "f"]);
    b.unseen(|b| b.joins_watched("f", "f2"));
    b.reports("f", Refused);
    b.ok("remove");
    b.deliver();
    b.wait(secs(10));
    b.expect_only(&["remove"], &["remove crashed f"]);
    assert_eq!(endpoint_of(&b, "f"), Some("f2:1".to_owned()));
}

#[test]
fn a_report_about_an_unknown_process_or_about_this_very_node_does_nothing() {
    let mut b = watching(&["e", "f"]);
    b.joins_watched("d", "d");
    b.joins_watched("f", "f2");
    b.skip();
    for process in ["b", "f", "d", "x"] {
        b.reports(process, Refused);
    }
    b.wait(secs(10));
    b.expect_only(&["remove", "* the process"], &[]);
}

#[test]
fn a_changed_record_of_the_same_process_does_not_save_it() {
    let mut b = watching(&["e", "f"]);
    let lease = b.others["f"];
    b.unseen(|b| b.joins_watched("f", "f"));
    b.others.insert("f".to_owned(), lease);
    b.reports("f", Refused);
    b.ok("remove");
    b.deliver();
    b.answer_all();
    b.expect_only(&["remove"], &["remove crashed f", "remove crashed f"]);
    assert!(b.store.get(&"c/view/nodes/f".into()).is_none());
}

#[test]
fn watchers_take_turns_and_the_nearest_one_goes_first() {
    // The nodes before b in the ring, nearest first.
    let mut b = watching(&["f", "a", "e"]);
    b.reports("e", Refused);
    b.wait(ms(99));
    b.expect_only(&["remove", "* the process"], &[]);
    b.wait(ms(1));
    b.expect_only(&["remove"], &["remove crashed e"]);

    let mut b = watching(&["f", "a", "e"]);
    b.reports("a", Refused);
    b.wait(ms(49));
    // A nearer watcher removes the node.
    b.crashes("a");
    b.wait(secs(1));
    b.expect_only(&["remove", "* the process"], &[]);
}

#[test]
fn watchers_of_a_slow_store_wait_for_twice_the_round_trip() {
    let mut b = Bench::watching("b");
    b.priority = Some(200);
    for other in ["f", "a"] {
        b.joins_watched(other, other);
    }
    b.tick();
    for call in ["grant", "read"] {
        b.now = b.now + ms(80);
        b.ok(call);
    }
    b.answer_all();
    let mut b = b.led_by("f");
    b.reports("a", Refused);
    // The join was answered at once, and counts one eighth: 2 * 70 ms.
    assert_eq!(b.wait_for("remove crashed a"), ms(140));
}

#[test]
fn the_removal_of_a_node_without_a_lease_leaves_an_election_key_without_a_lease() {
    let mut b = watching(&["e", "f"]);
    let txn = ["view/nodes/f", "view/leader"].into_iter().fold(Txn::new(), |txn, key| {
        let key = format!("c/{key}");
        let value = b.store.get(&key.clone().into()).expect("a record").value.clone();
        txn.put(key, value, None)
    });
    b.write(txn);
    b.reports("f", Refused);
    b.ok("remove");
    assert!(b.store.get(b.keys.election_key()).is_some(), "e leads");
}

#[test]
fn a_watcher_does_not_wait_for_nearer_ones_that_are_gone_too() {
    let mut b = watching(&["f", "a", "e"]);
    b.reports("e", Refused);
    b.reports("f", Refused);
    b.expect_only(&["remove"], &["remove crashed f"]);
    b.reports("a", Refused);
    b.expect_only(&["remove"], &["remove crashed a", "remove crashed e"]);
}

#[test]
fn a_node_whose_watchers_are_gone_is_watched_by_the_next_ones_before_a_new_version() {
    let mut b = watching(&["a", "c", "d", "e", "f"]);
    b.crashes("f");
    b.expect_only(&QUIET, &["watch processes at a:1 d:1 e:1"]);
    b.reports("e", Refused);
    b.wait(ms(100));
    b.expect_only(&["remove"], &["remove crashed e"]);
}

#[test]
fn a_removal_is_repeated_until_the_store_answers() {
    let mut b = watching(&["e", "f"]);
    b.reports("f", Replaced);
    b.fail("remove", ErrorKind::Unreachable);
    b.wait(ms(100));
    b.drop_call("remove");
    b.wait(ms(200));
    b.lose("remove");
    b.expect_only(
        &["remove", "* the process"],
        &[
            "* the process of f is gone, another one answers at its endpoint: removing the node",
            "remove crashed f",
            "remove crashed f",
            "remove crashed f",
        ],
    );
    b.deliver();
    b.wait(secs(10));
    b.expect_only(&["remove"], &[]);
}

#[test]
fn a_removal_that_keeps_failing_is_reported() {
    let mut b = watching(&["e", "f"]);
    b.reports("f", Refused);
    for _ in 0..40 {
        b.fail("remove", ErrorKind::Refused);
        b.wait_for("remove");
        if b.now.since(crate::time::Timestamp::ZERO) > secs(135) {
            break;
        }
    }
    let failing: Vec<_> = b.status().failing.iter().map(|failing| failing.call).collect();
    assert_eq!(failing, [StoreCall::RemoveCrashed]);
}

#[test]
fn reports_are_forgotten_when_the_node_is_no_longer_watched() {
    let mut b = watching(&["a", "e", "f"]);
    b.reports("e", Refused);
    for between in ["d", "i", "j"] {
        b.joins_watched(between, between);
    }
    b.publishes();
    b.expect_only(&QUIET, &["watch processes at d:1 f:1 j:1"]);
    b.wait(secs(10));
    b.expect_only(&["remove"], &[]);
}

#[test]
fn p12_a_report_that_is_not_trusted_leaves_the_lease_alone() {
    let mut b = watching_exclusively(false);
    b.reports("c", Refused);
    b.answer_all();
    b.wait(secs(10));
    b.expect_only(&["remove", "revoke"], &["remove crashed c"]);
    assert!(b.store.get(&b.keys.holds_key(b.others["c"])).is_some(), "the process may still hold keys");
}

#[test]
fn p12_a_trusted_report_revokes_the_lease_once_the_record_is_gone() {
    let mut b = watching_exclusively(true);
    b.reports("c", Refused);
    b.expect_only(&["remove", "revoke"], &["remove crashed c"]);
    b.ok("remove");
    b.expect_only(&["remove", "revoke"], &[]);
    b.deliver();
    b.expect_only(&["remove", "revoke"], &["revoke 1"]);
    assert_eq!(departed(&b).how, Departure::Crashed);
    b.fail("revoke", ErrorKind::Unreachable);
    b.wait(ms(100));
    b.expect_only(&["remove", "revoke"], &["revoke 1"]);
    b.ok("revoke");
    b.deliver();
    assert!(b.store.get(&b.keys.holds_key(b.others["c"])).is_none());
    b.wait(secs(20));
    b.expect_only(&["remove", "revoke"], &[]);
}

/// Returns b, which has removed c after a trusted report, and is about to revoke the lease of c.
fn revoking() -> Bench {
    let mut b = watching_exclusively(true);
    b.reports("c", Refused);
    b.ok("remove");
    b.deliver();
    assert!(b.is_open("revoke"));
    b
}

#[test]
fn p12_a_revocation_that_fails_is_repeated_with_growing_delays() {
    let mut b = revoking();
    for delay in [100, 200, 400] {
        b.fail("revoke", ErrorKind::Unreachable);
        assert_eq!(b.wait_for("revoke"), ms(delay));
    }
}

#[test]
fn a_revocation_that_keeps_failing_is_reported_until_it_succeeds() {
    let mut b = revoking();
    for _ in 0..20 {
        b.fail("revoke", ErrorKind::Unreachable);
        b.wait_for("revoke");
    }
    let failing: Vec<_> = b.status().failing.iter().map(|failing| failing.call).collect();
    assert_eq!(failing, [StoreCall::RemoveCrashed]);
    b.ok("revoke");
    assert_eq!(b.status().failing, [], "before the log shows that the witness is gone");
}

#[test]
fn a_lease_that_has_ended_already_is_not_revoked_again() {
    let mut b = revoking();
    b.skip();
    b.fail("revoke", ErrorKind::LeaseNotFound);
    b.wait(secs(10));
    b.expect_only(&["revoke"], &[]);
}

#[test]
fn p12_a_node_that_stops_no_longer_revokes_the_leases_of_others() {
    let mut b = revoking();
    b.fail("revoke", ErrorKind::Unreachable);
    b.skip();
    b.stop();
    b.advance(secs(1));
    b.expect_only(&["revoke"], &[]);
}

#[test]
fn the_lease_of_a_node_that_is_not_exclusive_is_not_revoked() {
    let mut b = watching_with(
        Bench::node_with("b", |config| {
            config.crash_detection =
                Some(CrashDetection { trust_refused: true, ..CrashDetection::default() });
        }),
        &["c"],
    );
    b.reports("c", Refused);
    b.ok("remove");
    b.deliver();
    b.expect_only(&["remove", "revoke"], &["remove crashed c"]);
}

#[test]
fn p12_a_trusted_report_revokes_the_lease_too_if_another_watcher_removed_the_record() {
    let mut b = Bench::watching_exclusively("b", true);
    b.priority = Some(200);
    for other in ["a", "e", "f"] {
        b.joins_watched_exclusively(other);
    }
    let mut b = b.joined().led_by("a");
    b.reports("e", Replaced);
    b.wait(ms(10));
    b.crashes("e");
    b.wait(ms(89));
    b.expect_only(&["remove", "revoke"], &[]);
    b.wait(ms(1));
    b.expect_only(&["remove", "revoke"], &["revoke 2"]);
}

#[test]
fn p12_a_process_that_replaced_the_one_that_is_gone_keeps_its_own_lease() {
    let mut b = watching_exclusively(true);
    let old = b.others["c"];
    b.reports("c", Replaced);
    b.unseen(|b| b.joins_exclusively("c", 4));
    b.ok("remove");
    b.deliver();
    b.expect_only(&["revoke"], &[&format!("revoke {old}")]);
    b.answer_until("nothing");
    b.wait(secs(5));
    b.expect_only(&["remove", "revoke"], &[]);
}

#[test]
fn p7_a_new_process_that_waits_for_the_name_joins_when_the_old_record_is_removed() {
    let wait = |config: &mut crate::config::Config| {
        config.name_conflict = NameConflict::Wait;
        config.crash_detection = Some(CrashDetection::default());
    };
    let mut c = Bench::node_with("c", wait);
    c.joins_watched("a", "a");
    c.joins_watched("c", "c1");
    let mut c = c.led_by("a").joined();
    c.expect_only(&["join"], &[]);
    c.crashes("c");
    c.expect_only(&["join"], &["join"]);
    c.answer_all();
    assert_eq!(endpoint_of(&c, "c"), Some("c:1".to_owned()));
}

#[test]
fn p7_a_node_that_was_removed_by_mistake_rejoins_at_once_and_hides_its_endpoint() {
    let mut b = watching(&["a"]);
    assert_eq!(endpoint_of(&b, "b"), Some("b:1".to_owned()));
    b.crashes("b");
    b.answer_all();
    b.expect_only(
        &["grant", "join", "* removed", "* session lost", "watch processes"],
        &[
            "* removed as crashed although this process is alive: something refused connections to b:1; crash detection of \
             this node is off until it restarts",
            "watch processes at ",
            "* session lost: another node removed the record, mistaking this process for dead",
            "grant 15s",
            "join",
        ],
    );
    assert_eq!(endpoint_of(&b, "b"), None);
    b.publishes();
    b.update(1, "x");
    b.answer_all();
    assert_eq!(endpoint_of(&b, "b"), None, "an update does not publish it again");
    b.expect_only(&QUIET, &[]);
}

#[test]
fn p7_a_node_that_missed_its_removal_hides_its_endpoint_too() {
    let mut b = watching(&["a"]);
    b.unseen(|b| b.crashes("b"));
    b.store.compact();
    let compacted = b.store.revision;
    b.watch_ends("view/", WatchEnd::Compacted { compacted });
    b.wait(secs(1));
    b.answer_all();
    b.expect_only(&["join"], &["join"]);
    assert_eq!(endpoint_of(&b, "b"), None);
}

#[test]
fn p7_a_node_that_is_evicted_still_offers_its_endpoint() {
    let mut b = watching(&["a"]);
    b.evicts("b");
    b.answer_all();
    b.expect_only(&["join", "* removed"], &[]);
    b.wait(secs(1));
    b.answer_all();
    assert_eq!(endpoint_of(&b, "b"), Some("b:1".to_owned()));
}

#[test]
fn p7_a_removal_of_the_last_session_hides_the_endpoint_of_this_one() {
    let mut b = watching(&["a"]);
    // b loses its session, and has sent its next registration when it learns that it had been removed before.
    let lease = b.lease_of("view/nodes/b");
    b.unseen(|b| {
        b.crashes("b");
        b.store.revoke(lease).unwrap();
    });
    b.wait(secs(6));
    b.skip();
    while !b.is_open("join") {
        b.answer_until("join");
        b.wait(ms(100));
    }
    b.answer_all();
    assert_eq!(endpoint_of(&b, "b"), None);
    b.expect_only(&["* view/nodes/b"], &[]);
}

#[test]
fn mass_deaths_are_dealt_with_at_once() {
    let mut b = watching(&["a", "e", "f"]);
    for process in ["a", "e", "f"] {
        b.reports(process, Refused);
    }
    b.expect_only(&["remove"], &["remove crashed a", "remove crashed e", "remove crashed f"]);
    b.ok("remove crashed a");
    b.ok("remove crashed e");
    b.ok("remove crashed f");
    b.answer_all();
    b.expect_only(
        &["remove", "elect"],
        &[
            "remove crashed e",
            "remove crashed f",
            "elect V2: b was elected, the process of a is gone, the process of e is gone, the process of f is gone",
        ],
    );
}

#[test]
fn p9_crashes_that_come_together_are_published_together() {
    let mut b = Bench::watching("b").joined().leading().stable().after(secs(2));
    b.unseen(|b| ["a", "c", "d", "e"].into_iter().for_each(|other| b.joins_watched(other, other)));
    b.answer_all();
    let mut b = b.stable().after(secs(2));
    b.crashes("a");
    b.wait(ms(15));
    b.crashes("c");
    b.wait(ms(4));
    b.expect_only(&["publish"], &[]);
    b.wait(ms(1));
    b.expect_only(&["publish"], &["publish V3: the process of a is gone, the process of c is gone"]);
    b.answer_all();
    b.crashes("d");
    b.wait(ms(20));
    b.expect_only(&["publish"], &["publish V4: the process of d is gone"]);
    b.answer_all();
    b.crashes("e");
    b.wait(ms(199));
    b.expect_only(&["publish"], &[]);
}

#[test]
fn the_removal_is_guarded_by_the_record_and_by_the_leader() {
    let mut b = watching(&["e", "f"]);
    b.reports("f", Refused);
    let record = b.store.get(&"c/view/nodes/f".into()).unwrap().modified;
    let elected = b.store.get(b.keys.election_key()).unwrap().created;
    let expected =
        [Guard::modified_at("c/view/nodes/f", record), Guard::created_at("c/view/leader", elected)];
    assert_eq!(b.txn("remove").guards(), expected);
}
