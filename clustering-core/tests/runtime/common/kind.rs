use clustering_core::store::{Guard, Operation, Revision, Txn};

/// The purpose of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Join,
    /// A takeover or a rewrite.
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

/// Determines the purpose of a commit from its operations.
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

/// Returns a predicate for commits of the given kind.
pub(crate) fn of(wanted: Kind) -> impl FnMut(&Txn) -> bool + Send + 'static {
    move |txn| kind(txn) == wanted
}
