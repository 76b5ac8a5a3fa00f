use std::{collections::VecDeque, time::Duration};

use clustering_core::{
    Event, HistoryEntry, MonitorEvent, Namespace, Readiness, Report, Version, report::NodeReport,
};

use super::Update;
use crate::times::{Now, brief, moment};

/// Maximum numbers of versions and events that are kept.
const VERSIONS: usize = 64;
const EVENTS: usize = 1000;

/// The content of the screen.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) namespace: Namespace,
    /// The store's name in messages.
    pub(crate) store_name: &'static str,
    pub(crate) report: Option<Report>,
    /// Time at which the cluster was first seen unstable, after it was last seen stable.
    unstable: Option<Now>,
    /// Reason why the store does not answer. The report is the last known one then.
    pub(crate) away: Option<String>,
    /// Versions, newest first.
    pub(crate) versions: VecDeque<Period>,
    /// Events with their times, newest first.
    pub(crate) events: VecDeque<(u64, String)>,
    /// Number of nodes that are scrolled out of view.
    pub(crate) scroll: usize,
}

/// A version in the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    /// The number of the version; `None` if it is not known.
    pub(crate) number: Option<u64>,
    pub(crate) version: Version,
    /// Wall clock time of the publication: observed here, or taken from the label.
    pub(crate) published_ms: u64,
    /// Time at which the version was first seen here.
    pub(crate) seen: Now,
    /// True if the publication was observed here.
    pub(crate) whole: bool,
    pub(crate) nodes: Option<usize>,
    pub(crate) causes: String,
    pub(crate) course: Course,
}

/// The course of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// The newest version, not stable yet.
    Adapting,
    /// Became stable, after this time if it is known.
    Stable(Option<Duration>),
    /// A newer version was published before this one became stable.
    Superseded,
}

impl App {
    /// Creates the content from the history, newest version first.
    pub(crate) fn new(
        namespace: Namespace,
        store_name: &'static str,
        history: Vec<HistoryEntry>,
        now: Now,
    ) -> Self {
        let newest = history.first().map(|entry| entry.version);
        let period = |entry: HistoryEntry| Period {
            number: Some(entry.number),
            version: entry.version,
            published_ms: entry.version.minted_ms(),
            seen: now,
            whole: false,
            nodes: entry.stable.as_ref().map(|stable| stable.nodes),
            causes: causes(&entry.causes),
            course: match entry.stable {
                Some(stable) => Course::Stable(Some(stable.after)),
                None if Some(entry.version) == newest => Course::Adapting,
                None => Course::Superseded,
            },
        };
        let versions = history.into_iter().map(period).collect();
        App {
            namespace,
            store_name,
            report: None,
            unstable: None,
            away: None,
            versions,
            events: VecDeque::new(),
            scroll: 0,
        }
    }

    /// Applies new events and the new report.
    pub(crate) fn apply(&mut self, update: Update) {
        self.see(&update.events, update.at);
        self.show(update.report, update.at);
    }

    /// Applies new events. A report must follow.
    pub(crate) fn see(&mut self, events: &[MonitorEvent], now: Now) {
        for event in events {
            self.note(event, now);
            self.events.push_front((now.wall_ms, event.to_string()));
        }
        self.events.truncate(EVENTS);
    }

    /// Applies a report.
    pub(crate) fn show(&mut self, report: Option<Report>, now: Now) {
        self.report = report;
        self.unstable = self
            .report
            .as_ref()
            .filter(|report| !report.condition.is_stable())
            .map(|_| self.unstable.unwrap_or(now));
        self.note_missed(now);
        self.versions.truncate(VERSIONS);
        self.scroll = self.scroll.min(self.nodes().saturating_sub(1));
    }

    fn note(&mut self, event: &MonitorEvent, now: Now) {
        match event {
            MonitorEvent::Common(Event::VersionPublished { version, nodes, causes: why, .. }) => {
                self.supersede();
                // A version's number is one more than that of the version before, unless versions were missed.
                let last = self.versions.front().and_then(|period| period.number);
                self.versions.push_front(Period {
                    number: last.map(|number| number + 1),
                    version: *version,
                    published_ms: now.wall_ms,
                    seen: now,
                    whole: true,
                    nodes: Some(*nodes),
                    causes: causes(why),
                    course: Course::Adapting,
                });
            }
            MonitorEvent::Stable { version, took } => {
                if let Some(period) = self.versions.iter_mut().find(|period| period.version == *version) {
                    let took = took.or_else(|| period.whole.then(|| now.since(period.seen)));
                    // Keep the time that the leader measured if this process has not measured one.
                    if took.is_some() || !matches!(period.course, Course::Stable(_)) {
                        period.course = Course::Stable(took);
                    }
                }
            }
            MonitorEvent::Common(Event::StoreAway { reason }) => self.away = Some(reason.clone()),
            MonitorEvent::Common(Event::StoreBack { .. }) => self.away = None,
            _ => {}
        }
    }

    /// Adds the newest version of the report if its publication was missed, because changes were compacted away.
    fn note_missed(&mut self, now: Now) {
        let Some(report) = &self.report else { return };
        let Some(newest) = &report.version else { return };
        let Some(version) = newest.version else { return };
        if self.versions.front().is_some_and(|period| period.version == version) {
            return;
        }
        let course = match report.stable == Some(version) {
            true => Course::Stable(None),
            false => Course::Adapting,
        };
        let causes = causes(&newest.causes);
        self.supersede();
        self.versions.push_front(Period {
            number: None,
            version,
            published_ms: version.minted_ms(),
            seen: now,
            whole: false,
            nodes: None,
            causes,
            course,
        });
    }

    fn supersede(&mut self) {
        for period in &mut self.versions {
            if period.course == Course::Adapting {
                period.course = Course::Superseded;
            }
        }
    }

    /// Returns the time at which the cluster was first seen unstable, after it was last seen stable.
    pub(crate) fn unstable_since(&self) -> Option<Now> {
        self.unstable
    }

    /// Returns the time for which the cluster has been seen unstable.
    pub(crate) fn watched(&self, now: Now) -> Option<Duration> {
        self.unstable.map(|since| now.since(since))
    }

    pub(crate) fn nodes(&self) -> usize {
        self.report.as_ref().map_or(0, |report| report.nodes.len())
    }

    /// Returns the nodes, those first that are not ready.
    pub(crate) fn sorted_nodes(&self) -> Vec<&NodeReport> {
        let mut nodes: Vec<_> = self.report.iter().flat_map(|report| &report.nodes).collect();
        nodes.sort_by_key(|node| match node.readiness {
            Readiness::Refused(_) => 0,
            Readiness::Ready => 2,
            _ => 1,
        });
        nodes
    }

    pub(crate) fn scroll_by(&mut self, lines: isize) {
        let last = self.nodes().saturating_sub(1);
        self.scroll = self.scroll.saturating_add_signed(lines).min(last);
    }

    /// True if the screen shows a running timer, so that it must be redrawn even without events.
    pub(crate) fn has_timer(&self) -> bool {
        self.away.is_some() || self.report.as_ref().is_some_and(|report| !report.condition.is_stable())
    }
}

impl Period {
    /// Describes the time that the version took to become stable, or has taken so far.
    pub(crate) fn time(&self, now: Now) -> String {
        let so_far = brief(now.since(self.seen));
        match self.course {
            Course::Adapting if self.whole => format!("{so_far} so far"),
            Course::Adapting => format!("over {so_far}"),
            Course::Stable(Some(took)) => brief(took),
            Course::Stable(None) => "stable".to_owned(),
            Course::Superseded => "superseded".to_owned(),
        }
    }
}

/// Formats the time of day; blank if it cannot be formatted.
pub(crate) fn clock(ms: u64) -> String {
    format!("{:8}", moment(ms).get(11..19).unwrap_or_default())
}

fn causes(causes: &[clustering_core::Cause]) -> String {
    causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
