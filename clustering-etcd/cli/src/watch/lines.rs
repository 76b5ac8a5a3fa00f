use clustering_core::{Monitor, Namespace, Report};
use serde_json::json;

use super::follow;
use crate::{
    failure::Failure,
    output,
    status::{leader, state, version},
    times::{moment, now_ms},
};

/// Prints the state of the cluster, and then a line for each event.
pub(crate) async fn show(namespace: Namespace, monitor: Monitor, as_json: bool) -> Result<(), Failure> {
    let mut updates = follow(monitor);
    let mut first = true;
    while let Some(update) = updates.recv().await {
        if std::mem::take(&mut first) {
            print_state(&namespace, update.report.as_ref(), as_json)?;
        }
        for event in &update.events {
            if as_json {
                let mut value = serde_json::to_value(event).unwrap_or_default();
                if let Some(object) = value.as_object_mut() {
                    object.insert("at_ms".to_owned(), json!(now_ms()));
                }
                output::json(&value)?;
            } else {
                output::line(format!("{}  {event}", moment(now_ms())));
            }
        }
    }
    Ok(())
}

/// Prints the state of the cluster at the start of the watch.
fn print_state(namespace: &Namespace, report: Option<&Report>, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::json(&json!({ "event": "report", "at_ms": now_ms(), "report": report }));
    }
    let text = match report {
        None => format!("there is no cluster in the namespace {namespace} yet"),
        Some(report) => format!(
            "{namespace}: leader {}; version {}; {}",
            leader(report),
            version(report),
            state(report, None).join("; ")
        ),
    };
    output::line(format!("{}  {text}", moment(now_ms())));
    Ok(())
}
