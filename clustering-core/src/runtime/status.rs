use std::{ops::Deref, time::Duration};

use super::clock::Clock;
use crate::{
    machine,
    time::Timestamp,
    version::{Term, Version},
};

/// All that a node knows of itself and the cluster, as one value.
///
/// It holds deadlines, not flags that were true once: asking a value that is an hour old whether the node leads gives
/// the answer that is right now (P6), as far as the node can know without the network. Whoever waits for changes is woken
/// when such a deadline passes, too.
///
/// Beside the methods here it has the fields of [`machine::Status`], to which it derefs: `phase`, `session`, `leader`,
/// `newest` and `acknowledged` (views, with their nodes), `stable`, `blocked` and more.
#[derive(Clone, Debug)]
pub struct Status {
    known: machine::Status,
    /// Whether the node could act as leader when this was made. Only to notice when that ends: nobody is told by it.
    acted: bool,
    clock: Clock,
}

impl Status {
    pub(crate) fn new(known: machine::Status, clock: Clock) -> Self {
        let mut status = Status { known, acted: false, clock };
        status.acted = status.is_leader();
        status
    }

    /// Whether somebody who waits for changes has to be told of `next`. That the lead ended by its deadline is a change
    /// too, although no field differs.
    pub(crate) fn differs(&self, next: &Status) -> bool {
        self.known != next.known || self.acted != next.acted
    }

    /// Whether this node may act as leader now. False once its deadline has passed, also after it was stopped
    /// (SIGSTOP) or the machine was suspended, and before any network call tells (P6).
    pub fn is_leader(&self) -> bool {
        self.term().is_some()
    }

    /// The term under which this node may act as leader now: the token with which to fence what it writes (P5).
    pub fn term(&self) -> Option<Term> {
        self.leadership
            .filter(|leadership| self.clock.now() < leadership.until)
            .map(|leadership| leadership.term)
    }

    /// For how long this node may go on acting as leader, if no renewal succeeds. Zero if it does not lead.
    pub fn leadership_left(&self) -> Duration {
        self.leadership.map_or(Duration::ZERO, |leadership| self.left(leadership.until))
    }

    /// Whether this node's session lasts: it stands in the log, and its place is its own.
    pub fn is_member(&self) -> bool {
        !self.session_left().is_zero()
    }

    /// For how long this node's session goes on, if no renewal succeeds. Zero if it has none.
    pub fn session_left(&self) -> Duration {
        self.session.as_ref().map_or(Duration::ZERO, |session| self.left(session.until))
    }

    /// Whether this node may work on `key` now: its session lasts, and the version that it acknowledged gives it the
    /// key.
    ///
    /// While a newer version is being adapted to, the new owner may be ready before the old one is: work that must not
    /// be done twice at a time waits until the version is [stable](crate::Clustering::wait_stable).
    pub fn owns(&self, key: impl AsRef<[u8]>) -> bool {
        self.is_member() && self.acknowledged.as_ref().is_some_and(|view| view.owns(key))
    }

    /// The version that this node acknowledged.
    pub fn cluster_version(&self) -> Option<Version> {
        self.acknowledged.as_ref().map(|view| view.version())
    }

    /// Whether the newest version is recorded as stable, and this node, if it has a place, is part of it.
    pub fn is_stable(&self) -> bool {
        let newest = self.newest.as_ref().map(|view| view.version());
        let takes_part = matches!(self.phase, machine::Phase::Member | machine::Phase::Joining);
        self.consistent && (!takes_part || self.cluster_version() == newest)
    }

    /// The newest version, if it [is stable](Self::is_stable).
    pub fn stable_version(&self) -> Option<Version> {
        self.newest.as_ref().filter(|_| self.is_stable()).map(|view| view.version())
    }

    /// For how long the store has not answered; `None` if it does.
    pub fn stale_for(&self) -> Option<Duration> {
        self.stale_since.map(|since| self.clock.now().since(since))
    }

    fn left(&self, until: Timestamp) -> Duration {
        until.since(self.clock.now())
    }
}

impl Deref for Status {
    type Target = machine::Status;
    fn deref(&self) -> &machine::Status {
        &self.known
    }
}
