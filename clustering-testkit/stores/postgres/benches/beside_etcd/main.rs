//! The store on PostgreSQL beside the one on etcd: changes of clusters, and single calls.
//!
//! `cargo bench -p clustering-postgres --bench beside_etcd -- --help`

#![allow(clippy::unwrap_used, reason = "an error ends the bench")]

mod arguments;
#[path = "../../../../../clustering-etcd/benches/asked/mod.rs"]
mod asked;
mod calls;
mod changes;
mod report;
mod servers;
#[path = "../../../../../clustering-etcd/benches/stores/mod.rs"]
mod stores;
#[path = "../../../../../clustering-etcd/benches/summary/mod.rs"]
mod summary;

use std::{error::Error, process::ExitCode};

use self::{arguments::Arguments, report::Report};

fn main() -> ExitCode {
    let parsed = arguments::parse(std::env::args_os().skip(1));
    asked::answer(parsed, arguments::HELP, |arguments| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run(arguments))
    })
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let servers = servers::start().await?;
    let mut report = Report::begin(arguments.json, &servers).await?;
    calls::run(&servers, &mut report).await;
    for nodes in &arguments.nodes {
        changes::run(arguments, &servers, *nodes, &mut report).await;
    }
    Ok(())
}
