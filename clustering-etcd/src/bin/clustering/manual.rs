//! What installers put beside the command: `completions` and `man`.

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{
    Cli,
    failure::{Failure, UNKNOWN},
    output,
};

/// Print a shell's completions
///
/// Such as: clustering completions bash > /etc/bash_completion.d/clustering
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

/// Print the manual page, or write all of them into a folder
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Write clustering.1 and a page for each subcommand into this folder
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

impl Completions {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "clustering", &mut script);
        write(&script)
    }
}

impl Man {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let failure =
            |error: io::Error| Failure::new(UNKNOWN, format!("the pages cannot be written: {error}"));
        match self.dir {
            Some(dir) => clap_mangen::generate_to(Cli::command(), dir).map_err(failure)?,
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(failure)?;
                return write(&page);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Shows the help if no arguments were given. Environment variables do not count as arguments.
pub(crate) fn help() -> ExitCode {
    let help = Cli::command().render_help().to_string();
    help.lines().for_each(output::note);
    ExitCode::from(UNKNOWN)
}

fn write(text: &[u8]) -> Result<ExitCode, Failure> {
    // A reader that has gone, such as `head`, is no reason to fail.
    let _ = io::Write::write_all(&mut io::stdout().lock(), text);
    Ok(ExitCode::SUCCESS)
}
