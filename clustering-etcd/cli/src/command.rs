use std::{
    env,
    ffi::{OsStr, OsString},
    process::ExitCode,
};

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource};

use crate::{
    connect::Connect,
    context::{Common, Context},
    demo,
    failure::Failure,
    find, history, manual, operate, output, page, placement, purge, run, services, status, wait, watch,
};

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "clustering", version, propagate_version = true, subcommand_required = true)]
struct CommandLine<C: Args> {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    connection: C,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Status),
    Watch(watch::Watch),
    Serve(page::Serve),
    Run(Box<run::Run>),
    Find(find::Find),
    History(history::History),
    Why(history::Why),
    Placement(placement::Placement),
    Wait(wait::Wait),
    Change(operate::Change),
    Resign(operate::Resign),
    Evict(operate::Evict),
    Cordon(operate::Cordon),
    Uncordon(operate::Uncordon),
    Drain(operate::Drain),
    Services(services::Services),
    Purge(purge::Purge),
    Demo(demo::Demo),
    Completions(manual::Completions),
    Man(manual::Man),
}

/// Runs the command that the arguments of this process name, on the store that `C` connects to, and returns the exit
/// code.
///
/// Starts a tokio runtime, so it must not be called from within one.
pub fn main<C: Connect>() -> ExitCode {
    let done = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(execute::<C>()),
        Err(error) => Err(Failure::unknown(format!("cannot start threads: {error}"))),
    };
    done.unwrap_or_else(|failure| {
        let failure = failure.hint_of_store(C::hint);
        failure.lines().iter().for_each(output::note);
        failure.exit_code()
    })
}

async fn execute<C: Connect>() -> Result<ExitCode, Failure> {
    let definition = definition::<C>();
    // Environment variables are not arguments, so they do not suppress the help.
    if env::args_os().len() <= 1 {
        return Ok(manual::help(definition));
    }
    let matches = definition.clone().get_matches();
    let parsed = CommandLine::<C>::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let context = Context::new(parsed.common, parsed.connection.clone());
    match parsed.command {
        Command::Status(command) => command.run(&context).await,
        Command::Watch(command) => command.run(&context).await,
        Command::Serve(command) => command.run(&context).await,
        Command::Run(command) => command.run(&context).await,
        Command::Find(command) => command.run(&context).await,
        Command::History(command) => command.run(&context).await,
        Command::Why(command) => command.run(&context).await,
        Command::Placement(command) => command.run(&context).await,
        Command::Wait(command) => command.run(&context).await,
        Command::Change(command) => command.run(&context).await,
        Command::Resign(command) => command.run(&context).await,
        Command::Evict(command) => command.run(&context).await,
        Command::Cordon(command) => command.run(&context).await,
        Command::Uncordon(command) => command.run(&context).await,
        Command::Drain(command) => command.run(&context).await,
        Command::Services(command) => command.run(&context).await,
        Command::Purge(command) => command.run(&context).await,
        Command::Demo(command) => command.run(&context, &parsed.connection, given::<C>(&matches)).await,
        Command::Completions(command) => command.run(definition),
        Command::Man(command) => command.run(definition),
    }
}

/// Returns the definition of the command line, with the texts that depend on the store.
fn definition<C: Connect>() -> clap::Command {
    let about = format!("Show and operate clusters in {}, and turn any program into a node", C::STORE);
    let command = CommandLine::<C>::command().about(about);
    match C::TTL_VARIABLE {
        None => command,
        Some(variable) => command.mut_subcommand("run", |run| {
            run.mut_arg("ttl", |ttl| {
                let help = ttl.get_help().cloned().unwrap_or_default();
                ttl.help(help.to_string().replacen(" [default", &format!(" [env: {variable}] [default"), 1))
            })
        }),
    }
}

/// Returns the context for the store that these arguments connect to.
pub(crate) fn context_for<C: Connect>(arguments: &[OsString]) -> Result<Context, Failure> {
    let line = [OsString::from("clustering")].into_iter().chain(arguments.iter().cloned());
    let parsed = CommandLine::<C>::try_parse_from(line.chain(["demo".into()]))
        .map_err(|error| Failure::unknown(error.to_string()))?;
    Ok(Context::new(parsed.common, parsed.connection))
}

/// Returns the connection arguments that were given on the command line, for other processes of this program.
fn given<C: Args>(matches: &ArgMatches) -> Vec<OsString> {
    let mut given = Vec::new();
    for argument in C::augment_args(clap::Command::new("")).get_arguments() {
        let id = argument.get_id().as_str();
        let Some(long) = argument.get_long() else { continue };
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        if !argument.get_action().takes_values() {
            given.push(format!("--{long}").into());
            continue;
        }
        let option =
            |value: &OsStr| [OsStr::new("--"), long.as_ref(), "=".as_ref(), value].into_iter().collect();
        given.extend(matches.get_raw(id).into_iter().flatten().map(option));
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Args, Clone, Debug)]
    struct Sample {
        #[arg(long, global = true, env = "CLUSTERING_CLI_TEST_UNSET", default_value = "a")]
        endpoint: String,
        #[arg(long, global = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        tls: Option<bool>,
        #[arg(long, global = true)]
        quiet: bool,
    }

    #[test]
    fn the_arguments_of_all_commands_are_consistent() {
        CommandLine::<Sample>::command().debug_assert();
    }

    #[test]
    fn other_processes_get_the_connection_arguments_of_the_command_line() {
        let given = |line: &[&str]| {
            given::<Sample>(&CommandLine::<Sample>::command().try_get_matches_from(line).unwrap())
        };
        assert!(given(&["clustering", "demo", "--nodes", "4"]).is_empty());
        let line = ["clustering", "--tls", "demo", "--endpoint", "b c", "--quiet", "-n", "x"];
        assert_eq!(given(&line), ["--endpoint=b c", "--tls=true", "--quiet"]);
    }
}
