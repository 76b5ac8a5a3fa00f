use std::{
    error::Error,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{LeaseId, Revision};

/// An error returned by a call to the store.
///
/// Match on [`kind`](Self::kind), and use [`effect`](Self::effect) to find out whether the call may have changed the
/// store. The text is meant for people; it never contains a password, a token or the value of a key.
#[derive(Clone)]
pub struct StoreError {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kinds of [`StoreError`]. Each kind determines whether the call took effect and whether a retry makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A guard did not hold. Nothing was written. Before retrying, catch up with all changes up to `revision`.
    GuardFailed {
        /// The revision at which the guards were evaluated.
        revision: Revision,
    },
    /// The lease is unknown or has ended. Nothing was written.
    LeaseNotFound,
    /// The call violates a rule of the API, such as a size limit. It had no effect, and the same call never succeeds.
    Invalid,
    /// The store refuses this caller: wrong credentials, or no permission for these keys. The call had no effect.
    /// Retries fail until an operator changes the credentials or the permissions.
    Refused,
    /// The store is there but cannot serve the call now: it is overloaded, out of space or without a quorum, or did not
    /// reply in time to a call that changes nothing. The call had no effect; retry later.
    ///
    /// A store must be certain of that. If it may have applied the call although it reports a failure, the kind is
    /// [`OutcomeUnknown`](Self::OutcomeUnknown), whatever the reason for the failure: etcd, for example, applies some
    /// of the writes that it fails because it is out of space.
    Busy,
    /// The store cannot be reached: the call never arrived, or the connection broke before the reply to a read. The
    /// call had no effect; retry.
    Unreachable,
    /// The reply was lost, or does not tell whether the store applied the call: the call may have taken effect, or may
    /// still do so. Read the affected keys to find out, or repeat the call under guards.
    OutcomeUnknown,
}

/// The effect that a failed call may have had on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The call changed nothing and never will.
    None,
    /// The call may have taken effect, or may still do so.
    Unknown,
}

impl StoreError {
    /// Creates an error of the given kind. `message` should state what was expected, what was found and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        StoreError { kind, message: message.into(), source: None }
    }

    /// Creates a [`GuardFailed`](ErrorKind::GuardFailed) error: a guard did not hold at `revision`.
    pub fn guard_failed(revision: Revision) -> Self {
        Self::new(
            ErrorKind::GuardFailed { revision },
            format!("a guard of the commit did not hold at revision {revision}"),
        )
    }

    /// Creates a [`LeaseNotFound`](ErrorKind::LeaseNotFound) error: the lease is unknown or has ended.
    pub fn lease_not_found(lease: LeaseId) -> Self {
        Self::new(ErrorKind::LeaseNotFound, format!("lease {lease} is unknown or has ended"))
    }

    /// Creates an [`Invalid`](ErrorKind::Invalid) error: the call violates a rule of the API.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Creates a [`Refused`](ErrorKind::Refused) error: the store refuses this caller.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// Creates a [`Busy`](ErrorKind::Busy) error: the store cannot serve the call now.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Busy, message)
    }

    /// Creates an [`Unreachable`](ErrorKind::Unreachable) error: the call never arrived at the store.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unreachable, message)
    }

    /// Creates an [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) error: the call may have taken effect.
    pub fn outcome_unknown(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::OutcomeUnknown, message)
    }

    /// Attaches the underlying error as the source.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Returns the kind of the error, to match on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns whether the call may have changed the store.
    pub fn effect(&self) -> Effect {
        match self.kind {
            ErrorKind::OutcomeUnknown => Effect::Unknown,
            _ => Effect::None,
        }
    }

    /// True if the same call may succeed later without intervention: the store was busy, could not be reached or did
    /// not reply. After [`Effect::Unknown`], retry only a call that is safe to repeat.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Busy | ErrorKind::Unreachable | ErrorKind::OutcomeUnknown)
    }
}

/// Two errors are equal if their kinds and messages are equal; their sources are ignored.
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
