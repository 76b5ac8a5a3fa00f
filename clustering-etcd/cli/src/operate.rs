//! Commands that change a cluster: `change`, `resign`, `evict`, `cordon`, `uncordon`, `drain`.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use clustering_core::{NodeName, Operator, Report, store::Revision};

use crate::{
    context::Context,
    failure::Failure,
    output,
    times::duration,
    wait::{stable_after, stable_line, until},
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
    /// Name of the node that should lead next, if it is able to [default: the one with the highest
    /// priority, and among equals the youngest]
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

/// Keep slots away from a node
///
/// The node stays in the cluster, but owns no slots, and does not lead while another node can. In a cluster that is not
/// exclusive it keeps its keys. The cordon survives restarts, until `uncordon` lifts it. An absent node can also be
/// cordoned. Exit codes: 0 the node is cordoned (with --wait: and the cluster is stable and the node owns no slots), 1
/// timed out, 2 unknown.
#[derive(Args, Debug)]
pub(crate) struct Cordon {
    /// Name of the node
    name: String,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    follow: Follow,
}

impl Cordon {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let operator = self.reason.operator(context).await?;
        let name = NodeName::parse(&self.name)?;
        let done = context.quick(operator.cordon(&name, self.reason.why.as_deref())).await?;
        let already = if done.new { "" } else { " already" };
        output::line(match done.present {
            true => format!("{name} is cordoned{already}"),
            false => format!("{name} is cordoned{already}; no node with this name is present"),
        });
        if self.follow.wait {
            let is_free = |report: &Report| {
                let owns_none = report.node(&name).is_none_or(|node| node.slots.is_empty());
                owns_none && report.condition.is_stable()
            };
            let missing = format!("{name} still owns slots, or the cluster is not stable");
            let limit = Some(self.follow.timeout);
            let report = until(context, &operator, limit, &missing, is_free).await?;
            output::line(stable_line(&report));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Lift the cordon of a node
///
/// The node may own slots again. Exit codes: 0 the cordon is lifted, 1 the node is not cordoned, 2 unknown.
#[derive(Args, Debug)]
pub(crate) struct Uncordon {
    /// Name of the node
    name: String,
}

impl Uncordon {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let operator = context.operator().await?;
        let name = NodeName::parse(&self.name)?;
        context.quick(operator.uncordon(&name)).await?;
        output::line(format!("{name} is no longer cordoned"));
        Ok(ExitCode::SUCCESS)
    }
}

/// Ask a node to hand over its keys and to stop
///
/// The node leaves the cluster in order, and its process ends; `clustering run` then stops its program, and exits
/// with code 4. The request only affects the current session of the node: if a supervisor starts the node again, the
/// new session is not drained. Exit codes: 0 the node is asked (with --wait: it has left, and a version without it is
/// stable), 1 refused or timed out, 2 unknown.
#[derive(Args, Debug)]
pub(crate) struct Drain {
    /// Name of the node
    name: String,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    follow: Follow,
}

impl Drain {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let operator = self.reason.operator(context).await?;
        let name = NodeName::parse(&self.name)?;
        let asked = context.quick(operator.drain(&name, self.reason.why.as_deref())).await?;
        output::line(format!("{name} is asked to leave"));
        if self.follow.wait {
            let is_there =
                |report: &Report| report.node(&name).is_some_and(|node| node.lease == Some(asked.lease));
            let is_done = |report: &Report| {
                let is_followed = newest(report) > asked.version && report.condition.is_stable();
                !is_there(report) && (is_followed || report.nodes.is_empty())
            };
            let missing = format!("{name} has not left, or no version without it is stable");
            let limit = Some(self.follow.timeout);
            let report = until(context, &operator, limit, &missing, is_done).await?;
            let rest =
                if report.nodes.is_empty() { "no node is left".to_owned() } else { stable_line(&report) };
            output::line(format!("{name} has left; {rest}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The requester of an operation, and the reason.
#[derive(Args, Debug)]
struct Reason {
    /// Who asks for it [default: the user and host of this process]
    #[arg(long, value_name = "TEXT")]
    by: Option<String>,
    /// Reason, shown by `status`
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

impl Reason {
    async fn operator(&self, context: &Context) -> Result<Operator, Failure> {
        match &self.by {
            Some(by) => context.operator_named(by.clone()).await,
            None => context.operator().await,
        }
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
