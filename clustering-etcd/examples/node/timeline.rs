use std::{
    io::{self, Write},
    time::Instant,
};

use clustering_core::Event;
use serde_json::{Value, json};

use crate::devices::Diff;

/// Prints one line per event, as text or as JSON.
#[derive(Clone)]
pub(crate) struct Timeline {
    json: bool,
    began: Instant,
}

impl Timeline {
    pub(crate) fn new(json: bool) -> Self {
        Timeline { json, began: Instant::now() }
    }

    pub(crate) fn event(&self, event: &Event) {
        let value =
            || serde_json::to_value(event).unwrap_or_else(|error| json!({ "event": error.to_string() }));
        self.line(value, &event.to_string());
    }

    /// Prints an event of this program.
    pub(crate) fn say(&self, kind: &str, text: &str) {
        self.line(|| json!({ "event": kind, "text": text }), text);
    }

    pub(crate) fn devices(&self, diff: &Diff) {
        let list = |what: &str, devices: &[String]| match devices {
            [] => String::new(),
            devices => format!("; {what} {}", devices.join(" ")),
        };
        let text = format!(
            "owns {} devices{}{}",
            diff.owned,
            list("gained", &diff.gained),
            list("lost", &diff.lost)
        );
        let value =
            || json!({ "event": "devices", "owned": diff.owned, "gained": diff.gained, "lost": diff.lost });
        self.line(value, &text);
    }

    fn line(&self, value: impl FnOnce() -> Value, text: &str) {
        let at = self.began.elapsed();
        if !self.json {
            return print(&format!("{:8.3} s  {text}", at.as_secs_f64()));
        }
        let mut value = value();
        if let Some(object) = value.as_object_mut() {
            object.insert("at_ms".to_owned(), json!(at.as_millis() as u64));
        }
        print(&value.to_string());
    }
}

/// Prints a line. Ignores errors, since the reader may have ended, such as `head`.
pub(crate) fn print(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}
