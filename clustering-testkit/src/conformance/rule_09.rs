use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use clustering_core::store::{Change, CoordinationStore, Key, LeaseId, Revision, Txn, WatchEnd};
use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, sleep, timeout},
};

use super::{
    Harness, Hook,
    report::not_judged,
    scene::{Rule, show_batch, show_entry},
    site::{Client, Site},
    watch::Watch,
};

/// Checks rule 9: dropping frees. In particular:
///
/// - after each of the six calls was dropped before its first poll, after the first or after a few more, or after a
///   part of the time that it takes, the store still answers all calls. Other handles are asked first, because a call
///   on the same handle may clean up what the dropped one left behind;
/// - a dropped commit becomes visible as a whole or not at all, and at most once;
/// - after 200 watches were opened and dropped, some of them after reading from them, the handle's other watches and
///   the store continue to work;
/// - a watch continues after the handle that opened it was dropped;
/// - aborted tasks leave only whole commits behind and a store that works;
/// - if the harness counts the store's open watches ([`Harness::open_watches`]), dropped watches disappear from the
///   count;
/// - if the harness can make connections go silent ([`Harness::line`]), calls are answered again within the time in
///   which a watch must deliver or end, although their callers give up after a sixth of the TTL, as nodes do. An open
///   watch delivers or ends in time, too.
///
/// Other resources that a store may hold (memory, tasks, sockets) cannot be judged from outside.
pub async fn rule_09_dropping_frees<H: Harness>(harness: &H) {
    dropped_calls_do_no_harm(harness).await;
    dropped_commits_are_whole(harness).await;
    dropped_watches_do_no_harm(harness).await;
    a_watch_outlives_its_handle(harness).await;
    aborted_tasks_do_no_harm(harness).await;
    dropped_watches_are_freed(harness).await;
    silent_connections_are_replaced(harness).await;
}

/// Polls a call `polls` times and drops it. Returns the result if the call finished before.
async fn drop_after<T>(polls: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    for _ in 0..polls {
        if let Poll::Ready(answer) = poll_once(call.as_mut()).await {
            return Some(answer);
        }
        // Let the runtime do whatever else the call depends on.
        yield_now().await;
    }
    None
}

async fn poll_once<F: Future>(mut call: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await
}

/// Checks that the store answers each of the six calls correctly.
async fn still_works(client: &Client, root: &str, n: usize) {
    let [free, leased] = ["free", "leased"].map(|name| Key::from(format!("{root}works{n}/{name}")));
    let lease = client.grant(client.bounds.check_limit()).await;
    let put = client.commit(Txn::new().put(free.clone(), "1", None).put(leased.clone(), "1", lease.id)).await;
    client.renew(lease).await;
    let mut watch = client.watch(&format!("{root}works{n}/"), Revision::new(put.get() - 1)).await;
    let batch = watch.next("a commit made after calls were dropped").await;
    client.scene.check(
        batch.revision == put && batch.changes.len() == 2,
        format!("the two puts of revision {put}"),
        format!("sent {}", show_batch(&batch)),
    );
    client.revoke(lease.id).await;
    let batch = watch.next("a revocation made after calls were dropped").await;
    client.scene.check(
        matches!(&batch.changes[..], [Change::Delete(key)] if *key == leased),
        format!("the deletion of {leased:?}"),
        format!("sent {}", show_batch(&batch)),
    );
    let left = client.read(&format!("{root}works{n}/")).await.entries;
    client.scene.check(
        matches!(&left[..], [entry] if entry.key == free),
        format!("only {free:?}"),
        format!("showed {:?}", left.iter().map(show_entry).collect::<Vec<_>>()),
    );
    client.delete(&free).await;
}

/// The six calls, as [`drop_call`] makes them.
const CALLS: [&str; 6] = ["a grant", "a renewal", "a read", "a watch", "a commit", "a revocation"];

/// Point at which a call is dropped.
#[derive(Clone, Copy)]
enum DropAt {
    /// After so many polls.
    Polls(usize),
    /// After so much time, in which the store can do a part of the work.
    Time(Duration),
}

impl DropAt {
    async fn applied<T>(self, call: impl Future<Output = T>) {
        match self {
            DropAt::Polls(polls) => drop(drop_after(polls, call).await),
            DropAt::Time(time) => drop(timeout(time, call).await),
        }
    }
}

/// Makes one of the six calls on a lease and a key of their own, and drops it at the given point.
async fn drop_call<H: Harness>(site: &Site<'_, H>, call: &str, key: Key, lease: LeaseId, at: DropAt) {
    let store = &site.client.store;
    match call {
        "a grant" => at.applied(store.grant_lease(site.bounds.smallest_ttl)).await,
        "a renewal" => at.applied(store.renew_lease(lease)).await,
        "a read" => at.applied(store.read(&site.root)).await,
        "a watch" => at.applied(store.watch(&site.root, Revision::ZERO)).await,
        "a commit" => at.applied(store.commit(Txn::new().put(key, "1", lease))).await,
        _ => at.applied(store.revoke_lease(lease)).await,
    }
}

async fn dropped_calls_do_no_harm<H: Harness>(harness: &H) {
    // Parts of the time that a commit takes after which calls are dropped.
    const PARTS: u32 = 8;
    let site = Site::open(harness, Rule::Dropping, "calls dropped before and between their polls").await;
    let other = site.another().await;
    let took = {
        let began = Instant::now();
        site.client.put(&site.key("k"), "1", None).await;
        began.elapsed()
    };
    let polls = [0, 1, 2, 3, 5, 8].map(DropAt::Polls);
    let points = polls.into_iter().chain((1..=PARTS).map(|part| DropAt::Time(took * part / PARTS)));
    for (n, at) in points.enumerate() {
        for (m, call) in CALLS.into_iter().chain(CALLS).enumerate() {
            let lease = site.grant_long().await.id;
            drop_call(&site, call, site.key(&format!("k{n}-{m}")), lease, at).await;
            let txn = Txn::new().put(site.key("other"), call, None);
            let asked = format!("a commit after another handle dropped {call}");
            let answer = other.answer(&asked, other.store.commit(txn)).await;
            other.done(&asked, answer);
        }
        still_works(&other, &site.root, 2 * n).await;
        still_works(&site.client, &site.root, 2 * n + 1).await;
    }
    site.leave().await;
}

async fn dropped_commits_are_whole<H: Harness>(harness: &H) {
    const COMMITS: usize = 60;
    let site = Site::open(harness, Rule::Dropping, "a dropped commit applies as a whole or not at all").await;
    let mut watch = site.watch_from_now().await;
    let both = |n: usize| [format!("{}n{n:03}/a", site.root), format!("{}n{n:03}/b", site.root)];
    let mut answered: BTreeMap<usize, Revision> = BTreeMap::new();
    for n in 0..COMMITS {
        let txn = both(n).into_iter().fold(Txn::new(), |txn, key| txn.put(key, format!("{n}"), None));
        if let Some(answer) = drop_after(n % 6, site.client.store.commit(txn)).await {
            match answer {
                Ok(revision) => {
                    answered.insert(n, revision);
                }
                Err(error) => site.scene.broken("an unguarded commit succeeds", format!("failed: {error}")),
            }
        }
    }
    // A late commit may still apply. A read must show both keys of a commit or neither, and keys once shown must stay.
    let mut shown: BTreeMap<usize, Revision> = answered;
    for _ in 0..5 {
        let found = site.read().await;
        for n in 0..COMMITS {
            let pair = both(n).map(|key| found.entries.iter().find(|entry| entry.key.as_str() == key));
            let at = match pair {
                [None, None] => None,
                [Some(a), Some(b)] if a.modified == b.modified && a.created == a.modified => Some(a.modified),
                [a, b] => site.scene.broken(
                    format!("both keys of dropped commit {n}, or neither"),
                    format!("showed {:?} and {:?}", a.map(show_entry), b.map(show_entry)),
                ),
            };
            let before = shown.get(&n).copied();
            site.scene.check(
                before.is_none() || before == at,
                format!("commit {n} at {before:?}, as shown before"),
                format!("showed it at {at:?}"),
            );
            if let Some(at) = at {
                shown.insert(n, at);
            }
        }
        yield_now().await;
    }
    // The watch yields each applied commit once and as a whole.
    site.client.put(&site.key("end"), "", None).await;
    let mut logged: BTreeMap<usize, Revision> = BTreeMap::new();
    loop {
        let batch = watch.next("an applied commit, or the last put").await;
        if batch.changes[0].key().ends_with("/end") {
            break;
        }
        let number = |change: &Change| {
            change.key().rsplit('/').nth(1).and_then(|name| name[1..].parse::<usize>().ok())
        };
        let numbers: Vec<usize> = batch.changes.iter().filter_map(number).collect();
        let whole = matches!(numbers[..], [a, b] if a == b && logged.insert(a, batch.revision).is_none());
        site.scene.check(
            whole,
            "each dropped commit in one batch, and at most once",
            format!("sent {}", show_batch(&batch)),
        );
    }
    for (n, at) in &shown {
        site.scene.check(
            logged.get(n) == Some(at),
            format!("commit {n} in the watch at revision {at}, as shown by reads"),
            format!("sent it at revision {:?}", logged.get(n)),
        );
    }
    site.leave().await;
}

async fn dropped_watches_do_no_harm<H: Harness>(harness: &H) {
    const WATCHES: usize = 200;
    let site = Site::open(harness, Rule::Dropping, "200 watches opened and dropped").await;
    let key = site.key("k");
    let start = site.client.put(&key, "start", None).await;
    let mut stays = site.watch(start).await;
    let mut waiting: Vec<Watch> = Vec::new();
    for n in 0..WATCHES {
        let mut watch = site.watch(Revision::new(start.get() - (n as u64 % 2))).await;
        match n % 4 {
            // Dropped at once; after an item, if one is owed; after polls without an item; or later, all together.
            0 => drop(watch),
            1 => drop(watch.next("the first put").await),
            2 => drop(drop_after(2, watch.next("no change yet")).await),
            _ => waiting.push(watch),
        }
    }
    // The remaining watches continue: each of them receives the next change.
    let changed = site.client.put(&key, "changed", None).await;
    for (n, mut watch) in waiting.drain(..).enumerate() {
        // All of these started just before the first put.
        let first = watch.next("the first put, on a watch that was kept").await;
        site.scene.check(
            first.revision == start,
            format!("revision {start} on watch {n}"),
            format!("sent {}", show_batch(&first)),
        );
        let second = watch.next("a change after other watches were dropped").await;
        site.scene.check(
            second.revision == changed,
            format!("revision {changed} on watch {n}"),
            format!("sent {}", show_batch(&second)),
        );
    }
    let batch = stays.next("a change, on a watch that was open all the time").await;
    site.scene.check(
        batch.revision == changed,
        format!("revision {changed}"),
        format!("sent {}", show_batch(&batch)),
    );
    // Drop 200 watches at once, with changes pending. The store must still answer.
    let mut many = Vec::new();
    for _ in 0..WATCHES {
        many.push(site.watch(start).await);
    }
    site.client.put(&key, "more", None).await;
    drop(many);
    still_works(&site.another().await, &site.root, 0).await;
    still_works(&site.client, &site.root, 1).await;
    site.leave().await;
}

async fn a_watch_outlives_its_handle<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Dropping, "a watch whose handle was dropped").await;
    let now = site.read().await.revision;
    let mut watch = site.another().await.watch(&site.root, now).await;
    for value in ["1", "2"] {
        let changed = site.client.put(&site.key("k"), value, None).await;
        let batch = watch.next("a change after the handle of the watch was dropped").await;
        site.scene.check(
            batch.revision == changed,
            format!("revision {changed}"),
            format!("sent {}", show_batch(&batch)),
        );
    }
    site.leave().await;
}

async fn aborted_tasks_do_no_harm<H: Harness>(harness: &H) {
    const TASKS: usize = 12;
    let site = Site::open(harness, Rule::Dropping, "tasks aborted during their calls").await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let client = if task % 2 == 0 { site.client.clone() } else { site.another().await };
        let root = site.root.clone();
        tasks.spawn(async move {
            let mut watch = client.watch(&root, Revision::ZERO.next()).await;
            for n in 0_u64.. {
                let both = ["a", "b"].iter().fold(Txn::new(), |txn, name| {
                    txn.put(format!("{root}{task}/{name}"), format!("{n}"), None)
                });
                client.commit(both).await;
                client.read(&root).await;
                // The history may be compacted where this watch starts.
                let _ = drop_after(1, watch.item("a change")).await;
                yield_now().await;
            }
        });
    }
    for n in 0..TASKS {
        for _ in 0..n {
            yield_now().await;
        }
        site.read().await;
    }
    tasks.shutdown().await;
    let found = site.read().await.entries;
    for pair in found.chunks(2) {
        site.scene.check(
            matches!(pair, [a, b] if a.value == b.value && a.modified == b.modified),
            "both keys of each commit, including those of aborted tasks",
            format!("showed {:?}", pair.iter().map(show_entry).collect::<Vec<_>>()),
        );
    }
    still_works(&site.another().await, &site.root, 0).await;
    still_works(&site.client, &site.root, 1).await;
    site.leave().await;
}

async fn dropped_watches_are_freed<H: Harness>(harness: &H) {
    const WATCHES: usize = 50;
    let site = Site::open(harness, Rule::Dropping, "the store releases dropped watches").await;
    let before = match harness.open_watches().await {
        Hook::Have(count) => count,
        Hook::Absent(why) => {
            return not_judged(Rule::Dropping, "the release of dropped watches", why);
        }
    };
    let mut many = Vec::new();
    for _ in 0..WATCHES {
        many.push(site.watch_from_now().await);
    }
    site.client.put(&site.key("k"), "1", None).await;
    for watch in &mut many {
        watch.next("a change, which shows that the watch is established").await;
    }
    drop(many);
    // Other clients of a shared store open and close watches too, so wait until the count has dropped at some moment.
    let limit = Instant::now() + site.bounds.call_timeout + site.bounds.watch_lag;
    loop {
        let Hook::Have(open) = harness.open_watches().await else {
            panic!("the harness could count watches before, and now it cannot");
        };
        if open <= before {
            break;
        }
        site.scene.check(
            Instant::now() < limit,
            format!("at most {before} open watches, the count before {WATCHES} were opened and dropped"),
            format!("still holds {open}"),
        );
        // Some stores notice a dropped watch only when they next have a change for it.
        site.client.put(&site.key("k"), "2", None).await;
        sleep(Duration::from_millis(20)).await;
    }
    site.leave().await;
}

/// Checks that a handle replaces connections that went silent, even if its callers never wait long enough for the
/// store's own time limit.
async fn silent_connections_are_replaced<H: Harness>(harness: &H) {
    let site = Site::open(harness, Rule::Dropping, "calls given up on connections that went silent").await;
    let line = match harness.line().await {
        Hook::Have(line) => line,
        Hook::Absent(why) => return not_judged(Rule::Dropping, "calls given up on silent connections", why),
    };
    let client = Client { store: line.store.clone(), ..site.client.clone() };
    still_works(&client, &site.root, 0).await;
    let lease = client.grant(site.bounds.check_limit()).await.id;
    let now = site.read().await.revision;
    let mut watch = client.watch(&site.root, now).await;
    (line.silence)();
    let changed = site.client.put(&site.key("k"), "after the silence", None).await;
    let calls = async {
        // A node gives a call up after a sixth of the TTL.
        let patience = site.bounds.smallest_ttl / 6;
        let allowed = site.bounds.watch_lag + site.bounds.call_timeout;
        let limit = Instant::now() + allowed;
        for call in ["a renewal", "a read", "a commit"] {
            loop {
                let answer = match call {
                    "a renewal" => {
                        timeout(patience, client.store.renew_lease(lease)).await.map(|a| a.map(drop))
                    }
                    "a read" => timeout(patience, client.store.read(&site.root)).await.map(|a| a.map(drop)),
                    _ => {
                        let txn = Txn::new().put(site.key("mine"), "1", lease);
                        timeout(patience, client.store.commit(txn)).await.map(|a| a.map(drop))
                    }
                };
                match answer {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => site.scene.check(
                        error.is_transient(),
                        format!("a transient error or an answer to {call} after connections went silent"),
                        format!("failed with {:?}: {error}", error.kind()),
                    ),
                    Err(_) => {}
                }
                site.scene.check(
                    Instant::now() < limit,
                    format!(
                        "an answer to {call} within {allowed:?} after connections went silent, to callers that wait for {patience:?}"
                    ),
                    "still answered none",
                );
                // A call that failed at once must not be repeated in a busy loop.
                sleep(patience / 10).await;
            }
        }
    };
    let watched = async {
        let awaited = "a change made after the watch's connection went silent, or Disconnected";
        match watch.item(awaited).await {
            Some(Ok(batch)) => site.scene.check(
                batch.revision == changed,
                format!("{awaited}: revision {changed}"),
                format!("sent {}", show_batch(&batch)),
            ),
            Some(Err(WatchEnd::Disconnected { .. })) => {}
            other => site.scene.broken(awaited, format!("sent {other:?}")),
        }
    };
    tokio::join!(calls, watched);
    still_works(&client, &site.root, 1).await;
    site.leave().await;
}
