//! Nodes that are missing: nodes that crashed or were removed recently, and nodes for which the cluster waits.

use std::{cmp::Reverse, collections::BTreeMap};

use clustering_core::{Cause, Departure, Event, HistoryEntry, MonitorEvent, NodeName, Report};
use serde::Serialize;

use crate::{slots, times::Now};

/// Time after which a departure is no longer news, in milliseconds.
const NEWS: u64 = 3_600_000;

/// Maximum number of departures that are kept, and of nodes that are listed.
const LISTED: usize = 50;

/// Unplanned departures of nodes that have not come back.
#[derive(Debug, Default)]
pub(super) struct Departures(BTreeMap<NodeName, Departed>);

#[derive(Clone, Copy, Debug)]
struct Departed {
    how: &'static str,
    /// Wall clock time at which the departure was observed here, or the time in the label of the version that reports
    /// it.
    at_ms: u64,
}

/// A node that is missing.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Absent {
    /// Name of the node; `None` if its record is unreadable.
    name: Option<NodeName>,
    /// Reasons why the node is listed.
    why: Vec<String>,
    at_ms: Option<u64>,
    /// True if the cluster waits for the node or for the end of its session.
    is_awaited: bool,
}

impl Departures {
    /// Returns the departures in a history, which begins with the newest version.
    pub(super) fn of(history: &[HistoryEntry]) -> Self {
        let mut departures = Departures::default();
        for entry in history.iter().rev() {
            for cause in &entry.causes {
                departures.note_cause(cause, entry.version.minted_ms());
            }
        }
        departures
    }

    fn note_cause(&mut self, cause: &Cause, at_ms: u64) {
        match cause {
            Cause::Crashed(name) => self.depart(name, Departure::Crashed, at_ms),
            Cause::Ended(name) => self.depart(name, Departure::Ended, at_ms),
            Cause::Evicted(name) => self.depart(name, Departure::Evicted, at_ms),
            Cause::Left(name) => self.depart(name, Departure::Left, at_ms),
            Cause::NotBack(name) => self.insert(name, "did not come back in time", at_ms),
            Cause::Joined(name) | Cause::Returned(name) | Cause::Changed(name) => drop(self.0.remove(name)),
            _ => {}
        }
    }

    /// Notes an event that was seen now.
    pub(super) fn note(&mut self, event: &MonitorEvent, now: Now) {
        match event {
            MonitorEvent::Common(Event::NodeDown { name, how }) => self.depart(name, *how, now.wall_ms),
            MonitorEvent::Common(Event::NodeUp { name, .. } | Event::NodeChanged { name, .. }) => {
                self.0.remove(name);
            }
            _ => {}
        }
    }

    fn depart(&mut self, name: &NodeName, how: Departure, at_ms: u64) {
        match how {
            Departure::Crashed => self.insert(name, "crashed: its process is gone", at_ms),
            Departure::Evicted => self.insert(name, "was evicted", at_ms),
            // The node was stopped on purpose.
            Departure::Left => drop(self.0.remove(name)),
            _ => self.insert(name, "its session ended: it crashed, or was cut off", at_ms),
        }
    }

    fn insert(&mut self, name: &NodeName, how: &'static str, at_ms: u64) {
        self.0.insert(name.clone(), Departed { how, at_ms });
        if self.0.len() > LISTED {
            let oldest = self.0.iter().min_by_key(|(_, departed)| departed.at_ms);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.0.remove(&oldest);
            }
        }
    }

    /// Returns the missing nodes: those for which the cluster waits, then those that departed last.
    pub(super) fn absent(&self, report: Option<&Report>, now: Now) -> Vec<Absent> {
        let Some(report) = report else { return Vec::new() };
        let mut rows: BTreeMap<Option<NodeName>, Absent> = BTreeMap::new();
        for (name, departed) in &self.0 {
            let is_news = now.wall_ms.saturating_sub(departed.at_ms) < NEWS;
            if is_news && report.node(name).is_none() {
                let row = row(&mut rows, Some(name));
                row.why.push(departed.how.to_owned());
                row.at_ms = Some(departed.at_ms);
            }
        }
        for (name, reason) in report.slots.iter().flat_map(slots::awaited) {
            let row = row(&mut rows, name);
            row.why.push(reason);
            row.is_awaited = true;
        }
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by_key(|row| (!row.is_awaited, Reverse(row.at_ms)));
        rows.truncate(LISTED);
        rows
    }
}

/// Returns the row of the node, which is created if it is missing.
fn row<'a>(rows: &'a mut BTreeMap<Option<NodeName>, Absent>, name: Option<&NodeName>) -> &'a mut Absent {
    let new = || Absent { name: name.cloned(), why: Vec::new(), at_ms: None, is_awaited: false };
    rows.entry(name.cloned()).or_insert_with(new)
}

#[cfg(test)]
mod tests {
    use clustering_core::Version;

    use super::*;
    use crate::watch::tests::{releasing, report};

    fn name(text: &str) -> NodeName {
        text.to_owned().try_into().unwrap()
    }

    fn down(text: &str, how: Departure) -> MonitorEvent {
        Event::NodeDown { name: name(text), how }.into()
    }

    fn names(absent: &[Absent]) -> Vec<&str> {
        absent.iter().map(|row| row.name.as_ref().map_or("?", NodeName::as_str)).collect()
    }

    #[test]
    fn nodes_that_crashed_are_listed_until_they_are_back_or_an_hour_has_passed() {
        let mut departures = Departures::default();
        let noon = Now::read();
        departures.note(&down("gone", Departure::Crashed), noon);
        departures.note(&down("later", Departure::Ended), Now { wall_ms: noon.wall_ms + 1, ..noon });
        departures.note(&down("stopped", Departure::Left), noon);
        // The node is already back.
        departures.note(&down("node-001", Departure::Crashed), noon);
        let report = report(3, 0);
        let absent = departures.absent(report.as_ref(), noon);
        assert_eq!(names(&absent), ["later", "gone"]);
        assert!(absent[1].why == ["crashed: its process is gone"] && !absent[1].is_awaited, "{absent:?}");

        departures.note(
            &Event::NodeUp {
                name: name("later"),
                uri: clustering_core::NodeUri::parse("http://h:1").unwrap(),
            }
            .into(),
            noon,
        );
        assert_eq!(names(&departures.absent(report.as_ref(), noon)), ["gone"]);
        let late = Now { wall_ms: noon.wall_ms + NEWS, ..noon };
        assert!(departures.absent(report.as_ref(), late).is_empty());
    }

    #[test]
    fn sessions_for_which_a_hand_over_waits_come_first() {
        let mut departures = Departures::default();
        let now = Now::read();
        departures.note(&down("gone", Departure::Evicted), now);
        let absent = departures.absent(releasing().as_ref(), now);
        assert_eq!(names(&absent), ["node-9", "gone"]);
        assert!(absent[0].is_awaited && absent[0].why[0].contains("until its lease 9 expires"), "{absent:?}");
    }

    #[test]
    fn the_number_of_departures_is_limited() {
        let mut departures = Departures::default();
        let label = Version::from_u128(u128::from(Now::read().wall_ms) << 80);
        for number in 0..200 {
            departures
                .note_cause(&Cause::Crashed(name(&format!("gone-{number}"))), label.minted_ms() + number);
        }
        let absent = departures.absent(report(3, 0).as_ref(), Now::read());
        assert!(absent.len() == LISTED && names(&absent)[0] == "gone-199", "{:?}", names(&absent));
    }
}
