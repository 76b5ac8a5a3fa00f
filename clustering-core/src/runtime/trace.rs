use crate::{event::Event, name::NodeName};

/// Tells an event to `tracing`, under the target `clustering`. Nothing at `info` or above repeats while all is quiet.
pub(crate) fn trace(namespace: &str, node: Option<&NodeName>, event: &Event) {
    let node = node.map_or("", NodeName::as_str);
    macro_rules! tell {
        ($level:ident) => {
            tracing::$level!(target: "clustering", namespace, node, "{event}")
        };
    }
    match event {
        Event::SessionLost { .. }
        | Event::Unhealthy { .. }
        | Event::LeadershipSuspended { .. }
        | Event::StabilizeRefused { .. }
        | Event::StabilizeSlow { .. }
        | Event::AnnouncementFailed { .. }
        | Event::Blocked(_)
        | Event::Evicted { .. }
        | Event::StoreAway { .. }
        | Event::Malformed { .. }
        | Event::NameHeld { .. } => tell!(warn),
        Event::StoreRefused { .. } => tell!(error),
        Event::NodeUp { .. }
        | Event::NodeChanged { .. }
        | Event::NodeDown { .. }
        | Event::Stabilizing { .. }
        | Event::Superseded { .. }
        | Event::Ready { .. }
        | Event::Announcing { .. } => tell!(debug),
        Event::Joined { .. }
        | Event::Rejoined { .. }
        | Event::Healthy
        | Event::LeaderChanged { .. }
        | Event::LeadershipResumed { .. }
        | Event::VersionPublished { .. }
        | Event::Stable { .. }
        | Event::StoreBack { .. }
        | Event::Resynced { .. }
        | Event::Unregistered
        | Event::Stopped { .. } => tell!(info),
    }
}
