use std::fmt;

use serde::Serialize;

use crate::named::named;

named! {
    /// Actions that happen only a limited number of times on one path, so that the number of states is finite.
    pub enum Limited {
        /// A process dies. It may be restarted at any time, and calls that it sent may still take effect.
        Crash = "crashes",
        /// The store ends the lease of a running process at any time, possibly earlier than the holder has reason to
        /// expect.
        Expiry = "expiries",
        /// A caller gets no reply to a call. The call may have taken effect, may do so at any later time, or never.
        Loss = "losses",
        /// The reply to a commit arrives at any time after the commit has taken effect.
        Delay = "delays",
        /// A watch breaks, and may be resumed.
        Break = "breaks",
        /// A watch ends because changes that it has not delivered were compacted.
        Gap = "gaps",
        /// Time passes on the clock of one process, until the next wakeup of its machine.
        Wake = "wakes",
        /// A process is paused until long after its session has ended. It notices with its next input.
        Pause = "pauses",
        /// A stabilize refuses.
        Refusal = "refusals",
        /// A user requests a new version.
        Ask = "asks",
        /// A user changes a node's metadata.
        Update = "updates",
        /// A user makes a leader resign.
        Resign = "resigns",
        /// The user of a node that claims to lead writes as leader.
        Write = "writes",
        /// A user takes a hold of each slot that its node holds, and may drop the holds at any time.
        Hold = "holds",
        /// A user commits as owner of a slot that it has a hold of.
        OwnerWrite = "owner-writes",
        /// A user stops its node in order.
        Stop = "stops",
        /// An operator evicts a node.
        Evict = "evictions",
        /// A node is told that a process that it watches is gone, although it may be alive.
        Report = "reports",
    }
}

/// Initial state of all paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// A cluster of all nodes with a stable version and nothing in flight.
    #[default]
    Stable,
    /// An empty store, with no process started yet.
    Empty,
}

/// Limits of a model's exploration: the initial state, the number of nodes, and how often each [`Limited`] action may
/// happen.
///
/// All other actions are unlimited: calls arrive in any order, and watches deliver and callbacks end at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Number of nodes, from 1 to 9.
    pub nodes: u8,
    /// Initial state.
    pub start: Start,
    /// Number of slots, or 0 if the nodes are not exclusive.
    pub slots: u8,
    /// True if the nodes trust reports that a process is gone. Then all reports are true.
    pub trusts: bool,
    most: [u8; Limited::ALL.len()],
}

impl Bounds {
    /// Creates bounds for this many nodes in a stable cluster, without any limited action.
    ///
    /// # Panics
    ///
    /// Panics if `nodes` is 0 or more than 9.
    pub fn nodes(nodes: u8) -> Self {
        assert!((1..=9).contains(&nodes), "the number of nodes must be from 1 to 9");
        Bounds { nodes, start: Start::Stable, slots: 0, trusts: false, most: [0; Limited::ALL.len()] }
    }

    /// Sets the initial state.
    #[must_use]
    pub fn from(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Makes the nodes exclusive, with this many slots.
    #[must_use]
    pub fn exclusive(mut self, slots: u8) -> Self {
        self.slots = slots;
        self
    }

    /// Makes the nodes trust reports that a process is gone, which are then all true.
    #[must_use]
    pub fn trusting(mut self) -> Self {
        self.trusts = true;
        self
    }

    /// Allows the limited action at most `most` times on one path.
    #[must_use]
    pub fn with(mut self, what: Limited, most: u8) -> Self {
        self.most[what as usize] = most;
        self
    }

    /// Returns how often the limited action may still happen on one path.
    pub fn most(&self, what: Limited) -> u8 {
        self.most[what as usize]
    }

    /// Returns the bounds of models that take a minute to explore, and together reach everything in
    /// [`Reached`](super::Reached).
    pub fn suite() -> Vec<Bounds> {
        use Limited::*;
        let nodes = Bounds::nodes;
        vec![
            nodes(2).from(Start::Empty),
            nodes(3).with(Crash, 1),
            nodes(3).with(Pause, 1).with(Wake, 1),
            nodes(3).with(Expiry, 1).with(Loss, 1),
            nodes(3).with(Expiry, 1).with(Delay, 1),
            nodes(3).with(Ask, 1).with(Update, 1),
            nodes(3).with(Ask, 1).with(Gap, 1),
            nodes(3).with(Ask, 1).with(Refusal, 1).with(Wake, 1),
            nodes(3).with(Resign, 1).with(Write, 1).with(Delay, 1),
            nodes(2).with(Break, 1).with(Wake, 3),
            nodes(2).with(Expiry, 1).with(Write, 1).with(Loss, 1),
            nodes(2).with(Expiry, 1).with(Wake, 1),
            nodes(2).exclusive(2).from(Start::Empty),
            nodes(2).exclusive(2).with(Ask, 1).with(Hold, 1),
            nodes(2).exclusive(1).with(Hold, 1).with(Stop, 1),
            nodes(2).exclusive(1).with(Hold, 1).with(Crash, 1),
            nodes(2).exclusive(1).with(Hold, 1).with(Evict, 1),
            nodes(2).exclusive(1).with(Hold, 1).with(Expiry, 1),
            nodes(2).exclusive(1).with(Hold, 1).with(OwnerWrite, 1).with(Evict, 1),
            nodes(3).with(Report, 1),
            nodes(2).with(Crash, 1).with(Report, 1),
            nodes(2).exclusive(1).with(Hold, 1).with(Report, 1),
            nodes(2).exclusive(1).trusting().with(Hold, 1).with(Crash, 1).with(Report, 1),
        ]
    }

    /// Returns wider bounds, for models of a million states and more each.
    pub fn deep_suite() -> Vec<Bounds> {
        use Limited::*;
        let nodes = Bounds::nodes;
        vec![
            nodes(3).with(Expiry, 1).with(Wake, 1),
            nodes(3).with(Expiry, 2),
            nodes(3).with(Crash, 1).with(Gap, 1),
            nodes(3).with(Expiry, 1).with(Ask, 1),
        ]
    }

    pub(super) fn spend(&mut self, what: Limited) {
        self.most[what as usize] = self.most[what as usize].saturating_sub(1);
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = match self.start {
            Start::Stable => "stable",
            Start::Empty => "not started",
        };
        write!(f, "{} nodes, {start}", self.nodes)?;
        if self.slots > 0 {
            write!(f, ", {} slots", self.slots)?;
        }
        if self.trusts {
            write!(f, ", trusting")?;
        }
        let some = Limited::ALL.into_iter().filter(|what| self.most(*what) > 0);
        some.into_iter().try_for_each(|what| write!(f, ", {} {}", self.most(what), what.name()))
    }
}

impl Serialize for Bounds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("nodes", &self.nodes)?;
        map.serialize_entry("start", &self.start)?;
        map.serialize_entry("slots", &self.slots)?;
        map.serialize_entry("trusting", &self.trusts)?;
        for what in Limited::ALL {
            map.serialize_entry(what.name(), &self.most(what))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_displayed_and_spent() {
        let mut bounds = Bounds::nodes(3).with(Limited::Crash, 1).with(Limited::Wake, 2);
        assert_eq!(bounds.to_string(), "3 nodes, stable, 1 crashes, 2 wakes");
        bounds.spend(Limited::Wake);
        bounds.spend(Limited::Crash);
        assert_eq!((bounds.most(Limited::Crash), bounds.most(Limited::Wake)), (0, 1));
        let json = serde_json::to_value(bounds).unwrap();
        assert_eq!((&json["start"], &json["wakes"]), (&"stable".into(), &1.into()));
    }
}
