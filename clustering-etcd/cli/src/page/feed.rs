//! The state that the page shows, as JSON.

use std::{sync::Arc, time::Duration};

use clustering_core::{Event, HistoryEntry, Monitor, MonitorEvent, Namespace, Report};
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    output::counted,
    slots, status,
    times::Now,
    watch::{App, Course, Period, Update, follow},
};

/// Shortest time between two states. While many nodes join or acknowledge, the page shows every few of these events at
/// once.
const INTERVAL: Duration = Duration::from_millis(200);

/// Maximum number of events on the page.
const EVENTS: usize = 100;

/// Maximum number of steps in the life of a version. With more nodes, only the first acknowledgements are listed.
const STEPS: usize = 200;

/// The newest state as JSON on one line. Every reader sees the newest one, however slow it is.
pub(crate) type States = watch::Receiver<Arc<str>>;

/// Follows a cluster until all receivers are dropped.
pub(crate) fn start(
    namespace: Namespace,
    store: &'static str,
    monitor: Monitor,
    past: Vec<HistoryEntry>,
) -> States {
    let mut feed = Feed::new(namespace, store, past, Now::read());
    let mut updates = follow(monitor);
    let (sender, receiver) = watch::channel(feed.json(Now::read()));
    tokio::spawn(async move {
        loop {
            let update = tokio::select! {
                update = updates.recv() => update,
                () = sender.closed() => None,
            };
            let Some(update) = update else { return };
            feed.apply(update);
            while let Ok(update) = updates.try_recv() {
                feed.apply(update);
            }
            sender.send_replace(feed.json(Now::read()));
            tokio::time::sleep(INTERVAL).await;
        }
    });
    receiver
}

/// The content of the page.
#[derive(Debug)]
struct Feed {
    app: App,
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
    /// Wall clock time of this process, to which the times in `versions` and `events` refer.
    at_ms: u64,
    namespace: &'a Namespace,
    store: &'a str,
    /// Reason why the store does not answer.
    away: Option<&'a str>,
    report: Option<&'a Report>,
    /// The state in words. The first line is a summary, the others give the reasons.
    state: Vec<String>,
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
    fn new(namespace: Namespace, store: &'static str, past: Vec<HistoryEntry>, now: Now) -> Self {
        Feed { app: App::new(namespace, store, past, now), life: Vec::new(), begun: None }
    }

    fn apply(&mut self, update: Update) {
        let at = update.at;
        for event in &update.events {
            self.note(event, at);
        }
        self.app.apply(update);
    }

    /// Adds an event to the life of the newest version, if it is about it.
    fn note(&mut self, event: &MonitorEvent, at: Now) {
        if let MonitorEvent::Common(Event::VersionPublished { .. }) = event {
            self.life.clear();
            self.begun = Some(at);
        }
        let (Some(text), Some(begun)) = (step(event), self.begun) else { return };
        if self.life.len() < STEPS || matches!(event, MonitorEvent::Stable { .. }) {
            self.life.push(Step { after_ms: at.since(begun).as_millis() as u64, text });
        }
    }

    fn json(&self, now: Now) -> Arc<str> {
        let app = &self.app;
        let state = State {
            at_ms: now.wall_ms,
            namespace: &app.namespace,
            store: app.store_name,
            away: app.away.as_deref(),
            report: app.report.as_ref(),
            state: app.report.as_ref().map(words).unwrap_or_else(|| vec![no_cluster(&app.namespace)]),
            life: &self.life,
            versions: app.versions.iter().map(row).collect(),
            events: app
                .events
                .iter()
                .take(EVENTS)
                .map(|(at_ms, text)| Line { at_ms: *at_ms, text })
                .collect(),
        };
        // Encoding fails only for maps whose keys are not strings, and the state contains none.
        serde_json::to_string(&state).expect("the state is plain data").into()
    }
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

/// Describes the state, and what ends it if it hangs.
fn words(report: &Report) -> Vec<String> {
    let mut lines = status::state(report, None);
    let slots = slots::summary(report);
    if slots.len() > 1 {
        lines.push(format!("slots: {}", slots.join("; ")));
    }
    lines.extend(slots::advice(report));
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
