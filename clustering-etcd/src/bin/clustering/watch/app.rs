use std::collections::VecDeque;

use clustering_etcd::{HistoryEntry, Namespace, Readiness, Report, Sighting, Version, report::NodeReport};

use super::News;
use crate::times::{brief, moment};

/// How much of the past is kept.
const VERSIONS: usize = 64;
const EVENTS: usize = 1000;

/// What the screen shows.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) namespace: Namespace,
    pub(crate) report: Option<Report>,
    /// Etcd does not answer: what is shown is the last that was known.
    pub(crate) away: Option<String>,
    /// The newest first.
    pub(crate) versions: VecDeque<Period>,
    /// The newest first: when, and what.
    pub(crate) events: VecDeque<(u64, String)>,
    /// How many nodes are scrolled away.
    pub(crate) scroll: usize,
}

/// A version in the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) version: Version,
    pub(crate) published_ms: u64,
    pub(crate) nodes: Option<usize>,
    pub(crate) causes: String,
    pub(crate) course: Course,
}

/// What became of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// It is the newest, and not stable yet.
    Adapting,
    /// It became stable, after so many milliseconds if that is known.
    Stable(Option<u64>),
    /// Another was published before.
    Superseded,
}

impl App {
    /// With the versions of the past, the newest first.
    pub(crate) fn new(namespace: Namespace, history: Vec<HistoryEntry>) -> Self {
        let newest = history.first().map(|entry| entry.version);
        let period = |entry: HistoryEntry| Period {
            version: entry.version,
            published_ms: entry.version.minted_ms(),
            nodes: entry.stable.as_ref().map(|stable| stable.nodes),
            causes: causes(&entry.causes),
            course: match entry.stable {
                Some(stable) => Course::Stable(Some(stable.after.as_millis() as u64)),
                None if Some(entry.version) == newest => Course::Adapting,
                None => Course::Superseded,
            },
        };
        let versions = history.into_iter().map(period).collect();
        App { namespace, report: None, away: None, versions, events: VecDeque::new(), scroll: 0 }
    }

    /// Takes in what happened.
    pub(crate) fn take(&mut self, news: News, now_ms: u64) {
        self.report = news.report;
        for sighting in news.sightings {
            self.see(&sighting, now_ms);
            self.events.push_front((now_ms, sighting.to_string()));
        }
        self.events.truncate(EVENTS);
        self.versions.truncate(VERSIONS);
        self.scroll = self.scroll.min(self.nodes().saturating_sub(1));
    }

    fn see(&mut self, sighting: &Sighting, now_ms: u64) {
        match sighting {
            Sighting::VersionPublished { version, nodes, causes: why, .. } => {
                for period in &mut self.versions {
                    if period.course == Course::Adapting {
                        period.course = Course::Superseded;
                    }
                }
                self.versions.push_front(Period {
                    version: *version,
                    published_ms: now_ms,
                    nodes: Some(*nodes),
                    causes: causes(why),
                    course: Course::Adapting,
                });
            }
            Sighting::Stable { version, took } => {
                if let Some(period) = self.versions.iter_mut().find(|period| period.version == *version) {
                    // What the leader measured and wrote down is not forgotten for what is not known here.
                    let seen = took.map(|took| took.as_millis() as u64);
                    let since = now_ms.saturating_sub(period.published_ms);
                    period.course = Course::Stable(seen.or(Some(since)));
                }
            }
            Sighting::StoreAway { reason } => self.away = Some(reason.clone()),
            Sighting::StoreBack { .. } => self.away = None,
            _ => {}
        }
    }

    pub(crate) fn nodes(&self) -> usize {
        self.report.as_ref().map_or(0, |report| report.nodes.len())
    }

    /// Those that are not ready first, since they are what is looked for.
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

    /// Whether a time runs on the screen, so that it has to be drawn anew although nothing happens.
    pub(crate) fn is_running(&self) -> bool {
        self.away.is_some() || self.report.as_ref().is_some_and(|report| !report.condition.is_stable())
    }
}

impl Period {
    /// How long it took, or takes.
    pub(crate) fn time(&self, now_ms: u64) -> String {
        let shown = |ms: u64| brief(std::time::Duration::from_millis(ms));
        match self.course {
            Course::Adapting => format!("{} so far", shown(now_ms.saturating_sub(self.published_ms))),
            Course::Stable(Some(ms)) => shown(ms),
            Course::Stable(None) => "stable".to_owned(),
            Course::Superseded => "superseded".to_owned(),
        }
    }
}

/// The time of day.
pub(crate) fn clock(ms: u64) -> String {
    moment(ms).get(11..19).unwrap_or_default().to_owned()
}

fn causes(causes: &[clustering_etcd::Cause]) -> String {
    causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
