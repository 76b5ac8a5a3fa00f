use std::{collections::BTreeSet, time::Duration};

use clustering_core::store::{Change, ErrorKind, Guard, Key, LeaseId, Txn};

use futures_util::future::join_all;

use super::{
    Harness,
    rule_04::{Life, all_at_once},
    scene::{Rule, show_batch, show_lease},
    site::Site,
    watch::Watch,
};

/// Checks rule 7: a put decides the key's lease. In particular:
///
/// - a key can move between no lease, one lease and another in all combinations. Reads and watches show the new lease,
///   and when the leases are revoked, the key vanishes with the lease of its last put or stays;
/// - the same holds when the leases expire;
/// - a key that was deleted and put again without a lease is not attached to its old lease;
/// - a commit that fails moves no key.
pub async fn rule_07_puts_move_and_detach<H: Harness>(harness: &H) {
    the_last_put_decides(harness, End::Revocation).await;
    the_last_put_decides(harness, End::Expiry).await;
    a_failed_commit_moves_nothing(harness).await;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Revocation,
    Expiry,
}

async fn the_last_put_decides<H: Harness>(harness: &H, end: End) {
    let part = match end {
        End::Revocation => "each key vanishes with the lease of its last put when the leases are revoked",
        End::Expiry => "each key vanishes with the lease of its last put when the leases expire",
    };
    let site = Site::open(harness, Rule::Moves, part).await;
    let ttl = |n: u32| match end {
        End::Revocation => site.bounds.check_limit(),
        // Far enough apart that the first lease has certainly ended before the second may end.
        End::Expiry => {
            site.bounds.smallest_ttl * (n + 1) + (site.bounds.expiry_slack + Duration::from_secs(1)) * (n - 1)
        }
    };
    let start = site.read().await.revision;
    let (first, first_life) = Life::grant(&site.client, ttl(1)).await;
    let (second, second_life) = Life::grant(&site.client, ttl(2)).await;
    let leases = [None, Some(first.id), Some(second.id)];
    let name = |lease: Option<LeaseId>| match leases.iter().position(|other| *other == lease) {
        Some(n) => ["none", "first", "second"][n],
        None => "another",
    };

    // All moves between leases: by one put each, with the key deleted in between, and three moves in one commit. They
    // run concurrently, because the leases may expire soon.
    let ways = leases.into_iter().flat_map(|from| leases.map(|to| (from, to))).map(async |(from, to)| {
        let moved = site.key(&format!("{} to {}", name(from), name(to)));
        let over = site.client.watch(&moved, start).await;
        site.client.put(&moved, "1", from).await;
        site.client.put(&moved, "2", to).await;
        let again = site.key(&format!("{} by a deletion to {}", name(from), name(to)));
        let between = site.client.watch(&again, start).await;
        site.client.put(&again, "1", from).await;
        site.client.delete(&again).await;
        site.client.put(&again, "2", to).await;
        Way { from, to, moved, over, again, between }
    });
    let ways = join_all(ways).await;
    let mut last: Vec<(Key, Option<LeaseId>)> =
        ways.iter().flat_map(|way| [(way.moved.clone(), way.to), (way.again.clone(), way.to)]).collect();
    let [a, b, c] = ["together a", "together b", "together c"].map(|name| site.key(name));
    let placed =
        Txn::new().put(a.clone(), "1", first.id).put(b.clone(), "1", second.id).put(c.clone(), "1", None);
    site.client.commit(placed).await;
    let turn =
        Txn::new().put(a.clone(), "2", None).put(b.clone(), "2", first.id).put(c.clone(), "2", second.id);
    let turned = site.client.commit(turn).await;
    last.extend([(a, None), (b, Some(first.id)), (c, Some(second.id))]);

    let found = site.read().await.entries;
    for (key, lease) in &last {
        let entry = found.iter().find(|entry| entry.key == *key);
        site.scene.check(
            entry.is_some_and(|entry| entry.lease == *lease),
            format!("{key:?} under {}, as in its last put", show_lease(*lease)),
            entry.map_or("showed no such key".to_owned(), |entry| {
                format!("showed {}", show_lease(entry.lease))
            }),
        );
    }

    // The test has not waited for a watch so far, and the reads below do not either: watches may lag for longer than
    // the leases live.
    let mut left = found;
    let mut ended = Vec::new();
    for (lease, life, which) in [(first, first_life, "first"), (second, second_life, "second")] {
        let (gone, others): (Vec<_>, Vec<_>) = last.into_iter().partition(|(_, of)| *of == Some(lease.id));
        last = others;
        let gone: Vec<Key> = gone.into_iter().map(|(key, _)| key).collect();
        left.retain(|entry| !gone.contains(&entry.key));
        match end {
            End::Revocation => site.client.revoke(lease.id).await,
            End::Expiry => life.watched_by_reads(&site.client, &site.root, &gone, &left).await,
        }
        ended.push((which, gone));
        let found: BTreeSet<Key> = site.read().await.entries.into_iter().map(|entry| entry.key).collect();
        let expected: BTreeSet<Key> = last.iter().map(|(key, _)| key.clone()).collect();
        site.scene.check(
            found == expected,
            format!("only keys whose last put named no ended lease after the end of the {which} lease: {expected:?}"),
            format!("showed {found:?}"),
        );
    }
    for mut way in ways {
        way.watched(&site).await;
    }
    let mut watch = site.watch(turned).await;
    for (which, gone) in ended {
        let batch = watch.next(&format!("the deletion of the keys of the {which} lease")).await;
        all_at_once(site.scene, &batch, &gone);
    }
    watch.expect_nothing("no further change: keys without a lease stay", &site.client).await;
    site.leave().await;
}

/// A key that moved from one lease to another by one put, and a key that was deleted in between, each with a watch
/// since before its first put.
struct Way {
    from: Option<LeaseId>,
    to: Option<LeaseId>,
    moved: Key,
    over: Watch,
    again: Key,
    between: Watch,
}

impl Way {
    /// Checks what the watches show of the moves.
    async fn watched<H: Harness>(&mut self, site: &Site<'_, H>) {
        expect_put(site, &mut self.over, &self.moved, self.from, 0).await;
        expect_put(site, &mut self.over, &self.moved, self.to, 1).await;
        expect_put(site, &mut self.between, &self.again, self.from, 0).await;
        self.between.next("a deletion").await;
        expect_put(site, &mut self.between, &self.again, self.to, 1).await;
    }
}

/// Checks that the next batch is a put of `key` under `lease`.
async fn expect_put<H: Harness>(
    site: &Site<'_, H>,
    watch: &mut Watch,
    key: &Key,
    lease: Option<LeaseId>,
    at: usize,
) {
    let expected = format!("put {at} of {key:?} under {}", show_lease(lease));
    let batch = watch.next(&expected).await;
    site.scene.check(
        matches!(&batch.changes[..], [Change::Put(entry)] if entry.key == *key && entry.lease == lease),
        expected,
        format!("sent {}", show_batch(&batch)),
    );
}

async fn a_failed_commit_moves_nothing<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Moves, "a commit that fails moves no key").await;
    let (first, second) = (site.grant_long().await.id, site.grant_long().await.id);
    let [leased, free] = ["leased", "free"].map(|name| site.key(name));
    site.client.put(&leased, "1", Some(first)).await;
    site.client.put(&free, "1", None).await;
    let before = site.read().await.entries;
    let guarded = || Txn::new().guard(Guard::absent(free.clone()));
    let dead = LeaseId::new(0x7fff_ffff_ffff_fff1);
    let failing = [
        ("its guard", guarded().put(leased.clone(), "2", None)),
        ("its guard", guarded().put(leased.clone(), "2", second).put(free.clone(), "2", first)),
        ("its lease", Txn::new().put(leased.clone(), "2", None).put(free.clone(), "2", dead)),
        ("its lease", Txn::new().put(free.clone(), "2", second).put(leased.clone(), "2", dead)),
    ];
    for (why, txn) in failing {
        let expected = format!("{txn:?} to fail because of {why}");
        match site.client.attempt(txn).await.map_err(|error| error.kind()) {
            Err(ErrorKind::GuardFailed { .. } | ErrorKind::LeaseNotFound) => {}
            other => site.scene.broken(expected, format!("answered {other:?}")),
        }
        site.scene.same_entries("a failed commit moves nothing", &before, &site.read().await.entries);
    }
    // The keys still vanish with their original leases.
    site.client.revoke(second).await;
    site.scene.same_entries(
        "no key vanishes with the lease that they were not moved to",
        &before,
        &site.read().await.entries,
    );
    site.client.revoke(first).await;
    let left = site.read().await.entries;
    site.scene.same_entries(
        "only the leased key vanishes with its lease",
        &before.into_iter().filter(|entry| entry.key == free).collect::<Vec<_>>(),
        &left,
    );
    site.leave().await;
}
