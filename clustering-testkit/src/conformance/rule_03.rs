use std::{collections::BTreeMap, time::Duration};

use clustering_core::store::{Batch, Change, Entry, Key, Revision, Txn, WatchEnd};
use futures_util::future::join_all;
use tokio::task::{JoinSet, yield_now};

use super::{
    Harness,
    mirrored::Mirrored,
    scene::{Rule, Scene, show_batch, show_entry},
    site::{Client, Site},
    tasks::{Start, finish, stagger},
    watch::Watch,
};

/// Checks rule 3: a watch yields every change, once, in order. In particular:
///
/// - a watch from each past revision yields exactly the changes that followed, with one batch per revision and every
///   field, and then new changes. The past includes creations, overwrites, deletions, commits of several keys and the
///   end of a lease;
/// - a watch yields exactly the keys that start with its prefix, even if a commit also changes other keys;
/// - a commit that changes nothing yields nothing;
/// - the hundred deletions of one revocation arrive in one batch, and so do 16 values of 64 KiB;
/// - several watches concurrent with writers yield the same changes. So do a watch that is not polled until 1,100
///   changes are waiting, and one whose `next` future is dropped repeatedly;
/// - a snapshot and a watch from its revision together give the current state, despite concurrent writes;
/// - a watch from beyond the store's revision ends with `Rewound`;
/// - compacted changes are never skipped: a watch that is owed one ends with `Compacted`, also if the last compacted
///   change is a deletion. A watch that is owed none continues, whether a change follows at once or its prefix stays
///   quiet for a while, and a new watch from the revision named in `Compacted` works.
pub async fn rule_03_watches_yield_every_change<H: Harness>(harness: &H) {
    the_past_is_replayed(harness).await;
    prefixes_have_sharp_edges(harness).await;
    large_revisions_are_one_batch(harness).await;
    several_watches_yield_the_same(harness).await;
    an_idle_reader_misses_nothing(harness).await;
    a_dropped_next_loses_nothing(harness).await;
    snapshot_and_watch_make_the_state(harness).await;
    the_future_ends_with_rewound(harness).await;
    compaction_is_never_skipped(harness).await;
    compaction_spares_idle_watches(harness).await;
    compaction_spares_quiet_watches(harness).await;
}

/// Creates a history with every kind of change. Returns the model of it, and the revision before the history.
async fn a_past<H: Harness>(site: &Site<'_, H>) -> (Mirrored, Revision) {
    let mut past = Mirrored::new(site.client.clone());
    let before = site.read().await.revision;
    let key = |name: &str| site.key(name);
    let lease = site.grant_long().await.id;
    past.model.grant(lease);
    past.commit(Txn::new().put(key("a"), "1", None)).await;
    past.commit(Txn::new().put(key("a"), "2", None)).await;
    past.commit(Txn::new().put(key("a"), "2", None)).await;
    past.commit(Txn::new().put(key("b"), "1", None).put(key("c"), "1", None).delete(key("a"))).await;
    past.commit(Txn::new().put(key("a"), "3", None)).await;
    past.commit(Txn::new().delete(key("a")).delete(key("absent"))).await;
    past.commit(Txn::new().delete(key("absent"))).await;
    past.commit(Txn::new().put(key("leased1"), "1", lease).put(key("leased2"), "1", lease)).await;
    past.commit(Txn::new().put(key("c"), "2", lease).put(key("leased1"), "2", None)).await;
    past.commit(Txn::new()).await;
    site.client.revoke(lease).await;
    // Only the store knows the revision of the revocation, so take it from a watch.
    let revoked =
        site.watch(past.model.changes("", Revision::ZERO).last().map_or(before, |last| last.revision));
    let revoked = revoked.await.next("the end of a lease").await.revision;
    past.model.end(&[lease], revoked);
    past.commit(Txn::new().put(key("leased2"), "3", None).put(key("b"), "2", None)).await;
    past.commit(Txn::new().delete(key("b"))).await;
    (past, before)
}

async fn the_past_is_replayed<H: Harness>(harness: &H) {
    let site = Site::open(
        harness,
        Rule::Watches,
        "a watch from every past revision yields the changes that followed",
    )
    .await;
    let (mut past, before) = a_past(&site).await;
    let all = past.model.changes(&site.root, before);
    let other = site.another().await;
    // Start from each of our revisions, from the one before it (which may belong to another client) and from the last.
    let mut starts = vec![before];
    starts.extend(
        all.iter().flat_map(|batch| [Revision::new(batch.revision.get() - 1).max(before), batch.revision]),
    );
    // Run the watches concurrently, because some stores take a while to replay the past.
    let open = starts.into_iter().enumerate().map(async |(n, after)| {
        let client = if n % 2 == 0 { &site.client } else { &other };
        let mut watch = client.watch(&site.root, after).await;
        let expected = past.model.changes(&site.root, after);
        watch.expect(&format!("a watch after revision {after}"), &expected).await;
        watch
    });
    let mut open = join_all(open).await;
    // All watches continue with new changes, and had nothing else to deliver.
    let end = past.commit(Txn::new().put(site.key("live"), "1", None)).await;
    let live = past.model.changes(&site.root, Revision::new(end.get() - 1));
    for watch in &mut open {
        watch.expect("a watch continues with live changes after the replay", &live).await;
    }
    site.leave().await;
}

async fn prefixes_have_sharp_edges<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Watches, "a watch yields exactly the keys that start with its prefix")
            .await;
    let mut mirrored = Mirrored::new(site.client.clone());
    let before = site.read().await.revision;
    let prefixes =
        ["a", "a/", "a/b", "a0", "top\u{10ffff}", "del\u{7f}", "nul\0", "absent"].map(|name| site.key(name));
    let mut live = Vec::new();
    for prefix in &prefixes {
        live.push(site.client.watch(prefix, before).await);
    }
    let names = [
        "a",
        "a.",
        "a/",
        "a/b",
        "a/b/c",
        "a/c",
        "a0",
        "a0/b",
        "b",
        "top",
        "top\u{10ffff}",
        "top\u{10ffff}x",
        "toq",
        "del\u{7f}",
        "del\u{7f}x",
        "del\u{80}",
        "nul",
        "nul\0",
        "nul\0x",
        "nul\u{1}",
    ];
    for name in names {
        mirrored.commit(Txn::new().put(site.key(name), "1", None)).await;
    }
    // Commits that touch several watched prefixes, or none.
    mirrored
        .commit(names.iter().take(16).fold(Txn::new(), |txn, name| txn.put(site.key(name), "2", None)))
        .await;
    mirrored.commit(Txn::new().put(site.key("elsewhere"), "1", None)).await;
    mirrored.commit(names.iter().step_by(2).fold(Txn::new(), |txn, name| txn.delete(site.key(name)))).await;
    mirrored.commit(Txn::new().delete(site.key("a/b")).put(site.key("a0"), "3", None)).await;
    // One last change under each prefix: everything that a watch is owed arrives before it.
    for prefix in &prefixes {
        mirrored.commit(Txn::new().put(format!("{prefix}~last"), "", None)).await;
    }
    for (prefix, live) in prefixes.iter().zip(&mut live) {
        let expected = mirrored.model.changes(prefix, before);
        let mut replay = site.client.watch(prefix, before).await;
        live.expect(&format!("the changes under {prefix:?}, live"), &expected).await;
        replay.expect(&format!("the changes under {prefix:?}, replayed"), &expected).await;
    }
    site.leave().await;
}

async fn large_revisions_are_one_batch<H: Harness>(harness: &H) {
    const LEASED: usize = 100;
    let site = Site::open(harness, Rule::Watches, "all changes of one revision come in one batch").await;
    let mut mirrored = Mirrored::new(site.client.clone());
    let lease = site.grant_long().await.id;
    mirrored.model.grant(lease);
    let mut live = site.watch_from_now().await;
    let before = live.seen;
    let large = (0..16)
        .fold(Txn::new(), |txn, n| txn.put(site.key(&format!("large{n:02}")), vec![n; 64 * 1024], None));
    mirrored.commit(large).await;
    let keys: Vec<Key> = (0..LEASED).map(|n| site.key(&format!("leased{n:03}"))).collect();
    let put = |some: &[Key]| some.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), "1", lease));
    mirrored.commit_all(keys.chunks(16).map(put)).await;
    let mut changes = mirrored.model.changes(&site.root, before);
    live.expect("16 values of 64 KiB, then a hundred small ones", &changes).await;
    site.client.revoke(lease).await;
    let gone = live.next("the deletion of a hundred keys in one batch, at the end of their lease").await;
    mirrored.model.end(&[lease], gone.revision);
    let expected = mirrored.model.changes(&site.root, live_before(&gone));
    for batch in &expected {
        site.scene.same_batch("a hundred keys vanish with their lease", batch, &gone);
    }
    changes.extend(expected);
    let mut replay = site.watch(before).await;
    replay.expect("the same batches, replayed", &changes).await;
    replay.expect_nothing("the same batches, replayed", &site.client).await;
    site.leave().await;
}

fn live_before(batch: &Batch) -> Revision {
    Revision::new(batch.revision.get() - 1)
}

async fn several_watches_yield_the_same<H: Harness>(harness: &H) {
    const WRITERS: usize = 4;
    const COMMITS: usize = 25;
    let site = Site::open(harness, Rule::Watches, "several watches with concurrent writers").await;
    let start = site.read().await.revision;
    let begin = Start::new();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, begin) = (site.another().await, begin.clone());
        let own = site.key(&format!("w{writer}"));
        let shared = site.key("shared");
        writers.spawn(async move {
            begin.wait().await;
            let mut commits = Vec::new();
            for n in 0..COMMITS {
                let value = format!("{writer}-{n}");
                let txn = Txn::new().put(shared.clone(), value.clone(), None);
                let txn =
                    if n % 4 == 3 { txn.delete(own.clone()) } else { txn.put(own.clone(), value, None) };
                commits.push((client.commit(txn.clone()).await, txn));
                stagger(n * WRITERS + writer).await;
            }
            commits
        });
    }
    let mut watchers = JoinSet::new();
    for n in 0..3 {
        let (client, begin, root) = (site.another().await, begin.clone(), site.root.clone());
        // One watch starts before the writers, the other two start while they write.
        let early = if n == 0 { Some(client.watch(&root, start).await) } else { None };
        watchers.spawn(async move {
            begin.wait().await;
            for _ in 0..n * 5 {
                yield_now().await;
            }
            let mut watch = match early {
                Some(early) => early,
                None => client.watch(&root, start).await,
            };
            let mut seen = Vec::new();
            for at in 0..WRITERS * COMMITS {
                seen.push(watch.next_change(&format!("change {at} of {}", WRITERS * COMMITS)).await);
            }
            (watch, seen)
        });
    }
    begin.go();
    let mut commits: BTreeMap<Revision, Txn> = BTreeMap::new();
    commits.extend(finish(writers).await.into_iter().flatten());
    let mut model = crate::contract::Contract::default();
    for (revision, txn) in &commits {
        model.apply(txn, *revision);
    }
    let expected = model.changes(&site.root, start);
    let mut watches = Vec::new();
    for (watch, seen) in finish(watchers).await {
        for (expected, found) in expected.iter().zip(&seen) {
            site.scene.same_batch("the commits in the order of their revisions", expected, found);
        }
        watches.push(watch);
    }
    let end = site.client.put(&site.key("end"), "", None).await;
    for watch in &mut watches {
        let batch = watch.next("the last change, after all others").await;
        site.scene.check(
            batch.revision == end,
            format!("nothing more before the change of revision {end}"),
            format!("sent {}", show_batch(&batch)),
        );
    }
    site.leave().await;
}

async fn an_idle_reader_misses_nothing<H: Harness>(harness: &H) {
    // More than common buffer sizes.
    const CHANGES: usize = 1_100;
    let site = Site::open(harness, Rule::Watches, "a watch that nobody polls for 1,100 changes").await;
    let mut mirrored = Mirrored::new(site.client.clone());
    let mut idle = site.watch_from_now().await;
    let before = idle.seen;
    let put = |n| Txn::new().put(site.key(&format!("k{}", n % 7)), format!("{n}"), None);
    mirrored.commit_all((0..CHANGES).map(put)).await;
    idle.expect("1,100 changes that waited", &mirrored.model.changes(&site.root, before)).await;
    idle.expect_nothing("1,100 changes that waited", &site.client).await;
    site.leave().await;
}

async fn a_dropped_next_loses_nothing<H: Harness>(harness: &H) {
    const CHANGES: usize = 50;
    let site = Site::open(harness, Rule::Watches, "a watch polled in a select loop").await;
    let mut mirrored = Mirrored::new(site.client.clone());
    let mut watch = site.watch_from_now().await;
    let before = watch.seen;
    let mut seen = Vec::new();
    for n in 0..CHANGES {
        mirrored.commit(Txn::new().put(site.key("k"), format!("{n}"), None)).await;
        // Poll either not at all, or repeatedly even though nothing new has arrived.
        for _ in 0..n % 8 {
            tokio::select! {
                biased;
                batch = watch.next("a change") => seen.push(batch),
                () = std::future::ready(()) => {}
            }
            yield_now().await;
        }
    }
    while seen.len() < CHANGES {
        seen.push(watch.next(&format!("change {} of {CHANGES}", seen.len())).await);
    }
    for (expected, found) in mirrored.model.changes(&site.root, before).iter().zip(&seen) {
        site.scene.same_batch("a watch whose next() was dropped repeatedly", expected, found);
    }
    watch.expect_nothing("a watch whose next() was dropped repeatedly", &site.client).await;
    site.leave().await;
}

async fn snapshot_and_watch_make_the_state<H: Harness>(harness: &H) {
    const COMMITS: usize = 60;
    const FOLLOWERS: usize = 6;
    let site =
        Site::open(harness, Rule::Watches, "a snapshot and a watch from its revision give the state").await;
    let last = site.key("last");
    let mut tasks = JoinSet::new();
    for follower in 0..FOLLOWERS {
        let (client, root, last) = (site.another().await, site.root.clone(), last.clone());
        tasks.spawn(async move {
            for _ in 0..follower * 8 {
                yield_now().await;
            }
            let snapshot = client.read(&root).await;
            let mut state: BTreeMap<Key, Entry> =
                snapshot.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
            stagger(follower).await;
            let mut watch = client.watch(&root, snapshot.revision).await;
            while !state.contains_key(&last) {
                fold(client.scene, &mut state, watch.next_change("a change, up to the last one").await);
            }
            state
        });
    }
    for n in 0..COMMITS {
        let [own, other] = [n % 5, (n + 2) % 5].map(|n| site.key(&format!("k{n}")));
        let txn = Txn::new().put(own, format!("{n}"), None);
        site.client.commit(if n % 3 == 0 { txn.delete(other) } else { txn }).await;
        stagger(n).await;
    }
    site.client.put(&last, "", None).await;
    let expected = site.read().await.entries;
    for state in finish(tasks).await {
        let found: Vec<Entry> = state.into_values().collect();
        site.scene.same_entries("a snapshot with the later changes applied", &expected, &found);
    }
    site.leave().await;
}

/// Applies a batch to `state` and checks that they are consistent.
fn fold(scene: Scene, state: &mut BTreeMap<Key, Entry>, batch: Batch) {
    for change in &*batch.changes {
        match change {
            Change::Put(entry) => {
                let before = state.insert(entry.key.clone(), entry.clone());
                let created = before.map_or(batch.revision, |before| before.created);
                scene.check(
                    entry.created == created,
                    format!("a put with creation revision {created}, according to the changes so far"),
                    format!("sent {}", show_entry(entry)),
                );
            }
            Change::Delete(key) => scene.check(
                state.remove(key).is_some(),
                format!(
                    "a delete of a key that exists before revision {}, according to the changes so far",
                    batch.revision
                ),
                format!("sent a delete of {key:?}, which was absent"),
            ),
        }
    }
}

async fn the_future_ends_with_rewound<H: Harness>(harness: &H) {
    const TRIES: usize = 200;
    let site = Site::open(harness, Rule::Watches, "a watch from beyond the store's revision ends").await;
    let now = site.client.put(&site.key("k"), "1", None).await;
    for after in [now.get() + 1_000_000, i64::MAX as u64 - 1, i64::MAX as u64, u64::MAX - 1, u64::MAX] {
        let mut watch = site.watch(Revision::new(after)).await;
        must_say_rewound(&site.client, &mut watch, now).await;
    }
    // One revision beyond is enough. Other clients may write to the store, so repeat until there was no concurrent
    // write.
    for attempt in 1.. {
        let before = site.read().await.revision;
        let mut watch = site.watch(before.next()).await;
        if site.read().await.revision == before {
            must_say_rewound(&site.client, &mut watch, before).await;
            break;
        }
        assert!(
            attempt < TRIES,
            "other clients write to the store all the time, so the suite cannot judge rule 3"
        );
    }
    // A watch from the store's own revision works.
    site.watch_from_now().await.expect_nothing("a watch from the store's revision", &site.client).await;
    site.leave().await;
}

async fn must_say_rewound(client: &Client, watch: &mut Watch, before: Revision) {
    let after = watch.seen;
    let awaited = format!("Rewound from a watch after {after}, with the store at about revision {before}");
    match watch.end(&awaited).await {
        WatchEnd::Rewound { revision } => {
            let now = client.read("absent/").await.revision;
            client.scene.check(
                before <= revision && revision <= now,
                format!("Rewound with the store's revision, between {before} and {now}"),
                format!("named {revision}"),
            );
        }
        end => client.scene.broken(awaited, format!("ended the watch with {end:?}")),
    }
}

async fn compaction_is_never_skipped<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Watches, "a watch over compacted changes ends with Compacted").await;
    let (past, before) = a_past(&site).await;
    let all = past.model.changes(&site.root, before);
    // One watch has read all changes, the other none.
    let mut caught_up = site.watch(before).await;
    caught_up.expect("the past", &all).await;
    let mut behind = site.watch(before).await;

    // Compact up to each of the revisions in turn: after puts, deletions and the end of a lease.
    for (n, forgotten) in all.iter().enumerate() {
        let compacted = forgotten.revision;
        // A third watch lags behind this compaction, but behind none of the earlier ones.
        let mut lagging = site.watch(n.checked_sub(1).map_or(before, |last| all[last].revision)).await;
        harness.compact(compacted).await;
        let starts = std::iter::once(before).chain(all.iter().map(|batch| batch.revision));
        join_all(starts.map(|after| after_a_compaction(&site, compacted, after, &all))).await;
        // Recover as `Compacted` advises: read a snapshot and watch from its revision.
        let mut watch = site.watch_from_now().await;
        watch.expect_nothing("a watch from a snapshot after a compaction", &site.client).await;
        let fence = site.client.delete(&site.key("~fence")).await;
        for awaited in ["a put after the compaction", "a delete after the compaction"] {
            let batch =
                caught_up.next(&format!("{awaited}, from a watch that was open and owed nothing")).await;
            site.scene.check(
                batch.revision <= fence && batch.changes.len() == 1,
                awaited,
                format!("sent {}", show_batch(&batch)),
            );
        }
        skips_nothing(&site, &mut lagging, &all[n..]).await;
    }
    skips_nothing(&site, &mut behind, &all).await;
    site.leave().await;
}

/// Checks a watch that was not polled before a compaction. The watch may or may not have buffered its changes, but it
/// must not skip any.
async fn skips_nothing<H: Harness>(site: &Site<'_, H>, behind: &mut Watch, owed: &[Batch]) {
    for owed in owed {
        match behind.item("the owed change, or Compacted").await {
            Some(Ok(batch)) => {
                site.scene.same_batch("a watch that is behind a compaction skips no change", owed, &batch);
            }
            Some(Err(WatchEnd::Compacted { .. })) => return,
            other => site.scene.broken(
                "a watch that is behind a compaction delivers the owed changes or ends with Compacted",
                format!("sent {other:?}"),
            ),
        }
    }
}

/// Checks a new watch after the revision `after`. `all` is the history, which the store has compacted up to
/// `compacted`.
async fn after_a_compaction<H: Harness>(
    site: &Site<'_, H>,
    compacted: Revision,
    after: Revision,
    all: &[Batch],
) {
    let since =
        |at: Revision| -> Vec<Batch> { all.iter().filter(|batch| batch.revision > at).cloned().collect() };
    let what = format!("a watch after {after} on a store compacted up to {compacted}");
    let owed = since(after);
    let mut watch = site.watch(after).await;
    if after >= compacted {
        watch.expect(&format!("{what} yields the remaining changes"), &owed).await;
        return;
    }
    let end = watch.end(&format!("{what} ends with Compacted: it owes {} changes", owed.len())).await;
    let WatchEnd::Compacted { compacted: named } = end else {
        site.scene.broken(format!("{what} ends with Compacted"), format!("ended with {end:?}"))
    };
    let now = site.read().await.revision;
    site.scene.check(
        after < named && named <= now,
        format!("{what} names a revision after {after}, up to {now}"),
        format!("named {named}"),
    );
    let mut again = site.watch(named).await;
    again.expect(&format!("a watch from {named}, which Compacted named"), &since(named)).await;
}

async fn compaction_spares_idle_watches<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Watches, "a watch of an idle prefix during a compaction").await;
    let (idle, busy) = (site.key("idle/"), site.key("busy/k"));
    let mut mirrored = Mirrored::new(site.client.clone());
    mirrored.commit(Txn::new().put(format!("{idle}k"), "1", None)).await;
    let seen = site.client.read(&idle).await;
    let mut open = site.client.watch(&idle, seen.revision).await;
    let mut compacted = seen.revision;
    for n in 0..10 {
        compacted = mirrored.commit(Txn::new().put(busy.clone(), format!("{n}"), None)).await;
    }
    harness.compact(compacted).await;
    // The store may accept or refuse a new watch from before the compaction that owes no compacted change. Either way,
    // it must not lose later changes.
    let change = mirrored.commit(Txn::new().put(format!("{idle}k"), "2", None)).await;
    let owed = mirrored.model.changes(&idle, seen.revision);
    open.expect("a watch that was open and owed nothing continues after a compaction", &owed).await;
    let mut late = site.client.watch(&idle, seen.revision).await;
    match late.item("the change after the compaction, or Compacted").await {
        Some(Ok(batch)) => site.scene.same_batch("a watch from before a compaction", &owed[0], &batch),
        Some(Err(WatchEnd::Compacted { compacted: named })) => site.scene.check(
            seen.revision < named && named <= change,
            format!("Compacted with a revision after {}, up to {change}", seen.revision),
            format!("named {named}"),
        ),
        other => site.scene.broken("the change, or Compacted", format!("sent {other:?}")),
    }
    // Compaction removes changes, not current values.
    let found = site.read().await.entries;
    site.scene.under(Rule::Reads).same_entries(
        "a read after a compaction",
        &mirrored.model.read(&site.root),
        &found,
    );
    site.leave().await;
}

/// Longest time for which the suite waits to see that nothing happens.
const QUIET: Duration = Duration::from_secs(5);

async fn compaction_spares_quiet_watches<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Watches, "a watch of a prefix that stays quiet after a compaction").await;
    let (quiet, busy) = (site.key("quiet/"), site.key("busy/k"));
    let mut mirrored = Mirrored::new(site.client.clone());
    mirrored.commit(Txn::new().put(format!("{quiet}k"), "1", None)).await;
    let seen = site.client.read(&quiet).await.revision;
    // The first watch has noticed that nothing changes, and the second has never been polled.
    let mut open = [site.client.watch(&quiet, seen).await, site.client.watch(&quiet, seen).await];
    let wait = site.bounds.watch_lag.min(QUIET) + site.bounds.smallest_ttl;
    open[0].stays_quiet(wait / 2, "before the compaction").await;
    let mut compacted = seen;
    for n in 0..10 {
        compacted = mirrored.commit(Txn::new().put(busy.clone(), format!("{n}"), None)).await;
    }
    // At once, so that no watch has had the time to notice the changes elsewhere.
    harness.compact(compacted).await;
    let [polled, other] = &mut open;
    tokio::join!(
        polled.stays_quiet(wait, "after the compaction"),
        other.stays_quiet(wait, "after the compaction"),
    );
    mirrored.commit(Txn::new().put(format!("{quiet}k"), "2", None)).await;
    let owed = mirrored.model.changes(&quiet, seen);
    for watch in &mut open {
        watch.expect("a watch continues after a compaction while its prefix was quiet", &owed).await;
    }
    site.leave().await;
}
