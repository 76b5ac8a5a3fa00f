use std::{fs, future::pending, io, path::PathBuf, time::Duration};

use clustering_core::{HealthChecks, Outcome};
use serde::{Deserialize, Serialize};

use super::NodeSpec;

/// How a node is, as its health check finds it: see [`Node::set_condition`](super::Node::set_condition).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// The check passes.
    #[default]
    Well,
    /// It fails.
    Ill,
    /// It never answers.
    Hangs,
}

impl NodeSpec {
    /// How often and how patiently its health is checked, if at all.
    pub(super) fn checks(&self) -> Option<HealthChecks> {
        let interval = self.check_every?;
        Some(HealthChecks { interval, deadline: Duration::from_secs(1), failures: 2 })
    }

    /// Tells the node how it is, by a file beside its journal: it may be a process.
    pub(super) fn write_condition(&self, condition: Condition) -> io::Result<()> {
        let (file, new) = (self.condition_file(), self.journal.with_extension("condition.new"));
        fs::write(&new, serde_json::to_vec(&condition)?)?;
        fs::rename(new, file)
    }

    /// Asks how the node is now, and waits for ever if it hangs.
    pub(super) async fn check(&self) -> Outcome {
        let condition = match fs::read(self.condition_file()) {
            Ok(text) => serde_json::from_slice(&text).expect("what the test wrote"),
            Err(_) => Condition::Well,
        };
        match condition {
            Condition::Well => Outcome::Ready,
            Condition::Ill => Outcome::refused("it is ill"),
            Condition::Hangs => pending().await,
        }
    }

    fn condition_file(&self) -> PathBuf {
        self.journal.with_extension("condition")
    }
}
