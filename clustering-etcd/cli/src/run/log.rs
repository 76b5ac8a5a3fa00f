use clustering_core::Event;
use serde_json::{Value, json};

use crate::{
    output,
    times::{now_ms, stamp},
};

/// The log of `run` on standard error: plain lines, or JSON objects with the time and the node.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    node: String,
    json: bool,
}

impl Log {
    pub(super) fn new(node: &str, json: bool) -> Self {
        Log { node: node.to_owned(), json }
    }

    /// Logs an event of the node.
    pub(super) fn event(&self, event: &Event) {
        if self.json {
            self.object(serde_json::to_value(event).unwrap_or_default());
        } else {
            output::note(format!("{}: {event}", self.node));
        }
    }

    /// Logs an action or finding of the command itself: as plain text, or as JSON with a kind of event and its fields.
    pub(super) fn say(&self, text: &str, kind: &str, mut fields: Value) {
        if self.json {
            fields["event"] = json!(kind);
            self.object(fields);
        } else {
            output::note(format!("{}: {text}", self.node));
        }
    }

    /// Logs a line that a hook printed.
    pub(super) fn hook(&self, hook: &str, line: &str) {
        if self.json {
            self.object(json!({ "event": "hook_output", "hook": hook, "line": line }));
        } else {
            output::note(format!("{hook}: {line}"));
        }
    }

    fn object(&self, mut fields: Value) {
        fields["at"] = json!(stamp(now_ms()));
        fields["node"] = json!(self.node);
        output::note_json(&fields);
    }
}
