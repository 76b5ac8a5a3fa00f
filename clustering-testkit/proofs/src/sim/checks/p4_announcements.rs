use clustering_core::{Version, View, machine::Status, time::Timestamp};

use clustering_testkit::history::{Ledger, Life};

/// P4. An acknowledged view belongs to the current session.
pub(in crate::sim) fn acknowledged(who: &Life, status: &Status) -> Result<(), String> {
    match status.acknowledged.as_ref().filter(|_| status.session.is_none()) {
        None => Ok(()),
        Some(view) => Err(format!(
            "P4, acknowledged view without a session: {who} has no session, but its status shows {}",
            view.version()
        )),
    }
}

/// P4. A leader that recorded the newest version as stable and may still act calls `on_stable` for it at once, unless
/// another call is running. `last` is the version of the last call.
pub(in crate::sim) fn forgotten(
    who: &Life,
    (status, now): (&Status, Timestamp),
    last: Option<Version>,
    ledger: &Ledger,
) -> Result<(), String> {
    let Some(leadership) = status.leadership.filter(|leadership| now < leadership.until) else {
        return Ok(());
    };
    let Some(version) = status.newest.as_ref().map(View::version).filter(|_| status.consistent) else {
        return Ok(());
    };
    let recorded = ledger.present().confirmed().iter().rev().take(4);
    let own = recorded.into_iter().any(|it| it.version == version && it.term == Some(leadership.term));
    match own && last != Some(version) {
        false => Ok(()),
        true => Err(format!(
            "P4, missing on_stable: {who} recorded {version} under term {}, but last called on_stable for {last:?}",
            leadership.term
        )),
    }
}
