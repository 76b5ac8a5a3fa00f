use clustering_core::store::{Guard, Operation, Revision, Txn};

/// A commit, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Join,
    /// Take over, or rewrite.
    Replace,
    Ask,
    Elect,
    Publish,
    Acknowledge,
    Confirm,
    Resign,
    Leave,
    Other,
}

/// What a commit is for, by what it does.
pub(crate) fn kind(txn: &Txn) -> Kind {
    let puts = |part: &str| {
        let is =
            |operation: &Operation| matches!(operation, Operation::Put { key, .. } if key.contains(part));
        txn.operations().iter().any(is)
    };
    if puts("/view/nodes/") {
        match txn.guards() {
            [Guard::CreatedAt(_, Revision::ZERO)] => Kind::Join,
            _ => Kind::Replace,
        }
    } else if puts("/view/leader") {
        Kind::Elect
    } else if puts("/view/version") {
        Kind::Publish
    } else if puts("/view/request") {
        Kind::Ask
    } else if puts("/view/stable") {
        Kind::Confirm
    } else if puts("/view/gone") {
        Kind::Leave
    } else if puts("/ready/") {
        Kind::Acknowledge
    } else if txn.operations().iter().all(|operation| operation.key().ends_with("/view/leader")) {
        Kind::Resign
    } else {
        Kind::Other
    }
}

/// Picks commits of that kind.
pub(crate) fn of(wanted: Kind) -> impl FnMut(&Txn) -> bool + Send + 'static {
    move |txn| kind(txn) == wanted
}
