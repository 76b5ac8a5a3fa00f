//! Many nodes: storms of changes, and the memory, CPU time and network traffic of each node.
//!
//! `cargo bench -p clustering-etcd --bench scale -- --help`

#![allow(clippy::unwrap_used, reason = "an error ends the bench")]

mod arguments;
#[path = "../asked/mod.rs"]
mod asked;
mod place;
mod size;
#[path = "../stores/mod.rs"]
mod stores;
mod storm;
mod usage;

use std::{error::Error, process::ExitCode};

use self::arguments::{Arguments, Part};

fn main() -> ExitCode {
    asked::answer(arguments::parse(std::env::args_os().skip(1)), arguments::HELP, run)
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut runtime = match arguments.is_virtual() {
        // Virtual time passes only when all tasks wait, so that the machine and its load don't affect the results.
        true => tokio::runtime::Builder::new_current_thread(),
        false => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().start_paused(arguments.is_virtual()).build()?;
    match arguments.part {
        Part::Storm => runtime.block_on(storm::run(arguments)),
        Part::Size => runtime.block_on(size::run(arguments)),
        Part::Worker => runtime.block_on(size::work(arguments)),
    }
}
