use clustering_core::{Term, machine::Status};

use clustering_testkit::history::Life;

/// P10. Every change of the leader is reported: the last event agrees with the node's status. P6. No node claims to
/// lead under a term that has ended according to its own log.
pub(in crate::sim) fn check(who: &Life, status: &Status, told: Option<Term>) -> Result<(), String> {
    let leader = status.leader.as_ref().map(|leader| leader.term);
    if leader != told {
        return Err(format!(
            "P10, unreported leader change: {who} knows that {leader:?} leads, but last reported {told:?}"
        ));
    }
    let claimed = status.leadership.map(|leadership| leadership.term);
    match claimed.is_none() || claimed == leader {
        true => Ok(()),
        false => Err(format!(
            "P6, leader against its own log: {who} claims to lead under {claimed:?}, but its log has {leader:?}"
        )),
    }
}
