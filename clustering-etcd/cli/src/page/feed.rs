//! The state that the page shows, as JSON.

use std::sync::Arc;

use clustering_core::{Event, HistoryEntry, MonitorEvent, Namespace, Report, report::Malformed};
use serde::Serialize;

use super::{
    absent::{Absent, Departures},
    verdict::Verdict,
};
use crate::{
    lists::{counted, limited},
    slots, status,
    times::Now,
    watch::{App, Course, Period},
};

/// Maximum number of events on the page.
const EVENTS: usize = 100;

/// Maximum number of steps in the life of a version. With more nodes, only the first acknowledgements are listed.
const STEPS: usize = 200;

/// The content of the page.
#[derive(Debug)]
pub(super) struct Feed {
    app: App,
    departures: Departures,
    /// The steps of the newest version, if its publication was seen.
    life: Vec<Step>,
    begun: Option<Now>,
}

/// A step in the life of the newest version.
#[derive(Debug, Serialize)]
struct Step {
    /// Time since its publication was seen, in milliseconds.
    after_ms: u64,
    text: String,
}

#[derive(Serialize)]
struct State<'a> {
    /// Wall clock time of this process, to which all times refer.
    at_ms: u64,
    namespace: &'a Namespace,
    store: &'a str,
    /// True if the cluster has been read.
    is_known: bool,
    /// Reason why the store does not answer.
    away: Option<&'a str>,
    verdict: Verdict,
    /// Time since which the cluster has been seen not to be stable.
    unstable_since_ms: Option<u64>,
    report: Option<&'a Report>,
    /// The state in words. The first line is a summary, the others give the reasons.
    state: Vec<String>,
    absent: Vec<Absent>,
    life: &'a [Step],
    /// The last versions, newest first.
    versions: Vec<Row<'a>>,
    /// The last events, newest first.
    events: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    number: Option<u64>,
    version: clustering_core::Version,
    published_ms: u64,
    nodes: Option<usize>,
    causes: &'a str,
    course: &'static str,
    took_ms: Option<u64>,
}

#[derive(Serialize)]
struct Line<'a> {
    at_ms: u64,
    text: &'a str,
}

impl Feed {
    pub(super) fn new(
        namespace: Namespace,
        store_name: &'static str,
        past: Vec<HistoryEntry>,
        now: Now,
    ) -> Self {
        let departures = Departures::of(&past);
        Feed { app: App::new(namespace, store_name, past, now), departures, life: Vec::new(), begun: None }
    }

    /// Adds events. A report must follow before the next [JSON](Self::json).
    pub(super) fn note(&mut self, events: &[MonitorEvent], now: Now) {
        for event in events {
            self.note_step(event, now);
            self.departures.note(event, now);
        }
        self.app.see(events, now);
    }

    pub(super) fn show(&mut self, report: Option<Report>, now: Now) {
        self.app.show(report, now);
    }

    /// Adds an event to the life of the newest version, if the event concerns that version.
    fn note_step(&mut self, event: &MonitorEvent, at: Now) {
        if let MonitorEvent::Common(Event::VersionPublished { .. }) = event {
            self.life.clear();
            self.begun = Some(at);
        }
        let (Some(text), Some(begun)) = (step(event), self.begun) else { return };
        if self.life.len() < STEPS || matches!(event, MonitorEvent::Stable { .. }) {
            self.life.push(Step { after_ms: at.since(begun).as_millis() as u64, text });
        }
    }

    /// Returns the state as JSON on one line.
    pub(super) fn json(&self, now: Now) -> Arc<str> {
        let app = &self.app;
        let verdict = match (&app.away, &app.report) {
            (Some(_), _) => Verdict::away(app.store_name),
            (None, Some(report)) => Verdict::of(report),
            (None, None) => Verdict::no_cluster(&app.namespace),
        };
        encode(&State {
            at_ms: now.wall_ms,
            namespace: &app.namespace,
            store: app.store_name,
            is_known: true,
            away: app.away.as_deref(),
            verdict,
            unstable_since_ms: app.unstable_since().map(|since| since.wall_ms),
            report: app.report.as_ref(),
            state: app.report.as_ref().map(words).unwrap_or_else(|| vec![no_cluster(&app.namespace)]),
            absent: self.departures.absent(app.report.as_ref(), now),
            life: &self.life,
            versions: app.versions.iter().map(row).collect(),
            events: app
                .events
                .iter()
                .take(EVENTS)
                .map(|(at_ms, text)| Line { at_ms: *at_ms, text })
                .collect(),
        })
    }
}

/// Returns the state of a cluster that has not been read yet, as JSON. `away` is the error of the last attempt.
pub(super) fn unknown(namespace: &Namespace, store_name: &str, away: Option<&str>) -> Arc<str> {
    encode(&State {
        at_ms: Now::read().wall_ms,
        namespace,
        store: store_name,
        is_known: false,
        away,
        verdict: Verdict::unknown(store_name, away),
        unstable_since_ms: None,
        report: None,
        state: Vec::new(),
        absent: Vec::new(),
        life: &[],
        versions: Vec::new(),
        events: Vec::new(),
    })
}

fn encode(state: &State<'_>) -> Arc<str> {
    // Encoding fails only for maps whose keys are not strings, and the state contains none.
    serde_json::to_string(state).expect("the state is plain data").into()
}

/// Describes an event as a step in the life of the newest version; `None` if it is about something else.
fn step(event: &MonitorEvent) -> Option<String> {
    Some(match event {
        MonitorEvent::Common(Event::VersionPublished { nodes, .. }) => {
            format!("published with {}", counted(*nodes))
        }
        MonitorEvent::NodeReleased { name, .. } => format!("{name} released its slots"),
        MonitorEvent::Common(Event::Released { .. }) => {
            "all slots are released: new owners acquire them".to_owned()
        }
        MonitorEvent::NodeReady { name, .. } => format!("{name} is ready"),
        MonitorEvent::NodeRefused { name, reason, .. } => match reason {
            Some(reason) => format!("{name} refused: {reason}"),
            None => format!("{name} refused"),
        },
        MonitorEvent::Stable { .. } => "stable".to_owned(),
        _ => return None,
    })
}

/// Describes the state, the way out of a state that hangs, and anything else that an operator should know.
fn words(report: &Report) -> Vec<String> {
    let mut lines = status::state(report, None);
    let slots = slots::summary(report);
    if slots.len() > 1 {
        lines.push(format!("slots: {}", slots.join("; ")));
    }
    lines.extend(slots::advice(report));
    lines.extend(status::shortage(report).map(|shortage| format!("minimum size: {shortage}")));
    lines.extend(slots::cordoned(report).into_iter().map(|cordon| format!("cordoned: {cordon}")));
    lines.extend(slots::draining(report).into_iter().map(|drain| format!("draining: {drain}")));
    let malformed = |bad: &Malformed| format!("malformed record {}: {}; delete the key", bad.key, bad.reason);
    lines.extend(limited(&report.malformed, malformed));
    lines
}

fn no_cluster(namespace: &Namespace) -> String {
    format!("there is no cluster in the namespace {namespace}: start a node, or give another --namespace")
}

fn row(period: &Period) -> Row<'_> {
    let (course, took) = match period.course {
        Course::Adapting => ("adapting", None),
        Course::Stable(took) => ("stable", took),
        Course::Superseded => ("superseded", None),
    };
    Row {
        number: period.number,
        version: period.version,
        published_ms: period.published_ms,
        nodes: period.nodes,
        causes: &period.causes,
        course,
        took_ms: took.map(|took| took.as_millis() as u64),
    }
}
