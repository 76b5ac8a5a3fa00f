//! A cluster in one process, from the first join to the last stop, told as a timeline.
//!
//! ```text
//! cargo run --example quickstart [-- --nodes N] [--json]
//! ```
//!
//! Each node runs on a thread and a tokio runtime of its own, all on one `MemoryStore`; no server is needed. The
//! program checks what it shows, and exits with 1 if something did not happen.

mod arguments;
mod node;
mod screen;
mod script;

use std::process::ExitCode;

use arguments::Asked;

fn main() -> ExitCode {
    let arguments = match arguments::parse() {
        Ok(Asked::Run(arguments)) => arguments,
        Ok(Asked::Help) => {
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
            eprintln!("quickstart: no tokio runtime to be had: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(script::play(arguments.nodes, &screen)) {
        Ok(()) => {
            screen.done("all that was to be shown has happened");
            ExitCode::SUCCESS
        }
        Err(missed) => {
            screen.failed(&missed);
            ExitCode::FAILURE
        }
    }
}
