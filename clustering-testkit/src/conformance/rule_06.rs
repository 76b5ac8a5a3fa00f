use clustering_core::store::{Change, Entry, Guard, Key, Revision, Txn};

use super::{
    Harness,
    rule_04::Life,
    scene::{Rule, show_batch, show_entry},
    site::Site,
    watch::Watch,
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

/// A key, and a watch that saw all of it so far.
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

    /// A read, the watch's next batch and the guards agree that the key was created and modified there.
    async fn stands(&mut self, created: Revision, modified: Revision, how: &str) {
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

    /// It was deleted, the watch shows; and what was created there stands no longer.
    async fn is_gone(&mut self, created: Revision, how: &str) {
        let awaited = format!("the deletion of {:?}, which {how}", self.key);
        let batch = self.watch.next(&awaited).await;
        self.site.scene.check(
            matches!(&batch.changes[..], [Change::Delete(key)] if *key == self.key),
            awaited,
            format!("sent {}", show_batch(&batch)),
        );
        self.is_no_longer(created, &format!("for a key that {how}")).await;
    }

    /// A guard on that creation revision fails.
    async fn is_no_longer(&self, created: Revision, how: &str) {
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
    watched.stands(created, created, "after it was created").await;
    for n in 1..8 {
        let writer = if n % 2 == 0 { &site.client } else { &other };
        let modified = writer.put(&key, format!("{n}"), leases[n % 3]).await;
        watched.stands(created, modified, &format!("after overwrite {n}")).await;
    }
    // The same value under the same lease again, and with a guard on itself.
    let modified = site.client.put(&key, "7", leases[1]).await;
    watched.stands(created, modified, "after an overwrite with the same value").await;
    let guarded = Txn::new().guard(Guard::created_at(key.clone(), created)).put(key.clone(), "8", None);
    let modified = site.client.commit(guarded).await;
    watched.stands(created, modified, "after a guarded overwrite").await;
    site.leave().await;
}

async fn a_deletion_ends_it<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Creation, "a key put again after its deletion is a new key").await;
    let (key, lease) = (site.key("k"), site.grant_long().await.id);
    let mut watched = Watched::new(&site, key.clone()).await;
    let mut past: Vec<Revision> = Vec::new();
    for n in 0..4 {
        let created = site.client.put(&key, "1", (n == 2).then_some(lease)).await;
        watched.stands(created, created, &format!("after it was created for time {n}")).await;
        for before in &past {
            watched.is_no_longer(*before, "for a key that was deleted and created again").await;
        }
        let modified = site.client.put(&key, "2", None).await;
        watched
            .stands(created, modified, &format!("after it was created for time {n} and overwritten"))
            .await;
        let deleted = site.client.delete(&key).await;
        watched.is_gone(created, "was deleted").await;
        site.scene.check(
            watched.watch.seen == deleted,
            format!("the deletion at revision {deleted}, that of its commit"),
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
        let created = watched.watch.next("the put that created it first").await.revision;
        site.scene.check(
            created == first,
            format!("the put of revision {first}"),
            format!("sent one of {created}"),
        );
        watched.is_gone(first, "lost its lease").await;
        let absent = Txn::new().guard(Guard::absent(watched.key.clone()));
        let created = site.client.commit(absent.put(watched.key.clone(), "2", None)).await;
        watched.stands(created, created, "after it was created again").await;
        watched.is_no_longer(first, "for a key created again after its lease ended").await;
    }
    let found: Vec<Entry> = site.read().await.entries;
    site.scene.check(found.len() == 2, "both keys again", format!("showed {} of them", found.len()));
    site.leave().await;
}
