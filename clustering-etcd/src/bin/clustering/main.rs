//! `clustering`: looks at clusters in etcd and handles them, and makes any program a node.

// All output goes through `output`, which escapes it.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod connection;
mod demo;
mod failure;
mod find;
mod group;
mod manual;
mod output;
mod past;
mod placement;
mod purge;
mod run;
mod services;
mod status;
mod times;
mod verbs;
mod wait;
mod watch;

use std::{env, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{connection::Connection, failure::Failure};

/// Look at clusters in etcd and handle them, and make any program a node
#[derive(Debug, Parser)]
#[command(name = "clustering", version, propagate_version = true, subcommand_required = true)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Status),
    Watch(watch::Watch),
    Run(Box<run::Run>),
    Find(find::Find),
    History(past::History),
    Why(past::Why),
    Placement(placement::Placement),
    Wait(wait::Wait),
    Change(verbs::Change),
    Resign(verbs::Resign),
    Evict(verbs::Evict),
    Services(services::Services),
    Purge(purge::Purge),
    Demo(demo::Demo),
    Completions(manual::Completions),
    Man(manual::Man),
}

#[tokio::main]
async fn main() -> ExitCode {
    if env::args_os().len() <= 1 {
        return manual::help();
    }
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Status(command) => command.run(&cli.connection).await,
        Command::Watch(command) => command.run(&cli.connection).await,
        Command::Run(command) => command.run(&cli.connection).await,
        Command::Find(command) => command.run(&cli.connection).await,
        Command::Placement(command) => command.run(&cli.connection).await,
        Command::Wait(command) => command.run(&cli.connection).await,
        Command::Change(command) => command.run(&cli.connection).await,
        Command::Resign(command) => command.run(&cli.connection).await,
        Command::Evict(command) => command.run(&cli.connection).await,
        Command::Services(command) => command.run(&cli.connection).await,
        Command::History(command) => command.run(&cli.connection).await,
        Command::Why(command) => command.run(&cli.connection).await,
        Command::Demo(command) => command.run(&cli.connection).await,
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
        Command::Purge(command) => command.run(&cli.connection).await,
    };
    done.unwrap_or_else(|failure: Failure| {
        failure.lines().iter().for_each(output::note);
        failure.exit_code()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_of_all_commands_go_together() {
        super::Cli::command().debug_assert();
    }
}
