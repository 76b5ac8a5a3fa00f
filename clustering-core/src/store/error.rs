use std::{
    error::Error,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{LeaseId, Revision};

/// What went wrong with a call to the store, and so what may have happened.
///
/// Match on [`kind`](Self::kind); ask [`effect`](Self::effect) whether the call may have changed something. The text
/// is for people, and never holds a password, a token or a value.
#[derive(Clone)]
pub struct StoreError {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kinds of [`StoreError`]. Each says whether the call took effect and whether trying again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A guard did not hold. Nothing was written. Fold the log up to `revision` before trying again.
    GuardFailed {
        /// The revision at which the guards were judged.
        revision: Revision,
    },
    /// The lease is unknown or has ended. Nothing was written.
    LeaseNotFound,
    /// The call breaks a rule of the API, such as a size limit. Nothing happened, and the same call never will.
    Invalid,
    /// The store refuses this caller: wrong credentials, or no right to these keys. Nothing happened; it stays so
    /// until somebody changes the credentials or the rights.
    Refused,
    /// The store is there but does not do this now: it is overloaded, out of space or without a quorum, or did not reply
    /// in time to a call that changes nothing. Nothing happened; try again later.
    Busy,
    /// The store cannot be reached: the call never arrived. Nothing happened; try again.
    Unreachable,
    /// The reply is lost: the call may have taken effect, or may still. Look, or repeat it under guards.
    OutcomeUnknown,
}

/// Whether a failed call may have changed the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It changed nothing and will not.
    None,
    /// It may have taken effect, or may still.
    Unknown,
}

impl StoreError {
    /// One of that kind. `message` says what was expected, what was found and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        StoreError { kind, message: message.into(), source: None }
    }

    /// A guard did not hold at `revision`.
    pub fn guard_failed(revision: Revision) -> Self {
        Self::new(
            ErrorKind::GuardFailed { revision },
            format!("a guard of the commit did not hold at revision {revision}"),
        )
    }

    /// The lease is unknown or has ended.
    pub fn lease_not_found(lease: LeaseId) -> Self {
        Self::new(ErrorKind::LeaseNotFound, format!("lease {lease} is unknown or has ended"))
    }

    /// The call breaks a rule of the API.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The store refuses this caller.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// The store does not do this now.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Busy, message)
    }

    /// The store cannot be reached, and the call never arrived.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unreachable, message)
    }

    /// The call may have taken effect.
    pub fn outcome_unknown(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::OutcomeUnknown, message)
    }

    /// With the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Its kind, to match on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the call may have changed the store.
    pub fn effect(&self) -> Effect {
        match self.kind {
            ErrorKind::OutcomeUnknown => Effect::Unknown,
            _ => Effect::None,
        }
    }

    /// Whether the same call, made later, may succeed without anybody changing anything: the store was busy, away or
    /// silent. (After [`Effect::Unknown`] the call must be safe to repeat.)
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Busy | ErrorKind::Unreachable | ErrorKind::OutcomeUnknown)
    }
}

/// Two errors are the same if they say the same, whatever caused them.
impl PartialEq for StoreError {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.message) == (other.kind, &other.message)
    }
}

impl Eq for StoreError {}

impl Hash for StoreError {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.kind, &self.message).hash(state);
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ErrorKind::GuardFailed { .. } => "guard failed",
            ErrorKind::LeaseNotFound => "lease not found",
            ErrorKind::Invalid => "invalid call",
            ErrorKind::Refused => "the store refused",
            ErrorKind::Busy => "the store is busy",
            ErrorKind::Unreachable => "the store cannot be reached",
            ErrorKind::OutcomeUnknown => "the outcome is unknown",
        };
        write!(f, "{kind}: {}", self.message)
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreError")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
