//! The order in which candidates campaign, and leaders that give way to better candidates.

use super::bench::{Bench, ms, secs};
use crate::{config::Config, store::WatchEnd};

/// Returns the node m, which has not joined yet, in a cluster that z leads.
fn m_with(change: impl FnOnce(&mut Config)) -> Bench {
    Bench::node_with("m", change).with(&["z"]).led_by("z")
}

fn m() -> Bench {
    m_with(|_| {})
}

/// Ends the session of z, and returns the number of staggers for which m waits before it campaigns.
fn staggers(bench: &mut Bench) -> u128 {
    bench.ends("z");
    bench.wait_for("elect").as_millis() / 50
}

#[test]
fn the_youngest_of_equal_candidates_campaigns_first() {
    let mut m = m();
    m.joins("a");
    m.joins("b");
    let mut m = m.joined();
    assert_eq!(staggers(&mut m), 0, "a and b are older");

    let mut m = self::m().joined();
    m.joins("a");
    m.joins("b");
    assert_eq!(staggers(&mut m), 2, "a and b are younger");
}

#[test]
fn a_higher_priority_goes_before_a_lower_one() {
    for (own, other, expected) in [(100, 101, 1), (100, 99, 0), (1, 100, 1), (5_000, 4_999, 0)] {
        // Neither age nor stability matters at unequal priority.
        let mut m = m_with(|config| config.priority = own).joined();
        m.priority = Some(other);
        m.joins("a");
        let mut stable = m.clone();
        assert_eq!(staggers(&mut m), expected, "{own} against {other}");
        stable.publishes();
        stable.confirms();
        assert_eq!(staggers(&mut stable), expected, "{own} against {other}");
    }
}

#[test]
fn a_node_of_the_newest_stable_version_goes_before_a_younger_one_outside_of_it() {
    let mut m = m().joined();
    m.publishes();
    m.confirms();
    m.joins("a");
    assert_eq!(staggers(&mut m.clone()), 0, "a has just joined");
    m.publishes();
    assert_eq!(staggers(&mut m.clone()), 0, "the version with a is not stable");
    m.confirms();
    assert_eq!(staggers(&mut m.clone()), 1, "a is younger, and in the stable version too");
    m.publishes();
    assert_eq!(staggers(&mut m.clone()), 1, "a newer version is not stable");
    m.rewrites("a");
    assert_eq!(staggers(&mut m.clone()), 1, "a changed its record, but is still registered");
    m.ends("a");
    m.joins("a");
    assert_eq!(staggers(&mut m), 0, "a has registered again");
}

#[test]
fn the_newest_stable_version_is_known_after_a_gap() {
    let mut m = m().joined();
    m.publishes();
    m.confirms();
    m.joins("a");
    m.publishes();
    m.unseen(|m| m.joins("b"));
    m.store.compact();
    m.watch_ends("view/", WatchEnd::Compacted { compacted: m.store.revision });
    m.answer_all();
    assert_eq!(staggers(&mut m), 0, "a and b are not in the stable version");
}

#[test]
fn a_candidate_that_joins_while_there_is_no_leader_takes_its_place_in_the_order() {
    let mut m = m().joined();
    m.joins("a");
    m.ends("z");
    assert_eq!(m.wakes_in(), Some(ms(50)));
    m.joins("b");
    assert_eq!(m.wakes_in(), Some(ms(100)));
}

#[test]
fn a_node_of_an_earlier_release_goes_last_so_that_some_node_campaigns_at_once() {
    for priority in [1, 100] {
        let mut m = m_with(|config| config.priority = priority);
        m.priority = None;
        m.joins("a");
        let mut m = m.joined();
        m.joins("b");
        assert_eq!(staggers(&mut m), 0, "a and b rank by age");
    }
    let mut m = m_with(|config| config.priority = 0).joined();
    m.priority = None;
    m.joins("a");
    assert_eq!(staggers(&mut m), 11, "a may lead, unlike a node with the priority 0");
}

#[test]
fn a_node_with_priority_0_waits_for_others_but_leads_if_there_are_none() {
    let zero = || m_with(|config| config.priority = 0);
    let mut m = zero();
    m.joins("a");
    let mut m = m.joined();
    assert_eq!(staggers(&mut m), 11, "a goes first, and has half a second more");

    let mut m = zero();
    m.priority = Some(0);
    m.joins("a");
    let mut m = m.joined();
    m.joins("b");
    assert_eq!(staggers(&mut m), 1, "only b goes first, and nobody stands who may lead");

    let alone = Bench::node_with("m", |config| config.priority = 0).joined().leading();
    assert!(alone.is_leader());
}

#[test]
fn a_cordoned_node_waits_for_others() {
    let mut m = m();
    m.joins("a");
    m.put("view/cordoned/m", "{}");
    let mut m = m.joined();
    assert_eq!(staggers(&mut m.clone()), 11);
    m.put("view/cordoned/a", "{}");
    assert_eq!(staggers(&mut m), 0, "both are cordoned, and a is older");
}

#[test]
fn a_reluctant_node_does_not_wait_for_the_node_that_led_last() {
    let mut m = m_with(|config| config.priority = 0).joined();
    m.delete("view/leader");
    assert!(m.is_open("elect"), "z gave up the lead");
}

#[test]
fn a_leader_with_priority_0_resigns_when_a_better_candidate_joins() {
    let mut m = Bench::node_with("m", |config| config.priority = 0).joined().leading().stable();
    m.priority = Some(0);
    m.joins("a");
    m.priority = Some(300);
    m.put("view/cordoned/b", "{}");
    m.joins("b");
    m.answer_all();
    m.expect_only(&["resign"], &[]);
    m.priority = Some(1);
    m.joins("c");
    m.expect_only(&["resign"], &["resign"]);
    assert!(!m.is_leader());
}

#[test]
fn a_leader_with_a_priority_is_not_preempted() {
    let mut m = Bench::node_with("m", |config| config.priority = 1).joined().leading().stable();
    m.priority = Some(300);
    m.joins("a");
    m.answer_all();
    m.wait(secs(60));
    m.expect_only(&["resign"], &[]);
}

/// Lets m, which leads reluctantly, resign for the node a, which does not campaign.
fn resigned_in_vain(mut m: Bench) -> Bench {
    m.joins("a");
    m.answer_all();
    m.expect_only(&["resign", "elect"], &["resign"]);
    m.wait(ms(14_999));
    m.expect_only(&["elect"], &[]);
    m.wait(ms(1));
    m.answer_all();
    assert!(m.is_leader());
    m
}

fn reluctant_leaders() -> [Bench; 2] {
    let zero = Bench::node_with("m", |config| config.priority = 0).joined().leading();
    let mut cordoned = Bench::node("m").joined().leading();
    cordoned.put("view/cordoned/m", "{}");
    cordoned.answer_all();
    cordoned.skip();
    [zero, cordoned]
}

#[test]
fn a_leader_that_resigned_in_vain_does_not_resign_for_the_same_candidates_again() {
    for m in reluctant_leaders() {
        let mut m = resigned_in_vain(m);
        m.skip();
        m.wait(secs(120));
        m.answer_all();
        m.rewrites("a");
        m.answer_all();
        m.expect_only(&["resign"], &[]);
        m.joins("b");
        m.expect_only(&["resign"], &["resign"]);
    }
}

#[test]
fn a_candidate_that_registers_again_counts_as_a_new_one() {
    for m in reluctant_leaders() {
        let mut m = resigned_in_vain(m);
        m.ends("a");
        m.answer_all();
        m.skip();
        m.joins("a");
        m.answer_all();
        m.expect_only(&["resign"], &["resign"]);
    }
}

#[test]
fn a_leader_resigns_again_for_a_candidate_that_has_led_since() {
    for m in reluctant_leaders() {
        let mut m = resigned_in_vain(m);
        m.delete("view/leader");
        m.elects("a");
        m.delete("view/leader");
        m.wait_for("elect");
        m.skip();
        m.answer_all();
        m.expect_only(&["resign"], &["resign"]);
    }
}
