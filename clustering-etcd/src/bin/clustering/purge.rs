use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Args;
use clustering_etcd::{Namespace, Operator, operator};

use crate::{
    connection::Connection,
    failure::{Failure, NO, UNKNOWN},
    output::{self, counted},
};

/// Delete what a cluster left in the store: its own keys, and nothing else below the namespace
///
/// Asks first. Refuses while nodes are present. Exit codes: 0 it is done, 1 it was refused, 2 it is not known.
#[derive(Args, Debug)]
pub(crate) struct Purge {
    /// The namespace. It is given here, so that nobody purges what a variable happens to name
    #[arg(value_name = "NAMESPACE")]
    which: String,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
    /// Also while nodes are present: those that live join again
    #[arg(long)]
    force: bool,
}

impl Purge {
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let namespace = Namespace::parse(&self.which)?;
        let operator = Operator::new(connection.store()?, namespace.clone(), "purge");
        let Some(report) = connection.quick(operator.report()).await? else {
            return Err(Failure::no_cluster(&namespace));
        };
        if !self.force && !report.nodes.is_empty() {
            let names = report.nodes.iter().map(|node| node.name.clone()).collect();
            return Err(clustering_etcd::OperatorError::NodesPresent(names).into());
        }
        if !self.yes && !ask(&namespace, report.nodes.len())? {
            return Err(Failure::new(NO, "nothing was deleted"));
        }
        let purged = connection.quick(operator.purge(operator::Purge::new(self.force))).await?;
        output::line(format!("{} keys deleted", purged.keys));
        if !purged.left.is_empty() {
            let left: Vec<_> = purged.left.iter().map(ToString::to_string).collect();
            output::note(format!("clustering: left, since no cluster writes them: {}", left.join(", ")));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn ask(namespace: &Namespace, nodes: usize) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let failure = Failure::new(UNKNOWN, "there is nobody to ask: the standard input is no terminal");
        return Err(failure.hint("give --yes, if that is what you want"));
    }
    let present = if nodes > 0 { format!(" and its {}", counted(nodes)) } else { String::new() };
    output::prompt(format!("Delete the cluster {namespace}{present} from the store? [y/N]"));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    Ok(read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}
