use std::time::Duration;

use clustering_core::{HealthChecks, machine::Token, store::LeaseId};

use clustering_testkit::history::Life;

/// Tolerance for clocks whose rates do not divide evenly.
const SLACK: Duration = Duration::from_millis(1);

/// P11. No node claims to lead while its health check has hung for too long. The time counts from the start of the
/// check, or from when the process resumed after a pause, on the process's own clock.
pub(in crate::sim) fn hangs(who: &Life, hangs_for: Duration, checks: HealthChecks) -> Result<(), String> {
    let HealthChecks { interval, deadline, failures } = checks;
    match hangs_for > deadline + interval * (failures - 1) + SLACK {
        false => Ok(()),
        true => Err(format!(
            "P11, leader with a hanging health check: {who} claims to lead, but its check has hung for {hangs_for:?} with {checks:?}"
        )),
    }
}

/// A lease that the node must give back.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Owed {
    pub(in crate::sim) lease: LeaseId,
    /// The commit by which the holder leaves, until its reply arrives.
    pub(in crate::sim) leaving: Option<Token>,
}

/// P11. A node that loses its session because it is unhealthy gives the lease back in the same step. Alternatively it
/// leaves in that step, and gives the lease back when the reply arrives.
pub(in crate::sim) fn gave_back(who: &Life, owed: Option<Owed>) -> Result<(), String> {
    match owed {
        None | Some(Owed { leaving: Some(_), .. }) => Ok(()),
        Some(Owed { lease, .. }) => {
            Err(format!("P11, lease not given back: {who} is unhealthy but keeps {lease}"))
        }
    }
}
