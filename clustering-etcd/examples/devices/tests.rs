//! Several instances in one process, on the store in memory, with real requests over the loopback interface.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clustering_core::store::CoordinationStore;
use clustering_memory::MemoryStore;

use crate::{
    load::{Balancer, Instance, Journal, Load, Tally},
    rolling::{restart, stop},
};

const TTL: Duration = Duration::from_secs(2);
const RATE: u32 = 200;

struct World {
    store: Arc<dyn CoordinationStore>,
    balancer: Arc<Balancer>,
    journal: Journal,
    devices: Vec<String>,
}

impl World {
    /// All tests of a process share the journal, so each test uses its own devices.
    fn new(test: &str) -> Self {
        World {
            store: Arc::new(MemoryStore::new()),
            balancer: Balancer::new(),
            journal: Journal::of_process(),
            devices: (0..20).map(|number| format!("{test}-{number}")).collect(),
        }
    }

    /// Starts an instance, and sends requests to it once the cluster is stable.
    async fn join(&self, name: &str) -> Instance {
        let instance = Instance::start(name, self.store.clone(), Some(TTL)).await.unwrap();
        self.balancer.wait_for(&instance.uri, "stablez").await;
        self.balancer.add(&instance.uri);
        instance
    }

    fn load(&self) -> Load {
        Load::start(self.balancer.clone(), self.devices.clone(), RATE)
    }

    /// Checks the results that must hold in every test.
    async fn check(&self, tally: &Tally) {
        assert_eq!(self.journal.verdict(&self.devices).overlaps, 0);
        assert_eq!(tally.lost_writes(&self.balancer).await, Ok(0));
        assert!(tally.acknowledged() > 50, "{} writes were acknowledged", tally.acknowledged());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_while_instances_join_and_stop() {
    let world = World::new("joins");
    let mut instances = vec![world.join("a").await];
    let load = world.load();
    for name in ["b", "c", "d"] {
        instances.push(world.join(name).await);
    }
    for instance in instances.drain(..2) {
        stop(instance, &world.balancer).await.unwrap();
    }
    let tally = load.end().await.unwrap();
    assert_eq!(tally.failed, Vec::<String>::new());
    assert!(world.journal.verdict(&world.devices).moves > 10);
    world.check(&tally).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_during_a_rolling_restart() {
    let world = World::new("rolling");
    let names = ["a", "b", "c"];
    let mut instances = Vec::new();
    for name in names {
        instances.push(world.join(name).await);
    }
    let load = world.load();
    for name in names {
        let old = instances.remove(0);
        instances.push(restart(old, name, world.store.clone(), Some(TTL), &world.balancer).await.unwrap());
    }
    let tally = load.end().await.unwrap();
    assert_eq!(tally.failed, Vec::<String>::new());
    assert!(world.journal.verdict(&world.devices).moves > 10);
    world.check(&tally).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_no_acknowledged_write() {
    let world = World::new("crash");
    let crashing = world.join("a").await;
    let _others = [world.join("b").await, world.join("c").await];
    let load = world.load();
    tokio::time::sleep(TTL / 4).await;
    world.balancer.remove(&crashing.uri);
    drop(crashing);
    // Requests fail or wait until the lease has expired. Then others own the devices of the crashed instance.
    for device in &world.devices {
        let began = Instant::now();
        while world.balancer.ask(0, device, Some("after the crash")).await.is_err() {
            assert!(began.elapsed() < 10 * TTL, "no instance works on {device}");
        }
    }
    let tally = load.end().await.unwrap();
    world.check(&tally).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_are_only_in_memory_are_stored_before_a_device_moves() {
    let world = World::new("reads");
    let first = world.join("a").await;
    for device in &world.devices {
        assert_eq!(world.balancer.ask(0, device, None).await.unwrap().reads, 1);
    }
    let _second = world.join("b").await;
    stop(first, &world.balancer).await.unwrap();
    for device in &world.devices {
        assert_eq!(world.balancer.ask(0, device, None).await.unwrap().reads, 2);
    }
}

#[test]
fn the_journal_detects_two_instances_at_once() {
    let (journal, device, now) = (Journal::default(), "seven".to_owned(), Instant::now());
    journal.begin(&device, "a", now);
    journal.begin(&device, "a", now);
    journal.end(&device, "a", now);
    assert_eq!(journal.verdict(std::slice::from_ref(&device)).overlaps, 0);
    journal.begin(&device, "b", now);
    assert_eq!(journal.verdict(&[device]).overlaps, 1);
}

/// Returns the text without the indentation of its lines.
fn unindented(text: &str) -> String {
    text.lines().map(|line| line.trim_start().to_owned() + "\n").collect()
}

#[test]
fn the_readme_shows_the_service_as_it_is() {
    let readme = include_str!("../../../README.md");
    let section = readme.split("\n## ").find(|section| section.starts_with("A whole service")).unwrap();
    let excerpts: Vec<_> = section.split("```rust,ignore\n").skip(1).collect();
    assert_eq!(excerpts.len(), 2);
    let service = unindented(include_str!("service.rs"));
    for part in excerpts.iter().flat_map(|excerpt| excerpt.split("```").next().unwrap().split("// …\n")) {
        let part = unindented(part);
        assert!(
            service.contains(part.trim()),
            "service.rs does not contain this part of the README:\n{part}"
        );
    }
}
