use std::{collections::BTreeSet, time::Duration};

use clustering_core::store::{Batch, Change, Entry, ErrorKind, Key, Lease, LeaseId, Revision, Txn};
use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Bounds, Harness,
    scene::{Rule, Scene, show_batch, show_entry},
    site::{Client, Site},
    tasks::finish,
    watch::Watch,
};

/// Checks rule 4: a lease's keys vanish together. In particular:
///
/// - a revocation, through any handle, deletes exactly the keys of that lease, in one batch, before it returns;
/// - expiry does the same, observed by reads and by a watch without any concurrent reads. It happens no earlier than
///   the TTL after the grant or the last renewal was sent, and no later than the TTL plus the slack after the reply. A
///   put does not renew the lease;
/// - renewals, through any handle and after two thirds of the TTL, keep the lease alive for its full TTL;
/// - a renewal at the last moment either saves all keys or finds all of them gone;
/// - a lease lives for its TTL and then ends in time, even if every handle that used it has been dropped;
/// - a lease without keys ends as well;
/// - no renewal or revocation brings back a lease that has ended, was revoked or never existed;
/// - puts that race with a revocation leave no keys behind;
/// - lease ids are never reused;
/// - a lease can be granted for a day, the longest TTL that nodes use.
pub async fn rule_04_lease_keys_vanish_together<H: Harness>(harness: &H) {
    a_revocation_takes_the_lease_s_keys(harness).await;
    an_ended_lease_stays_ended(harness).await;
    puts_beside_a_revocation_leave_nothing(harness).await;
    the_longest_ttl_is_granted(harness).await;
    // These parts wait for leases to expire, so they run concurrently.
    tokio::join!(
        expiry_takes_the_lease_s_keys(harness),
        renewals_keep_the_lease(harness),
        a_renewal_at_the_last_moment(harness),
        a_lease_outlives_its_handle_and_no_more(harness),
        a_lease_without_keys_ends(harness),
        lease_ids_are_never_used_again(harness),
    );
    // This part runs alone: concurrent calls would help a store that only expires leases when it is called.
    expiry_needs_no_reader(harness).await;
}

/// Time span in which the store may end a lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// Earliest end of the lease: its TTL after the last grant or renewal was sent.
    earliest: Instant,
    /// Latest end of the lease: its TTL plus the slack after that call was answered.
    latest: Instant,
}

impl Life {
    fn new(sent: Instant, ttl: Duration, bounds: Bounds) -> Self {
        Life { earliest: sent + ttl, latest: Instant::now() + ttl + bounds.expiry_slack }
    }

    pub(super) async fn grant(client: &Client, ttl: Duration) -> (Lease, Life) {
        let sent = Instant::now();
        let lease = client.grant(ttl).await;
        (lease, Life::new(sent, lease.ttl, client.bounds))
    }

    /// Returns true if the store may have ended the lease by `now`.
    pub(super) fn may_be_over(&self, now: Instant) -> bool {
        now >= self.earliest
    }

    /// Returns true if the store must have ended the lease by `now`.
    pub(super) fn must_be_over(&self, now: Instant) -> bool {
        now > self.latest
    }

    pub(super) async fn renew(client: &Client, lease: Lease) -> Life {
        let sent = Instant::now();
        client.renew(lease).await;
        Life::new(sent, lease.ttl, client.bounds)
    }

    /// Returns a time at which the lease has certainly ended, just after the end of the slack.
    pub(super) fn latest(&self) -> Instant {
        self.latest + Duration::from_millis(1)
    }

    /// Waits until the lease must have ended.
    pub(super) async fn over(self) {
        sleep_until(self.latest()).await;
    }

    /// Polls with reads until the keys vanish, and judges the time and the manner. The entries in `others` must stay.
    pub(super) async fn watched_by_reads(self, client: &Client, root: &str, keys: &[Key], others: &[Entry]) {
        let scene = client.scene;
        let step = (client.bounds.smallest_ttl / 20).max(Duration::from_millis(1));
        loop {
            let asked = Instant::now();
            let found = client.read(root).await.entries;
            let answered = Instant::now();
            let (left, stayed): (Vec<Entry>, Vec<Entry>) =
                found.into_iter().partition(|entry| keys.contains(&entry.key));
            scene.same_entries("the keys of other leases, or of none, stay", others, &stayed);
            if left.is_empty() {
                scene.check(
                    answered >= self.earliest,
                    "the lease's keys stay until its TTL has passed since the last grant or renewal was sent",
                    format!("had deleted them at least {:?} early", self.earliest - answered),
                );
                return;
            }
            scene.check(
                left.len() == keys.len(),
                format!("the {} keys of a lease vanish together", keys.len()),
                format!("showed {} of them: {}", left.len(), show_entry(&left[0])),
            );
            scene.check(
                asked <= self.latest,
                "the lease's keys vanish no later than the TTL and the stated slack",
                format!("still showed them {:?} later", asked - self.latest),
            );
            sleep(step).await;
        }
    }

    /// Waits for a watch to show that the keys vanished, without any reads, and judges the time and the manner.
    pub(super) async fn watched_by_a_watch(
        self,
        client: &Client,
        watch: &mut Watch,
        keys: &[Key],
    ) -> Revision {
        let limit = self.latest - Instant::now() + client.bounds.watch_lag;
        let batch = watch.next_within(limit, "the deletion of the keys of a lease that expires").await;
        let early = self.earliest.saturating_duration_since(Instant::now());
        client.scene.check(
            early.is_zero(),
            "the lease's keys stay until its TTL has passed since the last grant or renewal was sent",
            format!("had deleted them at least {early:?} early"),
        );
        all_at_once(client.scene, &batch, keys);
        batch.revision
    }
}

/// Checks that the batch deletes exactly these keys.
pub(super) fn all_at_once(scene: Scene, batch: &Batch, keys: &[Key]) {
    let deleted: BTreeSet<&Key> = batch
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Delete(key) => Some(key),
            Change::Put(_) => None,
        })
        .collect();
    scene.check(
        deleted == keys.iter().collect() && batch.changes.len() == keys.len(),
        format!("the {} keys of the lease deleted in one revision: {keys:?}", keys.len()),
        format!("sent {}", show_batch(batch)),
    );
}

/// Puts `count` keys under `lease` and other keys under no lease and under `other`. Returns the keys, the other
/// entries, and the revision after these commits.
async fn furnish<H: Harness>(
    site: &Site<'_, H>,
    lease: LeaseId,
    other: LeaseId,
    count: usize,
) -> (Vec<Key>, Vec<Entry>, Revision) {
    let keys: Vec<Key> = (0..count).map(|n| site.key(&format!("leased{n:02}"))).collect();
    for some in keys.chunks(14) {
        let txn = some.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), "1", lease));
        site.client.commit(txn.put(site.key("free"), "1", None).put(site.key("others"), "1", other)).await;
    }
    let snapshot = site.read().await;
    let others = snapshot.entries.into_iter().filter(|entry| !keys.contains(&entry.key)).collect();
    (keys, others, snapshot.revision)
}

async fn a_revocation_takes_the_lease_s_keys<H: Harness>(harness: &H) {
    let part = "a revocation deletes exactly the keys of that lease, in one batch";
    let site = Site::open(harness, Rule::Leases, part).await;
    let other = site.another().await;
    for (by, revoker) in [("the handle that granted it", &site.client), ("another handle", &other)] {
        for count in [1, 3, 60] {
            let (lease, neighbour) = (site.grant_long().await.id, site.grant_long().await);
            let (keys, others, before) = furnish(&site, lease, neighbour.id, count).await;
            let mut watch = site.watch(before).await;
            revoker.revoke(lease).await;
            let found = other.read(&site.root).await;
            site.scene.same_entries(
                &format!("once the lease was revoked by {by}, its {count} keys are gone and the others stay"),
                &others,
                &found.entries,
            );
            let batch = watch.next("the deletion of the keys of a revoked lease").await;
            all_at_once(site.scene, &batch, &keys);
            site.scene.check(
                before < batch.revision && batch.revision <= found.revision,
                format!("a revocation at a revision after {before}, up to {}", found.revision),
                format!("deleted the keys at {}", batch.revision),
            );
            watch.expect_nothing("a revocation is one revision", &site.client).await;
            site.client.delete(&site.key("~fence")).await;
            site.client.renew(neighbour).await;
            site.client.revoke(neighbour.id).await;
        }
    }
    // The revocation of a lease without keys changes nothing.
    let (lease, neighbour) = (site.grant_long().await.id, site.grant_long().await.id);
    let (_, _, before) = furnish(&site, neighbour, neighbour, 2).await;
    let mut watch = site.watch(before).await;
    other.revoke(lease).await;
    watch.expect_nothing("no change from the revocation of a lease without keys", &site.client).await;
    site.leave().await;
}

/// Checks that a lease has ended: every call that names it must fail with `LeaseNotFound`.
async fn has_ended(client: &Client, lease: LeaseId, key: &Key, how: &str) {
    let answers = [
        ("a renewal", client.attempt_renew(lease).await.err()),
        ("a put", client.attempt(Txn::new().put(key.clone(), "", lease)).await.err()),
        ("a revocation", client.attempt_revoke(lease).await.err()),
        ("a second renewal", client.attempt_renew(lease).await.err()),
    ];
    for (call, answer) in answers {
        let expected = format!("LeaseNotFound for {call} of a lease that {how}");
        match answer {
            None => client.scene.broken(expected, "accepted it"),
            Some(error) if error.kind() == ErrorKind::LeaseNotFound => {}
            Some(error) => client.scene.broken(expected, format!("failed with {:?}: {error}", error.kind())),
        }
    }
    let found = client.read(key).await.entries;
    client.scene.same_entries(&format!("no key under a lease that {how}"), &[], &found);
}

async fn the_longest_ttl_is_granted<H: Harness>(harness: &H) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let site = Site::open(harness, Rule::Leases, "a lease with a TTL of one day").await;
    let lease = site.client.grant(DAY).await;
    site.client.renew(lease).await;
    site.client.revoke(lease.id).await;
    site.leave().await;
}

async fn an_ended_lease_stays_ended<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Leases, "no call brings back a lease that was revoked or never existed")
            .await;
    let other = site.another().await;
    let key = site.key("k");
    let lease = site.grant_long().await.id;
    site.client.put(&key, "1", Some(lease)).await;
    site.client.revoke(lease).await;
    has_ended(&site.client, lease, &key, "was revoked").await;
    has_ended(&other, lease, &key, "was revoked by another handle").await;
    // Some stores give a special meaning to 0 and to values beyond a signed integer.
    for never in [0, 0x7fff_ffff_ffff_fff1, 1 << 63, u64::MAX] {
        has_ended(&site.client, LeaseId::new(never), &key, &format!("never existed ({never:x})")).await;
    }
    site.leave().await;
}

async fn puts_beside_a_revocation_leave_nothing<H: Harness>(harness: &H) {
    const ROUNDS: usize = 10;
    const WRITERS: usize = 4;
    let site =
        Site::open(harness, Rule::Leases, "puts that race with a revocation leave no keys behind").await;
    let handles = [site.client.clone(), site.another().await];
    for round in 0..ROUNDS {
        let lease = site.grant_long().await.id;
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let client = handles[writer % 2].clone();
            let keys = [0, 1].map(|n| site.key(&format!("k{round}-{writer}-{n}")));
            writers.spawn(async move {
                loop {
                    let both = keys.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), "1", lease));
                    match client.attempt(both).await {
                        Ok(_) => yield_now().await,
                        Err(error) if error.kind() == ErrorKind::LeaseNotFound => break,
                        Err(error) => client.scene.broken(
                            "success or LeaseNotFound",
                            format!("failed with {:?}: {error}", error.kind()),
                        ),
                    }
                }
            });
        }
        for _ in 0..round {
            yield_now().await;
        }
        handles[1].revoke(lease).await;
        finish(writers).await;
        let left = site.read().await.entries;
        site.scene.same_entries("no key of a revoked lease after concurrent puts", &[], &left);
    }
    site.leave().await;
}

async fn expiry_takes_the_lease_s_keys<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Leases, "a lease that expires takes its keys with it, as shown by reads")
            .await;
    let neighbour = site.grant_long().await.id;
    let (lease, life) = Life::grant(&site.client, site.bounds.smallest_ttl).await;
    let (keys, others, before) = furnish(&site, lease.id, neighbour, 20).await;
    // A put under a lease does not renew it.
    sleep(site.bounds.smallest_ttl / 2).await;
    let again = site.client.put(&keys[0], "2", Some(lease.id)).await;
    let mut watch = site.watch(again.max(before)).await;
    life.watched_by_reads(&site.another().await, &site.root, &keys, &others).await;
    let batch = watch.next("the deletion of the keys of an expired lease").await;
    all_at_once(site.scene, &batch, &keys);
    watch.expect_nothing("expiry is one revision", &site.client).await;
    has_ended(&site.client, lease.id, &keys[0], "expired").await;
    site.client.revoke(neighbour).await;
    site.leave().await;
}

async fn expiry_needs_no_reader<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Leases, "a watch shows an expiry without any other call").await;
    let neighbour = site.grant_long().await.id;
    let (lease, life) = Life::grant(&site.client, site.bounds.smallest_ttl).await;
    let (keys, others, before) = furnish(&site, lease.id, neighbour, 5).await;
    let mut watch = site.client.watch(&site.root, before).await;
    let revision = life.watched_by_a_watch(&site.client, &mut watch, &keys).await;
    let found = site.read().await;
    site.scene.same_entries(
        "the keys of other leases, or of none, stay when a lease expires",
        &others,
        &found.entries,
    );
    site.scene.check(
        before < revision && revision <= found.revision,
        format!("expiry at a revision after {before}, up to {}", found.revision),
        format!("deleted the keys at {revision}"),
    );
    site.client.revoke(neighbour).await;
    site.leave().await;
}

async fn renewals_keep_the_lease<H: Harness>(harness: &H) {
    let site = Site::open(
        harness,
        Rule::Leases,
        "a lease lives while it is renewed, and expires after the last renewal",
    )
    .await;
    let other = site.another().await;
    let neighbour = site.grant_long().await.id;
    let (lease, mut life) = Life::grant(&site.client, site.bounds.smallest_ttl).await;
    let (keys, others, before) = furnish(&site, lease.id, neighbour, 3).await;
    let mut watch = site.watch(before).await;
    for n in 0..3 {
        sleep(lease.ttl * 2 / 3).await;
        let renewer = if n % 2 == 0 { &other } else { &site.client };
        life = Life::renew(renewer, lease).await;
        let left = site.read().await.entries.len();
        site.scene.check(
            left == keys.len() + others.len(),
            format!("all {} keys after a renewal that succeeded", keys.len() + others.len()),
            format!("showed {left}"),
        );
    }
    life.watched_by_reads(&site.client, &site.root, &keys, &others).await;
    let batch = watch.next("the deletion of the keys after the last renewal").await;
    all_at_once(site.scene, &batch, &keys);
    site.client.revoke(neighbour).await;
    site.leave().await;
}

async fn a_renewal_at_the_last_moment<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Leases, "a renewal at the last moment saves all keys or finds all gone")
            .await;
    // Just before the end, at the end, and within the slack. There the store may give either answer, but must act
    // accordingly.
    let slack = site.bounds.expiry_slack;
    let moments = [(-1, Duration::from_millis(2)), (0, Duration::ZERO), (1, slack / 2), (1, slack)];
    let mut tasks = JoinSet::new();
    for (n, (sign, offset)) in moments.into_iter().enumerate() {
        let client = site.another().await;
        let root = site.key(&format!("{n}/"));
        tasks.spawn(async move {
            let (lease, life) = Life::grant(&client, client.bounds.smallest_ttl).await;
            let keys = ["a", "b", "c"].map(|name| Key::from(format!("{root}{name}")));
            client.commit(keys.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), "1", lease.id))).await;
            sleep_until(if sign < 0 { life.earliest - offset } else { life.earliest + offset }).await;
            let sent = Instant::now();
            match client.attempt_renew(lease.id).await {
                Ok(_) => {
                    let life = Life::new(sent, lease.ttl, client.bounds);
                    life.watched_by_reads(&client, &root, &keys, &[]).await;
                }
                Err(error) if error.kind() == ErrorKind::LeaseNotFound => {
                    client.scene.check(
                        Instant::now() >= life.earliest,
                        "a renewal before the TTL has passed succeeds",
                        format!("failed it: {error}"),
                    );
                    has_ended(&client, lease.id, &keys[0], "a renewal reported as ended").await;
                    let left = client.read(&root).await.entries;
                    client.scene.same_entries(
                        "no key of a lease that a renewal reported as ended",
                        &[],
                        &left,
                    );
                }
                Err(error) => client
                    .scene
                    .broken("success or LeaseNotFound", format!("failed with {:?}: {error}", error.kind())),
            }
        });
    }
    finish(tasks).await;
    site.leave().await;
}

async fn a_lease_outlives_its_handle_and_no_more<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Leases, "a lease expires after every handle that used it was dropped")
            .await;
    let (lease, life) = {
        let gone = site.another().await;
        Life::grant(&gone, site.bounds.smallest_ttl).await
    };
    let keys = ["a", "b"].map(|name| site.key(name));
    {
        let gone = site.another().await;
        gone.commit(keys.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), "1", lease.id))).await;
    }
    life.watched_by_reads(&site.client, &site.root, &keys, &[]).await;
    site.leave().await;
}

async fn a_lease_without_keys_ends<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Leases, "a lease without keys ends as well").await;
    let (lease, life) = Life::grant(&site.client, site.bounds.smallest_ttl).await;
    let mut watch = site.watch_from_now().await;
    life.over().await;
    has_ended(&site.client, lease.id, &site.key("k"), "expired without keys").await;
    watch.expect_nothing("no change from the expiry of a lease without keys", &site.client).await;
    site.leave().await;
}

async fn lease_ids_are_never_used_again<H: Harness>(harness: &H) {
    const ROUNDS: usize = 3;
    const LEASES: usize = 20;
    let site = Site::open(harness, Rule::Leases, "lease ids are never used again").await;
    let handles = [site.client.clone(), site.another().await];
    let mut known: BTreeSet<LeaseId> = BTreeSet::new();
    for round in 0..ROUNDS {
        // The leases of one round expire, those of the others are revoked.
        let expires = round == 0;
        let ttl = if expires { site.bounds.smallest_ttl } else { site.bounds.check_limit() };
        let mut grants = JoinSet::new();
        for n in 0..LEASES {
            let client = handles[n % 2].clone();
            grants.spawn(async move { Life::grant(&client, ttl).await });
        }
        let granted = finish(grants).await;
        for (lease, _) in &granted {
            site.scene.check(
                known.insert(lease.id),
                format!("a lease id that differs from those of all {} earlier leases", known.len()),
                format!("granted {} again", lease.id),
            );
        }
        for (lease, life) in granted {
            match expires {
                true => life.over().await,
                false => handles[round % 2].revoke(lease.id).await,
            }
        }
    }
    site.leave().await;
}
