use std::fmt;

use serde::Serialize;

use crate::named::named;

named! {
    /// What happens only so often on one path, so that the states are finite.
    pub enum Limited {
        /// A process dies. It may be started again at any time, and what it sent may still arrive.
        Crash = "crashes",
        /// The store ends the lease of a process that runs, at any time: earlier than it may, for all that its holder knows.
        Expiry = "expiries",
        /// A caller hears nothing of a call. The call may have taken effect, may do so at any time later, or never.
        Loss = "losses",
        /// The reply to a commit comes later than the commit takes effect: at any time.
        Delay = "delays",
        /// A watch breaks, and may be resumed.
        Break = "breaks",
        /// A watch ends since what it owes was compacted away.
        Gap = "gaps",
        /// Time passes on the clock of one process, until its machine wants to be woken.
        Wake = "wakes",
        /// A process is paused until long after its session is over. It learns of it with whatever comes next.
        Pause = "pauses",
        /// A stabilize says no.
        Refusal = "refusals",
        /// A user asks for a new version.
        Ask = "asks",
        /// A user changes a node's metadata.
        Update = "updates",
        /// A user makes a leader give up the lead.
        Resign = "resigns",
        /// A user of a node that says that it leads writes as leader.
        Write = "writes",
    }
}

/// From where all paths begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// A cluster of all nodes whose version is stable, with nothing on its way.
    #[default]
    Stable,
    /// An empty store, and no process started yet.
    Empty,
}

/// How far a model is explored: from where, with how many nodes, with how much of what is [`Limited`].
///
/// Everything else is unlimited: calls arrive in any order, watches deliver and callbacks end at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// How many nodes, from 1 to 9.
    pub nodes: u8,
    /// From where.
    pub start: Start,
    most: [u8; Limited::ALL.len()],
}

impl Bounds {
    /// So many nodes in a stable cluster, and nothing goes wrong.
    ///
    /// # Panics
    ///
    /// If there is none, or more than nine.
    pub fn nodes(nodes: u8) -> Self {
        assert!((1..=9).contains(&nodes), "from 1 to 9 nodes");
        Bounds { nodes, start: Start::Stable, most: [0; Limited::ALL.len()] }
    }

    /// From that start.
    #[must_use]
    pub fn from(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// With so much of that.
    #[must_use]
    pub fn with(mut self, what: Limited, most: u8) -> Self {
        self.most[what as usize] = most;
        self
    }

    /// How much of that there may be.
    pub fn most(&self, what: Limited) -> u8 {
        self.most[what as usize]
    }

    /// Models that are explored in a minute, and together reach all that is worth reaching.
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
        ]
    }

    /// Models with wider bounds, of a million states and more each.
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
    fn they_say_what_they_allow() {
        let mut bounds = Bounds::nodes(3).with(Limited::Crash, 1).with(Limited::Wake, 2);
        assert_eq!(bounds.to_string(), "3 nodes, stable, 1 crashes, 2 wakes");
        bounds.spend(Limited::Wake);
        bounds.spend(Limited::Crash);
        assert_eq!((bounds.most(Limited::Crash), bounds.most(Limited::Wake)), (0, 1));
        let json = serde_json::to_value(bounds).unwrap();
        assert_eq!((&json["start"], &json["wakes"]), (&"stable".into(), &1.into()));
    }
}
