//! Descriptions of slots and their hand-over, for `status`, `why` and `watch`.

use clustering_core::{
    ClusterState, NodeName, Readiness, Report,
    report::{CordonReport, Handover, KeptReport, Move, NodeReport, SlotsReport, StandingReport},
};

use crate::{
    lists::{NAMED, counted, laggards, limited, members},
    times::brief,
};

/// Describes the slots in one or more lines. Returns no lines if the cluster is not exclusive.
pub(crate) fn summary(report: &Report) -> Vec<String> {
    let Some(slots) = &report.slots else { return Vec::new() };
    let mut lines = vec![match (slots.count, &slots.not_exclusive[..]) {
        (None, []) => "not assigned yet".to_owned(),
        (None, _) => "not assigned before all nodes are exclusive".to_owned(),
        (Some(count), []) => count.to_string(),
        (Some(count), _) => format!("{count}, not handed over in this version"),
    }];
    lines.extend(limited(&slots.not_exclusive, |name| format!("{name} is not exclusive")));
    lines.extend(limited(&slots.kept, kept));
    if let Some(kept) = slots.kept.first() {
        lines.push(format!("to end the wait: clustering cordon {}", kept.name));
    }
    lines.extend(unowned(slots));
    lines.extend(moving(slots));
    if !matches!(report.condition, ClusterState::Releasing { .. }) {
        lines.extend(limited(&slots.standing, standing));
    }
    lines
}

/// Describes the slots that wait for an absent node.
fn kept(kept: &KeptReport) -> String {
    let (count, name) = (kept.slots.len(), &kept.name);
    let verb = if count == 1 { "waits" } else { "wait" };
    format!("{count} {verb} for {name} to come back, for up to {}", brief(kept.keep))
}

/// Returns the nodes that slots wait for, each with a description: absent nodes, and sessions that have not ended. The
/// name is missing if the record of the session is unreadable.
pub(crate) fn awaited(slots: &SlotsReport) -> Vec<(Option<&NodeName>, String)> {
    let kept = slots.kept.iter().map(|kept| (Some(&kept.name), kept_slots(kept)));
    let standing = slots.standing.iter().map(|session| (session.holder.node.as_ref(), standing(session)));
    kept.chain(standing).collect()
}

/// Describes the slots that no node holds although no hand-over is in progress.
pub(crate) fn idle(slots: &SlotsReport) -> Vec<String> {
    let mut lines: Vec<_> = slots.kept.iter().map(kept_slots).collect();
    if slots.count.is_some() && !slots.unowned.is_empty() {
        let verb = if slots.unowned.len() == 1 { "has" } else { "have" };
        lines.push(format!("{} {verb} no owner", counted_slots(slots.unowned.len())));
    }
    lines
}

fn kept_slots(kept: &KeptReport) -> String {
    let verb = if kept.slots.len() == 1 { "waits" } else { "wait" };
    let (slots, name, keep) = (counted_slots(kept.slots.len()), &kept.name, brief(kept.keep));
    format!("{slots} {verb} for {name} to come back, for up to {keep}")
}

fn counted_slots(count: usize) -> String {
    if count == 1 { "1 slot".to_owned() } else { format!("{count} slots") }
}

fn unowned(slots: &SlotsReport) -> Option<String> {
    let count = slots.unowned.len();
    let verb = if count == 1 { "has" } else { "have" };
    (count > 0).then(|| format!("{count} {verb} no owner: {}", slots.unowned))
}

/// Describes the slots that move in the newest version, until they can be acquired.
fn moving(slots: &SlotsReport) -> Option<String> {
    let moves = slots.moves.as_ref().filter(|moves| !slots.released && !moves.is_empty())?;
    let count: usize = moves.iter().map(|moves| moves.slots.len()).sum();
    let verb = if count == 1 { "moves" } else { "move" };
    let name = |name: &Option<_>| match name {
        Some(name) => format!("{name}"),
        None => "no node".to_owned(),
    };
    let one =
        |Move { from, to, slots, .. }: &Move| format!("{} from {} to {}", slots.len(), name(from), name(to));
    Some(format!("{count} {verb}: {}", limited(moves, one).join(", ")))
}

/// Describes an unfinished hand-over in one or more lines. The first line is the state.
pub(crate) fn releasing(report: &Report, watched: &str, nodes: &[clustering_core::Laggard]) -> Vec<String> {
    let sessions = report.slots.as_ref().map_or(&[][..], |slots| &slots.standing);
    let leader = report.leader_name().map_or("the leader", |name| name.as_str());
    let first = match (nodes.len(), sessions.len()) {
        (0, 0) => format!("all slots are released, {leader} has yet to record that"),
        (0, 1) => "slots move once a session has ended".to_owned(),
        (0, ended) => format!("slots move once {ended} sessions have ended"),
        (late, _) => {
            format!("slots move, waiting for {late} of {} to release them", counted(members(report)))
        }
    };
    let mut lines = vec![format!("not stable{watched}: {first}")];
    let holds = "has not released the slots that it lost";
    lines.extend(laggards(nodes, holds, holds));
    lines.extend(limited(sessions, standing));
    lines
}

/// Describes a session that may still hold slots, and how it ends.
fn standing(session: &StandingReport) -> String {
    let lease = session.holder.lease;
    let Some(node) = &session.holder.node else {
        return format!("an unreadable session may hold slots until its lease {lease} has ended");
    };
    let ttl = session.ttl.map_or_else(|| "its TTL".to_owned(), brief);
    match (session.reclaimed, session.holder.left) {
        (true, _) => format!(
            "{node} is gone, but its process renewed its lease {lease}: the leader ends it, which takes {ttl}"
        ),
        (false, true) => format!(
            "{node} left, but has not let go of all its slots: it ends its lease {lease} when it has, or lets it \
             expire"
        ),
        (false, false) => {
            format!("{node} is gone, but may hold slots until its lease {lease} expires, in at most {ttl}")
        }
    }
}

/// Explains what ends a hand-over that hangs, and what an operator can do.
pub(crate) fn advice(report: &Report) -> Vec<String> {
    let Some(slots) = &report.slots else { return Vec::new() };
    let mut lines = Vec::new();
    if let ClusterState::Releasing { waiting_for } = &report.condition {
        if !waiting_for.is_empty() {
            lines.push(
                "a node that does not release its slots leaves after its release timeout (2m by default), and joins \
                 again; its log names the slots that are in use"
                    .to_owned(),
            );
        }
        let is_alive = |session: &&StandingReport| !session.holder.left && !session.reclaimed;
        if let Some(session) = slots.standing.iter().find(is_alive) {
            let ttl = session.ttl.map_or_else(String::new, |ttl| format!(" ({})", brief(ttl * 2)));
            lines.push(format!(
                "if the process of a session that is gone keeps renewing its lease, the leader ends the lease two \
                 TTLs{ttl} after the node was removed; its slots can be acquired one TTL later"
            ));
        }
    }
    if !slots.not_exclusive.is_empty() {
        let count = slots.count.map_or_else(|| "N".to_owned(), |count| count.to_string());
        lines.push(format!(
            "no slot is acquired before all nodes are exclusive: restart the others with exclusive({count}), or \
             --exclusive {count}"
        ));
    }
    if !slots.unowned.is_empty() && slots.count.is_some() {
        lines.push(unowned_advice(report).to_owned());
    }
    lines.extend(kept_advice(report, slots));
    lines
}

/// Explains why slots wait for absent nodes, and how an operator can end the wait.
fn kept_advice(report: &Report, slots: &SlotsReport) -> Vec<String> {
    if slots.kept.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![
        "slots wait for a node that has a restart grace, and for nodes that were lost at about the same time; a leader \
         that is elected meanwhile counts the time anew. A node that is cordoned while it is absent loses its slots at \
         once; lift the cordon when it is back"
            .to_owned(),
    ];
    let owners = report.nodes.iter().filter(|node| !node.slots.is_empty()).count();
    if slots.kept.len() > owners {
        lines.push(
            "most nodes that own slots are absent: look for a common cause, such as the network or the store"
                .to_owned(),
        );
    }
    lines
}

fn unowned_advice(report: &Report) -> &'static str {
    let takes = |node: &NodeReport| node.cordon.is_none() && node.weight().get() > 0;
    match report.nodes.iter().any(takes) {
        true => "slots without an owner get one in the next version",
        false => "slots have no owner because each node is cordoned or has weight 0",
    }
}

/// Describes the readiness of a node: its progress with the hand-over, until all slots are released.
pub(crate) fn readiness(report: &Report, node: &NodeReport) -> String {
    let is_releasing = matches!(report.condition, ClusterState::Releasing { .. });
    match (&node.readiness, node.handover) {
        (Readiness::Stabilizing, Some(Handover::Holding)) if is_releasing => "holding".to_owned(),
        (Readiness::Stabilizing, Some(Handover::Released)) if is_releasing => "released".to_owned(),
        (readiness, _) => readiness.to_string(),
    }
}

/// Returns further properties of a node: its role, and requests of operators.
pub(crate) fn remarks(node: &NodeReport) -> Vec<&'static str> {
    let remarks = [
        node.leads.then_some("leads"),
        node.cordon.is_some().then_some("cordoned"),
        node.drain.is_some().then_some("draining"),
    ];
    remarks.into_iter().flatten().collect()
}

/// Describes the cordoned nodes, with the absent ones marked.
pub(crate) fn cordoned(report: &Report) -> Vec<String> {
    let line = |cordon: &CordonReport| {
        let absent = if report.node(&cordon.name).is_none() { " (absent)" } else { "" };
        format!("{}{absent}{}", cordon.name, requested(&cordon.by, &cordon.why))
    };
    limited(&report.cordoned, line)
}

/// Describes the nodes that were asked to leave.
pub(crate) fn draining(report: &Report) -> Vec<String> {
    let line = |node: &NodeReport| {
        let drain = node.drain.as_ref()?;
        Some(format!("{}{}", node.name, requested(&drain.by, &drain.why)))
    };
    report.nodes.iter().filter_map(line).take(NAMED).collect()
}

fn requested(by: &str, why: &str) -> String {
    let by = if by.is_empty() { String::new() } else { format!(" by {by}") };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("{by}{why}")
}
