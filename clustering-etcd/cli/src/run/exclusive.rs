//! Options of exclusive ownership.

use clap::{Args, value_parser};
use clustering_core::{Builder, Release};

use super::hook::Hooks;
use crate::times::duration;

/// Exclusive ownership: each key is held by at most one node at any time.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Exclusive ownership")]
pub(crate) struct Exclusive {
    /// Number of slots into which keys are divided, from 1 to 4096; the same on all nodes of the cluster. The program
    /// must work on a key only while the node holds the key's slot
    #[arg(long, value_name = "SLOTS", value_parser = value_parser!(u16).range(1..=4096))]
    pub(crate) exclusive: Option<u16>,
    /// Hook that makes the program let go of slots that the node lost. Other nodes take them over after its exit code
    /// was 0; on any other the hook is retried. Without this option slots are handed over at once
    #[arg(long, value_name = "COMMAND", requires = "exclusive")]
    release: Option<String>,
    /// Time after which a node that has not released its slots leaves the cluster, and joins again later [default: 2m]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "exclusive")]
    release_timeout: Option<std::time::Duration>,
}

impl Exclusive {
    /// Adds the number of slots and the release hook to the builder of the node.
    pub(crate) fn describe(&self, mut builder: Builder, hooks: &Hooks) -> Builder {
        let Some(slots) = self.exclusive else { return builder };
        builder = builder.exclusive(slots);
        if let Some(timeout) = self.release_timeout {
            builder = builder.release_timeout(timeout);
        }
        let Some(command) = self.release.clone() else { return builder };
        let hooks = hooks.clone();
        builder.release(move |change: Release| {
            let (hooks, command) = (hooks.clone(), command.clone());
            async move { hooks.release(&command, &change).await }
        })
    }
}
