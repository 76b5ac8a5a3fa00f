use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use clustering_memory::{Event, Term, Version};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The output shared by all nodes, written line by line, as text or as JSON.
#[derive(Clone)]
pub(crate) struct Screen {
    state: Arc<Mutex<State>>,
    /// The newest version for which `on_stable` has been called.
    announced: watch::Sender<Option<Version>>,
}

struct State {
    json: bool,
    began: Instant,
    /// The version at which each node is ready.
    ready: BTreeMap<String, Option<Version>>,
    leader: Option<(Term, String)>,
    newest: Option<Version>,
    /// Number of nodes in the newest version.
    size: usize,
    /// The versions in the order of their publication; printed as V1, V2 and so on.
    versions: Vec<Version>,
}

impl Screen {
    pub(crate) fn new(json: bool) -> Self {
        let state = State {
            json,
            began: Instant::now(),
            ready: BTreeMap::new(),
            leader: None,
            newest: None,
            size: 0,
            versions: Vec::new(),
        };
        Screen { state: Arc::new(Mutex::new(state)), announced: watch::Sender::new(None) }
    }

    fn with(&self, act: impl FnOnce(&mut State)) {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Prints the meaning of the marks.
    pub(crate) fn legend(&self) {
        self.with(|state| {
            if !state.json {
                print("One mark per node: ★ leader and ready, ☆ leader, ● ready at the newest version, ○ not ready.");
            }
        });
    }

    /// Prints the title of the next act.
    pub(crate) fn act(&self, title: &str) {
        self.with(|state| match state.json {
            true => state.json(None, json!({ "event": "act", "title": title })),
            false => print(&format!("\n── {title} ──")),
        });
    }

    /// Prints a line of the script itself.
    pub(crate) fn say(&self, kind: &str, text: &str, details: Value) {
        self.with(|state| match state.json {
            true => {
                let mut value = json!({ "event": kind });
                if let (Some(value), Value::Object(details)) = (value.as_object_mut(), details) {
                    value.extend(details);
                }
                state.json(None, value);
            }
            false => print(text),
        });
    }

    pub(crate) fn done(&self, text: &str) {
        self.say("done", &format!("\n✔ {text}."), json!({ "ok": true }));
    }

    pub(crate) fn failed(&self, missed: &str) {
        self.say("done", &format!("\n✘ {missed}."), json!({ "ok": false, "missed": missed }));
        eprintln!("quickstart: {missed}");
    }

    /// Prints what the script does to a node.
    pub(crate) fn node_action(&self, node: &str, kind: &str, text: &str) {
        self.with(|state| match state.json {
            true => state.json(Some(node), json!({ "event": kind })),
            false => state.line(node, text),
        });
    }

    /// Removes a node from the marks.
    pub(crate) fn gone(&self, node: &str) {
        self.with(|state| {
            state.ready.remove(node);
            state.leader.take_if(|(_, leader)| leader == node);
        });
    }

    /// Waits until `on_stable` has been called for the version and the call has been printed.
    pub(crate) async fn announced(&self, version: Version) {
        // This fails only if the sender is dropped, and this screen owns it.
        let _ = self.announced.subscribe().wait_for(|announced| *announced >= Some(version)).await;
    }

    /// Prints an event of a node.
    pub(crate) fn event(&self, node: &str, event: &Event) {
        self.with(|state| {
            state.note(node, event);
            if state.json {
                let event =
                    serde_json::to_value(event).unwrap_or_else(|error| json!({ "event": error.to_string() }));
                state.json(Some(node), event);
            } else if let Some(text) = state.text(node, event) {
                state.line(node, &text);
            }
            if let Event::Announcing { version, .. } = event {
                self.announced.send_replace(Some(*version));
            }
        });
    }
}

impl State {
    fn note(&mut self, node: &str, event: &Event) {
        match event {
            Event::Joined { .. } | Event::Rejoined { .. } => {
                self.ready.insert(node.to_owned(), None);
            }
            Event::LeaderChanged { term: Some(term), own: true, .. } => {
                self.leader = Some((*term, node.to_owned()));
            }
            Event::VersionPublished { version, nodes, .. } if Some(*version) > self.newest => {
                self.newest = Some(*version);
                self.size = *nodes;
                self.versions.push(*version);
            }
            Event::Ready { version } => {
                self.ready.insert(node.to_owned(), Some(*version));
            }
            // The leader may see the last acknowledgement before that node's own `Ready` event is printed.
            Event::Stable { version } if self.newest == Some(*version) && self.size == self.ready.len() => {
                self.ready.values_mut().for_each(|ready| *ready = Some(*version));
            }
            Event::SessionLost { .. } | Event::Stopped { .. } => {
                self.ready.remove(node);
                self.leader.take_if(|(_, leader)| leader == node);
            }
            _ => {}
        }
    }

    /// Replaces the ULIDs of versions by V1, V2 and so on.
    fn shorten(&self, text: String) -> String {
        let short = |text: String, (number, version): (usize, &Version)| {
            text.replace(&version.to_string(), &format!("V{number}"))
        };
        (1..).zip(&self.versions).fold(text, short)
    }

    /// Returns the line to print for an event, if any. Events that every node emits are printed only for the leader.
    fn text(&self, node: &str, event: &Event) -> Option<String> {
        let leads = self.leader.as_ref().is_some_and(|(_, leader)| leader == node);
        match event {
            Event::VersionPublished { version, nodes, causes, .. } if leads => {
                let causes: Vec<_> = causes.iter().map(ToString::to_string).collect();
                let plural = if *nodes == 1 { "" } else { "s" };
                Some(format!("publishes {version} ({nodes} node{plural}): {}", causes.join(", ")))
            }
            Event::Joined { .. } => Some("joined".to_owned()),
            Event::LeaderChanged { own: true, term: Some(term), .. } => Some(format!("★ leads, term {term}")),
            Event::Stable { .. } if leads => Some(event.to_string()),
            Event::Ready { version } => Some(format!("ready at {version}")),
            Event::StabilizeRefused { .. } | Event::SessionLost { .. } => Some(event.to_string()),
            Event::Announcing { .. } => {
                Some("calls on_stable, where a service would announce the version".to_owned())
            }
            Event::Stopped { .. } => Some("left".to_owned()),
            _ => None,
        }
    }

    /// Returns one mark per node, which shows if it leads (★) and if it is ready at the newest version (●).
    fn marks(&self) -> String {
        let mark = |(node, ready): (&String, &Option<Version>)| {
            let ready = ready.is_some() && *ready == self.newest;
            match (self.leader.as_ref().is_some_and(|(_, leader)| leader == node), ready) {
                (true, true) => '★',
                (true, false) => '☆',
                (false, true) => '●',
                (false, false) => '○',
            }
        };
        self.ready.iter().map(mark).collect()
    }

    fn line(&self, node: &str, text: &str) {
        let at = self.began.elapsed().as_secs_f64();
        let text = self.shorten(text.to_owned());
        print(&format!("{at:7.3} s  {node:<8} [{}] {text}", self.marks()));
    }

    fn json(&self, node: Option<&str>, mut value: Value) {
        if let Some(object) = value.as_object_mut() {
            object.insert("at_ms".to_owned(), json!(self.began.elapsed().as_millis() as u64));
            if let Some(node) = node {
                object.insert("node".to_owned(), json!(node));
            }
        }
        print(&value.to_string());
    }
}

/// Prints a line. Errors are ignored, because a reader such as `head` may have closed the pipe.
pub(crate) fn print(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}
