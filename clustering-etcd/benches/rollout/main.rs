//! Rolling restarts and an outage of the store: versions, elections, stabilize runs, and slots that change their owner.
//!
//! `cargo bench -p clustering-etcd --bench rollout -- --help`

#![allow(clippy::unwrap_used, reason = "an error ends the bench")]

mod arguments;
#[path = "../asked/mod.rs"]
mod asked;
mod cluster;
mod log;
mod outage;
mod report;
mod restarts;

use std::{error::Error, process::ExitCode};

use clustering_testkit::etcd::EtcdServer;

use self::{arguments::Arguments, report::Report, restarts::Restarts};

fn main() -> ExitCode {
    let parsed = arguments::parse(std::env::args_os().skip(1));
    asked::answer(parsed, arguments::HELP, |arguments| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run(arguments))
    })
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let etcd = EtcdServer::start().await?;
    let mut report = Report::begin(arguments.json, etcd.version());
    for restarts in Restarts::all().filter(|restarts| arguments.includes(&restarts.name())) {
        report.add(restarts.run(arguments, &etcd).await?);
    }
    if arguments.includes(outage::NAME) {
        report.add(outage::run(arguments, &etcd).await?);
    }
    report.end()
}
