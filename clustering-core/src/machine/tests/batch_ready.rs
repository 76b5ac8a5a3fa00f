//! The leader's second watch delivers acknowledgements.

use super::bench::{Bench, ms, name, secs};
use crate::{
    outcome::Outcome,
    record::{ReadinessOutcome, ReadinessRecord, VersionRecord, encode},
    store::{ErrorKind, LeaseId, Txn, WatchEnd},
};

/// Returns the leader a; the newest version contains a and b, and a has acknowledged it.
fn waiting_for_b() -> Bench {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.acknowledged()
}

/// Writes an acknowledgement of the newest version by b with this lease.
fn acknowledges_under(bench: &mut Bench, lease: Option<LeaseId>) {
    let record = ReadinessRecord {
        version: bench.newest(),
        outcome: ReadinessOutcome::Ready,
        detail: None,
        phase: Default::default(),
    };
    bench.write(Txn::new().put("c/ready/b", encode(&record), lease));
}

#[test]
fn p4_the_last_acknowledgement_makes_the_version_stable() {
    let mut a = waiting_for_b();
    assert_eq!(a.machine.unready(), Some(1));
    a.acknowledges("b");
    assert_eq!(a.machine.unready(), Some(0));
    a.expect(&["confirm V2"]);
    a.answer_all();
    a.expect(&["* stable at V2", "* calling on_stable of V2, term 2", "announce V2 in term 2"]);
}

#[test]
fn p4_an_acknowledgement_that_arrives_before_its_version_counts_once_the_version_is_known() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.unseen(|a| a.joins("b"));
    a.deliver_to("view/");
    a.ok("publish");
    // The watch of acknowledgements is ahead of the watch of the log.
    a.unseen(|a| a.acknowledges("b"));
    a.deliver_to("ready/");
    a.expect_only(&["confirm"], &[]);
    a.deliver_to("view/");
    a.stabilized(Outcome::Ready);
    a.ok("acknowledge");
    a.skip();
    a.deliver_to("ready/");
    a.expect(&["confirm V2"]);
}

#[test]
fn a_version_that_follows_a_departure_does_not_also_report_a_lost_acknowledgement() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    // The version waits for a itself when b's session ends, which deletes b's acknowledgement.
    a.acknowledges("b");
    a.advance(secs(3));
    a.advance(secs(6));
    a.unseen(|a| a.ends("b"));
    // The deletion of the acknowledgement arrives before that of the record. Until then it may be a loss.
    a.deliver_to("ready/");
    a.deliver_to("view/");
    a.skip();
    // A suspended leader publishes nothing. It stays suspended for longer than the wait for a lost acknowledgement.
    a.advance(secs(2));
    a.ok("renew");
    a.expect_only(&["publish"], &["publish V3: b's session ended"]);
}

#[test]
fn p4_a_refusal_does_not_count() {
    let mut a = waiting_for_b();
    a.acknowledges_version("b", a.newest(), Some("disk full"));
    a.expect(&[]);
    a.acknowledges("b");
    a.expect(&["confirm V2"]);
}

#[test]
fn p4_an_acknowledgement_followed_by_a_refusal_does_not_count() {
    let mut a = waiting_for_b();
    a.joins("c");
    a.answer_all();
    a = a.after(secs(2));
    a.answer_all();
    a = a.acknowledged();
    a.acknowledges("b");
    a.acknowledges_version("b", a.newest(), Some("lost it again"));
    a.acknowledges("c");
    a.expect_only(&["confirm"], &[]);
}

#[test]
fn p4_an_acknowledgement_of_another_version_does_not_count() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    let older = a.newest();
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.acknowledges_version("b", older, None);
    a.expect(&[]);
}

#[test]
fn p4_an_acknowledgement_from_the_same_revision_as_its_version_does_not_count() {
    let mut a = waiting_for_b();
    // Another client writes both in one revision. No node can have adapted to a version that did not exist yet.
    let (version, leader) = (a.generate_version(), None);
    let record = VersionRecord { number: 9, leader, ..VersionRecord::labelled(version) };
    let ready = ReadinessRecord {
        version,
        outcome: ReadinessOutcome::Ready,
        detail: None,
        phase: Default::default(),
    };
    let both = Txn::new().put("c/view/version", encode(&record), None);
    a.names.version(version);
    a.write(both.put("c/ready/b", encode(&ready), a.others["b"]));
    a = a.acknowledged();
    a.expect_only(&["confirm"], &[]);
    a.acknowledges_version("b", version, None);
    a.expect_only(&["confirm"], &["confirm V3"]);
}

#[test]
fn p4_p7_an_acknowledgement_of_another_session_does_not_count() {
    let mut a = waiting_for_b();
    let other = a.store.grant(a.now, secs(15)).id;
    acknowledges_under(&mut a, Some(other));
    acknowledges_under(&mut a, None);
    a.expect(&[]);
}

#[test]
fn p4_an_acknowledgement_of_a_node_outside_the_view_is_ignored() {
    let mut a = waiting_for_b();
    a.unseen(|a| a.joins("c"));
    a.acknowledges("c");
    a.expect_only(&["confirm"], &[]);
}

#[test]
fn p4_the_acknowledgement_of_a_node_whose_record_was_deleted_does_not_count() {
    let mut a = waiting_for_b();
    // The log shows that the record was deleted, while the other watch lags behind.
    a.unseen(|a| {
        a.acknowledges("b");
        a.ends("b");
    });
    a.deliver_to("view/");
    a.skip();
    a.deliver_to("ready/");
    a.expect_only(&["confirm"], &[]);
}

#[test]
fn p4_an_acknowledgement_no_longer_counts_once_its_record_was_deleted() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    // b has acknowledged and a has not. b departs, then a acknowledges.
    a.acknowledges("b");
    a.unseen(|a| a.ends("b"));
    a.deliver_to("view/");
    a.stabilized(Outcome::Ready);
    a.ok("acknowledge");
    a.skip();
    a.deliver_to("ready/");
    a.expect_only(&["confirm"], &[]);
}

#[test]
fn p4_an_acknowledgement_no_longer_counts_once_its_record_was_rewritten() {
    let mut a = waiting_for_b();
    a.unseen(|a| a.rewrites("b"));
    a.deliver_to("view/");
    a.skip();
    a.acknowledges("b");
    a.wait(secs(1));
    a.expect(&["publish V3: b changed"]);
}

#[test]
fn p4_no_version_is_confirmed_before_the_acknowledgements_were_read() {
    let mut a = Bench::node("a").with(&["a0"]).joined();
    a.wait(ms(50));
    // The node stopped watching acknowledgements before it learned that it leads.
    a.lose("elect");
    a.deliver();
    a.expect_only(&["confirm", "read"], &["read ready/"]);
}

#[test]
fn p8_a_deleted_acknowledgement_leads_to_a_new_version() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.acknowledges("b");
    a.skip();
    a.delete("ready/b");
    a.wait(ms(999));
    a.expect(&[]);
    a.wait(ms(1));
    a.expect(&["publish V3: the acknowledgement of b was deleted"]);
}

#[test]
fn p8_a_deleted_acknowledgement_that_is_soon_repeated_costs_no_version() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.acknowledges("b");
    a.delete("ready/b");
    a.wait(ms(500));
    a.acknowledges("b");
    a.skip();
    a.wait(secs(5));
    a.expect(&[]);
}

#[test]
fn p8_the_departure_of_a_node_that_had_acknowledged_costs_one_version_only() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.acknowledges("b");
    a.unseen(|a| a.ends("b"));
    a.deliver_to("ready/");
    a.wait(ms(500));
    a.skip();
    a.deliver_to("view/");
    a.wait(ms(100));
    a.expect(&["* b is gone: its session ended", "publish V3: b's session ended"]);
    a.answer_all();
    a.skip();
    a.wait(secs(5));
    a.expect(&[]);
}

#[test]
fn an_acknowledgement_deleted_after_its_version_became_stable_is_not_missed() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.delete("ready/a");
    a.wait(secs(5));
    a.expect(&[]);
}

#[test]
fn p8_a_deleted_acknowledgement_is_remembered_across_a_resync_of_the_log() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.acknowledges("b");
    a.delete("ready/b");
    a.store.compact();
    a.watch_ends("view/", WatchEnd::Compacted { compacted: a.store.revision });
    a.answer_all();
    a.skip();
    a.wait(secs(1));
    a.expect(&["publish V3: the acknowledgement of b was deleted"]);
}

#[test]
fn p8_a_deleted_acknowledgement_that_the_watch_missed_is_noticed_by_the_next_read() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.acknowledges("b");
    a.unseen(|a| a.delete("ready/b"));
    a.disconnects("ready/");
    a.answer_all();
    a.skip();
    a.wait(secs(1));
    a.expect(&["publish V3: the acknowledgement of b was deleted"]);
}

#[test]
fn p8_an_overwritten_acknowledgement_is_treated_as_deleted() {
    let garbage = |a: &mut Bench, lease| a.write(Txn::new().put("c/ready/b", "garbage", lease));
    for unwatched in [false, true] {
        // Garbage without a lease, garbage with the node's own lease, and a valid acknowledgement without a lease.
        for case in 0..3 {
            let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
            a.joins("b");
            a.answer_all();
            a.acknowledges("b");
            let own = Some(a.others["b"]);
            let overwrite = |a: &mut Bench| match case {
                0 => garbage(a, None),
                1 => garbage(a, own),
                _ => acknowledges_under(a, None),
            };
            if unwatched {
                a.unseen(overwrite);
                a.disconnects("ready/");
            } else {
                overwrite(&mut a);
            }
            a.answer_all();
            a.skip();
            a.wait(secs(1));
            a.expect(&["publish V3: the acknowledgement of b was deleted"]);
        }
    }
}

#[test]
fn p8_a_deleted_acknowledgement_is_missed_once_the_stable_record_is_deleted_too() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.delete("ready/a");
    a.wait(secs(5));
    a.expect(&[]);
    a.delete("view/stable");
    a.expect(&["publish V2: the acknowledgement of a was deleted"]);
}

#[test]
fn p8_an_acknowledgement_that_a_restored_store_lost_is_treated_as_deleted() {
    let mut a = waiting_for_b();
    a.acknowledges("b");
    a.answer_all();
    a.announced();
    a = a.after(secs(2));
    a.joins("c");
    a.answer_all();
    let published = a.store.revision;
    a.acknowledges("b");
    // The log is the same as before, so its watch resumes. b's older acknowledgement exists again.
    a.store.rewind(published);
    a.disconnects("ready/");
    a.answer_all();
    a.skip();
    a.wait(secs(1));
    a.expect(&["publish V4: the acknowledgement of b was deleted"]);
}

#[test]
fn p4_acknowledgements_are_read_again_after_the_watch_broke_before_a_confirm_is_repeated() {
    let mut a = waiting_for_b();
    let published = a.store.revision;
    a.acknowledges("b");
    a.fail("confirm", ErrorKind::OutcomeUnknown);
    // The log is the same as before, but b's acknowledgement is gone.
    a.store.rewind(published);
    a.disconnects("ready/");
    a.skip();
    a.wait(secs(1));
    a.expect_only(&["confirm"], &[]);
    a.ok("read ready/");
    a.wait(ms(900));
    a.expect_only(&["confirm"], &[]);
    a.wait(ms(200));
    a.expect_only(&["publish"], &["publish V3: the acknowledgement of b was deleted"]);
}

#[test]
fn p4_a_confirm_is_not_repeated_while_the_next_read_of_acknowledgements_is_delayed() {
    let mut a = waiting_for_b();
    let published = a.store.revision;
    a.acknowledges("b");
    a.disconnects("ready/");
    a.ok("read ready/");
    a.ok("watch ready/");
    a.fail("confirm", ErrorKind::OutcomeUnknown);
    a.wait(ms(50));
    a.store.rewind(published);
    a.disconnects("ready/");
    a.skip();
    a.wait(ms(99));
    a.expect(&[]);
    a.wait(ms(1));
    a.expect(&["read ready/"]);
}

#[test]
fn a_follower_does_not_watch_acknowledgements() {
    let b = Bench::node("b").with(&["a"]).joined().led_by("a");
    assert!(!b.is_open("read ready/"));
    assert_eq!(b.machine.unready(), None, "a follower does not know");
    assert_eq!(b.machine.identity().unwrap().name, name("b"));
}
