//! Tortures a cluster of real processes on the servers of a real store. See `--help`.

mod arguments;
mod faults;
mod gate;
mod judge;
#[path = "../parsing/kinds.rs"]
mod kinds;
#[path = "../parsing/numbers.rs"]
mod numbers;
mod plan;
mod report;
mod servers;
mod story;
mod world;

use std::process::ExitCode;

use clustering_proofs::node::{self, NodeSpec};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    arguments::{Asked, Settings},
    report::Report,
    world::{Failed, World},
};

/// Exit code of an interrupted program, as in shells.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // This program also runs as its own nodes.
    if let Some(spec) = NodeSpec::from_env() {
        node::main(spec, |endpoints| async move { servers::open(&endpoints) });
        return ExitCode::SUCCESS;
    }
    let settings = match arguments::parse() {
        Ok(Asked::Help) => {
            print!("{}", arguments::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(Asked::Run(settings)) => settings,
        Err(error) => {
            eprintln!("{error}\n\n{}", arguments::HELP);
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended =
        runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(until_interrupted(&settings)));
    match ended {
        Ok(Some(report)) => {
            report.print(settings.json);
            if report.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(None) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Runs until it is done or told to end. Dropping the run removes all processes and folders.
async fn until_interrupted(settings: &Settings) -> Result<Option<Report>, Failed> {
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        report = run(settings) => report.map(Some),
        _ = interrupted.recv() => Ok(None),
        _ = terminated.recv() => Ok(None),
    }
}

async fn run(settings: &Settings) -> Result<Report, Failed> {
    let plan = plan::plan(settings);
    if !settings.json {
        println!(
            "seed {}: {} nodes (exclusive: {}) on {} ({} members), {} faults in {} s",
            settings.seed,
            settings.nodes,
            settings.exclusive_name(),
            settings.store_name(),
            settings.members,
            plan.len(),
            settings.time.as_secs()
        );
    }
    let world = World::start(settings).await?;
    let struck = faults::storm(&world, plan).await?;
    let calm = world.calm().await?;
    let verdict = judge::judge(&world, &calm).await?;
    Ok(Report::of(settings, &world, struck, calm, verdict))
}
