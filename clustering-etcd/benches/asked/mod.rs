//! What a bench is asked for.

use std::{error::Error, process::ExitCode};

use lexopt::prelude::*;

pub(crate) enum Asked<A> {
    Run(A),
    Nothing,
    Help,
}

/// Does what is asked for.
pub(crate) fn answer<A>(
    asked: Result<Asked<A>, Box<dyn Error>>,
    help: &str,
    run: impl FnOnce(&A) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    let arguments = match asked {
        Ok(Asked::Run(arguments)) => arguments,
        // Cargo runs benches as tests too.
        Ok(Asked::Nothing) => return ExitCode::SUCCESS,
        Ok(Asked::Help) => {
            print!("{help}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}; --help tells what can be given");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The value of `--nodes`: sizes of a cluster.
pub(crate) fn sizes(parser: &mut lexopt::Parser, least: usize) -> Result<Vec<usize>, Box<dyn Error>> {
    let list = parser.value()?.string()?;
    let sizes = list.split(',').map(|size| size.trim().parse().ok().filter(|size| *size >= least));
    sizes
        .collect::<Option<_>>()
        .ok_or_else(|| format!("--nodes {list:?}: expected numbers from {least} on, with commas").into())
}
