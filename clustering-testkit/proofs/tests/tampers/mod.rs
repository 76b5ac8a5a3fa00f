//! Faults in the protocol, injected by a [`Tamper`] in the simulation and in the model.

mod callbacks;
pub(crate) mod commits;
mod guards;
mod replies;

use clustering_core::{machine::Leadership, time::Timestamp};
use clustering_proofs::sim::{Seat, Tamper};

pub(crate) use self::{callbacks::*, guards::*, replies::*};

/// Changes nothing.
pub(crate) struct Honest;

impl Tamper for Honest {}

/// Once it leads, claims to lead until the log says otherwise: a flag instead of a deadline.
pub(crate) struct Flag;

impl Tamper for Flag {
    fn leadership(&mut self, _: &Seat<'_>, told: Option<Leadership>) -> Option<Leadership> {
        told.map(|mut leadership| {
            leadership.until = Timestamp::NEVER;
            leadership
        })
    }
}
