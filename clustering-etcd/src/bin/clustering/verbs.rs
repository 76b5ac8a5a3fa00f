//! What changes a cluster: `change`, `resign`, `evict`.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use clustering_etcd::{NodeName, Operator, Report, store::Revision};

use crate::{
    connection::Connection,
    failure::Failure,
    output,
    times::duration,
    wait::{stable_after, until},
};

/// Whether to wait for what follows.
#[derive(Args, Debug)]
struct Follow {
    /// Wait until the version that follows is stable
    #[arg(long, short)]
    wait: bool,
    /// Give up waiting after that time; what was asked for stands
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1m")]
    timeout: Duration,
}

/// Ask for a new version: every node adapts anew
///
/// Many who ask at once get one version. Exit codes: 0 it is published (with --wait: stable), 1 the time ran out, 2 it is
/// not known.
#[derive(Args, Debug)]
pub(crate) struct Change {
    /// The reason, which others see in the version's causes
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    follow: Follow,
}

impl Change {
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let operator = connection.operator()?;
        let seen = connection.quick(operator.change(self.why.as_deref())).await?;
        let newer = |report: &Report| newest(report) > seen;
        let missing = "no new version is published";
        let report = until(connection, &operator, Some(self.follow.timeout), missing, newer).await?;
        if let Some(version) = report.version.and_then(|version| version.version) {
            output::line(format!("{version} is published"));
        }
        self.follow.up(connection, &operator, seen).await
    }
}

/// Make the leader step down: another node leads
///
/// The one that stepped down stays a node, and lets others go first for one TTL. Exit codes: 0 another leads (with --wait:
/// and its version is stable), 1 it could not be done or the time ran out, 2 it is not known.
#[derive(Args, Debug)]
pub(crate) struct Resign {
    /// The node that is to lead next; without it the oldest does. It leads unless it is in no state to
    #[arg(long = "for", value_name = "NAME")]
    in_favour_of: Option<String>,
    /// The reason, which others see in the version's causes
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    follow: Follow,
}

impl Resign {
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let operator = connection.operator()?;
        let favoured = self.in_favour_of.as_deref().map(NodeName::parse).transpose()?;
        let term = connection.quick(operator.resign(favoured.as_ref(), self.why.as_deref())).await?;
        let led = |report: &Report| report.leader.as_ref().is_some_and(|leader| leader.term > term);
        let missing = "no new leader";
        let report = until(connection, &operator, Some(self.follow.timeout), missing, led).await?;
        let name = report.leader_name().map_or("somebody unreadable", |name| name.as_str());
        if let Some(leader) = &report.leader {
            output::line(format!("{name} leads, term {}", leader.term));
        }
        if favoured.is_some_and(|favoured| favoured != *name) {
            output::note(
                "clustering: the node in favour did not campaign in time, or does not know of favours",
            );
        }
        self.follow.up(connection, &operator, term.revision()).await
    }
}

/// Remove a node from the cluster for now, for example if it hangs: others take over its keys
///
/// A node that is alive rejoins by itself, after a pause that grows from a second to ten minutes. To keep it out, stop
/// it. Exit codes: 0 it is removed (with --wait: and a version without it is stable), 1 it could not be done or the
/// time ran out, 2 it is not known.
#[derive(Args, Debug)]
pub(crate) struct Evict {
    /// The node
    name: String,
    #[command(flatten)]
    follow: Follow,
}

impl Evict {
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let operator = connection.operator()?;
        let name = NodeName::parse(&self.name)?;
        let seen = connection.quick(operator.evict(&name)).await?;
        output::line(format!("{name} is removed; if it lives it joins again by itself"));
        self.follow.up(connection, &operator, seen).await
    }
}

impl Follow {
    async fn up(
        &self,
        connection: &Connection,
        operator: &Operator,
        seen: Revision,
    ) -> Result<ExitCode, Failure> {
        if self.wait {
            stable_after(connection, operator, seen, Some(self.timeout)).await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn newest(report: &Report) -> Revision {
    report.version.as_ref().map_or(Revision::ZERO, |version| version.revision)
}
