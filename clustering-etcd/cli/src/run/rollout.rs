//! Options that keep a rollout calm: who leads next, which slots wait for a restart, how many nodes a cluster begins
//! with.

use std::time::Duration;

use clap::Args;
use clustering_core::Builder;

use super::variable::{Value, number, optional};
use crate::{failure::Failure, times::duration};

/// Settings for rolling updates.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Rolling updates")]
pub(crate) struct Rollout {
    /// Priority of the node as a candidate for the lead. The candidate with the highest priority leads next, and
    /// among equals the youngest. With 0 the node does not lead while there is another candidate [env:
    /// CLUSTERING_PRIORITY] [default: 100]
    #[arg(
        long,
        value_name = "N",
        env = "CLUSTERING_PRIORITY",
        hide_env = true,
        allow_negative_numbers = true,
        value_parser = optional(number(0))
    )]
    priority: Option<Value<u32>>,
    /// Time for which the slots of the node wait for it when it is stopped by a signal or crashes, so that they do not
    /// move to other nodes and back; at most 1 day. Needs --name [env: CLUSTERING_RESTART_GRACE] [default: none, the
    /// slots move at once]
    #[arg(
        long,
        value_name = "TIME",
        env = "CLUSTERING_RESTART_GRACE",
        hide_env = true,
        value_parser = optional(duration)
    )]
    restart_grace: Option<Value<Duration>>,
    /// Number of nodes with which a new cluster begins: before, no version becomes stable and no slots are assigned.
    /// Has no effect once it has begun [env: CLUSTERING_MIN_NODES] [default: 1]
    #[arg(
        long,
        value_name = "N",
        env = "CLUSTERING_MIN_NODES",
        hide_env = true,
        allow_negative_numbers = true,
        value_parser = optional(number(1))
    )]
    min_nodes: Option<Value<u32>>,
}

impl Rollout {
    /// Checks that a node whose slots wait for it will have the same name again.
    pub(crate) fn check(&self, name: Option<&str>) -> Result<(), Failure> {
        match self.restart_grace().is_zero() || name.is_some() {
            true => Ok(()),
            false => Err(Failure::unknown("--restart-grace needs --name")
                .hint("slots wait for a node of the same name, but without --name each start has a new one")
                .hint("see --name or CLUSTERING_NAME, --restart-grace or CLUSTERING_RESTART_GRACE")),
        }
    }

    /// Returns the time for which the slots wait for the node; zero if they do not.
    pub(crate) fn restart_grace(&self) -> Duration {
        Value::of(self.restart_grace.as_ref()).unwrap_or_default()
    }

    /// Adds the settings to the builder of the node.
    pub(crate) fn describe(&self, mut builder: Builder) -> Builder {
        if let Some(priority) = Value::of(self.priority.as_ref()) {
            builder = builder.priority(priority);
        }
        if let Some(nodes) = Value::of(self.min_nodes.as_ref()) {
            builder = builder.min_nodes(nodes);
        }
        builder.restart_grace(self.restart_grace())
    }
}
