use clustering_core::store::{Batch, Change, Entry, Guard, Key, LeaseId, Revision, Txn};

use super::{
    Harness,
    rule_04::Life,
    scene::{Rule, show_entry},
    site::Site,
};

/// Rule 6: a key created again is a new key. What is checked, on reads, on watches and by guards:
///
/// - a put of an absent key gives it that revision as creation and modification;
/// - overwrites, also ones that change its lease, move the modification alone;
/// - after a deletion, a revocation and an expiry, a put creates it anew;
/// - a guard on the old creation revision fails for the new key.
pub async fn rule_06_creation_revisions<H: Harness>(harness: &H) {
    overwrites_keep_the_creation(harness).await;
    a_deletion_ends_it(harness).await;
    the_end_of_a_lease_ends_it(harness).await;
}

/// A read, a watch and the guards agree that the key was created and modified there.
async fn stands<H: Harness>(site: &Site<'_, H>, key: &Key, created: Revision, modified: Revision, how: &str) {
    let expected = format!("created {created}, modified {modified} {how}");
    let found = site.client.read(key).await.entries;
    site.scene.check(
        matches!(&found[..], [entry] if (entry.created, entry.modified) == (created, modified)),
        &expected,
        format!("showed {:?}", found.iter().map(show_entry).collect::<Vec<_>>()),
    );
    let mut watch = site.client.watch(key, Revision::new(modified.get() - 1)).await;
    let batch = watch.next(&expected).await;
    site.scene.check(
        matches!(
            &batch.changes[..],
            [Change::Put(entry)] if (entry.created, entry.modified) == (created, modified)
        ),
        &expected,
        format!("sent {}", super::scene::show_batch(&batch)),
    );
    let guards = [(Guard::created_at(key.clone(), created)), (Guard::modified_at(key.clone(), modified))];
    for guard in guards {
        site.scene.check(
            site.client.attempt(Txn::new().guard(guard.clone())).await.is_ok(),
            format!("{guard:?} to hold {how}"),
            "failed it",
        );
    }
}

/// A guard on that creation revision fails.
async fn is_no_longer<H: Harness>(site: &Site<'_, H>, key: &Key, created: Revision, how: &str) {
    let guard = Guard::created_at(key.clone(), created);
    site.scene.check(
        site.client.attempt(Txn::new().guard(guard.clone())).await.is_err(),
        format!("{guard:?} to fail {how}"),
        "let it hold",
    );
}

async fn overwrites_keep_the_creation<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Creation, "an overwrite keeps the creation revision").await;
    let leases = [None, Some(site.grant_long().await.id), Some(site.grant_long().await.id)];
    let other = site.another().await;
    let key = site.key("k");
    let created = site.client.put(&key, "0", None).await;
    stands(&site, &key, created, created, "after it was created").await;
    for n in 1..8 {
        let writer = if n % 2 == 0 { &site.client } else { &other };
        let modified = writer.put(&key, format!("{n}"), leases[n % 3]).await;
        stands(&site, &key, created, modified, &format!("after overwrite {n}")).await;
    }
    // The same value under the same lease again, and with a guard on itself.
    let modified = site.client.put(&key, "7", leases[1]).await;
    stands(&site, &key, created, modified, "after an overwrite with the same value").await;
    let guarded = Txn::new().guard(Guard::created_at(key.clone(), created)).put(key.clone(), "8", None);
    let modified = site.client.commit(guarded).await;
    stands(&site, &key, created, modified, "after a guarded overwrite").await;
    site.leave().await;
}

async fn a_deletion_ends_it<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Creation, "a key put again after its deletion is a new key").await;
    let (key, lease) = (site.key("k"), site.grant_long().await.id);
    let mut past: Vec<Revision> = Vec::new();
    for n in 0..4 {
        let created = site.client.put(&key, "1", (n == 2).then_some(lease)).await;
        stands(&site, &key, created, created, &format!("after it was created for time {n}")).await;
        for before in &past {
            is_no_longer(&site, &key, *before, "for a key that was deleted and created again").await;
        }
        let modified = site.client.put(&key, "2", None).await;
        stands(&site, &key, created, modified, &format!("after it was created for time {n} and overwritten"))
            .await;
        let deleted = site.client.delete(&key).await;
        is_no_longer(&site, &key, created, "for a key that was deleted").await;
        let mut watch = site.client.watch(&key, modified).await;
        let gone = Batch { revision: deleted, changes: vec![Change::Delete(key.clone())] };
        watch.expect("the deletion", &[gone]).await;
        past.push(created);
    }
    site.leave().await;
}

async fn the_end_of_a_lease_ends_it<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Creation, "a key put again after its lease ended is a new key").await;
    let [revoked, expired] = ["revoked", "expired"].map(|name| site.key(name));
    let (lease, life) = Life::grant(&site.client, site.bounds.smallest_ttl).await;
    let long = site.grant_long().await.id;
    let put = |key: &Key, lease: LeaseId| Txn::new().put(key.clone(), "1", lease);
    let first =
        [site.client.commit(put(&revoked, long)).await, site.client.commit(put(&expired, lease.id)).await];
    site.client.revoke(long).await;
    life.over().await;
    for (key, first) in [&revoked, &expired].into_iter().zip(first) {
        is_no_longer(&site, key, first, "for a key whose lease has ended").await;
        let absent = Txn::new().guard(Guard::absent(key.clone())).put(key.clone(), "2", None);
        let created = site.client.commit(absent).await;
        stands(&site, key, created, created, "after it was created again").await;
        is_no_longer(&site, key, first, "for a key created again after its lease ended").await;
    }
    let found: Vec<Entry> = site.read().await.entries;
    site.scene.check(found.len() == 2, "both keys again", format!("showed {} of them", found.len()));
    site.leave().await;
}
