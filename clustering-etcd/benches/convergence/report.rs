//! Prints the results as text or as JSON objects.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use crate::{
    arguments::Arguments,
    summary::{Summary, round},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Join,
    FollowerLeaves,
    LeaderLeaves,
}

impl Change {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Change::Join => "join",
            Change::FollowerLeaves => "follower stops",
            Change::LeaderLeaves => "leader stops",
        }
    }
}

/// Time until the leader, and until all nodes, saw the next stable version.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) leader: Duration,
    pub(crate) all: Duration,
}

/// Samples of both teams, by kind of change. The bare client runs on etcd only.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<Change, (Vec<Sample>, Vec<Sample>)>);

/// Prints the environment of the run.
pub(crate) fn begin(arguments: &Arguments, version: Option<&str>) {
    let store = arguments.store.name();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    if arguments.json {
        println!(
            "{}",
            json!({
                "store": store, "version": version, "cores": cores, "load_before": load,
                "rounds": arguments.rounds,
            })
        );
    } else {
        let version = version.map(|version| format!(" {version}")).unwrap_or_default();
        println!("{store}{version}, {cores} cores, load {load} before; times in ms: median (min to max)");
    }
}

impl Samples {
    pub(crate) fn note(&mut self, change: Change, ours: Sample, bare: Option<Sample>) {
        let (all_ours, all_bare) = self.0.entry(change).or_default();
        all_ours.push(ours);
        all_bare.extend(bare);
    }

    pub(crate) fn report(&self, as_json: bool, nodes: usize) {
        type Pick = fn(&Sample) -> Duration;
        let sides: [(&str, Pick); 2] =
            [("leader", |sample| sample.leader), ("all nodes", |sample| sample.all)];
        for (change, (ours, bare)) in &self.0 {
            for (who, pick) in sides {
                let ours = Summary::of(ours.iter().map(pick));
                let bare = (!bare.is_empty()).then(|| Summary::of(bare.iter().map(pick)));
                let bare = bare.map(|bare| (bare, ours.median / bare.median));
                if as_json {
                    let mut line = json!({
                        "nodes": nodes, "change": change.name(), "seen_by": who, "clustering": ours.json(),
                    });
                    if let Some((bare, ratio)) = bare {
                        line["bare"] = bare.json();
                        line["ratio"] = round(ratio).into();
                    }
                    println!("{line}");
                    continue;
                }
                let name = change.name();
                print!("{nodes:4} nodes, {name:14} → stable on {who:9}  clustering {:28}", ours.text());
                match bare {
                    Some((bare, ratio)) => println!(" bare {:28} ratio {ratio:.2}", bare.text()),
                    None => println!(),
                }
            }
        }
    }
}
