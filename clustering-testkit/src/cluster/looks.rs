use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use clustering_core::Term;

use super::shared::Shared;
use crate::history::{Life, Observation};

/// Virtual time between two samples.
const EVERY: Duration = Duration::from_millis(50);

/// Repeatedly asks every node if it may act as leader, including paused and disconnected nodes, and records every
/// positive answer and every change to a negative one. The checks of P6 use these entries. Also checks the slots that
/// the node holds (P12), because they can change by the clock alone.
pub(super) fn begin<S: Send + Sync + 'static>(shared: &Arc<Shared<S>>) {
    let shared = Arc::downgrade(shared);
    tokio::spawn(async move {
        let mut last = BTreeMap::new();
        while look(&shared, &mut last) {
            tokio::time::sleep(EVERY).await;
        }
    });
}

/// Samples all nodes once. Returns false once the cluster has been dropped.
fn look<S>(shared: &Weak<Shared<S>>, last: &mut BTreeMap<Life, Option<Term>>) -> bool {
    let Some(shared) = shared.upgrade() else { return false };
    let gates: Vec<_> = {
        let seats = shared.seats();
        seats.all.iter().filter(|seat| seat.runs()).map(|seat| seat.gate().clone()).collect()
    };
    for gate in gates {
        gate.look_at_claims();
        let (Some(node), Some(journal)) = (gate.node(), gate.journal()) else { continue };
        let at = shared.clock.now();
        let (left, term) = (node.leadership_left(), node.term());
        if last.insert(journal.life().clone(), term) != Some(term) || term.is_some() {
            let until = term.map(|_| at + left);
            journal.note_at(at, Observation::AskedLeader { term, until });
        }
    }
    true
}
