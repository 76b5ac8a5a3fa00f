//! Hand-over of slots in exclusive clusters: the number of commits, and the time for which no node holds a moved slot,
//! compared with the time that a cluster that is not exclusive needs for the same change.
//!
//! `cargo bench -p clustering-etcd --bench handover -- --help`

#![allow(clippy::unwrap_used, reason = "an error ends the benchmark")]

mod arguments;
#[path = "../asked/mod.rs"]
mod asked;
mod cases;
mod cluster;
mod gaps;
mod report;

use std::{error::Error, process::ExitCode};

use clustering_testkit::etcd::EtcdServer;

use self::arguments::Arguments;

fn main() -> ExitCode {
    let parsed = arguments::parse(std::env::args_os().skip(1));
    asked::answer(parsed, arguments::HELP, |arguments| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run(arguments))
    })
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let etcd = EtcdServer::start().await?;
    if !arguments.json {
        println!("etcd {}; times in ms, medians of {} rounds", etcd.version(), arguments.rounds);
    }
    for nodes in &arguments.nodes {
        for slots in &arguments.slots {
            cases::run(arguments, &etcd, *nodes, *slots).await?;
        }
    }
    Ok(())
}
