//! Removing nodes whose processes are gone.

use super::{facts::Facts, in_flight::InFlight, token::Token};
use crate::store::{Revision, StoreError};

/// Watches the processes of other nodes, and removes a node whose process is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Crashes {
    commit: InFlight,
}

impl Crashes {
    pub(crate) fn fails_to_remove(&self, facts: &Facts) -> bool {
        self.commit.is_failing(facts)
    }

    /// Handles the reply to a commit. Returns false if it is no longer awaited.
    #[must_use]
    pub(crate) fn on_committed(
        &mut self,
        facts: &Facts,
        token: Token,
        result: &Result<Revision, StoreError>,
    ) -> bool {
        self.commit.take(facts, token, result)
    }
}
