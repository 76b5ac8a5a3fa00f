//! Runs a cluster in one process, from the first join to the last stop, and prints a timeline.
//!
//! ```text
//! cargo run --example quickstart [-- --nodes N] [--json]
//! ```
//!
//! Each node runs on its own thread and tokio runtime, and all of them share one `MemoryStore`; no server is needed.
//! The program checks each step, and exits with code 1 if a step fails.

mod arguments;
mod node;
mod screen;
mod script;

use std::process::ExitCode;

use arguments::Command;

fn main() -> ExitCode {
    let arguments = match arguments::parse() {
        Ok(Command::Run(arguments)) => arguments,
        Ok(Command::Help) => {
            screen::print(arguments::HELP.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("quickstart: {error}\nTry `cargo run --example quickstart -- --help`.");
            return ExitCode::from(2);
        }
    };
    let screen = screen::Screen::new(arguments.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("quickstart: cannot create a tokio runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(script::play(arguments.nodes, &screen)) {
        Ok(()) => {
            screen.done("everything happened as expected");
            ExitCode::SUCCESS
        }
        Err(missed) => {
            screen.failed(&missed);
            ExitCode::FAILURE
        }
    }
}
