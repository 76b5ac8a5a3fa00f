//! The leader's other watch brings acknowledgements.

use super::bench::{Bench, ms, name, secs};
use crate::{
    outcome::Outcome,
    record::{ReadinessOutcome, ReadinessRecord, VersionRecord, encode},
    store::{ErrorKind, LeaseId, Txn, WatchEnd},
};

/// a leads, a and b stand in the newest version, and a acknowledged it.
fn waiting_for_b() -> Bench {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.acknowledged()
}

/// b acknowledges the newest version under that lease.
fn acknowledges_under(bench: &mut Bench, lease: Option<LeaseId>) {
    let record = ReadinessRecord { version: bench.newest(), outcome: ReadinessOutcome::Ready, detail: None };
    bench.write(Txn::new().put("c/ready/b", encode(&record), lease));
}

#[test]
fn p4_the_last_acknowledgement_makes_it_stable() {
    let mut a = waiting_for_b();
    assert_eq!(a.machine.unready(), Some(1));
    a.acknowledges("b");
    assert_eq!(a.machine.unready(), Some(0));
    a.says(&["confirm V2"]);
    a.answer_all();
    a.says(&["* stable at V2", "* calling on_stable of V2, term 2", "announce V2 in term 2"]);
}

#[test]
fn p4_acknowledgements_that_came_before_the_version_was_seen_count_when_it_is() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.unseen(|a| a.joins("b"));
    a.deliver_to("view/");
    a.ok("publish");
    // The watch of acknowledgements is ahead of the log.
    a.unseen(|a| a.acknowledges("b"));
    a.deliver_to("ready/");
    a.says_of(&["confirm"], &[]);
    a.deliver_to("view/");
    a.stabilized(Outcome::Ready);
    a.ok("acknowledge");
    a.skip();
    a.deliver_to("ready/");
    a.says(&["confirm V2"]);
}

#[test]
fn a_node_that_is_gone_is_not_named_for_its_lost_acknowledgement() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    // The version waits for a itself when b's session ends, and its acknowledgement with that.
    a.acknowledges("b");
    a.advance(secs(3));
    a.advance(secs(6));
    a.unseen(|a| a.ends("b"));
    // The acknowledgement goes before the record does: until then it may be a loss.
    a.deliver_to("ready/");
    a.deliver_to("view/");
    a.skip();
    // While suspended it publishes nothing, for longer than the wait for a lost acknowledgement.
    a.advance(secs(2));
    a.ok("renew");
    a.says_of(&["publish"], &["publish V3: b's session ended"]);
}

#[test]
fn p4_a_no_does_not_count() {
    let mut a = waiting_for_b();
    a.answers("b", a.newest(), Some("disk full"));
    a.says(&[]);
    a.acknowledges("b");
    a.says(&["confirm V2"]);
}

#[test]
fn p4_a_yes_that_was_taken_back_does_not_count() {
    let mut a = waiting_for_b();
    a.joins("c");
    a.answer_all();
    a = a.after(secs(2));
    a.answer_all();
    a = a.acknowledged();
    a.acknowledges("b");
    a.answers("b", a.newest(), Some("lost it again"));
    a.acknowledges("c");
    a.says_of(&["confirm"], &[]);
}

#[test]
fn p4_an_acknowledgement_of_another_version_does_not_count() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    let older = a.newest();
    a.joins("b");
    a.answer_all();
    a = a.acknowledged();
    a.answers("b", older, None);
    a.says(&[]);
}

#[test]
fn p4_an_acknowledgement_that_came_with_its_version_does_not_count() {
    let mut a = waiting_for_b();
    // By hand, in one revision: nobody can have adapted to what was not there yet.
    let (version, leader) = (a.mint_version(), None);
    let record = VersionRecord { version, number: 9, term: None, leader, causes: Vec::new() };
    let yes = ReadinessRecord { version, outcome: ReadinessOutcome::Ready, detail: None };
    let both = Txn::new().put("c/view/version", encode(&record), None);
    a.names.version(version);
    a.write(both.put("c/ready/b", encode(&yes), a.others["b"]));
    a = a.acknowledged();
    a.says_of(&["confirm"], &[]);
    a.answers("b", version, None);
    a.says_of(&["confirm"], &["confirm V3"]);
}

#[test]
fn p4_p7_an_acknowledgement_of_another_session_does_not_count() {
    let mut a = waiting_for_b();
    let other = a.store.grant(a.now, secs(15)).id;
    acknowledges_under(&mut a, Some(other));
    acknowledges_under(&mut a, None);
    a.says(&[]);
}

#[test]
fn p4_an_acknowledgement_of_one_that_is_not_in_the_view_is_nothing() {
    let mut a = waiting_for_b();
    a.unseen(|a| a.joins("c"));
    a.acknowledges("c");
    a.says_of(&["confirm"], &[]);
}

#[test]
fn p4_a_node_whose_record_is_gone_does_not_count_though_its_acknowledgement_stands() {
    let mut a = waiting_for_b();
    // Its record goes in the log, the other watch lags.
    a.unseen(|a| {
        a.acknowledges("b");
        a.ends("b");
    });
    a.deliver_to("view/");
    a.skip();
    a.deliver_to("ready/");
    a.says_of(&["confirm"], &[]);
}

#[test]
fn p4_acknowledgements_are_judged_again_when_a_record_goes() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    // b said yes, a did not yet: b goes, then a says yes.
    a.acknowledges("b");
    a.unseen(|a| a.ends("b"));
    a.deliver_to("view/");
    a.stabilized(Outcome::Ready);
    a.ok("acknowledge");
    a.skip();
    a.deliver_to("ready/");
    a.says_of(&["confirm"], &[]);
}

#[test]
fn p4_acknowledgements_are_judged_again_when_a_record_is_put_again() {
    let mut a = waiting_for_b();
    a.unseen(|a| a.rewrites("b"));
    a.deliver_to("view/");
    a.skip();
    a.acknowledges("b");
    a.wait(secs(1));
    a.says(&["publish V3: b changed"]);
}

#[test]
fn p4_nothing_is_judged_before_the_acknowledgements_were_read() {
    let mut a = Bench::node("a").with(&["a0"]).joined();
    a.wait(ms(50));
    // It stopped to expect any before it heard that it leads.
    a.lose("elect");
    a.deliver();
    a.says_of(&["confirm", "read"], &["read ready/"]);
}

#[test]
fn p8_a_deleted_acknowledgement_is_asked_for_again_by_a_new_version() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.acknowledges("b");
    a.skip();
    a.delete("ready/b");
    a.wait(ms(999));
    a.says(&[]);
    a.wait(ms(1));
    a.says(&["publish V3: the acknowledgement of b was deleted"]);
}

#[test]
fn p8_a_deleted_acknowledgement_that_comes_back_in_time_costs_nothing() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.acknowledges("b");
    a.delete("ready/b");
    a.wait(ms(500));
    a.acknowledges("b");
    a.skip();
    a.wait(secs(5));
    a.says(&[]);
}

#[test]
fn p8_an_acknowledgement_that_goes_with_its_node_costs_one_version_not_two() {
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
    a.says(&["* b is gone: its session ended", "publish V3: b's session ended"]);
    a.answer_all();
    a.skip();
    a.wait(secs(5));
    a.says(&[]);
}

#[test]
fn an_acknowledgement_that_is_deleted_after_all_is_stable_means_nothing() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.delete("ready/a");
    a.wait(secs(5));
    a.says(&[]);
}

#[test]
fn p8_a_deletion_is_not_forgotten_when_the_log_is_read_anew() {
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
    a.says(&["publish V3: the acknowledgement of b was deleted"]);
}

#[test]
fn p8_a_deletion_that_the_watch_missed_is_seen_when_it_is_read_anew() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.joins("b");
    a.answer_all();
    a.acknowledges("b");
    a.unseen(|a| a.delete("ready/b"));
    a.disconnects("ready/");
    a.answer_all();
    a.skip();
    a.wait(secs(1));
    a.says(&["publish V3: the acknowledgement of b was deleted"]);
}

#[test]
fn p8_an_acknowledgement_that_somebody_overwrote_is_as_good_as_deleted() {
    let garbage = |a: &mut Bench, lease| a.write(Txn::new().put("c/ready/b", "garbage", lease));
    for unwatched in [false, true] {
        // What cannot be read, under no lease or the node's own; and what can be, under no lease.
        for what in 0..3 {
            let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
            a.joins("b");
            a.answer_all();
            a.acknowledges("b");
            let own = Some(a.others["b"]);
            let overwrite = |a: &mut Bench| match what {
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
            a.says(&["publish V3: the acknowledgement of b was deleted"]);
        }
    }
}

#[test]
fn p8_an_acknowledgement_deleted_after_all_is_stable_is_missed_once_that_record_is_deleted_too() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.delete("ready/a");
    a.wait(secs(5));
    a.says(&[]);
    a.delete("view/stable");
    a.says(&["publish V2: the acknowledgement of a was deleted"]);
}

#[test]
fn p8_an_acknowledgement_that_a_restored_store_lost_is_as_good_as_deleted() {
    let mut a = waiting_for_b();
    a.acknowledges("b");
    a.answer_all();
    a.announced();
    a = a.after(secs(2));
    a.joins("c");
    a.answer_all();
    let published = a.store.revision;
    a.acknowledges("b");
    // All of the log stands as before, so its watch goes on, and b's older acknowledgement stands again.
    a.store.rewind(published);
    a.disconnects("ready/");
    a.answer_all();
    a.skip();
    a.wait(secs(1));
    a.says(&["publish V4: the acknowledgement of b was deleted"]);
}

#[test]
fn p4_what_was_acknowledged_before_the_watch_broke_is_read_again_before_it_is_recorded() {
    let mut a = waiting_for_b();
    let published = a.store.revision;
    a.acknowledges("b");
    a.fail("confirm", ErrorKind::OutcomeUnknown);
    // The log stands as before, and b's acknowledgement is gone.
    a.store.rewind(published);
    a.disconnects("ready/");
    a.skip();
    a.wait(secs(1));
    a.says_of(&["confirm"], &[]);
    a.ok("read ready/");
    a.wait(ms(900));
    a.says_of(&["confirm"], &[]);
    a.wait(ms(200));
    a.says_of(&["publish"], &["publish V3: the acknowledgement of b was deleted"]);
}

#[test]
fn p4_nor_is_it_recorded_in_the_pause_before_it_is_read_again() {
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
    a.says(&[]);
    a.wait(ms(1));
    a.says(&["read ready/"]);
}

#[test]
fn a_follower_does_not_watch_acknowledgements() {
    let b = Bench::node("b").with(&["a"]).joined().led_by("a");
    assert!(!b.is_open("read ready/"));
    assert_eq!(b.machine.unready(), None, "so it does not know");
    assert_eq!(b.machine.identity().unwrap().name, name("b"));
}
