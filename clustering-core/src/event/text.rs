//! Events and causes in words, for logs and command-line tools.

use std::{fmt, time::Duration};

use super::{Event, Evidence, Holder, MassFailureKind};
use crate::{
    name::NodeName,
    record::{Cause, Departure},
    slots::SlotSet,
    version::Term,
};

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Joined { incarnation } => write!(f, "joined as {incarnation}"),
            Event::Rejoined { incarnation } => write!(f, "joined again as {incarnation}"),
            Event::NameHeld { uri, .. } => {
                write!(f, "the name is held by the process at {uri}; waiting until it is free")
            }
            Event::SessionLost { reason } => write!(f, "session lost: {reason}"),
            Event::Unhealthy { failures: 1, reason } => write!(f, "unhealthy: {reason}"),
            Event::Unhealthy { failures, reason } => {
                write!(f, "unhealthy after {failures} failed checks: {reason}")
            }
            Event::Healthy => f.write_str("healthy"),
            Event::NodeUp { name, uri } => write!(f, "{name} is present at {uri}"),
            Event::NodeChanged { name, uri } => write!(f, "{name} has a new record, at {uri}"),
            Event::NodeDown { name, how } => write!(f, "{name} is gone: {how}"),
            Event::LeaderChanged { leader, term, own } => leader_changed(f, leader.as_ref(), *term, *own),
            Event::LeadershipSuspended { term } => {
                write!(f, "leadership suspended, term {term}: no renewal in time")
            }
            Event::LeadershipResumed { term } => write!(f, "leadership resumed, term {term}"),
            Event::VersionPublished { version, nodes, causes, .. } => {
                write!(f, "version {version} of {}: {}", counted(*nodes), Causes(causes))
            }
            Event::Stabilizing { version, attempt } => write!(f, "stabilizing {version}, attempt {attempt}"),
            Event::StabilizeRefused { version, attempt, reason, retry_in } => {
                let delay = brief(*retry_in);
                write!(
                    f,
                    "stabilize of {version} refused, attempt {attempt}: {reason}; next attempt in {delay:?}"
                )
            }
            Event::Superseded { version } => write!(f, "stabilize of {version} superseded"),
            Event::StabilizeSlow { version, attempt, running } => {
                let running = brief(*running);
                write!(f, "stabilize of {version}, attempt {attempt}, has been running for {running:?}")
            }
            Event::Ready { version } => write!(f, "ready at {version}"),
            Event::SlotsLost { slots } => write!(f, "lost slots {slots}"),
            Event::SlotsAcquired { version, slots } => write!(f, "holds slots {slots} since {version}"),
            Event::HoldsSuspended => f.write_str("all holds are lost: no renewal in time"),
            Event::HoldsResumed => f.write_str("holds are given out again: a renewal succeeded"),
            Event::Releasing { slots, attempt } => write!(f, "releasing slots {slots}, attempt {attempt}"),
            Event::ReleaseRefused { attempt, reason, retry_in } => {
                let delay = brief(*retry_in);
                write!(f, "release failed, attempt {attempt}: {reason}; next attempt in {delay:?}")
            }
            Event::ReleaseSlow { in_use, releasing, waiting } => {
                release_slow(f, in_use, *releasing, brief(*waiting))
            }
            Event::WorkDropped { slot, after } => {
                let after = brief(*after);
                write!(
                    f,
                    "work on slot {slot} was dropped: it was still running {after:?} after the slot was lost"
                )
            }
            Event::Released { version } => write!(f, "the slots that move in {version} are released"),
            Event::NotExclusive { version, nodes } => {
                let names: Vec<&str> = nodes.iter().take(5).map(NodeName::as_str).collect();
                let more = if nodes.len() > 5 { ", …" } else { "" };
                let nodes = counted(nodes.len());
                write!(
                    f,
                    "no slot is handed over in {version}: {nodes} not exclusive: {}{more}",
                    names.join(", ")
                )
            }
            Event::Cordoned { name } => write!(f, "{name} is cordoned and must not own slots"),
            Event::Uncordoned { name } => write!(f, "{name} is no longer cordoned"),
            Event::SlotsKept { name, keep } => {
                write!(f, "the slots of {name} wait for it for {:?}", brief(*keep))
            }
            Event::WaitingForNodes { version, nodes, min_nodes } => write!(
                f,
                "{version} has {} and the cluster begins with {min_nodes}: not stable before the others have joined",
                counted(*nodes)
            ),
            Event::TooFewNodes { version, nodes, min_nodes } => {
                write!(f, "{version} has only {}, fewer than the minimum of {min_nodes}", counted(*nodes))
            }
            Event::ProcessGone { name, evidence: Evidence::Refused } => {
                write!(
                    f,
                    "the process of {name} is gone, its endpoint refuses connections: removing the node"
                )
            }
            Event::ProcessGone { name, evidence: Evidence::Replaced } => {
                write!(
                    f,
                    "the process of {name} is gone, another one answers at its endpoint: removing the node"
                )
            }
            Event::FalselyRemoved { address } => write!(
                f,
                "removed as crashed although this process is alive: something refused connections to {address}; crash detection of this node is off until it restarts"
            ),
            Event::Reclaiming { holder } => reclaiming(f, holder),
            Event::AssignorFailed { reason } => write!(f, "the assignor is faulty, no slot moves: {reason}"),
            Event::Stable { version } => write!(f, "stable at {version}"),
            Event::Announcing { version, term } => write!(f, "calling on_stable of {version}, term {term}"),
            Event::AnnouncementSlow { version, running } => {
                let running = brief(*running);
                write!(
                    f,
                    "on_stable of {version} has been running for {running:?}; later versions wait for it"
                )
            }
            Event::AnnouncementFailed { version, reason } => {
                write!(f, "on_stable of {version} failed and is not retried: {reason}")
            }
            Event::Blocked(blocked) => blocked.fmt(f),
            Event::Evicted { name } => {
                write!(f, "evicted {name}, which kept the version from becoming stable")
            }
            Event::MassFailure(failure) => failure.fmt(f),
            Event::MassFailureOver { kind: MassFailureKind::Late } => {
                f.write_str("the mass failure is over: laggards may be evicted again")
            }
            Event::MassFailureOver { kind: MassFailureKind::Lost } => {
                f.write_str("the mass failure is over: slots of lost nodes no longer wait for them")
            }
            Event::StoreAway { reason } => write!(f, "the store is away: {reason}"),
            Event::StoreBack { away } => write!(f, "the store is back after {:?}", brief(*away)),
            Event::Resynced { rewound: false, revision } => {
                write!(f, "missed changes: read a snapshot at revision {revision}")
            }
            Event::Resynced { rewound: true, revision } => {
                write!(f, "the store was restored to an older state: read a snapshot at revision {revision}")
            }
            Event::Malformed { key, reason } => write!(f, "cannot read {key}: {reason}"),
            Event::Overwritten { key } => {
                write!(f, "another client overwrote {key}, which belongs to this node; correcting it")
            }
            Event::StoreRefused { reason } => write!(f, "operator action needed: {reason}"),
            Event::CallFailing { call, failing, reason } => {
                write!(f, "{call} has been failing for {:?} and is being retried: {reason}", brief(*failing))
            }
            Event::CallRecovered { call, failed } => {
                write!(f, "{call} no longer fails, after {:?}", brief(*failed))
            }
            Event::Unregistered => f.write_str("unregistered"),
            Event::Stopped { reason } => write!(f, "stopped: {reason}"),
        }
    }
}

fn release_slow(
    f: &mut fmt::Formatter<'_>,
    in_use: &SlotSet,
    releasing: bool,
    waiting: Duration,
) -> fmt::Result {
    let callback = if releasing { "the release callback has not succeeded" } else { "" };
    let separator = if releasing && !in_use.is_empty() { ", and " } else { "" };
    write!(f, "lost slots are not released after {waiting:?}: {callback}{separator}")?;
    if in_use.is_empty() {
        return Ok(());
    }
    write!(f, "holds of slots {in_use} were not dropped")
}

fn reclaiming(f: &mut fmt::Formatter<'_>, holder: &Holder) -> fmt::Result {
    let node = holder.node.as_ref().map_or("a session", NodeName::as_str);
    let lease = holder.lease;
    write!(f, "{node} was removed but renews its lease {lease}: ending it, so that its slots can be acquired")
}

fn leader_changed(
    f: &mut fmt::Formatter<'_>,
    leader: Option<&NodeName>,
    term: Option<Term>,
    own: bool,
) -> fmt::Result {
    match (leader, term) {
        (Some(leader), Some(term)) => {
            write!(f, "{leader} leads, term {term}{}", if own { " (this node)" } else { "" })
        }
        (None, Some(term)) => {
            write!(f, "the election key is unreadable, term {term}: no election until it is deleted")
        }
        (_, None) => f.write_str("nobody leads"),
    }
}

/// Displays causes as a list, separated by commas.
pub(crate) struct Causes<'a>(pub(crate) &'a [Cause]);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, cause) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            cause.fmt(f)?;
        }
        Ok(())
    }
}

/// Formats a number of nodes, as in "1 node" or "2 nodes".
pub(crate) fn counted(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Departure::Left => "it left",
            Departure::Evicted => "it was evicted",
            Departure::Crashed => "its process is gone",
            Departure::Ended => "its session ended",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Joined(name) => write!(f, "{name} joined"),
            Cause::Left(name) => write!(f, "{name} left"),
            Cause::Ended(name) => write!(f, "{name}'s session ended"),
            Cause::Returned(name) => write!(f, "{name} came back"),
            Cause::Changed(name) => write!(f, "{name} changed"),
            Cause::Evicted(name) => write!(f, "{name} was evicted"),
            Cause::Crashed(name) => write!(f, "the process of {name} is gone"),
            Cause::NotBack(name) => write!(f, "{name} did not come back in time"),
            Cause::Elected(name) => write!(f, "{name} was elected"),
            Cause::Asked { by, why: Some(why) } => write!(f, "{by} asked ({why})"),
            Cause::Asked { by, why: None } => write!(f, "{by} asked"),
            Cause::Resync => f.write_str("the previous view is unknown"),
            Cause::Unacknowledged(name) => write!(f, "the acknowledgement of {name} was deleted"),
            Cause::Restored => f.write_str("nodes had seen newer versions"),
            Cause::Cordoned(name) => write!(f, "{name} was cordoned"),
            Cause::Uncordoned(name) => write!(f, "{name} was uncordoned"),
            Cause::Assigned => f.write_str("slots were reassigned"),
            Cause::Formed => f.write_str("the cluster reached its minimum size"),
            Cause::More(more) => write!(f, "{more} more"),
            Cause::Other(json) => f.write_str(json),
        }
    }
}

/// Rounds a duration down to milliseconds.
pub(crate) fn brief(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis() as u64)
}
