//! Actions of `run` when the cluster is stable.

use std::future;

use clustering_core::{Clustering, Event, Events, EventsError, Version, View};

use super::hook::Hooks;

/// Returns the view of the newest version, if the cluster is stable at it and this node is part of it.
fn stable_view(cluster: &Clustering) -> Option<View> {
    cluster.view().filter(|_| cluster.is_stable())
}

/// Waits until the cluster is stable and this node is part of it. Never resolves if the node ends before that.
pub(super) async fn stable(cluster: &Clustering) {
    if cluster.wait_stable().await.is_err() {
        future::pending::<()>().await;
    }
}

/// Calls the hook for each version that becomes stable with this node in it, one call at a time, until the node has
/// ended.
pub(super) async fn call_each_time(cluster: Clustering, hooks: Hooks, command: String) {
    let mut last = Version::from_u128(0);
    while let Ok(version) = cluster.wait_stable_after(last).await {
        last = version;
        // Subscribes before it reads the view, so that no later event that supersedes the view is missed.
        let events = cluster.events();
        let Some(view) = stable_view(&cluster).filter(|view| view.version() == version) else { continue };
        let held = cluster.held_slots();
        if let Err(reason) = hooks.stable(&command, &view, &held, superseded(events)).await {
            let text = format!("the stable hook of {version} failed: {reason}");
            let fields = serde_json::json!({ "hook": "stable", "reason": reason });
            hooks.log.say(&text, "hook_failed", fields);
        }
    }
}

/// Waits until a newer version is published, or this node is no longer a member.
async fn superseded(mut events: Events) {
    loop {
        match events.recv().await {
            Ok(event) if matches!(*event, Event::VersionPublished { .. } | Event::SessionLost { .. }) => {
                return;
            }
            Err(EventsError::Ended) => return,
            Ok(_) | Err(EventsError::Missed(_)) => {}
        }
    }
}
