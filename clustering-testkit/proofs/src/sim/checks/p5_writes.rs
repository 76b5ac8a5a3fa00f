use clustering_core::{
    machine::Purpose,
    store::{Entry, LeaseId},
};

/// P5. Writes reserved for the leader are accepted only from the process that holds the election key at that moment.
///
/// `leader` is the election key's entry just before the commit.
pub(crate) fn check(
    purpose: Purpose,
    leader: Option<&Entry>,
    is_own: impl Fn(LeaseId) -> bool,
) -> Result<(), String> {
    match purpose {
        Purpose::Publish
        | Purpose::Permit
        | Purpose::Reclaim
        | Purpose::Confirm
        | Purpose::Evict
        | Purpose::Resign
        | Purpose::LeaderCommit => match leader.and_then(|entry| entry.lease).is_some_and(is_own) {
            true => Ok(()),
            false => Err(format!(
                "P5, write without leadership: a commit ({purpose}) of a node that does not lead was accepted"
            )),
        },
        Purpose::Elect if leader.is_some() => {
            Err("P5, two leaders: a node was elected while another one led".to_owned())
        }
        _ => Ok(()),
    }
}
