//! The result of a callback: [`Outcome`], and the conversions into it.

use std::fmt::Display;

/// The result of a `stabilize` callback or of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The callback succeeded: the node has adapted to the view, or the process is healthy. After `stabilize`, the node
    /// acknowledges the version.
    Ready,
    /// The callback did not succeed yet. It is called again later. The reason is shown to operators who look for what
    /// blocks the cluster.
    Refused {
        /// Human-readable reason.
        reason: String,
    },
}

impl Outcome {
    /// Creates a [`Refused`](Outcome::Refused) outcome with the given reason.
    pub fn refused(reason: impl Display) -> Self {
        Outcome::Refused { reason: reason.to_string() }
    }

    /// Converts the outcome into a result whose error is the reason of the refusal.
    pub(crate) fn into_result(self) -> Result<(), String> {
        match self {
            Outcome::Ready => Ok(()),
            Outcome::Refused { reason } => Err(reason),
        }
    }
}

/// A type that a callback may return: `()`, a `bool`, an [`Outcome`], or a `Result` of any of these.
///
/// `()` and `true` mean [`Ready`](Outcome::Ready). `false` and an error mean [`Refused`](Outcome::Refused); the reason
/// is the text of the error.
pub trait IntoOutcome {
    /// Converts the value into an outcome.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Ready
    }
}

impl IntoOutcome for bool {
    fn into_outcome(self) -> Outcome {
        match self {
            true => Outcome::Ready,
            false => Outcome::refused("it returned false"),
        }
    }
}

impl<T: IntoOutcome, E: Display> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(Outcome::refused, T::into_outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_return_type_converts_to_the_right_outcome() {
        let ready = Outcome::Ready;
        assert_eq!(().into_outcome(), ready);
        assert_eq!(true.into_outcome(), ready);
        assert_eq!(Ok::<_, String>(()).into_outcome(), ready);
        assert_eq!(Ok::<_, String>(true).into_outcome(), ready);
        assert_eq!(Ok::<_, String>(Outcome::Ready).into_outcome(), ready);
        assert_eq!(false.into_outcome(), Outcome::refused("it returned false"));
        assert_eq!(Err::<(), _>("disk full").into_outcome(), Outcome::refused("disk full"));
        assert_eq!(Ok::<_, String>(false).into_outcome(), Outcome::refused("it returned false"));
    }
}
