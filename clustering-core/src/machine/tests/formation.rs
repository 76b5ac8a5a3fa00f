//! The minimum size of a new cluster (P8).

use super::bench::{Bench, name, secs};
use crate::{
    config::{Config, Laggards},
    outcome::Outcome,
    record::{Cause, StableRecord, VersionRecord, decode, encode},
    slots::SlotCount,
    store::Txn,
};

fn of(min_nodes: u32) -> impl Fn(&mut Config) {
    move |config| config.min_nodes = Some(min_nodes)
}

fn exclusive_of(min_nodes: u32) -> impl Fn(&mut Config) {
    move |config| {
        config.min_nodes = Some(min_nodes);
        config.exclusive = SlotCount::new(4).ok();
    }
}

impl Bench {
    fn version_record(&self) -> VersionRecord {
        decode(&self.store.get(self.keys.version_key()).expect("a version").value).unwrap()
    }

    /// Lets all nodes acknowledge the newest version, and lets the leader finish all its commits.
    fn acknowledged_by_all(&mut self) {
        self.answer_all();
        if self.is_open("retract") {
            self.retracted(&[]);
        }
        self.stabilized(Outcome::Ready);
        for other in self.others.keys().cloned().collect::<Vec<_>>() {
            self.acknowledges(&other);
        }
        self.answer_all();
        if self.is_open("stabilize") {
            self.stabilized(Outcome::Ready);
            self.answer_all();
        }
    }

    /// Lets time pass until the leader publishes, and all nodes acknowledge the version.
    fn published_and_acknowledged(&mut self) {
        self.wait_for("publish");
        self.acknowledged_by_all();
    }

    fn is_settled(&self) -> bool {
        let status = self.status();
        status.stable.is_some() && status.stable == status.newest.map(|view| view.version())
    }
}

const EVENTS: [&str; 3] = ["confirm", "* V", "* stable"];

#[test]
fn p8_a_version_becomes_stable_only_with_the_minimum_size() {
    let mut a = Bench::node_with("a", of(3));
    a.tick();
    a.acknowledged_by_all();
    let waits = "and the cluster begins with 3: not stable before the others have joined";
    a.expect_only(&EVENTS, &[&format!("* V1 has 1 node {waits}")]);
    let mut a = a.after(secs(10));
    a.joins("b");
    a.acknowledged_by_all();
    a.expect_only(&EVENTS, &[&format!("* V2 has 2 nodes {waits}")]);
    let record = a.version_record();
    assert_eq!((record.min_nodes, record.formed), (Some(3), false));
    assert!(!a.status().is_stable());
    let mut a = a.after(secs(10));
    a.joins("c");
    a.acknowledged_by_all();
    a.expect_only(&EVENTS, &["confirm V3", "* stable at V3"]);
    a.announced();
    a = a.after(secs(60));
    a.expect_only(&["publish"], &[]);
}

#[test]
fn p8_a_cluster_that_has_formed_works_on_with_fewer_nodes_and_reports_that_once() {
    let mut a = Bench::node_with("a", of(3)).with(&["b", "c"]).joined();
    a.wait_for("elect");
    a.acknowledged_by_all();
    a.announced();
    let mut a = a.after(secs(10));
    a.ends("b");
    a.acknowledged_by_all();
    a.expect_only(
        &EVENTS,
        &["* V2 has only 2 nodes, fewer than the minimum of 3", "confirm V2", "* stable at V2"],
    );
    let record = a.version_record();
    assert_eq!((record.min_nodes, record.formed), (Some(3), true));
    a.announced();
    let mut a = a.after(secs(10));
    a.ends("c");
    a.acknowledged_by_all();
    a.expect_only(&EVENTS, &["confirm V3", "* stable at V3"]);
    a.announced();
    for other in ["b", "c"] {
        a = a.after(secs(10));
        a.joins(other);
        a.acknowledged_by_all();
        a.announced();
    }
    let mut a = a.after(secs(10));
    a.ends("b");
    a.acknowledged_by_all();
    a.expect_only(
        &EVENTS,
        &["* V6 has only 2 nodes, fewer than the minimum of 3", "confirm V6", "* stable at V6"],
    );
}

#[test]
fn p12_slots_are_assigned_in_the_version_after_the_first_stable_one() {
    let mut a = Bench::node_with("a", exclusive_of(2)).joined();
    a.acknowledged_by_all();
    assert_eq!(
        a.status().newest.unwrap().find("key"),
        None,
        "placement does not apply to an exclusive cluster"
    );
    assert_eq!(a.store.get(a.keys.slots_key()), None);
    let mut a = a.after(secs(10));
    a.joins_exclusively("b", 4);
    a.acknowledged_by_all();
    assert!(a.is_settled());
    assert_eq!(a.store.get(a.keys.slots_key()), None);
    a.announced();
    a.skip();
    a.published_and_acknowledged();
    a.expect_only(&["publish"], &["publish V3: the cluster reached its minimum size"]);
    assert!(a.is_settled());
    for owner in ["a", "b"] {
        assert_eq!(a.status().newest.unwrap().slots_of(&name(owner)).len(), 2);
    }
    a.announced();
    a.wait(secs(60));
    a.expect_only(&["publish"], &[]);
}

#[test]
fn p8_joins_do_not_wait_for_a_version_that_waits_for_them() {
    let mut a = Bench::node_with("a", exclusive_of(3)).joined();
    a.joins_exclusively("b", 4);
    a.wait(secs(1));
    a.expect_only(&["publish"], &["publish V2: b joined"]);
}

#[test]
fn p8_the_cluster_does_not_wait_again_under_another_leader() {
    for (min_nodes, nodes) in [(5, None), (3, Some(3))] {
        let mut m = Bench::node_with("m", of(min_nodes)).with(&["y", "z"]).led_by("z").joined();
        let version = m.generate_version();
        // Either the record says that the cluster has formed, or the number of nodes that were stable shows it.
        m.publishes_as(VersionRecord { formed: nodes.is_none(), ..VersionRecord::labelled(version) });
        let stable = StableRecord { version, term: None, nodes };
        m.write(Txn::new().put(m.keys.stable_key().clone(), encode(&stable), None));
        m.ends("y");
        m.ends("z");
        m.wait_for("elect");
        m.acknowledged_by_all();
        assert!(m.is_settled() && m.version_record().formed, "with a minimum of {min_nodes}");
    }
}

#[test]
fn p8_a_leader_without_a_minimum_takes_over_that_the_cluster_has_formed() {
    let mut m = Bench::node("m").joined();
    m.acknowledged_by_all();
    let record = m.version_record();
    assert_eq!((record.min_nodes, record.formed), (None, true));
}

#[test]
fn p8_the_cluster_does_not_wait_again_after_all_nodes_were_restarted() {
    let mut m = Bench::node_with("m", exclusive_of(3));
    let version = m.generate_version();
    m.publishes_as(VersionRecord { formed: true, ..VersionRecord::labelled(version) });
    m.publishes_slots(&["m", "x", "y", "z"], false);
    let mut m = m.joined();
    m.acknowledged_by_all();
    assert!(m.is_settled());
    assert_eq!(m.status().newest.unwrap().slots_of(&name("m")).len(), 4);
}

#[test]
fn p8_assigned_slots_show_that_the_cluster_has_formed() {
    // A leader of an earlier release has published since.
    let mut m = Bench::node_with("m", exclusive_of(3));
    m.publishes_slots(&["m", "x", "y", "z"], false);
    let mut m = m.joined();
    m.acknowledged_by_all();
    assert!(m.is_settled());
}

#[test]
fn p8_a_deleted_version_record_does_not_make_the_cluster_wait_again() {
    let mut a = Bench::node_with("a", of(2)).with(&["b"]).joined();
    a.wait_for("elect");
    a.acknowledged_by_all();
    a.announced();
    let mut a = a.after(secs(10));
    a.ends("b");
    a.acknowledged_by_all();
    a.announced();
    a.delete("view/stable");
    a.delete("view/version");
    a.acknowledged_by_all();
    assert!(a.is_settled() && a.version_record().formed);
}

#[test]
fn p8_a_version_that_waits_in_vain_is_replaced() {
    // The cluster formed with V1 just when the leader published V2 without c, not knowing that V1 was stable.
    let mut a = Bench::node_with("a", of(3)).with(&["b", "c"]).joined();
    a.wait_for("elect");
    a.ok("elect");
    a.deliver();
    a.stabilized(Outcome::Ready);
    a.acknowledges("b");
    a.acknowledges("c");
    a.answer_until("confirm");
    a.ends("c");
    a.wait_for("publish");
    a.unseen(|a| a.lose("confirm"));
    a.ok("publish");
    a.deliver();
    assert!(!a.version_record().formed);
    a.skip();
    a.published_and_acknowledged();
    assert_eq!(a.version_record().causes, [Cause::Formed]);
    assert!(a.is_settled());
}

#[test]
fn p8_the_report_of_a_waiting_version_names_the_minimum_and_no_node() {
    let mut a = Bench::node_with("a", of(3)).joined();
    a.acknowledged_by_all();
    a.skip();
    a.wait(secs(29));
    assert_eq!(a.status().blocked, None);
    a.wait(secs(2));
    a.expect_only(
        &["* V1 is not stable"],
        &["* V1 is not stable after 30s: it has fewer than 3 nodes, with which the cluster begins"],
    );
    let status = a.status();
    let blocked = status.blocked.unwrap();
    assert_eq!((blocked.laggards.len(), blocked.waits_for_nodes), (0, Some(3)));
    assert_eq!(status.newest.unwrap().waits_for_nodes(), Some(3));
}

#[test]
fn p8_no_node_is_evicted_from_a_version_that_waits_for_further_nodes() {
    let mut a = Bench::node_with("a", |config| {
        config.min_nodes = Some(3);
        config.laggards = Laggards::Evict { after: secs(10) };
        config.mass_failure_percent = 100;
    });
    a = a.joined();
    a.joins("b");
    a.answer_all();
    a.wait(secs(60));
    a.expect_only(&["evict", "resign"], &[]);
    a.joins("c");
    a.answer_all();
    a.stabilized(Outcome::Ready);
    a.acknowledges("c");
    a.answer_all();
    a.wait(secs(11));
    a.expect_only(&["evict"], &["evict b"]);
}
