//! Prints the results as text or as JSON objects.

use std::{error::Error, time::Duration};

use serde_json::json;

use crate::{
    arguments::Arguments,
    idle::Cost,
    process::{Kind, TTL},
    rounds::Role,
    summary::{Summary, round},
};

/// Highest median with crash detection, in milliseconds.
const TARGET: f64 = 100.0;

/// The results so far.
pub(crate) struct Report {
    json: bool,
    missed: Vec<String>,
}

impl Report {
    pub(crate) fn begin(arguments: &Arguments, etcd: &str) -> Self {
        if !arguments.json {
            println!("etcd {etcd}, TTL {} s; times in ms: median (min to max)", TTL.as_secs());
        }
        Report { json: arguments.json, missed: Vec::new() }
    }

    pub(crate) fn add(&mut self, kind: Kind, role: Role, nodes: usize, times: Vec<Duration>) {
        let case = format!("{}/{}", kind.name(), role.name());
        let rounds = times.len();
        let times = Summary::of(times.into_iter());
        if kind == Kind::CrashDetection && times.median >= TARGET {
            let median = round(times.median);
            self.missed.push(format!("{case} with {nodes} nodes: {median} ms, target below {TARGET} ms"));
        }
        if !self.json {
            return println!("{case:24} {nodes:3} nodes  {}", times.text());
        }
        let mut line = times.json();
        line["case"] = case.into();
        line["nodes"] = nodes.into();
        line["rounds"] = rounds.into();
        println!("{line}");
    }

    /// Returns an error that lists the missed targets, if there are any.
    pub(crate) fn end(self) -> Result<(), Box<dyn Error>> {
        match self.missed.is_empty() {
            true => Ok(()),
            false => Err(format!("missed targets:\n  {}", self.missed.join("\n  ")).into()),
        }
    }
}

/// Prints the difference between a cluster with crash detection and one without.
pub(crate) fn idle(arguments: &Arguments, nodes: usize, with: Cost, without: Cost) {
    let connections = round(with.connections - without.connections);
    let bytes = (with.bytes - without.bytes).round();
    let packets = round(with.packets - without.packets);
    let wakeups = round(with.wakeups - without.wakeups);
    if arguments.json {
        let line = json!({
            "case": "idle", "nodes": nodes, "connections": connections, "bytes_per_minute": bytes,
            "packets_per_minute": packets, "wakeups_per_minute": wakeups,
            "wakeups_per_minute_without": round(without.wakeups),
        });
        return println!("{line}");
    }
    println!(
        "crash detection, idle, {nodes} nodes: {connections} connections per node; per minute and node {bytes} bytes \
         in {packets} packets, {wakeups} wake-ups (without it {:.0})",
        without.wakeups,
    );
}
