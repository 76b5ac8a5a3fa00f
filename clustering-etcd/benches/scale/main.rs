//! Many nodes: storms of changes, and what each node takes of memory, processor and network.
//!
//! `cargo bench -p clustering-etcd --bench scale -- --help`

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

mod arguments;
#[path = "../asked/mod.rs"]
mod asked;
mod place;
mod size;
mod storm;
mod usage;

use std::{error::Error, process::ExitCode};

use self::arguments::{Arguments, Part};

fn main() -> ExitCode {
    asked::answer(arguments::parse(std::env::args_os().skip(1)), arguments::HELP, run)
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut runtime = match arguments.is_virtual() {
        // Time passes when everybody waits, so that neither the machine nor its load is in the figures.
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
