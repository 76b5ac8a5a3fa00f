//! Kinds of events, as they appear in JSON, in `tracing` fields and in metric labels.

use super::Event;

impl Event {
    /// All [kinds](Self::kind) of events.
    pub const KINDS: &[&str] = &[
        "joined",
        "rejoined",
        "name_held",
        "session_lost",
        "unhealthy",
        "healthy",
        "node_up",
        "node_changed",
        "node_down",
        "leader_changed",
        "leadership_suspended",
        "leadership_resumed",
        "version_published",
        "stabilizing",
        "stabilize_refused",
        "superseded",
        "stabilize_slow",
        "ready",
        "slots_lost",
        "slots_acquired",
        "holds_suspended",
        "holds_resumed",
        "releasing",
        "release_refused",
        "release_slow",
        "work_dropped",
        "released",
        "not_exclusive",
        "cordoned",
        "uncordoned",
        "slots_kept",
        "waiting_for_nodes",
        "too_few_nodes",
        "process_gone",
        "falsely_removed",
        "reclaiming",
        "assignor_failed",
        "stable",
        "announcing",
        "announcement_slow",
        "announcement_failed",
        "blocked",
        "evicted",
        "mass_failure",
        "mass_failure_over",
        "store_away",
        "store_back",
        "resynced",
        "malformed",
        "overwritten",
        "store_refused",
        "call_failing",
        "call_recovered",
        "unregistered",
        "stopped",
    ];

    /// Returns the kind of the event, which is also its value under `event` in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Joined { .. } => "joined",
            Event::Rejoined { .. } => "rejoined",
            Event::NameHeld { .. } => "name_held",
            Event::SessionLost { .. } => "session_lost",
            Event::Unhealthy { .. } => "unhealthy",
            Event::Healthy => "healthy",
            Event::NodeUp { .. } => "node_up",
            Event::NodeChanged { .. } => "node_changed",
            Event::NodeDown { .. } => "node_down",
            Event::LeaderChanged { .. } => "leader_changed",
            Event::LeadershipSuspended { .. } => "leadership_suspended",
            Event::LeadershipResumed { .. } => "leadership_resumed",
            Event::VersionPublished { .. } => "version_published",
            Event::Stabilizing { .. } => "stabilizing",
            Event::StabilizeRefused { .. } => "stabilize_refused",
            Event::Superseded { .. } => "superseded",
            Event::StabilizeSlow { .. } => "stabilize_slow",
            Event::Ready { .. } => "ready",
            Event::SlotsLost { .. } => "slots_lost",
            Event::SlotsAcquired { .. } => "slots_acquired",
            Event::HoldsSuspended => "holds_suspended",
            Event::HoldsResumed => "holds_resumed",
            Event::Releasing { .. } => "releasing",
            Event::ReleaseRefused { .. } => "release_refused",
            Event::ReleaseSlow { .. } => "release_slow",
            Event::WorkDropped { .. } => "work_dropped",
            Event::Released { .. } => "released",
            Event::NotExclusive { .. } => "not_exclusive",
            Event::Cordoned { .. } => "cordoned",
            Event::Uncordoned { .. } => "uncordoned",
            Event::SlotsKept { .. } => "slots_kept",
            Event::WaitingForNodes { .. } => "waiting_for_nodes",
            Event::TooFewNodes { .. } => "too_few_nodes",
            Event::ProcessGone { .. } => "process_gone",
            Event::FalselyRemoved { .. } => "falsely_removed",
            Event::Reclaiming { .. } => "reclaiming",
            Event::AssignorFailed { .. } => "assignor_failed",
            Event::Stable { .. } => "stable",
            Event::Announcing { .. } => "announcing",
            Event::AnnouncementSlow { .. } => "announcement_slow",
            Event::AnnouncementFailed { .. } => "announcement_failed",
            Event::Blocked(_) => "blocked",
            Event::Evicted { .. } => "evicted",
            Event::MassFailure(_) => "mass_failure",
            Event::MassFailureOver { .. } => "mass_failure_over",
            Event::StoreAway { .. } => "store_away",
            Event::StoreBack { .. } => "store_back",
            Event::Resynced { .. } => "resynced",
            Event::Malformed { .. } => "malformed",
            Event::Overwritten { .. } => "overwritten",
            Event::StoreRefused { .. } => "store_refused",
            Event::CallFailing { .. } => "call_failing",
            Event::CallRecovered { .. } => "call_recovered",
            Event::Unregistered => "unregistered",
            Event::Stopped { .. } => "stopped",
        }
    }
}

/// Returns one event of each kind, in the order of [`Event::KINDS`].
#[cfg(test)]
pub(crate) fn samples() -> Vec<Event> {
    use std::time::Duration;

    use super::{Blocked, Evidence, Holder, LostReason, MassFailure, MassFailureKind, StopReason, StoreCall};
    use crate::{
        name::{Incarnation, NodeName, NodeUri},
        record::{Cause, Departure},
        slots::{SlotCount, SlotSet},
        store::{LeaseId, Revision},
        version::{Term, Version},
    };

    let name = || NodeName::parse("n").unwrap();
    let uri = || NodeUri::parse("http://n").unwrap();
    let incarnation = || Incarnation::from("x");
    let (version, term, revision) = (Version::from_u128(1), Term::new(Revision::new(2)), Revision::new(3));
    let slots = || SlotCount::MAX.iter().take(2).collect::<SlotSet>();
    let holder = || Holder {
        lease: LeaseId::new(4),
        node: Some(name()),
        incarnation: Some(incarnation()),
        left: false,
    };
    let (reason, running) = ("why".to_owned(), Duration::from_secs(1));
    vec![
        Event::Joined { incarnation: incarnation() },
        Event::Rejoined { incarnation: incarnation() },
        Event::NameHeld { incarnation: incarnation(), uri: uri() },
        Event::SessionLost { reason: LostReason::Expired },
        Event::Unhealthy { failures: 1, reason: reason.clone() },
        Event::Healthy,
        Event::NodeUp { name: name(), uri: uri() },
        Event::NodeChanged { name: name(), uri: uri() },
        Event::NodeDown { name: name(), how: Departure::Left },
        Event::LeaderChanged { leader: Some(name()), term: Some(term), own: true },
        Event::LeadershipSuspended { term },
        Event::LeadershipResumed { term },
        Event::VersionPublished { version, revision, nodes: 1, causes: vec![Cause::Joined(name())] },
        Event::Stabilizing { version, attempt: 1 },
        Event::StabilizeRefused { version, attempt: 1, reason: reason.clone(), retry_in: running },
        Event::Superseded { version },
        Event::StabilizeSlow { version, attempt: 1, running },
        Event::Ready { version },
        Event::SlotsLost { slots: slots() },
        Event::SlotsAcquired { version, slots: slots() },
        Event::HoldsSuspended,
        Event::HoldsResumed,
        Event::Releasing { slots: slots(), attempt: 1 },
        Event::ReleaseRefused { attempt: 1, reason: reason.clone(), retry_in: running },
        Event::ReleaseSlow { in_use: slots(), releasing: true, waiting: running },
        Event::WorkDropped { slot: SlotCount::MAX.slot_of("x"), after: running },
        Event::Released { version },
        Event::NotExclusive { version, nodes: vec![name()] },
        Event::Cordoned { name: name() },
        Event::Uncordoned { name: name() },
        Event::SlotsKept { name: name(), keep: running },
        Event::WaitingForNodes { version, nodes: 2, min_nodes: 3 },
        Event::TooFewNodes { version, nodes: 2, min_nodes: 3 },
        Event::ProcessGone { name: name(), evidence: Evidence::Refused },
        Event::FalselyRemoved { address: "10.0.0.7:40123".to_owned() },
        Event::Reclaiming { holder: holder() },
        Event::AssignorFailed { reason: reason.clone() },
        Event::Stable { version },
        Event::Announcing { version, term },
        Event::AnnouncementSlow { version, running },
        Event::AnnouncementFailed { version, reason: reason.clone() },
        Event::Blocked(Blocked {
            version,
            since: running,
            laggards: Vec::new(),
            holders: Vec::new(),
            releasing: false,
            waits_for_nodes: None,
        }),
        Event::Evicted { name: name() },
        Event::MassFailure(MassFailure { version, kind: MassFailureKind::Late, failing: 3, nodes: 5 }),
        Event::MassFailureOver { kind: MassFailureKind::Late },
        Event::StoreAway { reason: reason.clone() },
        Event::StoreBack { away: running },
        Event::Resynced { rewound: false, revision },
        Event::Malformed { key: "c/k".into(), reason: reason.clone() },
        Event::Overwritten { key: "c/k".into() },
        Event::StoreRefused { reason: reason.clone() },
        Event::CallFailing { call: StoreCall::Publish, failing: running, reason },
        Event::CallRecovered { call: StoreCall::Publish, failed: running },
        Event::Unregistered,
        Event::Stopped { reason: StopReason::Asked },
    ]
}

#[cfg(test)]
mod tests {
    use super::{super::LostReason, *};

    #[test]
    fn kinds_match_the_json_and_all_are_listed() {
        let kinds: Vec<_> = samples().iter().map(Event::kind).collect();
        assert_eq!(kinds, Event::KINDS);
        for event in samples() {
            assert_eq!(serde_json::to_value(&event).unwrap()["event"], event.kind());
        }
        for reason in [
            LostReason::Expired,
            LostReason::LeaseGone,
            LostReason::Removed,
            LostReason::FalselyRemoved,
            LostReason::Rewound,
            LostReason::Unhealthy,
        ] {
            assert_eq!(serde_json::to_value(&reason).unwrap(), reason.kind());
        }
    }
}
