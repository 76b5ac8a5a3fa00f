//! What a stabilize says.

use std::fmt::Display;

/// The answer of a callback: of stabilize, and of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The node adapted to the view: it is acknowledged.
    Ready,
    /// It did not, yet. It is tried again, and those who look for what blocks the cluster see the reason.
    Refused {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// A no, with its reason.
    pub fn refused(reason: impl Display) -> Self {
        Outcome::Refused { reason: reason.to_string() }
    }

    /// As a result: the error is the reason.
    pub(crate) fn into_result(self) -> Result<(), String> {
        match self {
            Outcome::Ready => Ok(()),
            Outcome::Refused { reason } => Err(reason),
        }
    }
}

/// What a callback may return: `()` for yes, a `bool`, an [`Outcome`], or a `Result` of any of these, whose
/// error is a no with the error's text as the reason.
pub trait IntoOutcome {
    /// It as an outcome.
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
    fn yes_and_no_in_every_form() {
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
