use std::{fs, future::pending, io, path::PathBuf, time::Duration};

use clustering_core::{HealthChecks, Outcome};
use serde::{Deserialize, Serialize};

use super::NodeSpec;

/// Result of a node's health check. Set with [`Node::set_condition`](super::Node::set_condition).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// The check passes.
    #[default]
    Well,
    /// The check fails.
    Ill,
    /// The check never returns.
    Hangs,
}

impl NodeSpec {
    /// Returns the interval and limits of the health check, if there is one.
    pub(super) fn checks(&self) -> Option<HealthChecks> {
        let interval = self.check_every?;
        Some(HealthChecks { interval, deadline: Duration::from_secs(1), failures: 2 })
    }

    /// Tells the node its condition with a file beside its journal, because the node may be another process.
    pub(super) fn write_condition(&self, condition: Condition) -> io::Result<()> {
        let (file, new) = (self.condition_file(), self.journal.with_extension("condition.new"));
        fs::write(&new, serde_json::to_vec(&condition)?)?;
        fs::rename(new, file)
    }

    /// Runs the node's health check, which never returns if the condition is [`Condition::Hangs`].
    pub(super) async fn check(&self) -> Outcome {
        let condition = match fs::read(self.condition_file()) {
            Ok(text) => serde_json::from_slice(&text).expect("the file holds a condition"),
            Err(_) => Condition::Well,
        };
        match condition {
            Condition::Well => Outcome::Ready,
            Condition::Ill => Outcome::refused("the node is ill"),
            Condition::Hangs => pending().await,
        }
    }

    fn condition_file(&self) -> PathBuf {
        self.journal.with_extension("condition")
    }
}
