mod leases;
mod watches;

use std::time::Duration;

use clustering_core::store::{ErrorKind, Guard, Key, Lease, LeaseId, Limits, Revision, Txn};
use tokio::time::{Instant, sleep};

use self::watches::Open;
use super::steps::{At, Guarded, KEYS, PREFIXES, Step, Under, Written};
use crate::{
    conformance::{
        Harness,
        rule_04::Life,
        scene::{Rule, Scene},
        site::{Client, Site},
        watch::Watch,
    },
    contract::{Contract, Verdict},
};

/// State of one random case: the store and the model after the same steps.
pub(super) struct Game<'h, H> {
    site: Site<'h, H>,
    scene: Scene,
    handles: [Client; 2],
    model: Contract,
    leases: Vec<(Lease, Life)>,
    /// Watch of the whole prefix, read after every step that changes something.
    journal: Watch,
    watches: Vec<Option<Open>>,
    beginning: Revision,
    /// Largest revision that the store has shown so far.
    known: Revision,
    compacted: Revision,
    /// Longest duration of the calls of a step so far, not counting waits for watches or for time to pass.
    slowest: Duration,
}

impl<'h, H: Harness> Game<'h, H> {
    pub(super) async fn begin(harness: &'h H) -> Self {
        let scene = Scene { rule: Rule::Model, part: "random steps", quiet: true };
        let site = Site::at(harness, scene).await;
        let handles = [site.client.clone(), site.another().await];
        let journal = site.watch_from_now().await;
        let beginning = journal.seen;
        Game {
            site,
            scene,
            handles,
            model: Contract::default(),
            leases: Vec::new(),
            journal,
            watches: Vec::new(),
            beginning,
            known: beginning,
            compacted: Revision::ZERO,
            slowest: Duration::ZERO,
        }
    }

    pub(super) async fn step(&mut self, step: &Step) {
        self.settle().await;
        let mut began = Instant::now();
        match step {
            Step::Grant { handle, ttl } => self.grant(*handle, *ttl).await,
            Step::Renew { handle, lease } => self.renew(*handle, *lease).await,
            Step::Revoke { handle, lease } => self.revoke(*handle, *lease).await,
            Step::Commit { handle, guards, operations } => self.commit(*handle, guards, operations).await,
            Step::Read { handle, prefix } => self.read(*handle, &self.prefix(*prefix)).await,
            Step::Watch { handle, prefix, from } => self.watch(*handle, *prefix, from).await,
            Step::Drain { watch } => self.drain(*watch).await,
            Step::Drop { watch } => self.watches[*watch] = None,
            Step::Advance { steps } => {
                sleep(self.site.bounds.smallest_ttl * *steps / 20).await;
            }
            Step::Compact { back } => self.compact(*back).await,
        }
        // These steps may wait for a watch, or for time to pass, and leases may have ended meanwhile.
        if matches!(
            step,
            Step::Revoke { .. } | Step::Watch { .. } | Step::Drain { .. } | Step::Advance { .. }
        ) {
            self.settle().await;
            began = Instant::now();
        }
        self.read(0, &self.site.root.clone()).await;
        self.slowest = self.slowest.max(began.elapsed());
        // Compare the journal only after the read, because the journal may lag for longer than a lease lives.
        self.follow().await;
    }

    /// Takes all changes that the journal must deliver and compares them with the model.
    async fn follow(&mut self) {
        let batches = self.model.changes(&self.site.root, self.journal.seen);
        self.journal.expect("a watch open since the beginning", &batches).await;
    }

    fn prefix(&self, number: usize) -> String {
        format!("{}{}", self.site.root, PREFIXES[number])
    }

    fn key(&self, number: usize) -> Key {
        self.site.key(KEYS[number])
    }

    /// Returns the revision of an earlier change, counted back from the newest.
    fn past(&self, back: usize) -> Revision {
        let all = self.model.changes(&self.site.root, Revision::ZERO);
        all.iter().rev().nth(back).map_or(self.beginning, |batch| batch.revision)
    }

    async fn commit(&mut self, handle: usize, guards: &[Guarded], operations: &[Written]) {
        let txn = self.transaction(guards, operations);
        let verdict = self.model.judge(&txn);
        let answer = self.handles[handle].attempt(txn.clone()).await;
        let found = match &answer {
            Ok(revision) if *revision > self.known => Verdict::Change,
            Ok(_) => Verdict::Nothing,
            Err(error) => match error.kind() {
                ErrorKind::GuardFailed { .. } => Verdict::GuardFailed,
                ErrorKind::LeaseNotFound => Verdict::LeaseNotFound,
                ErrorKind::Invalid => Verdict::Invalid,
                kind => self
                    .scene
                    .broken(format!("{verdict:?} for {txn:?}"), format!("failed with {kind:?}: {error}")),
            },
        };
        // A commit that changes nothing returns the current revision, which other clients of the store may have
        // advanced.
        let moved = (verdict, found) == (Verdict::Nothing, Verdict::Change);
        self.scene.check(
            verdict == found || moved,
            format!("{verdict:?} for {txn:?}"),
            format!("answered {answer:?}, which is {found:?} (the last known revision was {})", self.known),
        );
        let revision = match answer {
            Ok(revision) => revision,
            Err(error) => match error.kind() {
                ErrorKind::GuardFailed { revision } => revision,
                _ => self.known,
            },
        };
        self.show(revision, "the reply to a commit");
        if verdict == Verdict::Change {
            self.model.apply(&txn, revision);
        }
    }

    fn transaction(&self, guards: &[Guarded], operations: &[Written]) -> Txn {
        let guarded = guards.iter().fold(Txn::new(), |txn, guard| {
            let key = self.key(guard.key);
            let entry = self.model.read(&key).into_iter().find(|entry| entry.key == key);
            let right = entry.map_or(Revision::ZERO, |entry| match guard.created {
                true => entry.created,
                false => entry.modified,
            });
            let at = match guard.at {
                At::Right => right,
                At::Absent => Revision::ZERO,
                At::Past(back) => self.past(back),
                At::Ahead => Revision::new(self.known.get() + 1_000_000),
            };
            txn.guard(if guard.created { Guard::created_at(key, at) } else { Guard::modified_at(key, at) })
        });
        operations.iter().fold(guarded, |txn, operation| match operation {
            Written::Put { key, value, lease } => {
                let lease = match lease {
                    Under::None => None,
                    Under::Lease(number) => Some(self.leases[*number].0.id),
                    Under::Unknown(number) => Some(LeaseId::new(*number)),
                };
                txn.put(self.key(*key), vec![*value], lease)
            }
            Written::Delete { key } => txn.delete(self.key(*key)),
            Written::TooLarge { key } => txn.put(self.key(*key), vec![0; Limits::VALUE + 1], None),
        })
    }

    /// Records a revision shown by the store and checks that it is not smaller than one shown before.
    fn show(&mut self, revision: Revision, by: &str) {
        self.scene.check(
            revision >= self.known,
            format!("revision {} or later in {by}, because that one was shown before", self.known),
            format!("showed {revision}"),
        );
        self.known = revision;
    }

    async fn read(&mut self, handle: usize, prefix: &str) {
        let found = self.handles[handle].read(prefix).await;
        self.show(found.revision, "a read");
        self.scene.same_entries(&format!("a read of {prefix:?}"), &self.model.read(prefix), &found.entries);
    }

    async fn compact(&mut self, back: usize) {
        let to = self.past(back);
        if to > self.compacted && to > self.beginning {
            self.site.harness.compact(to).await;
            self.compacted = to;
        }
    }

    /// Commits one last change under the prefix of each watch and drains it: everything before that change must have
    /// arrived.
    pub(super) async fn finish(mut self) {
        for number in 0..self.watches.len() {
            let Some(open) = &self.watches[number] else { continue };
            let txn = Txn::new().put(format!("{}~last{number}", open.watch.prefix), "", None);
            self.settle().await;
            let revision = self.handles[0].commit(txn.clone()).await;
            self.show(revision, "the reply to a commit");
            self.model.apply(&txn, revision);
            self.follow().await;
        }
        for number in 0..self.watches.len() {
            self.drain(number).await;
        }
        for (lease, _) in &self.leases {
            // Revocation fails for leases that have ended. It only spares the next case from waiting for the others to
            // expire.
            let _ = self.handles[1].attempt_revoke(lease.id).await;
        }
        self.site.leave().await;
    }
}
