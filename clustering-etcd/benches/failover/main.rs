//! Time from the crash of a node process until the others have adapted to it, and the idle cost of detecting crashes.
//!
//! `cargo bench -p clustering-etcd --bench failover -- --help`

#![allow(clippy::unwrap_used, reason = "an error ends the bench")]

mod arguments;
#[path = "../asked/mod.rs"]
mod asked;
mod bare;
mod idle;
mod node;
mod process;
mod report;
mod rounds;
#[path = "../summary/mod.rs"]
mod summary;

use std::{error::Error, process::ExitCode};

use clustering_testkit::etcd::EtcdServer;
use futures_util::future::try_join_all;

use self::{
    arguments::{Arguments, Asks},
    process::{Cluster, Kind},
    report::Report,
    rounds::Role,
};

fn main() -> ExitCode {
    let parsed = arguments::parse(std::env::args_os().skip(1));
    asked::answer(parsed, arguments::HELP, |asks| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        match asks {
            Asks::Measure(arguments) => runtime.block_on(run(arguments)),
            Asks::Node(spec) => runtime.block_on(node::run(spec)),
        }
    })
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let etcd = EtcdServer::start().await?;
    let mut report = Report::begin(arguments, etcd.version());
    if arguments.does("crash-detection") {
        // Measures one cluster at a time, so that the clusters do not disturb each other.
        for nodes in &arguments.nodes {
            for role in Role::ALL {
                let times = rounds::run(&etcd, Kind::CrashDetection, role, *nodes, arguments.rounds).await?;
                report.add(Kind::CrashDetection, role, *nodes, times);
            }
        }
    }
    // All at once, because each round only waits for the end of a lease.
    let others = [Kind::Ttl, Kind::Bare].into_iter().filter(|kind| arguments.does(kind.name()));
    let all = others.flat_map(|kind| Role::ALL.map(|role| (kind, role)));
    let all = all.flat_map(|(kind, role)| arguments.nodes.iter().map(move |nodes| (kind, role, *nodes)));
    let slow = all.map(async |(kind, role, nodes)| {
        let rounds = arguments.rounds.min(rounds::SLOW);
        Ok::<_, Box<dyn Error>>((kind, role, nodes, rounds::run(&etcd, kind, role, nodes, rounds).await?))
    });
    for (kind, role, nodes, times) in try_join_all(slow).await? {
        report.add(kind, role, nodes, times);
    }
    if arguments.does("idle") {
        let nodes = arguments.nodes.iter().copied().max().unwrap_or(0);
        let with = idle::measure(Cluster::start(&etcd, Kind::CrashDetection, "idle", nodes).await?).await?;
        let without = idle::measure(Cluster::start(&etcd, Kind::Ttl, "idle", nodes).await?).await?;
        report::idle(arguments, nodes, with, without);
    }
    report.end()
}
