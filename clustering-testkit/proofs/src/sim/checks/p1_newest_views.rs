use clustering_core::View;

use clustering_testkit::history::{Ledger, Member};

/// P1. The newest view of every node equals the cut in the log, even if the node does not stabilize for it.
pub(crate) fn check(newest: &View, ledger: &Ledger) -> Result<(), String> {
    let (version, revision) = (newest.version(), newest.revision());
    let Some(published) = ledger.published_at(version, revision) else {
        return Err(format!("P1, version not in the log: {version} @{revision}"));
    };
    let given = Member::all(newest);
    match published.cut == given {
        true => Ok(()),
        false => {
            Err(format!("P1, view differs from the log: {version} is {:?}, not {given:?}", published.cut))
        }
    }
}
