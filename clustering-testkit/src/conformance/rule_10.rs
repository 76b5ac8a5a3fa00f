use bytes::Bytes;
use clustering_core::store::{ErrorKind, Guard, Key, Limits, Revision, Txn};

use super::{Harness, mirrored::Mirrored, scene::Rule, site::Site};

/// Checks rule 10: sizes. In particular:
///
/// - values of 0 bytes and of 64 KiB and keys of 512 bytes, also of multi-byte characters, are returned unchanged by
///   reads and watches, and such keys work in guards and deletes;
/// - a commit may have 16 guards and 16 operations with the longest keys and the largest values;
/// - reads and watches can return several MiB;
/// - one byte, one guard or one operation more, an empty key and one key in two operations are `Invalid`, and nothing
///   is written.
pub async fn rule_10_sizes<H: Harness>(harness: &H) {
    the_limits_are_accepted(harness).await;
    the_largest_commit_fits(harness).await;
    reads_and_watches_carry_much(harness).await;
    beyond_the_limits_is_invalid(harness).await;
}

/// Returns a key of exactly `bytes` bytes that is padded with `filler` and ends in `name`.
fn long_key<H: Harness>(site: &Site<'_, H>, name: &str, filler: &str, bytes: usize) -> Key {
    let mut key = site.root.clone();
    while key.len() + filler.len() + name.len() <= bytes {
        key.push_str(filler);
    }
    // Fill the rest that is too short for a multi-byte filler.
    while key.len() + name.len() < bytes {
        key.push('-');
    }
    key.push_str(name);
    assert_eq!(key.len(), bytes, "the suite must generate a key of the requested length");
    Key::from(key)
}

/// Returns a value whose bytes differ by position, so that lost or moved bytes are noticed.
fn pattern(seed: usize, bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed) as u8).collect()
}

async fn the_limits_are_accepted<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Sizes, "values and keys at the limits are returned unchanged").await;
    let mut mirrored = Mirrored::new(site.client.clone());
    let mut watch = site.watch_from_now().await;
    let before = watch.seen;
    for bytes in [0, 1, 255, 4_096, Limits::VALUE - 1, Limits::VALUE] {
        mirrored.commit(Txn::new().put(site.key(&format!("v{bytes}")), pattern(bytes, bytes), None)).await;
    }
    for filler in ["k", "é", "日", "\u{10ffff}", "/", "\0"] {
        let key = long_key(&site, "end", filler, Limits::KEY);
        let created =
            mirrored.commit(Txn::new().guard(Guard::absent(key.clone())).put(key.clone(), "1", None)).await;
        let modified = mirrored
            .commit(Txn::new().guard(Guard::created_at(key.clone(), created)).put(key.clone(), "2", None))
            .await;
        let one = site.client.read(&key).await.entries;
        site.scene.same_entries("the read of a key of 512 bytes", &mirrored.model.read(&key), &one);
        if filler == "日" {
            mirrored.commit(Txn::new().guard(Guard::modified_at(key.clone(), modified)).delete(key)).await;
        }
    }
    let found = site.read().await.entries;
    site.scene.same_entries("values and keys at the limits", &mirrored.model.read(&site.root), &found);
    watch.expect("values and keys at the limits", &mirrored.model.changes(&site.root, before)).await;
    site.leave().await;
}

async fn the_largest_commit_fits<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Sizes, "16 guards and 16 operations with the longest keys and values")
            .await;
    let mut mirrored = Mirrored::new(site.client.clone());
    let mut watch = site.watch_from_now().await;
    let before = watch.seen;
    let lease = site.grant_long().await.id;
    mirrored.model.grant(lease);
    let key = |n: usize| long_key(&site, &format!("{n:02}"), "k", Limits::KEY);
    let guards = |created: Revision| {
        (0..Limits::GUARDS).fold(Txn::new(), |txn, n| txn.guard(Guard::created_at(key(n), created)))
    };
    let full = |txn: Txn, seed: usize| {
        (0..Limits::OPERATIONS).fold(txn, |txn, n| txn.put(key(n), pattern(seed + n, Limits::VALUE), lease))
    };
    let created = mirrored.commit(full(guards(Revision::ZERO), 0)).await;
    mirrored.commit(full(guards(created), 100)).await;
    let found = site.read().await.entries;
    site.scene.same_entries("the largest commit", &mirrored.model.read(&site.root), &found);
    mirrored.commit((0..Limits::OPERATIONS).fold(guards(created), |txn, n| txn.delete(key(n)))).await;
    watch.expect("the largest commits", &mirrored.model.changes(&site.root, before)).await;
    // Guards may name a key any number of times, and may name keys without an operation.
    let many = (0..Limits::GUARDS).fold(Txn::new(), |txn, _| txn.guard(Guard::absent(site.key("absent"))));
    mirrored.commit(many.put(site.key("k"), "1", None)).await;
    site.leave().await;
}

async fn reads_and_watches_carry_much<H: Harness>(harness: &H) {
    const COMMITS: usize = 10;
    let site = Site::open(harness, Rule::Sizes, "reads and watches of 10 MiB").await;
    let mut mirrored = Mirrored::new(site.client.clone());
    let before = site.read().await.revision;
    for n in 0..COMMITS {
        let full = (0..Limits::OPERATIONS).fold(Txn::new(), |txn, m| {
            txn.put(site.key(&format!("k{n:02}-{m:02}")), pattern(n * 16 + m, Limits::VALUE), None)
        });
        mirrored.commit(full).await;
    }
    let found = site.read().await.entries;
    site.scene.same_entries("a read of 10 MiB", &mirrored.model.read(&site.root), &found);
    let mut watch = site.watch(before).await;
    watch.expect("a watch of 10 MiB of changes", &mirrored.model.changes(&site.root, before)).await;
    watch.expect_nothing("a watch of 10 MiB of changes", &site.client).await;
    site.leave().await;
}

async fn beyond_the_limits_is_invalid<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Sizes, "a commit beyond the limits is Invalid").await;
    let there = site.key("there");
    let lease = site.grant_long().await.id;
    site.client.put(&there, "1", None).await;
    let before = site.read().await;
    let mut watch = site.watch(before.revision).await;
    let too_long = long_key(&site, "", "k", Limits::KEY + 1);
    let wide = long_key(&site, "日", "日", Limits::KEY + 1);
    let put = |key: &Key| Txn::new().put(site.key("first"), "1", None).put(key.clone(), "1", None);
    let operations = |txn: fn(Txn, String) -> Txn| {
        (0..=Limits::OPERATIONS).fold(Txn::new(), |all, n| txn(all, format!("{}n{n}", site.root)))
    };
    let guards = |count: usize| {
        (0..count).fold(Txn::new(), |txn, n| txn.guard(Guard::absent(site.key(&format!("g{n}")))))
    };
    let k = site.key("k");
    let invalid = [
        ("a value of 64 KiB + 1 byte", put(&k).put(site.key("v"), pattern(0, Limits::VALUE + 1), None)),
        ("a value of 1 MiB", put(&k).put(site.key("v"), pattern(0, 1 << 20), lease)),
        ("a put of a key of 513 bytes", put(&too_long)),
        ("a put of a key of 513 bytes with fewer characters", put(&wide)),
        ("a put of an empty key", put(&Key::from(""))),
        ("a delete of a key of 513 bytes", put(&k).delete(too_long.clone())),
        ("a delete of an empty key", put(&k).delete("")),
        ("a guard on a key of 513 bytes", put(&k).guard(Guard::absent(too_long))),
        ("a guard on an empty key", put(&k).guard(Guard::absent(""))),
        ("17 puts", operations(|txn, key| txn.put(key, "1", None))),
        ("17 deletes", operations(|txn, key| txn.delete(key))),
        ("17 guards", guards(Limits::GUARDS + 1).put(k.clone(), "1", None)),
        ("17 guards and no operation", guards(Limits::GUARDS + 1)),
        ("two puts of one key", put(&k).put(k.clone(), "2", None)),
        ("two equal puts of one key", put(&k).put(k.clone(), "1", None)),
        ("a put and a delete of one key", put(&k).delete(k.clone())),
        ("a delete and a put of one key", Txn::new().delete(there.clone()).put(there.clone(), "2", None)),
        ("two deletes of one key", Txn::new().delete(there.clone()).delete(there.clone())),
        ("one key under two leases", put(&k).put(k.clone(), "1", lease)),
    ];
    for (what, txn) in invalid {
        let expected = format!("Invalid for {what}");
        match site.client.attempt(txn).await {
            Ok(revision) => site.scene.broken(expected, format!("committed it at revision {revision}")),
            Err(error) => site.scene.check(
                error.kind() == ErrorKind::Invalid,
                expected,
                format!("failed with {:?}: {error}", error.kind()),
            ),
        }
        let found = site.read().await.entries;
        site.scene.same_entries(&format!("nothing written by {what}"), &before.entries, &found);
    }
    watch.expect_nothing("no change from invalid commits", &site.client).await;
    site.leave().await;
}
