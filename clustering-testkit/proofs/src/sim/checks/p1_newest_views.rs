use clustering_core::View;

use clustering_testkit::history::{Ledger, Member};

/// P1. The newest view of every node, also one that does not stabilize for it, is the cut that the log has.
pub(crate) fn check(newest: &View, ledger: &Ledger) -> Result<(), String> {
    let (version, revision) = (newest.version(), newest.revision());
    let Some(published) = ledger.published_at(version, revision) else {
        return Err(format!("P1, a version that the log does not have: {version} @{revision}"));
    };
    let given = Member::all(newest);
    match published.cut == given {
        true => Ok(()),
        false => {
            Err(format!("P1, another view than the log's: {version} is {:?}, not {given:?}", published.cut))
        }
    }
}
