//! Measures the time from a change until all nodes have adapted to it. On etcd, a bare client does the same by hand, for
//! comparison.
//!
//! `cargo bench -p clustering-etcd --bench convergence -- --help`

#![allow(clippy::unwrap_used, reason = "an error ends the bench")]

mod arguments;
#[path = "../asked/mod.rs"]
mod asked;
mod bare;
mod counts;
mod killed;
mod ours;
mod report;
mod rounds;
#[path = "../stores/mod.rs"]
mod stores;
#[path = "../summary/mod.rs"]
mod summary;
mod trace;

use std::{error::Error, process::ExitCode};

use self::{arguments::Arguments, stores::Server};

fn main() -> ExitCode {
    let parsed = arguments::parse(std::env::args_os().skip(1));
    asked::answer(parsed, arguments::HELP, |arguments| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run(arguments))
    })
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let server = Server::start(arguments.store).await?;
    report::begin(arguments, server.version().await?.as_deref());
    for nodes in &arguments.nodes {
        if arguments.does("times") {
            rounds::run(arguments, &server, *nodes).await;
        }
        if arguments.does("killed") {
            killed::run(arguments, &server, *nodes).await;
        }
        if arguments.does("trace") {
            trace::run(arguments, &server, *nodes).await;
        }
        if arguments.does("counts") {
            counts::run(arguments, *nodes).await?;
        }
    }
    Ok(())
}
