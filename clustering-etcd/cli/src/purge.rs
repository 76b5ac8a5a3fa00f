use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Args;
use clustering_core::{Namespace, Operator, OperatorError, operator};

use crate::{connect::Purpose, context::Context, failure::Failure, lists::counted, output};

/// Delete the remains of a cluster from the store
///
/// Deletes the keys that clusters write, and no others below the namespace. Asks for confirmation, and refuses while
/// nodes are present. Exit codes: 0 deleted, 1 refused, 2 unknown.
#[derive(Args, Debug)]
pub(crate) struct Purge {
    /// Namespace of the cluster. It must be given here, so that a variable cannot select the wrong cluster
    #[arg(value_name = "NAMESPACE")]
    which: String,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
    /// Delete the keys even if nodes are present; nodes that are alive rejoin
    #[arg(long)]
    force: bool,
}

impl Purge {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let namespace = Namespace::parse(&self.which)?;
        let operator = Operator::new(context.store(Purpose::Operator).await?, namespace.clone(), "purge");
        let Some(report) = context.quick(operator.report()).await? else {
            return Err(Failure::no_cluster(&namespace));
        };
        if !self.force && !report.nodes.is_empty() {
            let names = report.nodes.iter().map(|node| node.name.clone()).collect();
            return Err(OperatorError::NodesPresent(names).into());
        }
        if !self.yes && !is_confirmed(&namespace, report.nodes.len())? {
            return Err(Failure::no("nothing was deleted"));
        }
        let purged = context.quick(operator.purge(operator::Purge::new(self.force))).await?;
        output::line(format!("{} keys deleted", purged.keys));
        if purged.sessions > 0 {
            output::note(format!(
                "clustering: {} may still hold slots; their keys disappear with their leases",
                if purged.sessions == 1 {
                    "1 session".to_owned()
                } else {
                    format!("{} sessions", purged.sessions)
                }
            ));
        }
        if !purged.left.is_empty() {
            let left: Vec<_> = purged.left.iter().map(ToString::to_string).collect();
            output::note(format!("clustering: kept keys that no cluster writes: {}", left.join(", ")));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn is_confirmed(namespace: &Namespace, nodes: usize) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let failure = Failure::unknown("cannot ask for confirmation: the standard input is not a terminal");
        return Err(failure.hint("repeat the command with --yes to delete without confirmation"));
    }
    let present = if nodes > 0 { format!(" and its {}", counted(nodes)) } else { String::new() };
    output::prompt(format!("Delete the cluster {namespace}{present} from the store? [y/N]"));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    Ok(read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}
