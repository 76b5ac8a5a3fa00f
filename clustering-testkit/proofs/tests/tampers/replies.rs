//! Faults in the handling of the store's replies.

use clustering_core::{machine::Input, store::ErrorKind};
use clustering_proofs::sim::{Seat, Tamper};

/// Treats a commit whose reply was lost as successful.
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

/// Ignores acknowledgements in snapshots, and so knows only those that its watch delivers.
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
