//! Times at which nodes lose and acquire slots.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clustering_core::{Clustering, slots::Slot};

/// Losses and acquisitions of all nodes of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moves(Arc<Mutex<Vec<Move>>>);

#[derive(Clone, Copy, Debug)]
struct Move {
    at: Instant,
    slot: Slot,
    /// Number of the node.
    node: usize,
    acquired: bool,
}

/// Longest times for which no node held a slot during a change.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gaps {
    /// Longest gap of the slots that have another holder afterwards. `None` if there are no such slots.
    pub(crate) moved: Option<Duration>,
    /// Longest gap of all other slots.
    pub(crate) kept: Duration,
}

impl Moves {
    /// Records the losses and acquisitions of a node until it ends.
    pub(crate) fn follow(&self, number: usize, node: &Clustering) {
        let (moves, mut status) = (self.clone(), node.status());
        tokio::spawn(async move {
            let mut before = Arc::default();
            while let Ok(status) = status.changed().await {
                let at = Instant::now();
                let Some(holdings) = &status.holdings else { continue };
                if Arc::ptr_eq(&before, &holdings.held) {
                    continue;
                }
                moves.note(at, number, &before, &holdings.held);
                before = holdings.held.clone();
            }
        });
    }

    fn note<T>(&self, at: Instant, node: usize, before: &BTreeMap<Slot, T>, after: &BTreeMap<Slot, T>) {
        let lost = before.keys().filter(|slot| !after.contains_key(slot)).map(|slot| (*slot, false));
        let gained = after.keys().filter(|slot| !before.contains_key(slot)).map(|slot| (*slot, true));
        let moves = lost.chain(gained).map(|(slot, acquired)| Move { at, slot, node, acquired });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(moves);
    }

    /// Discards all moves so far.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns the gaps since the last [`clear`](Self::clear). Slots whose holder crashed count as lost at `died`.
    pub(crate) fn gaps(&self, died: Option<Instant>) -> Gaps {
        let moves = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut slots = BTreeMap::<Slot, (Option<Move>, Option<Move>)>::new();
        for moved in moves {
            let (lost, acquired) = slots.entry(moved.slot).or_default();
            *(if moved.acquired { acquired } else { lost }) = Some(moved);
        }
        let mut gaps = Gaps::default();
        for (lost, acquired) in slots.into_values() {
            let Some(acquired) = acquired else { continue };
            match (lost, died) {
                (Some(lost), None) if lost.node == acquired.node => {
                    gaps.kept = gaps.kept.max(acquired.at - lost.at);
                }
                (Some(Move { at, .. }), None) | (_, Some(at)) => {
                    gaps.moved = gaps.moved.max(Some(acquired.at.saturating_duration_since(at)));
                }
                (None, None) => {}
            }
        }
        gaps
    }
}
