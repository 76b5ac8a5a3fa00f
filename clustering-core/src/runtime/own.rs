//! Properties of a node that never change.

use std::time::Duration;

use crate::{machine::Machine, name::NodeName, slots::SlotCount};

/// The constant properties of a node that holds depend on: its name, and part of its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(super) name: NodeName,
    /// `None` if the node is not exclusive.
    pub(super) slots: Option<SlotCount>,
    release_timeout: Option<Duration>,
}

impl Own {
    /// Returns the properties of a machine's node; `None` for an observer.
    pub(crate) fn of(machine: &Machine) -> Option<Self> {
        let config = machine.config();
        let (slots, release_timeout) = (config.exclusive, config.release_timeout);
        machine.identity().map(|own| Own { name: own.name.clone(), slots, release_timeout })
    }

    /// Returns the time within which work must return after its slot was lost. This time ends before the node gives up
    /// its session because of that slot.
    pub(super) fn grace(&self) -> Option<Duration> {
        self.release_timeout.map(|timeout| timeout / 10 * 9)
    }
}
