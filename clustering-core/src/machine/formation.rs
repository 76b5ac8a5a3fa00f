//! The minimum size of a new cluster (P8).
//!
//! A cluster *forms* when a version with [`Config::min_nodes`](crate::Config::min_nodes) nodes becomes stable. Until
//! then, no slots are assigned, and no version with fewer nodes becomes stable. Each version record says whether the
//! cluster has formed, so that neither a new leader nor a restart of all nodes makes it wait again.

use super::{facts::Facts, outbox::Outbox};
use crate::{event::Event, store::Revision, view::View};

/// On the leader, reports versions with fewer nodes than the minimum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Formation {
    /// The last version that was reported as waiting for nodes.
    waiting: Option<Revision>,
    /// True if the cluster has formed and the newest version has too few nodes, which was reported.
    is_short: bool,
}

impl Formation {
    pub(crate) fn reconcile(&mut self, facts: &Facts, is_leading: bool, out: &mut Outbox) {
        if !is_leading {
            *self = Formation::default();
            return;
        }
        let (Some(view), Some(min_nodes)) = (facts.fold.newest(), minimum(facts)) else { return };
        let (version, nodes) = (view.version(), view.len());
        if waits_for_nodes(facts).is_some() {
            if self.waiting.replace(view.revision()) != Some(view.revision()) {
                out.emit(Event::WaitingForNodes { version, nodes, min_nodes });
            }
            return;
        }
        let is_short = nodes < min_nodes as usize;
        if is_short && !self.is_short {
            out.emit(Event::TooFewNodes { version, nodes, min_nodes });
        }
        self.is_short = is_short;
    }
}

/// Returns the configured minimum if it is more than one node.
fn minimum(facts: &Facts) -> Option<u32> {
    facts.config.min_nodes.filter(|min| *min > 1)
}

/// True if the cluster has formed. A cluster without a minimum has formed from the start.
///
/// While a cluster has not formed, only versions with enough nodes are recorded as stable. So the stability record of a
/// smaller version does not prove anything, but a record that names enough nodes does.
pub(crate) fn has_formed(facts: &Facts) -> bool {
    let Some(min) = minimum(facts) else { return true };
    let fold = &facts.fold;
    let nodes = fold.stable().and_then(|stable| stable.record.as_ref()?.nodes);
    fold.has_formed() || fold.slots().is_some() || nodes.is_some_and(|nodes| nodes >= min as usize)
}

/// Returns the minimum, if the newest version cannot become stable because it has fewer nodes.
pub(crate) fn waits_for_nodes(facts: &Facts) -> Option<u32> {
    let (view, min) = (facts.fold.newest()?, minimum(facts)?);
    (view.len() < min as usize && !has_formed(facts)).then_some(min)
}

/// True if the newest version was published before the cluster formed, and the cluster cannot work with it: no slots
/// are assigned in it, or its record says that it waits for nodes.
pub(crate) fn is_outdated(facts: &Facts) -> bool {
    let lacks_slots =
        |view: &View| facts.config.exclusive.is_some() && view.has_handover() && view.assignment().is_none();
    let waits = |view: &&View| {
        minimum(facts).is_some()
            && !view.is_formed()
            && (view.waits_for_nodes().is_some() || lacks_slots(view))
    };
    facts.fold.newest().filter(waits).is_some() && has_formed(facts)
}
