use std::time::Duration;

use clustering_core::{HealthChecks, machine::Token, store::LeaseId};

use clustering_testkit::history::Life;

/// For clocks whose rates do not divide evenly.
const SLACK: Duration = Duration::from_millis(1);

/// P11. Who says that it leads has no check that hangs, or not for long enough: since it began, or since the process went on
/// after it was frozen, by its own clock.
pub(in crate::sim) fn hangs(who: &Life, hangs_for: Duration, checks: HealthChecks) -> Result<(), String> {
    let HealthChecks { interval, deadline, failures } = checks;
    match hangs_for > deadline + interval * (failures - 1) + SLACK {
        false => Ok(()),
        true => Err(format!(
            "P11, a leader whose health check hangs: {who} says that it leads, and hangs for {hangs_for:?} by {checks:?}"
        )),
    }
}

/// A lease that is to be given back.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Owed {
    pub(in crate::sim) lease: LeaseId,
    /// The commit by which its holder leaves, until its reply comes.
    pub(in crate::sim) leaving: Option<Token>,
}

/// P11. Who loses its session as it is unhealthy gives the lease back in the same step; or leaves in that step, and gives it
/// back in the step in which it hears how that went.
pub(in crate::sim) fn gave_back(who: &Life, owed: Option<Owed>) -> Result<(), String> {
    match owed {
        None | Some(Owed { leaving: Some(_), .. }) => Ok(()),
        Some(Owed { lease, .. }) => {
            Err(format!("P11, a lease that is kept: {who} is unhealthy, and keeps {lease}"))
        }
    }
}
