use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use clustering_core::store::{Key, Revision, Snapshot, Txn};
use tokio::task::JoinSet;

use super::{
    Harness,
    mirrored::Mirrored,
    scene::{Rule, show_entry},
    site::{Client, Site},
    tasks::{finish, outcome, stagger},
};

/// Checks rule 2: a read sees one revision. In particular:
///
/// - a read returns every field as it was written, sorted by the bytes of the keys;
/// - a read, with or without values, returns exactly the keys that start with the prefix, also if keys and prefix end
///   in `/`, in `0` or in the largest code point, and if the prefix is a whole key;
/// - a read sees every commit that finished before the read began, through any handle;
/// - two keys that are always written together are never seen apart, and revisions never decrease;
/// - the same holds with 2,100 keys between these two, which stores fetch in several pages;
/// - two reads at one revision return the same entries.
pub async fn rule_02_reads_see_one_revision<H: Harness>(harness: &H) {
    every_field_in_order(harness).await;
    prefixes_have_sharp_edges(harness).await;
    reads_see_finished_commits(harness).await;
    keys_in_lockstep_stay_together(harness, 0).await;
    keys_in_lockstep_stay_together(harness, 2_100).await;
}

async fn every_field_in_order<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Reads, "a read shows every field, sorted by the bytes of the keys").await;
    let mut mirrored = Mirrored::new(site.client.clone());
    let lease = site.grant_long().await.id;
    let names = [
        "z",
        "Z",
        "B",
        "a",
        "a/",
        "a/b",
        "a//",
        "a0",
        "a.",
        "A",
        "~",
        " ",
        "\u{1}",
        "\0",
        "é",
        "e",
        "日本",
        "\u{7f}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{ffff}",
        "\u{10000}",
        "\u{10ffff}",
        "%",
        "\"quoted\"",
        "new\nline",
    ];
    for (n, name) in names.iter().enumerate() {
        let value = match n % 4 {
            0 => Bytes::new(),
            1 => Bytes::from((0..=255).collect::<Vec<u8>>()),
            2 => Bytes::from_static(b"\0\xff\xfe"),
            _ => Bytes::from(format!("value of {name}")),
        };
        mirrored.commit(Txn::new().put(site.key(name), value, (n % 3 == 0).then_some(lease))).await;
    }
    // Overwrite some keys, so that their creation and modification revisions differ, and delete others.
    for name in names.iter().step_by(2) {
        mirrored.commit(Txn::new().put(site.key(name), "again", None)).await;
    }
    mirrored.commit(Txn::new().delete(site.key("a0")).delete(site.key("é"))).await;

    let found = site.read().await;
    site.scene.same_entries(
        "a read after all these commits",
        &mirrored.model.read(&site.root),
        &found.entries,
    );
    for entry in &found.entries {
        let one = site.client.read(&entry.key).await.entries;
        let expected = mirrored.model.read(&entry.key);
        site.scene.same_entries(&format!("a read of {:?}", entry.key), &expected, &one);
    }
    site.leave().await;
}

async fn prefixes_have_sharp_edges<H: Harness>(harness: &H) {
    let site =
        Site::open(harness, Rule::Reads, "a read shows exactly the keys that start with the prefix").await;
    let mut mirrored = Mirrored::new(site.client.clone());
    // Groups of neighbours: keys below the prefix, the prefix itself, its children, and the first keys after them.
    let names = [
        "a",
        "a!",
        "a.",
        "a/",
        "a/b",
        "a/b/c",
        "a/\u{10ffff}",
        "a/\u{10ffff}x",
        "a0",
        "a0/b",
        "b",
        "b/a",
        "top",
        "top\u{10ffff}",
        "top\u{10ffff}\u{10ffff}",
        "top\u{10ffff}\u{10ffff}x",
        "toq",
        "del\u{7f}",
        "del\u{7f}x",
        "del\u{80}",
        "del\u{7ff}",
        "del\u{7ff}x",
        "del\u{800}",
        "del\u{d7ff}",
        "del\u{d7ff}x",
        "del\u{e000}",
        "del\u{ffff}",
        "del\u{ffff}x",
        "del\u{10000}",
        "nul\0",
        "nul\0\0",
        "nul\u{1}",
    ];
    for some in names.chunks(16) {
        mirrored.commit(some.iter().fold(Txn::new(), |txn, name| txn.put(site.key(name), *name, None))).await;
    }
    let prefixes = [
        "a",
        "a/",
        "a/b",
        "a/b/",
        "a0",
        "a0/",
        "b",
        "c",
        "a/\u{10ffff}",
        "top",
        "top\u{10ffff}",
        "top\u{10ffff}\u{10ffff}",
        "toq",
        "del\u{7f}",
        "del\u{7ff}",
        "del\u{d7ff}",
        "del\u{ffff}",
        "nul",
        "nul\0",
        "absent/",
    ];
    for prefix in prefixes {
        let prefix = site.key(prefix);
        let found = site.client.read(&prefix).await;
        let expected = mirrored.model.read(&prefix);
        site.scene.same_entries(&format!("a read of {prefix:?}"), &expected, &found.entries);
        let keys = site.client.read_keys(&prefix).await;
        let expected: Vec<_> = expected.into_iter().map(|entry| entry.key).collect();
        let found = format!("showed {keys:?}");
        site.scene.check(
            keys == expected,
            format!("a read of the keys under {prefix:?}: {expected:?}"),
            found,
        );
    }
    // Read the root without its slash, in case stores treat a final slash specially, and the whole store.
    for prefix in [&site.root[..site.root.len() - 1], ""] {
        let found = site.client.read(prefix).await;
        let mine: Vec<_> =
            found.entries.into_iter().filter(|entry| entry.key.starts_with(&site.root)).collect();
        site.scene.same_entries(&format!("a read of {prefix:?}"), &mirrored.model.read(&site.root), &mine);
    }
    site.leave().await;
}

async fn reads_see_finished_commits<H: Harness>(harness: &H) {
    const COMMITS: usize = 60;
    let site =
        Site::open(harness, Rule::Reads, "a read sees every commit that finished before it began").await;
    let handles = [site.client.clone(), site.another().await, site.another().await];
    let key = site.key("k");
    for n in 0..COMMITS {
        let writer = &handles[n % 3];
        let absent = n % 5 == 4;
        let revision = match absent {
            true => writer.delete(&key).await,
            false => writer.put(&key, format!("{n}"), None).await,
        };
        for reader in &handles {
            let found = reader.read(&site.root).await;
            site.scene.check(
                found.revision >= revision,
                format!("a read at revision {revision}, whose commit had finished, or later"),
                format!("showed revision {}", found.revision),
            );
            let seen = match &found.entries[..] {
                [] => absent,
                [entry] => !absent && entry.value == format!("{n}") && entry.modified == revision,
                _ => false,
            };
            site.scene.check(
                seen,
                match absent {
                    true => format!("no key after the delete of revision {revision}"),
                    false => format!("the value {n} of revision {revision}"),
                },
                format!("showed {:?}", found.entries.iter().map(show_entry).collect::<Vec<_>>()),
            );
        }
    }
    site.leave().await;
}

async fn keys_in_lockstep_stay_together<H: Harness>(harness: &H, between: usize) {
    let part = match between {
        0 => "two keys written together are never seen apart",
        _ => "two keys written together, with 2,100 others between them, are never seen apart",
    };
    let site = Site::open(harness, Rule::Reads, part).await;
    let filler: Vec<Key> = (0..between).map(|n| site.key(&format!("m{n:05}"))).collect();
    let put = |some: &[Key]| some.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), "filler", None));
    Mirrored::new(site.client.clone()).commit_all(filler.chunks(16).map(put)).await;
    let (reads, readers) = if between == 0 { (60, 2) } else { (5, 2) };
    let ends = [site.key("a"), site.key("z")];
    let first = ends.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), "0", None));
    let first = site.client.commit(first).await;

    // Number written by the last finished commit, and the revision of that commit.
    let finished = Arc::new((AtomicU64::new(0), AtomicU64::new(first.get())));
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let (client, reached, end) = (site.another().await, finished.clone(), done.clone());
    let keys = ends.clone();
    let mut writer = JoinSet::new();
    writer.spawn(async move {
        let mut number = 0;
        while !end.load(Ordering::SeqCst) {
            number += 1;
            let both =
                keys.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), format!("{number}"), None));
            let revision = client.commit(both).await;
            reached.1.store(revision.get(), Ordering::SeqCst);
            reached.0.store(number, Ordering::SeqCst);
            stagger(number as usize).await;
        }
    });
    for _ in 0..readers {
        let reader = Reader {
            client: site.another().await,
            root: site.root.clone(),
            ends: ends.clone(),
            between,
            finished: finished.clone(),
        };
        tasks.spawn(async move { reader.run(reads).await });
    }
    let seen = finish(tasks).await;
    done.store(true, Ordering::SeqCst);
    while let Some(writer) = writer.join_next().await {
        outcome(writer);
    }
    // All reads of one revision must have seen the same state, whichever reader made them.
    let mut states: BTreeMap<Revision, u64> = BTreeMap::new();
    for (revision, number) in seen.into_iter().flatten() {
        if let Some(other) = states.insert(revision, number) {
            site.scene.check(
                other == number,
                format!("two reads of revision {revision} show the same number"),
                format!("showed {other} to one reader and {number} to another"),
            );
        }
    }
    site.leave().await;
}

/// Reads repeatedly while a writer updates the first and the last key together.
struct Reader {
    client: Client,
    root: String,
    ends: [Key; 2],
    between: usize,
    finished: Arc<(AtomicU64, AtomicU64)>,
}

impl Reader {
    /// Returns the revisions seen and the number that the two keys held at each.
    async fn run(self, reads: usize) -> Vec<(Revision, u64)> {
        let mut seen = Vec::new();
        let mut last = Revision::ZERO;
        for turn in 0..reads {
            let number = self.finished.0.load(Ordering::SeqCst);
            let revision = self.finished.1.load(Ordering::SeqCst);
            let found = self.client.read(&self.root).await;
            let scene = self.client.scene;
            scene.check(
                found.revision >= last && found.revision.get() >= revision,
                format!("a read at revision {}, which was shown before, or later", last.get().max(revision)),
                format!("showed revision {}", found.revision),
            );
            last = found.revision;
            let shown = self.number(&found);
            scene.check(
                shown >= number,
                format!("the number {number}, whose commit had finished, or a later one"),
                format!("showed {shown}"),
            );
            seen.push((found.revision, shown));
            stagger(turn * 3).await;
        }
        seen
    }

    fn number(&self, found: &Snapshot) -> u64 {
        let scene = self.client.scene;
        let entries = &found.entries;
        scene.check(
            entries.len() == self.between + 2,
            format!("{} entries, because none was ever deleted", self.between + 2),
            format!("showed {}", entries.len()),
        );
        let (first, last) = (&entries[0], &entries[entries.len() - 1]);
        scene.check(
            [&first.key, &last.key] == [&self.ends[0], &self.ends[1]],
            format!("{:?} first and {:?} last", self.ends[0], self.ends[1]),
            format!("showed {:?} and {:?}", first.key, last.key),
        );
        scene.check(
            first.value == last.value && first.modified == last.modified,
            "both keys with the same number and revision, because every commit wrote both",
            format!("showed {} and {}", show_entry(first), show_entry(last)),
        );
        String::from_utf8_lossy(&first.value).parse().unwrap_or_default()
    }
}
