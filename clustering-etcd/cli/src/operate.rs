//! Commands that change a cluster: `change`, `resign`, `evict`.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use clustering_core::{NodeName, Operator, Report, store::Revision};

use crate::{
    context::Context,
    failure::Failure,
    output,
    times::duration,
    wait::{stable_after, until},
};

/// Options for waiting until the cluster has followed the change.
#[derive(Args, Debug)]
struct Follow {
    /// Wait until the version that follows is stable
    #[arg(long, short)]
    wait: bool,
    /// Time limit for waiting. The request stands even if it has passed
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1m")]
    timeout: Duration,
}

/// Ask for a new version
///
/// Every node adapts to it. Several requests at the same time lead to one version. Exit codes: 0 the version is
/// published (with --wait: stable), 1 timed out, 2 unknown.
#[derive(Args, Debug)]
pub(crate) struct Change {
    /// Reason, shown in the causes of the version
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    follow: Follow,
}

impl Change {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let operator = context.operator().await?;
        let seen = context.quick(operator.change(self.why.as_deref())).await?;
        let is_newer = |report: &Report| newest(report) > seen;
        let missing = "no new version was published";
        let report = until(context, &operator, Some(self.follow.timeout), missing, is_newer).await?;
        if let Some(version) = report.version.and_then(|version| version.version) {
            output::line(format!("{version} is published"));
        }
        self.follow.up(context, &operator, seen).await
    }
}

/// Ask the leader to step down
///
/// Another node leads then. The old leader stays in the cluster, and does not campaign again for one TTL unless another
/// node has led. Exit codes: 0 another node leads (with --wait: and its version is stable), 1 refused or timed out, 2
/// unknown.
#[derive(Args, Debug)]
pub(crate) struct Resign {
    /// Name of the node that should lead next, if it is able to [default: the oldest other node]
    #[arg(long = "for", value_name = "NAME")]
    in_favour_of: Option<String>,
    /// Reason, shown in the causes of the version
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    follow: Follow,
}

impl Resign {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let operator = context.operator().await?;
        let favoured = self.in_favour_of.as_deref().map(NodeName::parse).transpose()?;
        let term = context.quick(operator.resign(favoured.as_ref(), self.why.as_deref())).await?;
        let is_led = |report: &Report| report.leader.as_ref().is_some_and(|leader| leader.term > term);
        let missing = "no new leader was elected";
        let report = until(context, &operator, Some(self.follow.timeout), missing, is_led).await?;
        let name = report.leader_name().map_or("a node with an unreadable record", |name| name.as_str());
        if let Some(leader) = &report.leader {
            output::line(format!("{name} leads, term {}", leader.term));
        }
        if let Some(favoured) = favoured.filter(|favoured| favoured != name) {
            output::note(format!(
                "clustering: {favoured} did not campaign in time, or does not support --for"
            ));
        }
        self.follow.up(context, &operator, term.revision()).await
    }
}

/// Remove a node from the cluster
///
/// Use this for a node that hangs, for example. Other nodes take over its keys. A node that is alive rejoins by itself,
/// after a pause that grows from one second to ten minutes. Stop the node to keep it out. Exit codes: 0 the node is
/// removed (with --wait: and a version without it is stable), 1 refused or timed out, 2 unknown.
#[derive(Args, Debug)]
pub(crate) struct Evict {
    /// Name of the node
    name: String,
    #[command(flatten)]
    follow: Follow,
}

impl Evict {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let operator = context.operator().await?;
        let name = NodeName::parse(&self.name)?;
        let seen = context.quick(operator.evict(&name)).await?;
        output::line(format!("{name} is removed; if it is alive, it rejoins by itself"));
        self.follow.up(context, &operator, seen).await
    }
}

impl Follow {
    /// With `--wait`, waits until a version written after the revision is stable.
    async fn up(&self, context: &Context, operator: &Operator, seen: Revision) -> Result<ExitCode, Failure> {
        if self.wait {
            stable_after(context, operator, seen, self.timeout).await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn newest(report: &Report) -> Revision {
    report.version.as_ref().map_or(Revision::ZERO, |version| version.revision)
}
