use std::{collections::BTreeSet, time::Duration};

use clustering_core::store::{
    Batch, Change, ErrorKind, Guard, Key, Lease, LeaseId, Limits, Revision, Txn, WatchEnd,
};
use tokio::time::{Instant, sleep};

use super::{
    super::{
        Clock, Harness,
        model::{Model, Verdict},
        rule_04::Life,
        scene::{Rule, Scene, show_batch},
        site::{Client, Site},
        watch::Watch,
    },
    steps::{At, From, Guarded, KEYS, PREFIXES, Step, Under, Written},
};

/// The store and the model, after the same steps.
pub(super) struct Game<'h, H> {
    site: Site<'h, H>,
    scene: Scene,
    handles: [Client; 2],
    model: Model,
    leases: Vec<(Lease, Life)>,
    /// Sees every change as it happens.
    journal: Watch,
    watches: Vec<Option<Open>>,
    beginning: Revision,
    /// The largest revision that the store has shown.
    known: Revision,
    compacted: Revision,
    /// The longest that a step took, waiting for time to pass aside.
    slowest: Duration,
}

/// A watch of the case.
struct Open {
    watch: Watch,
    /// It was opened from before the last compaction: then it may end, whether it owes something from there or not.
    from_behind: bool,
    /// It owes changes that were compacted before it was opened.
    owes_what_is_gone: bool,
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
            model: Model::default(),
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
        let began = Instant::now();
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
                self.settle().await;
                return self.read(0, &self.site.root.clone()).await;
            }
            Step::Compact { back } => self.compact(*back).await,
        }
        self.read(0, &self.site.root.clone()).await;
        self.slowest = self.slowest.max(began.elapsed());
    }

    fn prefix(&self, number: usize) -> String {
        format!("{}{}", self.site.root, PREFIXES[number])
    }

    fn key(&self, number: usize) -> Key {
        self.site.key(KEYS[number])
    }

    /// The revision of the change so far back.
    fn past(&self, back: usize) -> Revision {
        let all = self.model.changes(&self.site.root, Revision::ZERO);
        all.iter().rev().nth(back).map_or(self.beginning, |batch| batch.revision)
    }

    async fn grant(&mut self, handle: usize, ttl: u32) {
        // Where time cannot be made to pass, no lease must expire by itself.
        let ttl = match self.site.bounds.clock {
            Clock::Paused => self.site.bounds.smallest_ttl * ttl,
            Clock::Real => self.site.bounds.check_limit(),
        };
        let granted = Life::grant(&self.handles[handle], ttl).await;
        let id = granted.0.id;
        self.scene.check(
            self.model.grant(id),
            "a lease id that was never granted",
            format!("granted {id} again"),
        );
        self.leases.push(granted);
    }

    async fn renew(&mut self, handle: usize, number: usize) {
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

    async fn revoke(&mut self, handle: usize, number: usize) {
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
        // A change elsewhere in the store moves the revision of a commit that changes nothing here.
        let moved = (verdict, found) == (Verdict::Nothing, Verdict::Change);
        self.scene.check(
            verdict == found || moved,
            format!("{verdict:?} for {txn:?}"),
            format!(
                "answered {answer:?}, which is {found:?}, the store having been at revision {}",
                self.known
            ),
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
            let batches = self.model.changes(&self.site.root, self.journal.seen);
            self.journal.expect("a watch open since the beginning", &batches).await;
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

    /// The store showed a revision: none is ever smaller than one shown before.
    fn show(&mut self, revision: Revision, by: &str) {
        self.scene.check(
            revision >= self.known,
            format!("revision {} or later in {by}, which was shown before", self.known),
            format!("showed {revision}"),
        );
        self.known = revision;
    }

    async fn read(&mut self, handle: usize, prefix: &str) {
        let found = self.handles[handle].read(prefix).await;
        self.show(found.revision, "a read");
        self.scene.same_entries(&format!("a read of {prefix:?}"), &self.model.read(prefix), &found.entries);
    }

    async fn watch(&mut self, handle: usize, prefix: usize, from: &From) {
        let prefix = self.prefix(prefix);
        let after = match from {
            From::Now => self.known,
            From::Beginning => self.beginning,
            From::Past(back) => self.past(*back),
            From::Before(back) => Revision::new(self.past(*back).get().saturating_sub(1)).max(self.beginning),
            From::Beyond => Revision::new(self.known.get() + 1_000_000),
        };
        let mut watch = self.handles[handle].watch(&prefix, after).await;
        if matches!(from, From::Beyond) {
            let end = watch.end("Rewound from a watch after a revision that is far ahead").await;
            self.scene.check(
                matches!(end, WatchEnd::Rewound { .. }),
                "Rewound from a watch after a revision that is far ahead",
                format!("ended it with {end:?}"),
            );
            self.watches.push(None);
            return;
        }
        let owed = self.model.changes(&prefix, after);
        let owes_what_is_gone = owed.iter().any(|batch| batch.revision <= self.compacted);
        let from_behind = after < self.compacted;
        self.watches.push(Some(Open { watch, from_behind, owes_what_is_gone }));
    }

    /// Takes all that the watch owes, and compares it.
    async fn drain(&mut self, number: usize) {
        let Some(Open { mut watch, from_behind, owes_what_is_gone }) = self.watches[number].take() else {
            return;
        };
        let what = format!("watch {number}, of {:?} after revision {}", watch.prefix, watch.seen);
        if owes_what_is_gone {
            let end =
                watch.end(&format!("Compacted from {what}: changes up to {} are gone", self.compacted)).await;
            self.scene.check(
                matches!(end, WatchEnd::Compacted { .. }),
                format!("Compacted from {what}"),
                format!("ended it with {end:?}"),
            );
            return;
        }
        let owed = self.model.changes(&watch.prefix, watch.seen);
        for batch in &owed {
            // What it owes may have been compacted since it was opened.
            let may_end = (from_behind && batch == &owed[0]) || batch.revision <= self.compacted;
            match watch.item(&format!("{what}: {}", show_batch(batch))).await {
                Some(Ok(found)) => self.scene.same_batch(&what, batch, &found),
                Some(Err(WatchEnd::Compacted { .. })) if may_end => return,
                other => {
                    self.scene.broken(format!("{what}: {}", show_batch(batch)), format!("sent {other:?}"))
                }
            }
        }
        let from_behind = from_behind && owed.is_empty();
        self.watches[number] = Some(Open { watch, from_behind, owes_what_is_gone });
    }

    async fn compact(&mut self, back: usize) {
        let to = self.past(back);
        if to > self.compacted && to > self.beginning {
            self.site.harness.compact(to).await;
            self.compacted = to;
        }
    }

    /// Waits until it is certain of each lease whether it has ended, and will be throughout the next step; and lets those
    /// that have end in the model.
    async fn settle(&mut self) {
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

    /// The leases that may have ended, or may do so while the others are waited for or the next step is made.
    fn due(&self) -> Vec<(Lease, Life)> {
        // Where calls take time, a lease must not end in the midst of them.
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

    /// These leases have ended, each at some revision: the journal says at which.
    async fn vanish(&mut self, mut leases: BTreeSet<LeaseId>) {
        // Those without keys leave no trace.
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

    /// The batch holds all keys of one or more of the leases, and nothing else.
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

    /// Each watch gets one last change, so that everything before it must have come.
    pub(super) async fn finish(mut self) {
        for number in 0..self.watches.len() {
            let Some(open) = &self.watches[number] else { continue };
            let txn = Txn::new().put(format!("{}~last{number}", open.watch.prefix), "", None);
            self.settle().await;
            let revision = self.handles[0].commit(txn.clone()).await;
            self.show(revision, "the reply to a commit");
            self.model.apply(&txn, revision);
            let batches = self.model.changes(&self.site.root, self.journal.seen);
            self.journal.expect("a watch open since the beginning", &batches).await;
        }
        for number in 0..self.watches.len() {
            self.drain(number).await;
        }
        for (lease, _) in &self.leases {
            // Those that have ended are not there to be revoked. This only spares the next case their expiry.
            let _ = self.handles[1].attempt_revoke(lease.id).await;
        }
        self.site.leave().await;
    }
}
