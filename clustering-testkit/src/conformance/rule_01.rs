use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use clustering_core::store::{Change, ErrorKind, Guard, Key, Revision, Txn};
use tokio::task::{JoinSet, yield_now};

use super::{
    Harness,
    scene::{Rule, show_entry},
    site::{Client, Site},
    tasks::{Start, finish, stagger},
};

/// Checks rule 1: commits are atomic and linearizable. In particular:
///
/// - a commit of 16 operations becomes visible as a whole, and each of its keys has the revision in the reply;
/// - one failed guard among many, at any position, prevents the whole commit;
/// - `CreatedAt` and `ModifiedAt` guards hold and fail correctly for absent, new, overwritten and deleted keys, and are
///   evaluated before the commit's own operations;
/// - a commit that changes nothing returns the current revision and does not advance it;
/// - revisions grow from reply to reply, across handles and for concurrent commits, and each commit has its own;
/// - exactly one of several conflicting commits succeeds, and the others report a revision at which their guard fails;
/// - a counter updated by compare-and-swap loses no update;
/// - a revocation is ordered like a commit: a commit guarded by a leased key succeeds before it or fails after it.
pub async fn rule_01_commits_are_atomic<H: Harness>(harness: &H) {
    a_commit_shows_as_a_whole(harness).await;
    one_failed_guard_keeps_everything_back(harness).await;
    guards_mean_what_they_say(harness).await;
    commits_without_change_leave_the_revision(harness).await;
    revisions_grow(harness).await;
    of_conflicting_commits_one_succeeds(harness).await;
    compare_and_swap_loses_nothing(harness).await;
    a_revocation_is_a_commit(harness).await;
}

async fn a_commit_shows_as_a_whole<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Commits, "a commit of 16 operations becomes visible as a whole").await;
    let keys: Vec<Key> = (0..16).map(|n| site.key(&format!("k{n:02}"))).collect();
    let first = site
        .client
        .commit(keys[..8].iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), "first", None)))
        .await;
    // Overwrites four keys, deletes four and creates eight.
    let second = (keys[..4].iter().chain(&keys[8..]))
        .fold(Txn::new(), |txn, key| txn.put(key.clone(), format!("second {key}"), None));
    let second = site.client.commit(keys[4..8].iter().fold(second, |txn, key| txn.delete(key.clone()))).await;
    site.scene.check(
        second > first,
        format!("a revision after {first}, the one of the previous commit"),
        format!("answered {second}"),
    );

    let found = site.read().await;
    let names: Vec<&Key> = found.entries.iter().map(|entry| &entry.key).collect();
    let expected: Vec<&Key> = keys[..4].iter().chain(&keys[8..]).collect();
    site.scene.check(
        names == expected,
        format!("the keys {expected:?} after a commit of puts and deletes"),
        format!("showed {names:?}"),
    );
    for (at, entry) in found.entries.iter().enumerate() {
        let created = if at < 4 { first } else { second };
        site.scene.check(
            entry.value == format!("second {}", entry.key)
                && (entry.created, entry.modified, entry.lease) == (created, second, None),
            format!("the second value, created {created}, modified {second}, no lease"),
            format!("showed {}", show_entry(entry)),
        );
    }
    site.leave().await;
}

async fn one_failed_guard_keeps_everything_back<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Commits, "one failed guard prevents the whole commit").await;
    let there = site.key("there");
    let at = site.client.put(&there, "untouched", None).await;
    let before = site.read().await;
    let mut watch = site.watch(before.revision).await;

    let holds = |txn: Txn, n: usize| match n % 3 {
        0 => txn.guard(Guard::absent(site.key("absent"))),
        1 => txn.guard(Guard::created_at(there.clone(), at)),
        _ => txn.guard(Guard::modified_at(there.clone(), at)),
    };
    let fails = [
        ("Absent of an existing key", Guard::absent(there.clone())),
        ("ModifiedAt(0) of an existing key", Guard::modified_at(there.clone(), Revision::ZERO)),
        ("ModifiedAt of an absent key", Guard::modified_at(site.key("absent"), at)),
        ("CreatedAt of an absent key", Guard::created_at(site.key("absent"), at)),
    ];
    for (name, failing) in fails {
        for (count, place) in [(1, 0), (16, 0), (16, 7), (16, 15)] {
            let mut txn = Txn::new();
            for n in 0..count {
                txn = if n == place { txn.guard(failing.clone()) } else { holds(txn, n) };
            }
            let txn = txn.put(site.key("new"), "1", None).put(there.clone(), "2", None);
            let expected = format!("GuardFailed for {name}, guard {place} of {count}, where all others hold");
            match site.client.attempt(txn).await {
                Ok(revision) => site.scene.broken(expected, format!("committed at revision {revision}")),
                Err(error) => match error.kind() {
                    ErrorKind::GuardFailed { revision } => {
                        site.scene.check(
                            revision >= before.revision,
                            format!(
                                "the guards judged at revision {}, which a read had shown, or later",
                                before.revision
                            ),
                            format!("judged them at {revision}"),
                        );
                        let now = site.read().await;
                        site.scene.check(
                            revision <= now.revision,
                            format!(
                                "the guards judged at revision {}, which a later read showed, or earlier",
                                now.revision
                            ),
                            format!("judged them at {revision}"),
                        );
                        site.scene.same_entries(
                            "nothing written by a commit with a failed guard",
                            &before.entries,
                            &now.entries,
                        );
                    }
                    kind => site.scene.broken(expected, format!("failed with {kind:?}: {error}")),
                },
            }
        }
    }
    // Failed guards also prevent deletes.
    let guarded = Txn::new().guard(Guard::absent(there.clone())).delete(there.clone());
    match site.client.attempt(guarded).await {
        Err(error) if matches!(error.kind(), ErrorKind::GuardFailed { .. }) => {}
        other => site.scene.broken(
            "GuardFailed for a delete guarded by Absent of the same key",
            format!("answered {other:?}"),
        ),
    }
    watch.expect_nothing("no change from commits with failed guards", &site.client).await;
    site.leave().await;
}

async fn guards_mean_what_they_say<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Commits, "guard semantics").await;
    let [absent, fresh, over, gone, again] =
        ["absent", "fresh", "overwritten", "deleted", "created again"].map(|name| site.key(name));
    let first = site.client.put(&gone, "1", None).await;
    let gone_modified = site.client.put(&gone, "2", None).await;
    site.client.delete(&gone).await;
    let again_first = site.client.put(&again, "1", None).await;
    site.client.delete(&again).await;
    let again_created = site.client.put(&again, "2", None).await;
    let again_modified = site.client.put(&again, "3", None).await;
    let over_created = site.client.put(&over, "1", None).await;
    let over_between = site.client.put(&over, "2", None).await;
    let over_modified = site.client.put(&over, "3", None).await;
    let at = site.client.put(&fresh, "1", None).await;
    let ahead = Revision::new(at.get() + 1_000_000);

    // (key, revision, CreatedAt holds, ModifiedAt holds)
    let table = [
        (&absent, Revision::ZERO, true, true),
        (&absent, at, false, false),
        (&absent, ahead, false, false),
        (&fresh, Revision::ZERO, false, false),
        (&fresh, at, true, true),
        (&fresh, over_modified, false, false),
        (&fresh, ahead, false, false),
        (&over, Revision::ZERO, false, false),
        (&over, over_created, true, false),
        (&over, over_between, false, false),
        (&over, over_modified, false, true),
        (&over, at, false, false),
        (&gone, Revision::ZERO, true, true),
        (&gone, first, false, false),
        (&gone, gone_modified, false, false),
        (&again, Revision::ZERO, false, false),
        (&again, again_first, false, false),
        (&again, again_created, true, false),
        (&again, again_modified, false, true),
    ];
    let probe = site.key("probe");
    for (key, revision, created_holds, modified_holds) in table {
        let guards = [
            (Guard::created_at(key.clone(), revision), created_holds),
            (Guard::modified_at(key.clone(), revision), modified_holds),
        ];
        for (guard, holds) in guards {
            let answer =
                site.client.attempt(Txn::new().guard(guard.clone()).put(probe.clone(), "", None)).await;
            let found = match &answer {
                Ok(_) => true,
                Err(error) if matches!(error.kind(), ErrorKind::GuardFailed { .. }) => false,
                Err(error) => site.scene.broken(
                    format!("{guard:?} either holds or fails"),
                    format!("failed with {:?}: {error}", error.kind()),
                ),
            };
            let says = |holds| if holds { "holds" } else { "fails" };
            site.scene.check(
                found == holds,
                format!(
                    "{guard:?} {} (overwritten key: created {over_created}, modified {over_modified}; key created \
                     again: created {again_created}, modified {again_modified}; fresh key: {at})",
                    says(holds)
                ),
                format!("behaved as if it {}", says(found)),
            );
        }
    }

    // Guards see the state before the commit, even if its own operations change their keys.
    let own = site.key("own");
    let created =
        site.client.commit(Txn::new().guard(Guard::absent(own.clone())).put(own.clone(), "1", None)).await;
    let both = Txn::new()
        .guard(Guard::created_at(own.clone(), created))
        .guard(Guard::modified_at(own.clone(), created));
    let modified = site.client.commit(both.put(own.clone(), "2", None)).await;
    let both = Txn::new()
        .guard(Guard::created_at(own.clone(), created))
        .guard(Guard::modified_at(own.clone(), modified));
    site.client.commit(both.delete(own.clone())).await;
    site.client.commit(Txn::new().guard(Guard::absent(own.clone())).put(own, "3", None)).await;
    site.leave().await;
}

async fn commits_without_change_leave_the_revision<H: Harness>(harness: &H) {
    const TRIES: usize = 200;
    let site = Site::open(harness, Rule::Commits, "a commit that changes nothing").await;
    let key = site.key("k");
    let at = site.client.put(&key, "1", None).await;
    let mut watch = site.watch(at).await;
    let idle: [(&str, Txn); 4] = [
        ("no operation", Txn::new()),
        ("no operation and a guard that holds", Txn::new().guard(Guard::modified_at(key.clone(), at))),
        ("a delete of an absent key", Txn::new().delete(site.key("absent"))),
        ("deletes of absent keys", Txn::new().delete(site.key("absent")).delete(site.key("absent too"))),
    ];
    for (name, txn) in idle {
        // Other clients may write to the store meanwhile. One attempt without concurrent writes is enough to show that
        // the commit itself does not advance the revision.
        let mut calm = false;
        for _ in 0..TRIES {
            let before = site.read().await.revision;
            let answer = site.client.commit(txn.clone()).await;
            let after = site.read().await.revision;
            site.scene.check(
                before <= answer && answer <= after,
                format!("a commit with {name} returns the current revision, from {before} to {after}"),
                format!("answered {answer}"),
            );
            calm |= before == after;
            if calm {
                break;
            }
            yield_now().await;
        }
        site.scene.check(
            calm,
            format!("a commit with {name} does not advance the revision"),
            format!("advanced it in each of {TRIES} attempts"),
        );
    }
    // A put of an equal value is a change.
    let same = site.client.put(&key, "1", None).await;
    site.scene.check(
        same > at,
        format!("a put of the same value is a change, with a revision after {at}"),
        format!("answered {same}"),
    );
    let batch = watch.next("the put of the same value, and nothing from the commits without a change").await;
    site.scene.check(
        batch.revision == same,
        format!("a change at revision {same}"),
        format!("sent a change at revision {}", batch.revision),
    );
    // The delete of an absent key is not a change either when the commit has other operations.
    let mixed = site.client.commit(Txn::new().delete(site.key("absent")).put(key.clone(), "2", None)).await;
    let batch = watch.next("the put of a commit that also deletes an absent key").await;
    site.scene.check(
        batch.revision == mixed && matches!(&batch.changes[..], [Change::Put(entry)] if entry.key == key),
        format!("the put of {key:?} alone, at revision {mixed}"),
        format!("sent {batch:?}"),
    );
    site.leave().await;
}

async fn revisions_grow<H: Harness>(harness: &H) {
    const TASKS: usize = 8;
    const COMMITS: usize = 20;
    let site = Site::open(harness, Rule::Commits, "revisions grow from reply to reply").await;
    let mut last = Revision::ZERO;
    let handles = [site.client.clone(), site.another().await, site.another().await];
    for n in 0..30 {
        let revision = handles[n % 3].put(&site.key("in turn"), format!("{n}"), None).await;
        site.scene.check(revision > last, format!("a revision after {last}"), format!("answered {revision}"));
        last = revision;
    }

    // Concurrent commits: a commit that began after another had finished gets the larger revision.
    let finished = Arc::new(AtomicU64::new(last.get()));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (client, finished) = (handles[task % 3].clone(), finished.clone());
        let key = site.key(&format!("task{task}"));
        tasks.spawn(async move {
            let mut mine = Vec::new();
            for n in 0..COMMITS {
                let before = finished.load(Ordering::SeqCst);
                let revision = client.put(&key, format!("{n}"), None).await;
                client.scene.check(
                    revision.get() > before,
                    format!("a revision after {before}, the one of a finished commit"),
                    format!("answered {revision}"),
                );
                finished.fetch_max(revision.get(), Ordering::SeqCst);
                mine.push((revision, task));
                stagger(n * TASKS + task).await;
            }
            mine
        });
    }
    let mut all = BTreeMap::new();
    for (revision, task) in finish(tasks).await.into_iter().flatten() {
        if let Some(other) = all.insert(revision, task) {
            site.scene.broken(
                "each commit that changes something has its own revision",
                format!("gave revision {revision} to commits of tasks {task} and {other}"),
            );
        }
    }
    let now = site.read().await.revision;
    let last = all.last_key_value().map_or(Revision::ZERO, |(revision, _)| *revision);
    site.scene.check(now >= last, format!("a read shows revision {last} or later"), format!("showed {now}"));
    site.leave().await;
}

async fn of_conflicting_commits_one_succeeds<H: Harness>(harness: &H) {
    const ROUNDS: usize = 10;
    const CONTENDERS: usize = 8;
    let site =
        Site::open(harness, Rule::Commits, "exactly one of several conflicting commits succeeds").await;
    let handles = [site.client.clone(), site.another().await, site.another().await];
    for round in 0..ROUNDS {
        let prize = site.key(&format!("prize{round}"));
        let start = Start::new();
        let mut tasks = JoinSet::new();
        for contender in 0..CONTENDERS {
            let (client, prize, start) = (handles[contender % 3].clone(), prize.clone(), start.clone());
            let trace = site.key(&format!("trace{round}-{contender}"));
            tasks.spawn(async move {
                start.wait().await;
                let txn = Txn::new().guard(Guard::absent(prize.clone())).put(trace, "was here", None).put(
                    prize,
                    format!("{contender}"),
                    None,
                );
                (contender, client.attempt(txn).await)
            });
        }
        start.go();
        let (mut winners, mut losers) = (Vec::new(), Vec::new());
        for (contender, answer) in finish(tasks).await {
            match answer {
                Ok(revision) => winners.push((contender, revision)),
                Err(error) => match error.kind() {
                    ErrorKind::GuardFailed { revision } => losers.push(revision),
                    kind => site.scene.broken(
                        "GuardFailed for a commit that lost the race",
                        format!("failed with {kind:?}: {error}"),
                    ),
                },
            }
        }
        let [(winner, won_at)] = winners[..] else {
            site.scene.broken(
                format!("exactly one of {CONTENDERS} commits guarded by the same Absent succeeds"),
                format!("accepted {} of them: {winners:?}", winners.len()),
            )
        };
        for judged in losers {
            site.scene.check(
                judged >= won_at,
                format!(
                    "the guard of a losing commit judged at revision {won_at}, where the key exists, or later"
                ),
                format!("judged it at {judged}"),
            );
        }
        let traces = site.client.read(&format!("{}trace{round}-", site.root)).await.entries;
        let expected = site.key(&format!("trace{round}-{winner}"));
        site.scene.check(
            matches!(&traces[..], [trace] if trace.key == expected && trace.modified == won_at),
            format!("only the winner's other put, {expected:?}, at revision {won_at}"),
            format!("showed {:?}", traces.iter().map(show_entry).collect::<Vec<_>>()),
        );
        let entry = site.client.read(&prize).await.entries;
        site.scene.check(
            matches!(&entry[..], [entry] if entry.value == format!("{winner}") && entry.modified == won_at),
            format!("the value of contender {winner}, who won at revision {won_at}"),
            format!("showed {:?}", entry.iter().map(show_entry).collect::<Vec<_>>()),
        );
    }
    site.leave().await;
}

async fn compare_and_swap_loses_nothing<H: Harness>(harness: &H) {
    const TASKS: usize = 5;
    const STEPS: usize = 10;
    let site =
        Site::open(harness, Rule::Commits, "a counter updated by compare-and-swap loses no update").await;
    let key = site.key("counter");
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (client, key) = (site.another().await, key.clone());
        tasks.spawn(async move {
            let mut steps = 0;
            for turn in task.. {
                steps += usize::from(step(&client, &key, turn).await);
                if steps == STEPS {
                    break;
                }
                stagger(turn + 1).await;
            }
        });
    }
    finish(tasks).await;
    let found = site.client.read(&key).await.entries;
    let expected = format!("{}", TASKS * STEPS);
    site.scene.check(
        matches!(&found[..], [entry] if entry.value == expected),
        format!(
            "a counter of {expected} after {TASKS} tasks made {STEPS} successful guarded increments each"
        ),
        format!("showed {:?}", found.iter().map(show_entry).collect::<Vec<_>>()),
    );
    site.leave().await;
}

/// Reads a counter and tries to increment it. Returns true if that succeeded.
async fn step(client: &Client, key: &Key, turn: usize) -> bool {
    let snapshot = client.read(key).await;
    let (value, modified) = match &snapshot.entries[..] {
        [entry] => (String::from_utf8_lossy(&entry.value).parse().unwrap_or(0), entry.modified),
        _ => (0_u64, Revision::ZERO),
    };
    stagger(turn).await;
    let txn = Txn::new().guard(Guard::modified_at(key.clone(), modified));
    match client.attempt(txn.put(key.clone(), format!("{}", value + 1), None)).await {
        Ok(_) => true,
        Err(error) => match error.kind() {
            ErrorKind::GuardFailed { revision } => {
                client.scene.check(
                    revision > snapshot.revision,
                    format!("a guard that held at revision {} to fail at a later one", snapshot.revision),
                    format!("judged it at {revision}"),
                );
                false
            }
            kind => client.scene.broken("success or GuardFailed", format!("failed with {kind:?}: {error}")),
        },
    }
}

async fn a_revocation_is_a_commit<H: Harness>(harness: &H) {
    const ROUNDS: usize = 10;
    let site = Site::open(harness, Rule::Commits, "a revocation is ordered like a commit").await;
    let other = site.another().await;
    for round in 0..ROUNDS {
        let [leased, fenced] = ["leased", "fenced"].map(|name| site.key(&format!("{name}{round}")));
        let lease = site.grant_long().await.id;
        let put = site.client.put(&leased, "1", Some(lease)).await;
        let mut watch = site.client.watch(&leased, put).await;

        // Run a commit guarded by the leased key and the revocation of the lease concurrently.
        let start = Start::new();
        let mut tasks = JoinSet::new();
        let (client, begin, guard) = (other.clone(), start.clone(), Guard::created_at(leased.clone(), put));
        let txn = Txn::new().guard(guard).put(fenced.clone(), "1", None);
        tasks.spawn(async move {
            begin.wait().await;
            stagger(round).await;
            Some(client.attempt(txn).await)
        });
        let (client, begin) = (site.client.clone(), start.clone());
        tasks.spawn(async move {
            begin.wait().await;
            client.revoke(lease).await;
            None
        });
        start.go();
        let answer = finish(tasks).await.into_iter().flatten().next();
        let vanished = watch.next("the deletion of a key whose lease was revoked").await.revision;
        site.scene.check(
            vanished > put,
            format!("a revocation at a revision after {put}"),
            format!("revoked it at {vanished}"),
        );
        match answer {
            Some(Ok(revision)) => site.scene.check(
                revision < vanished,
                format!("a commit guarded by the leased key to succeed only before revision {vanished}, where the key vanished"),
                format!("committed it at {revision}"),
            ),
            Some(Err(error)) => {
                let judged = match error.kind() {
                    ErrorKind::GuardFailed { revision } => revision,
                    kind => site
                        .scene
                        .broken("success or GuardFailed", format!("failed with {kind:?}: {error}")),
                };
                site.scene.check(
                    judged >= vanished,
                    format!("the guard to fail only from revision {vanished} on, where the leased key vanished"),
                    format!("judged it at {judged}"),
                );
            }
            None => unreachable!("the first task gives an answer"),
        }
        // From now on the key counts as absent.
        let guard = Guard::absent(leased.clone());
        let after = site.client.commit(Txn::new().guard(guard).put(fenced, "2", None)).await;
        site.scene.check(
            after > vanished,
            format!("a revision after {vanished}, the one of the revocation"),
            format!("answered {after}"),
        );
    }
    site.leave().await;
}
