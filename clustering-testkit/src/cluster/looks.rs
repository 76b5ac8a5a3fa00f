use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use clustering_core::Term;

use super::shared::Shared;
use crate::history::{Life, Observation};

/// Between two looks, of virtual time.
const EVERY: Duration = Duration::from_millis(50);

/// Asks every node again and again whether it may act as leader, also those that are paused or cut off, and takes the
/// answers that differ from the last down: what P6 is judged by.
pub(super) fn begin<S: Send + Sync + 'static>(shared: &Arc<Shared<S>>) {
    let shared = Arc::downgrade(shared);
    tokio::spawn(async move {
        let mut last = BTreeMap::new();
        while look(&shared, &mut last) {
            tokio::time::sleep(EVERY).await;
        }
    });
}

/// Returns whether there is a next time.
fn look<S>(shared: &Weak<Shared<S>>, last: &mut BTreeMap<Life, Option<Term>>) -> bool {
    let Some(shared) = shared.upgrade() else { return false };
    let nodes: Vec<_> = {
        let seats = shared.seats();
        let gates = seats.all.iter().filter(|seat| seat.runs()).map(|seat| seat.gate());
        gates.filter_map(|gate| Some((gate.node()?, gate.journal()?))).collect()
    };
    for (node, journal) in nodes {
        let at = shared.clock.now();
        let (left, term) = (node.leadership_left(), node.term());
        if last.insert(journal.life().clone(), term) != Some(term) || term.is_some() {
            let until = term.map(|_| at + left);
            journal.note_at(at, Observation::AskedLeader { term, until });
        }
    }
    true
}
