//! Assembles a report from the records of a cluster.

use std::sync::Arc;

use super::{
    ClusterState, DrainReport, LeaderReport, Malformed, NodeReport, Readiness, Report, RequestReport,
    VersionReport,
    ownership::{Ownership, cordon},
    records::Records,
};
use crate::{
    event::Laggard,
    name::NodeName,
    node::Node,
    version::{Term, Version},
};

impl Records {
    pub(super) fn report(&self) -> Report {
        let leader = self.log.leader().map(|leader| LeaderReport {
            name: leader.record.as_ref().map(|record| record.node.clone()),
            term: Term::new(leader.created),
        });
        let leader_name = leader.as_ref().and_then(|leader| leader.name.as_ref());
        let ownership = Ownership::new(self);
        let nodes: Vec<_> =
            self.log.present().map(|node| self.node_report(node, leader_name, &ownership)).collect();
        let request = self.open_request().map(|request| RequestReport {
            by: request.record.as_ref().and_then(|record| record.by.clone()),
            why: request.record.as_ref().and_then(|record| record.why.clone()),
        });
        let stable = self.log.stable().and_then(|stable| stable.record.as_ref());
        let malformed = self.malformed.iter();
        Report {
            namespace: self.keyspace().namespace().clone(),
            revision: self.log.revision(),
            condition: self.state(&nodes, &ownership),
            version: self.version_report(),
            stable: stable.map(|record| record.version),
            request,
            slots: ownership.report(),
            cordoned: self.log.cordoned().iter().map(|(name, stored)| cordon(name, stored)).collect(),
            malformed: malformed
                .map(|(key, reason)| Malformed { key: key.clone(), reason: reason.clone() })
                .collect(),
            leader,
            nodes,
        }
    }

    fn node_report(
        &self,
        node: &Arc<Node>,
        leader: Option<&NodeName>,
        ownership: &Ownership<'_>,
    ) -> NodeReport {
        NodeReport {
            exclusive: ownership.is_exclusive(node),
            slots: ownership.slots_of(&node.name),
            handover: ownership.handover(node),
            cordon: self.log.cordoned().get(&node.name).map(|stored| cordon(&node.name, stored)),
            drain: self.drain(node),
            readiness: match self.readiness(node) {
                // All nodes have acknowledged a stable version, even if acknowledgements were deleted since.
                Readiness::Stabilizing | Readiness::Refused(_) if self.is_stable() => Readiness::Ready,
                readiness => readiness,
            },
            leads: leader == Some(&node.name),
            registered_ms: node.incarnation.as_str().parse().ok().and_then(minted_ms),
            node: node.clone(),
        }
    }

    /// Returns the request to the node's session to leave.
    fn drain(&self, node: &Node) -> Option<DrainReport> {
        let stored = self.log.drain(&node.name).filter(|stored| stored.lease == node.lease)?;
        let record = stored.record.as_ref()?;
        Some(DrainReport { by: record.by.clone(), why: record.why.clone() })
    }

    fn version_report(&self) -> Option<VersionReport> {
        let version = self.log.version()?;
        let record = version.record.as_ref();
        Some(VersionReport {
            version: record.map(|record| record.version),
            revision: version.modified,
            // The record of an election omits the term, because the term is the revision of that commit.
            term: record.map(|record| record.term.unwrap_or_else(|| Term::new(version.modified))),
            leader: record.and_then(|record| record.leader.clone()),
            causes: record.map(|record| record.causes.clone()).unwrap_or_default(),
            min_nodes: record.and_then(|record| record.min_nodes),
            published_ms: record.and_then(|record| minted_ms(record.version)),
        })
    }

    fn state(&self, nodes: &[NodeReport], ownership: &Ownership<'_>) -> ClusterState {
        if nodes.is_empty() {
            return ClusterState::Empty;
        }
        if self.log.leader().is_some_and(|leader| leader.record.is_none())
            || self.log.version().is_some_and(|version| version.record.is_none())
        {
            return ClusterState::Unreadable;
        }
        if self.log.leader().is_none() {
            return ClusterState::Leaderless;
        }
        let is_stable = self.is_stable();
        let changed: Vec<_> = nodes
            .iter()
            .filter(|node| node.readiness == Readiness::New)
            .map(|node| node.name.clone())
            .collect();
        // A snapshot does not show which nodes have left, but the stability record contains the number of nodes.
        let stable = self.log.stable().filter(|_| is_stable);
        let had = stable.and_then(|stable| stable.record.as_ref()?.nodes).unwrap_or_default();
        let gone = had.saturating_sub(nodes.len());
        let asked = self.open_request().is_some();
        let is_due = !changed.is_empty() && !self.makes_joins_wait(ownership);
        if is_due || gone > 0 || asked {
            return ClusterState::Due { changed, gone, asked };
        }
        if is_stable {
            return ClusterState::Stable;
        }
        if let Some(min_nodes) = self.waits_for_nodes(ownership.members()) {
            return ClusterState::WaitingForNodes { nodes: ownership.members(), min_nodes };
        }
        if let Some(releasing) = ownership.releasing(nodes) {
            return releasing;
        }
        let waiting_for: Vec<_> = nodes.iter().filter_map(laggard).collect();
        match waiting_for.is_empty() {
            true => ClusterState::Confirming,
            false => ClusterState::Adapting { waiting_for },
        }
    }

    /// True if slots are being handed over, and the only changes since the newest version are nodes that joined or came
    /// back: these wait until this version is stable.
    fn makes_joins_wait(&self, ownership: &Ownership<'_>) -> bool {
        let version = self.log.version_modified();
        let mut later = self.log.present().filter(|node| node.modified > version);
        ownership.has_handover()
            && !self.is_stable()
            && self.waits_for_nodes(ownership.members()).is_none()
            && later.all(|node| node.created > version)
    }
}

/// Returns the node as a laggard if it has not acknowledged the newest version.
fn laggard(node: &NodeReport) -> Option<Laggard> {
    let refused = match &node.readiness {
        Readiness::Stabilizing => None,
        Readiness::Refused(reason) => Some(reason.clone()),
        Readiness::Ready | Readiness::New => return None,
    };
    Some(Laggard { name: node.name.clone(), refused })
}

/// Returns the time in a label, in milliseconds since 1970; `None` if no clock generated the label.
fn minted_ms(label: Version) -> Option<u64> {
    label.is_plausible().then(|| label.minted_ms())
}
