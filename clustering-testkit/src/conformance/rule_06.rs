use clustering_core::store::{Change, Entry, Guard, Key, Revision, Txn};

use super::{
    Harness,
    rule_04::Life,
    scene::{Rule, show_batch, show_entry},
    site::Site,
    watch::Watch,
};

/// Checks rule 6: a key created again is a new key. Reads, watches and guards must agree that:
///
/// - a put of an absent key sets its creation and its modification revision to that of the commit;
/// - an overwrite, including one that changes the lease, sets the modification revision only;
/// - a put after a deletion, a revocation or an expiry creates a new key;
/// - a guard on the old creation revision fails for the new key.
pub async fn rule_06_creation_revisions<H: Harness>(harness: &H) {
    overwrites_keep_the_creation(harness).await;
    a_deletion_ends_it(harness).await;
    the_end_of_a_lease_ends_it(harness).await;
}

/// A key, and a watch that has seen all of its changes so far.
struct Watched<'s, 'h, H> {
    site: &'s Site<'h, H>,
    key: Key,
    watch: Watch,
}

impl<'s, 'h, H: Harness> Watched<'s, 'h, H> {
    async fn new(site: &'s Site<'h, H>, key: Key) -> Self {
        let now = site.read().await.revision;
        let watch = site.client.watch(&key, now).await;
        Watched { site, key, watch }
    }

    /// Checks that a read, the watch's next batch and the guards agree on the creation and the modification revision.
    async fn expect_revisions(&mut self, created: Revision, modified: Revision, how: &str) {
        let Site { client, scene, .. } = self.site;
        let expected = format!("created {created}, modified {modified} {how}");
        let found = client.read(&self.key).await.entries;
        scene.check(
            matches!(&found[..], [entry] if (entry.created, entry.modified) == (created, modified)),
            &expected,
            format!("showed {:?}", found.iter().map(show_entry).collect::<Vec<_>>()),
        );
        let batch = self.watch.next(&expected).await;
        scene.check(
            matches!(
                &batch.changes[..],
                [Change::Put(entry)] if (entry.created, entry.modified) == (created, modified)
            ),
            &expected,
            format!("sent {}", show_batch(&batch)),
        );
        let key = &self.key;
        for guard in [Guard::created_at(key.clone(), created), Guard::modified_at(key.clone(), modified)] {
            scene.check(client.holds(&guard).await, format!("{guard:?} to hold {how}"), "failed it");
        }
    }

    /// Checks that the watch shows the deletion of the key, and that a guard on its creation revision fails.
    async fn expect_deleted(&mut self, created: Revision, how: &str) {
        let awaited = format!("the deletion of {:?}, which {how}", self.key);
        let batch = self.watch.next(&awaited).await;
        self.site.scene.check(
            matches!(&batch.changes[..], [Change::Delete(key)] if *key == self.key),
            awaited,
            format!("sent {}", show_batch(&batch)),
        );
        self.expect_stale(created, &format!("for a key that {how}")).await;
    }

    /// Checks that a guard on an earlier creation revision of the key fails.
    async fn expect_stale(&self, created: Revision, how: &str) {
        let guard = Guard::created_at(self.key.clone(), created);
        let holds = self.site.client.holds(&guard).await;
        self.site.scene.check(!holds, format!("{guard:?} to fail {how}"), "let it hold");
    }
}

async fn overwrites_keep_the_creation<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Creation, "an overwrite keeps the creation revision").await;
    let leases = [None, Some(site.grant_long().await.id), Some(site.grant_long().await.id)];
    let other = site.another().await;
    let key = site.key("k");
    let mut watched = Watched::new(&site, key.clone()).await;
    let created = site.client.put(&key, "0", None).await;
    watched.expect_revisions(created, created, "after it was created").await;
    for n in 1..8 {
        let writer = if n % 2 == 0 { &site.client } else { &other };
        let modified = writer.put(&key, format!("{n}"), leases[n % 3]).await;
        watched.expect_revisions(created, modified, &format!("after overwrite {n}")).await;
    }
    // Overwrite with the same value under the same lease, and with a guard on the key itself.
    let modified = site.client.put(&key, "7", leases[1]).await;
    watched.expect_revisions(created, modified, "after an overwrite with the same value").await;
    let guarded = Txn::new().guard(Guard::created_at(key.clone(), created)).put(key.clone(), "8", None);
    let modified = site.client.commit(guarded).await;
    watched.expect_revisions(created, modified, "after a guarded overwrite").await;
    site.leave().await;
}

async fn a_deletion_ends_it<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Creation, "a key put again after its deletion is a new key").await;
    let (key, lease) = (site.key("k"), site.grant_long().await.id);
    let mut watched = Watched::new(&site, key.clone()).await;
    let mut past: Vec<Revision> = Vec::new();
    for n in 0..4 {
        let created = site.client.put(&key, "1", (n == 2).then_some(lease)).await;
        watched.expect_revisions(created, created, &format!("after creation {n}")).await;
        for before in &past {
            watched.expect_stale(*before, "for a key that was deleted and created again").await;
        }
        let modified = site.client.put(&key, "2", None).await;
        watched.expect_revisions(created, modified, &format!("after creation {n} and an overwrite")).await;
        let deleted = site.client.delete(&key).await;
        watched.expect_deleted(created, "was deleted").await;
        site.scene.check(
            watched.watch.seen == deleted,
            format!("the deletion at revision {deleted}, the one of its commit"),
            format!("sent it at {}", watched.watch.seen),
        );
        past.push(created);
    }
    site.leave().await;
}

async fn the_end_of_a_lease_ends_it<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Creation, "a key put again after its lease ended is a new key").await;
    let mut revoked = Watched::new(&site, site.key("revoked")).await;
    let mut expired = Watched::new(&site, site.key("expired")).await;
    let (lease, life) = Life::grant(&site.client, site.bounds.smallest_ttl).await;
    let long = site.grant_long().await.id;
    let first = [
        site.client.put(&revoked.key, "1", Some(long)).await,
        site.client.put(&expired.key, "1", Some(lease.id)).await,
    ];
    site.client.revoke(long).await;
    life.over().await;
    for (watched, first) in [&mut revoked, &mut expired].into_iter().zip(first) {
        let created = watched.watch.next("the put that first created the key").await.revision;
        site.scene.check(
            created == first,
            format!("the put of revision {first}"),
            format!("sent a put of revision {created}"),
        );
        watched.expect_deleted(first, "lost its lease").await;
        let absent = Txn::new().guard(Guard::absent(watched.key.clone()));
        let created = site.client.commit(absent.put(watched.key.clone(), "2", None)).await;
        watched.expect_revisions(created, created, "after it was created again").await;
        watched.expect_stale(first, "for a key created again after its lease ended").await;
    }
    let found: Vec<Entry> = site.read().await.entries;
    site.scene.check(found.len() == 2, "both keys again", format!("showed {} of them", found.len()));
    site.leave().await;
}
