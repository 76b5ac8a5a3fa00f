use std::collections::BTreeSet;

use clustering_core::store::{Batch, Change, ErrorKind, Key, Lease, LeaseId};
use tokio::time::Instant;

use super::Game;
use crate::conformance::{Clock, Harness, rule_04::Life, scene::show_batch};

impl<H: Harness> Game<'_, H> {
    pub(super) async fn grant(&mut self, handle: usize, ttl: u32) {
        // If the test cannot make time pass, no lease may expire.
        let ttl = match self.site.bounds.clock {
            Clock::Paused => self.site.bounds.smallest_ttl * ttl,
            Clock::Real => self.site.bounds.check_limit(),
        };
        let granted = Life::grant(&self.handles[handle], ttl).await;
        let id = granted.0.id;
        self.scene.check(
            self.model.grant(id),
            "a lease id that was not granted before",
            format!("granted {id} again"),
        );
        self.leases.push(granted);
    }

    pub(super) async fn renew(&mut self, handle: usize, number: usize) {
        let (lease, client) = (self.leases[number].0, &self.handles[handle]);
        if self.model.is_live(lease.id) {
            self.leases[number].1 = Life::renew(client, lease).await;
        } else {
            let answer = client.attempt_renew(lease.id).await;
            self.not_found(
                &format!("the renewal of lease {number}, which has ended"),
                answer.err().map(|e| e.kind()),
            );
        }
    }

    pub(super) async fn revoke(&mut self, handle: usize, number: usize) {
        let (id, client) = (self.leases[number].0.id, &self.handles[handle]);
        if self.model.is_live(id) {
            client.revoke(id).await;
            self.vanish(BTreeSet::from([id])).await;
        } else {
            let answer = client.attempt_revoke(id).await;
            self.not_found(
                &format!("the revocation of lease {number}, which has ended"),
                answer.err().map(|e| e.kind()),
            );
        }
    }

    fn not_found(&self, what: &str, answer: Option<ErrorKind>) {
        self.scene.check(
            answer == Some(ErrorKind::LeaseNotFound),
            format!("LeaseNotFound for {what}"),
            answer.map_or("accepted it".to_owned(), |kind| format!("failed with {kind:?}")),
        );
    }

    /// Waits until every lease is either certain to have ended or certain to live throughout the next step. Ends the
    /// former in the model.
    pub(super) async fn settle(&mut self) {
        loop {
            let due = self.due();
            if due.is_empty() {
                break;
            }
            for (_, life) in &due {
                life.over().await;
            }
            self.vanish(due.iter().map(|(lease, _)| lease.id).collect()).await;
        }
    }

    /// Returns the leases that may have ended, or may end while waiting for the others or during the next step.
    fn due(&self) -> Vec<(Lease, Life)> {
        // If calls take time, a lease must not end while one is in progress.
        let step = 4 * self.slowest;
        let mut until = Instant::now();
        let live = self.leases.iter().filter(|(lease, _)| self.model.is_live(lease.id));
        let (mut due, mut rest): (Vec<(Lease, Life)>, Vec<_>) = (Vec::new(), live.copied().collect());
        loop {
            let (more, others): (Vec<_>, _) =
                rest.into_iter().partition(|(_, life)| life.may_be_over(until + step));
            if more.is_empty() {
                return due;
            }
            until = more.iter().fold(until, |until, (_, life)| until.max(life.latest()));
            due.extend(more);
            rest = others;
        }
    }

    /// Ends these leases in the model, at the revisions that the journal shows.
    async fn vanish(&mut self, mut leases: BTreeSet<LeaseId>) {
        // The end of a lease without keys creates no revision.
        leases.retain(|lease| {
            let keys = !self.model.keys_of(*lease).is_empty();
            if !keys {
                self.model.end(&[*lease], self.known);
            }
            keys
        });
        while !leases.is_empty() {
            let batch = self.journal.next("the deletion of the keys of leases that ended").await;
            self.vanish_in(&mut leases, &batch);
        }
    }

    /// Checks that the batch deletes exactly the keys of one or more of the leases, and ends those in the model.
    fn vanish_in(&mut self, leases: &mut BTreeSet<LeaseId>, batch: &Batch) {
        let deleted: BTreeSet<Key> = batch
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::Delete(key) => Some(key.clone()),
                Change::Put(_) => None,
            })
            .collect();
        let ended: Vec<LeaseId> = leases
            .iter()
            .copied()
            .filter(|lease| !self.model.keys_of(*lease).is_disjoint(&deleted))
            .collect();
        let keys: BTreeSet<Key> = ended.iter().flat_map(|lease| self.model.keys_of(*lease)).collect();
        self.scene.check(
            keys == deleted && batch.changes.len() == keys.len() && !keys.is_empty(),
            format!("the deletion of all keys of leases that ended, {keys:?}, in one batch"),
            format!("sent {}", show_batch(batch)),
        );
        self.model.end(&ended, batch.revision);
        leases.retain(|lease| !ended.contains(lease));
    }
}
