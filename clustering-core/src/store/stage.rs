use super::{ErrorKind, StoreError};

/// Progress of a call at the time of its failure. Together with the kind of call (change or read), it determines
/// which effect the call may have had.
///
/// | stage | a call that changes the store | a call that only reads |
/// |---|---|---|
/// | [`Before`](Self::Before) | `Unreachable` | `Unreachable` |
/// | [`InFlight`](Self::InFlight) | **`OutcomeUnknown`** | `Unreachable` |
/// | [`Answered`](Self::Answered) | `Busy` | `Busy` |
///
/// In a transaction of several statements, only the last one, which commits, is in flight in this sense, provided
/// that the store rolls the transaction back when its connection breaks: the statements before it are still
/// [`Before`](Self::Before).
///
/// ```
/// use clustering_core::store::{ErrorKind, Stage};
///
/// // The connection broke while the guards were checked.
/// let error = Stage::Before.failed(true, "commit: the connection was closed");
/// assert_eq!(error.kind(), ErrorKind::Unreachable);
/// // The connection broke after COMMIT was sent.
/// let error = Stage::InFlight.failed(true, "commit: the connection was closed");
/// assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Nothing was sent that could take effect: there was no connection, or it broke before the call was sent.
    Before,
    /// The request was sent, or may have been, and its answer is not known.
    InFlight,
    /// The store answered that it did nothing and that the call may succeed later: it is overloaded, a deadlock was
    /// broken, or the transaction was rolled back.
    ///
    /// Other negative answers, about a guard, a lease or a permission, have error kinds of their own. An answer that
    /// leaves open what happened counts as [`InFlight`](Self::InFlight).
    Answered,
}

impl Stage {
    /// Returns the kind of the error for a call that failed at this stage. `changes` is false for a call that only
    /// reads.
    pub fn kind(self, changes: bool) -> ErrorKind {
        match self {
            Stage::Before => ErrorKind::Unreachable,
            Stage::InFlight if changes => ErrorKind::OutcomeUnknown,
            Stage::InFlight => ErrorKind::Unreachable,
            Stage::Answered => ErrorKind::Busy,
        }
    }

    /// Creates the error for a call that failed at this stage.
    pub fn failed(self, changes: bool, message: impl Into<String>) -> StoreError {
        StoreError::new(self.kind(changes), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Effect;

    #[test]
    fn only_a_change_in_flight_may_have_taken_effect() {
        for stage in [Stage::Before, Stage::InFlight, Stage::Answered] {
            for changes in [true, false] {
                let error = stage.failed(changes, "the connection broke");
                let unknown = changes && stage == Stage::InFlight;
                assert_eq!(error.effect() == Effect::Unknown, unknown, "{stage:?}, {changes}");
                assert!(error.is_transient(), "{stage:?}, {changes}");
            }
        }
    }
}
