//! Arguments shared by the benches, and their exit codes.

use std::{error::Error, process::ExitCode};

use lexopt::prelude::*;

pub(crate) enum Asked<A> {
    Run(A),
    Nothing,
    Help,
}

/// Runs the bench, or prints its help, according to the parsed arguments.
pub(crate) fn answer<A>(
    asked: Result<Asked<A>, Box<dyn Error>>,
    help: &str,
    run: impl FnOnce(&A) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    let arguments = match asked {
        Ok(Asked::Run(arguments)) => arguments,
        // Cargo also runs benches as tests, which must do nothing.
        Ok(Asked::Nothing) => return ExitCode::SUCCESS,
        Ok(Asked::Help) => {
            print!("{help}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}; see --help");
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

/// Parses the value of `--nodes`: a list of cluster sizes of at least `least`.
pub(crate) fn sizes(parser: &mut lexopt::Parser, least: usize) -> Result<Vec<usize>, Box<dyn Error>> {
    let list = parser.value()?.string()?;
    let sizes = list.split(',').map(|size| size.trim().parse().ok().filter(|size| *size >= least));
    sizes.collect::<Option<_>>().ok_or_else(|| {
        format!("--nodes {list:?}: expected numbers of at least {least}, separated by commas").into()
    })
}
