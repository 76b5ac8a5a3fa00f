//! Files that installers put beside the command: `completions` and `man`.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use clap_complete::Shell;

use crate::{
    failure::{Failure, UNKNOWN},
    output,
};

/// Print the completion script for a shell
///
/// For example: clustering completions bash > /etc/bash_completion.d/clustering
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// Name of the shell
    shell: Shell,
}

/// Print the manual page
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Write clustering.1 and one page for each subcommand to this directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

impl Completions {
    pub(crate) fn run(self, mut definition: clap::Command) -> Result<ExitCode, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut definition, "clustering", &mut script);
        Ok(print(&script))
    }
}

impl Man {
    pub(crate) fn run(self, definition: clap::Command) -> Result<ExitCode, Failure> {
        let failure = |error: io::Error| Failure::unknown(format!("cannot write the manual pages: {error}"));
        if let Some(dir) = self.dir {
            clap_mangen::generate_to(definition, dir).map_err(failure)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(definition).render(&mut page).map_err(failure)?;
        Ok(print(&page))
    }
}

/// Prints the help to the standard error, for a command line without arguments.
pub(crate) fn help(mut definition: clap::Command) -> ExitCode {
    let help = definition.render_help().to_string();
    help.lines().for_each(output::note);
    ExitCode::from(UNKNOWN)
}

fn print(text: &[u8]) -> ExitCode {
    // A reader that closes the pipe early, such as `head`, is not a failure.
    let _ = io::stdout().lock().write_all(text);
    ExitCode::SUCCESS
}
