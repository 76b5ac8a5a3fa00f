//! Replies of the store that are taken for others.

use clustering_core::{machine::Input, store::ErrorKind};
use clustering_proofs::sim::{Seat, Tamper};

/// Takes a commit whose reply was lost for done.
pub(crate) struct AssumesDone;

impl Tamper for AssumesDone {
    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        match input {
            Input::Committed { token, result: Err(error) } if error.kind() == ErrorKind::OutcomeUnknown => {
                vec![Input::Committed { token, result: Ok(seat.store.revision()) }]
            }
            other => vec![other],
        }
    }
}

/// Watches the acknowledgements from too late on, and reads none before.
pub(crate) struct NeverReadsAcknowledgements;

impl Tamper for NeverReadsAcknowledgements {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        match input {
            Input::Read { token, result: Ok(mut snapshot) } => {
                snapshot.entries.retain(|entry| !entry.key.starts_with("c/ready/"));
                vec![Input::Read { token, result: Ok(snapshot) }]
            }
            other => vec![other],
        }
    }
}
