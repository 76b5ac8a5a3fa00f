//! Assigning slots to nodes (P12).

use std::sync::Arc;

use super::bench::{Bench, secs};
use crate::{
    config::SharedAssignor,
    outcome::Outcome,
    slots::{Assignor, Candidate, Slot},
};

fn leader_with(assignor: impl Assignor) -> Bench {
    let mut a =
        Bench::exclusive_with("a", |config| config.assignor = Some(SharedAssignor(Arc::new(assignor))));
    a = a.joined().leading();
    a.answer_all();
    a
}

#[derive(Debug)]
struct Panics;

impl Assignor for Panics {
    fn assign(&self, _: &[(Slot, Option<usize>)], _: &[Candidate<'_>]) -> Vec<Option<usize>> {
        panic!("a faulty assignor")
    }
}

#[derive(Debug)]
struct Answers(Vec<Option<usize>>);

impl Assignor for Answers {
    fn assign(&self, _: &[(Slot, Option<usize>)], _: &[Candidate<'_>]) -> Vec<Option<usize>> {
        self.0.clone()
    }
}

/// An assignor that alternately gives every slot an owner and takes it away.
#[derive(Debug)]
struct Flips;

impl Assignor for Flips {
    fn assign(&self, slots: &[(Slot, Option<usize>)], _: &[Candidate<'_>]) -> Vec<Option<usize>> {
        slots.iter().map(|(_, owner)| if owner.is_some() { None } else { Some(0) }).collect()
    }
}

#[test]
fn a_faulty_assignor_is_reported_and_moves_nothing() {
    for (mut a, reason) in [
        (leader_with(Panics), "it panicked"),
        (leader_with(Answers(vec![Some(0)])), "it assigned 1 slots of 4"),
        (leader_with(Answers(vec![Some(0), None, Some(7), None])), "it assigned a slot to candidate 7 of 1"),
    ] {
        a.wait(secs(60));
        assert!(a.status().newest.unwrap().slot_count().is_none());
        assert_eq!(a.store.get(a.keys.slots_key()), None);
        let _ = reason;
    }
}

#[test]
fn an_assignor_that_keeps_changing_its_mind_costs_one_version() {
    let mut a = leader_with(Flips);
    a.wait(secs(60));
    a.answer_all();
    a.wait(secs(60));
    a.answer_all();
    let number = a.store.get(a.keys.version_key()).map(|entry| {
        let record: crate::record::VersionRecord = crate::record::decode(&entry.value).unwrap();
        record.number
    });
    assert_eq!(number, Some(2));
}

#[test]
fn a_node_that_joins_between_the_last_fold_and_the_commit_gets_slots_in_the_next_version() {
    let mut a = Bench::exclusive("a").joined().leading();
    a.answer_all();
    let mut a = a.stable().after(secs(2));
    a.joins_exclusively("b", 4);
    a.unseen(|a| a.joins_exclusively("c", 4));
    a.ok("publish");
    a.deliver();
    assert_eq!(a.status().newest.unwrap().slots_of(&super::bench::name("c")).len(), 0);
    a.wait(secs(1));
    a.answer_all();
    a.expect_only(&["publish"], &["publish V2: b joined", "publish V3: slots were reassigned"]);
    assert_eq!(a.status().newest.unwrap().slots_of(&super::bench::name("c")).len(), 1);
}

#[test]
fn a_cordoned_node_owns_no_slots_until_the_cordon_is_lifted() {
    let mut a = Bench::exclusive("a").joined().leading();
    a.answer_all();
    let mut a = a.stable().after(secs(2));
    a.joins_exclusively("b", 4);
    a.answer_all();
    a.put("view/cordoned/b", r#"{"by": "alice", "why": "broken disk"}"#);
    a.wait(secs(1));
    a.answer_all();
    let owned = |a: &Bench| a.status().newest.unwrap().slots_of(&super::bench::name("b")).len();
    assert_eq!(owned(&a), 0);
    a.delete("view/cordoned/b");
    a.wait(secs(1));
    a.answer_all();
    assert_eq!(owned(&a), 2);
    a.expect_only(
        &["publish"],
        &["publish V2: b joined", "publish V3: b was cordoned", "publish V4: b was uncordoned"],
    );
}

#[test]
fn a_cluster_of_nodes_that_are_not_exclusive_stores_no_assignment() {
    let mut a = Bench::exclusive("a");
    a.joins("b");
    let mut a = a.joined();
    a.wait(secs(1));
    a.answer_all();
    assert_eq!(a.store.get(a.keys.slots_key()), None);
}

#[test]
fn slots_of_a_node_that_departs_between_the_last_look_and_the_commit_are_assigned_again_each_time() {
    let mut a = Bench::exclusive("a").joined().leading();
    a.answer_all();
    let mut a = a.stable();
    let owned = |a: &Bench| a.status().newest.unwrap().slots_of(&super::bench::name("a")).len();
    for _ in 0..2 {
        a = a.after(secs(60));
        a.joins_exclusively("b", 4);
        a.wait_for("publish");
        a.unseen(|a| a.ends("b"));
        a.ok("publish");
        a.deliver();
        assert_eq!(owned(&a), 2);
        a.retracted(&[]);
        a.stabilized(Outcome::Ready);
        a.wait(secs(5));
        a.answer_all();
        assert_eq!(owned(&a), 4, "nobody holds the slots of b");
        a.stabilized(Outcome::Ready);
        a.answer_all();
    }
}

#[test]
fn a_cordon_that_is_lifted_while_a_version_is_being_published_counts_for_the_next_one() {
    let mut a = Bench::exclusive("a").joined().leading();
    a.answer_all();
    let mut a = a.stable().after(secs(2));
    a.joins_exclusively("b", 4);
    a.joins_exclusively("c", 4);
    a.put("view/cordoned/b", "{}");
    a.put("view/cordoned/c", "{}");
    a.wait(secs(40));
    a.answer_all();
    let owned = |a: &Bench, node| a.status().newest.unwrap().slots_of(&super::bench::name(node)).len();
    a.wait(secs(40));
    a.answer_all();
    assert_eq!((owned(&a, "b"), owned(&a, "c")), (0, 0));
    let mut a = a.after(secs(10));
    a.delete("view/cordoned/b");
    a.wait(secs(1));
    a.delete("view/cordoned/c");
    a.ok("publish");
    a.deliver();
    a.wait(secs(6));
    a.answer_all();
    assert_eq!((owned(&a, "b"), owned(&a, "c")), (1, 1));
}
