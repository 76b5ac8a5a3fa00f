use clustering_core::store::{ErrorKind, Guard, LeaseId, Revision, StoreError, Txn};
use tokio::time::{Instant, sleep};

use super::{
    Harness,
    rule_04::Life,
    scene::Rule,
    site::{Client, Site},
};

/// Checks rule 5: a put needs a live lease. In particular:
///
/// - a commit with a put under a lease that never existed, was revoked or has expired fails with `LeaseNotFound`,
///   wherever that put is in the commit, and writes nothing;
/// - the same holds if other puts of the commit name a live lease;
/// - a failed guard takes precedence over a dead lease;
/// - a put under a lease succeeds until the lease has ended, and once a put fails, the lease's keys are gone;
/// - commits that name no lease are not affected.
pub async fn rule_05_puts_need_a_live_lease<H: Harness>(harness: &H) {
    nothing_is_written_under_a_dead_lease(harness).await;
    guards_are_judged_first(harness).await;
    tokio::join!(an_expired_lease_takes_no_put(harness), puts_fail_once_the_keys_are_gone(harness));
}

/// Returns leases that are already dead, each with a description.
async fn dead_leases<H: Harness>(site: &Site<'_, H>) -> Vec<(String, LeaseId)> {
    let revoked = site.grant_long().await.id;
    site.client.put(&site.key("was here"), "1", Some(revoked)).await;
    site.client.revoke(revoked).await;
    let empty = site.grant_long().await.id;
    site.client.revoke(empty).await;
    let mut dead = vec![("was revoked".to_owned(), revoked), ("was revoked without keys".to_owned(), empty)];
    for never in [0, 0x7fff_ffff_ffff_fff1, 1 << 63, u64::MAX] {
        dead.push((format!("never existed ({never:x})"), LeaseId::new(never)));
    }
    dead
}

fn must_be_lease_not_found(client: &Client, what: &str, answer: Result<Revision, StoreError>) {
    let expected = format!("LeaseNotFound for {what}");
    match answer {
        Ok(revision) => client.scene.broken(expected, format!("committed at revision {revision}")),
        Err(error) if error.kind() == ErrorKind::LeaseNotFound => {}
        Err(error) => client.scene.broken(expected, format!("failed with {:?}: {error}", error.kind())),
    }
}

async fn nothing_is_written_under_a_dead_lease<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::LiveLeases, "a commit with a dead lease writes nothing").await;
    let live = site.grant_long().await.id;
    site.client.put(&site.key("old"), "old", Some(live)).await;
    site.client.put(&site.key("doomed"), "old", None).await;
    for (how, dead) in dead_leases(&site).await {
        let before = site.read().await;
        let mut watch = site.watch(before.revision).await;
        for place in 0..5 {
            let mut txn = Txn::new();
            for n in 0..5 {
                txn = match n {
                    _ if n == place => txn.put(site.key("dead"), "new", dead),
                    0 => txn.put(site.key("free"), "new", None),
                    1 => txn.put(site.key("live"), "new", live),
                    2 => txn.delete(site.key("doomed")),
                    _ => txn.put(site.key(&format!("more{n}")), "new", None),
                };
            }
            let what = format!("a commit whose operation {place} of 5 puts under a lease that {how}");
            must_be_lease_not_found(&site.client, &what, site.client.attempt(txn).await);
            let found = site.read().await.entries;
            site.scene.same_entries(&format!("nothing written by {what}"), &before.entries, &found);
        }
        // A failed overwrite under a dead lease leaves the key's value, revisions and lease unchanged.
        let what = format!("an overwrite that moves a key to a lease that {how}");
        let answer = site.client.attempt(Txn::new().put(site.key("old"), "new", dead)).await;
        must_be_lease_not_found(&site.client, &what, answer);
        let found = site.read().await.entries;
        site.scene.same_entries(&format!("nothing changed by {what}"), &before.entries, &found);
        watch.expect_nothing(&format!("commits with a lease that {how}"), &site.client).await;
    }
    // The same operations succeed with the live lease only.
    let txn = Txn::new().put(site.key("live"), "new", live).delete(site.key("doomed"));
    site.client.commit(txn).await;
    site.leave().await;
}

async fn guards_are_judged_first<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::LiveLeases, "guards are judged before leases").await;
    let there = site.key("there");
    let at = site.client.put(&there, "1", None).await;
    for (how, dead) in dead_leases(&site).await {
        let put = |guard: Guard| Txn::new().guard(guard).put(site.key("new"), "1", dead);
        for guard in [Guard::absent(there.clone()), Guard::modified_at(site.key("absent"), at)] {
            let expected =
                format!("GuardFailed for a commit whose guard {guard:?} fails and whose lease {how}");
            match site.client.attempt(put(guard)).await {
                Ok(revision) => site.scene.broken(expected, format!("committed at revision {revision}")),
                Err(error) => site.scene.check(
                    matches!(error.kind(), ErrorKind::GuardFailed { revision } if revision >= at),
                    expected,
                    format!("failed with {:?}: {error}", error.kind()),
                ),
            }
        }
        let what = format!("a commit whose guard holds and whose lease {how}");
        let answer = site.client.attempt(put(Guard::modified_at(there.clone(), at))).await;
        must_be_lease_not_found(&site.client, &what, answer);
        let left = site.client.read(&site.key("new")).await.entries;
        site.scene.same_entries(&format!("nothing written by {what}"), &[], &left);
    }
    site.leave().await;
}

async fn an_expired_lease_takes_no_put<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::LiveLeases, "an expired lease takes no put").await;
    let (lease, life) = Life::grant(&site.client, site.bounds.smallest_ttl).await;
    let (empty, late) = Life::grant(&site.client, site.bounds.smallest_ttl).await;
    site.client.put(&site.key("k"), "1", Some(lease.id)).await;
    life.over().await;
    late.over().await;
    for (how, dead) in [("expired", lease.id), ("expired without keys", empty.id)] {
        for client in [site.client.clone(), site.another().await] {
            let txn = Txn::new().put(site.key("free"), "1", None).put(site.key("k"), "2", dead);
            must_be_lease_not_found(
                &client,
                &format!("a put under a lease that {how}"),
                client.attempt(txn).await,
            );
        }
    }
    let left = site.read().await.entries;
    site.scene.same_entries("nothing written by commits under an expired lease", &[], &left);
    site.leave().await;
}

async fn puts_fail_once_the_keys_are_gone<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::LiveLeases, "a lease accepts puts until its keys have vanished").await;
    let (lease, life) = Life::grant(&site.client, site.bounds.smallest_ttl).await;
    let other = site.another().await;
    let step = site.bounds.smallest_ttl / 20;
    let mut puts = 0;
    loop {
        let key = site.key(&format!("k{puts:03}"));
        let ended = life.must_be_over(Instant::now());
        let answer = site.client.attempt(Txn::new().put(key, "1", lease.id)).await;
        let found = other.read(&site.root).await.entries;
        match answer {
            Ok(revision) if ended => site.scene.broken(
                "LeaseNotFound for a put after the TTL and the stated slack, despite earlier puts",
                format!("committed at revision {revision}"),
            ),
            Ok(_) => puts += 1,
            Err(error) => {
                must_be_lease_not_found(&site.client, "a put after the lease has ended", Err(error));
                site.scene.same_entries(
                    "LeaseNotFound only once the lease's keys have vanished",
                    &[],
                    &found,
                );
                break;
            }
        }
        site.scene.check(
            found.is_empty() || found.len() == puts,
            format!("all {puts} keys of the lease, or none"),
            format!("showed {}", found.len()),
        );
        if found.is_empty() {
            let answer = site.client.attempt(Txn::new().put(site.key("late"), "1", lease.id)).await;
            must_be_lease_not_found(&site.client, "a put after the lease's keys have vanished", answer);
            break;
        }
        sleep(step).await;
    }
    site.scene.check(puts > 0, "puts under a new lease to succeed", "accepted none");
    life.over().await;
    let left = site.read().await.entries;
    site.scene.same_entries("no key of a lease that has ended", &[], &left);
    site.leave().await;
}
