use clustering_core::{
    machine::Purpose,
    store::{Entry, LeaseId},
};

/// P5. What only a leader writes is accepted only from the process that holds the election key at that moment.
///
/// `leader` is the election key as it stood just before.
pub(crate) fn check(
    purpose: Purpose,
    leader: Option<&Entry>,
    is_own: impl Fn(LeaseId) -> bool,
) -> Result<(), String> {
    match purpose {
        Purpose::Publish | Purpose::Confirm | Purpose::Evict | Purpose::Resign | Purpose::LeaderCommit => {
            match leader.and_then(|entry| entry.lease).is_some_and(is_own) {
                true => Ok(()),
                false => Err(format!("P5, a write of one that does not lead: a {purpose} was accepted")),
            }
        }
        Purpose::Elect if leader.is_some() => {
            Err("P5, two leaders: one was elected while another stood".to_owned())
        }
        _ => Ok(()),
    }
}
