//! How long a change takes until all have adapted to it, next to a bare client that does the same by hand.
//!
//! `cargo bench -p clustering-etcd --bench convergence -- --help`

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

mod arguments;
mod bare;
mod counts;
mod killed;
mod ours;
mod report;
mod rounds;

use std::{error::Error, process::ExitCode};

use clustering_testkit::etcd::EtcdServer;

use self::arguments::{Arguments, Asked};

fn main() -> ExitCode {
    let arguments = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(Asked::Run(arguments)) => arguments,
        // Cargo runs benches as tests too.
        Ok(Asked::Nothing) => return ExitCode::SUCCESS,
        Ok(Asked::Help) => {
            print!("{}", arguments::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}; --help tells what can be given");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match runtime.block_on(run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let etcd = EtcdServer::start().await?;
    report::begin(arguments, etcd.version());
    for nodes in &arguments.nodes {
        if arguments.does("times") {
            rounds::run(arguments, &etcd, *nodes).await;
        }
        if arguments.does("killed") && *nodes > 1 {
            killed::run(arguments, &etcd, *nodes).await;
        }
        if arguments.does("counts") {
            counts::run(arguments, *nodes).await?;
        }
    }
    Ok(())
}
