use clustering_etcd::{Monitor, Namespace, Report};
use serde_json::json;

use super::follow;
use crate::{
    failure::Failure,
    output,
    status::{leader, state, version},
    times::{moment, now_ms},
};

/// Prints how the cluster is, and then a line for everything that happens.
pub(crate) async fn show(namespace: Namespace, monitor: Monitor, as_json: bool) -> Result<(), Failure> {
    let mut news = follow(monitor);
    let mut first = true;
    while let Some(news) = news.recv().await {
        if std::mem::take(&mut first) {
            begin(&namespace, news.report.as_ref(), as_json)?;
        }
        for sighting in &news.sightings {
            if as_json {
                let mut value = serde_json::to_value(sighting).unwrap_or_default();
                if let Some(object) = value.as_object_mut() {
                    object.insert("at_ms".to_owned(), json!(now_ms()));
                }
                output::json(&value)?;
            } else {
                output::line(format!("{}  {sighting}", moment(now_ms())));
            }
        }
    }
    Ok(())
}

/// How it is when the watch begins.
fn begin(namespace: &Namespace, report: Option<&Report>, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::json(&json!({ "event": "report", "at_ms": now_ms(), "report": report }));
    }
    let text = match report {
        None => format!("no cluster in the namespace {namespace} yet"),
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
