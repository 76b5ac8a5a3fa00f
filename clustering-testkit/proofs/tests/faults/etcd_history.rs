//! An etcd whose history is cut short, or taken back.

use clustering_proofs::{node::NodeSpec, proxy::Proxy};
use clustering_testkit::history::{Entry, Observation};

use crate::scenario::{Alone, LONG, secs};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Every node notices that the history is another, and all begin anew in it.
async fn taken_back(what: &str, take: impl AsyncFn(&Alone), prepare: impl AsyncFn(&Alone)) {
    let (scenario, nodes) = Alone::with(&NAMES).await;
    // So that the new history does not reach the old one's revisions before all have noticed.
    scenario.write_elsewhere(300).await;
    prepare(&scenario).await;
    let before = scenario.stable(&NAMES).await;
    nodes.iter().for_each(|node| node.pass_all());
    let since = scenario.now();
    take(&scenario).await;
    let answers = scenario.now();
    for node in &nodes {
        node.next("lost", LONG, |it| matches!(it, Observation::SessionLost { .. })).await;
        node.next("back", LONG, |it| matches!(it, Observation::Rejoined { .. })).await;
    }
    scenario.until("another era", |ledger| (ledger.eras().len() == 2).then_some(())).await;
    scenario.stable_after(before, &NAMES).await;
    scenario.measured(&format!("{what}, from before"), since);
    scenario.measured(&format!("{what}, since it answers"), answers);
    for node in &nodes {
        let rewound = |it: &Observation| matches!(it, Observation::Resynced { rewound: true, .. });
        assert_eq!(node.count(rewound), 1, "{}", node.name());
    }
    scenario.check(&NAMES).await;
}

pub(crate) async fn p7_etcd_wiped() {
    let wipe = async |scenario: &Alone| scenario.etcd.wipe().await.unwrap();
    taken_back("etcd wiped", wipe, async |_| {}).await;
}

pub(crate) async fn p7_etcd_restored_from_an_older_backup() {
    let backup = tokio::sync::OnceCell::new();
    let prepare = async |scenario: &Alone| {
        backup.set(scenario.etcd.snapshot().await.unwrap()).ok().unwrap();
        // What the backup does not have: a node that left, and many other revisions.
        let before = scenario.stable(&NAMES).await;
        let late = scenario.spawn(scenario.spec("d"));
        scenario.stable(&["a", "b", "c", "d"]).await;
        late.stop().await;
        scenario.stable_after(before, &NAMES).await;
        scenario.write_elsewhere(300).await;
    };
    let restore = async |scenario: &Alone| scenario.etcd.restore(backup.get().unwrap()).await.unwrap();
    taken_back("etcd restored from a backup", restore, prepare).await;
}

/// A node misses a version for good: nobody can tell it that view, so it asks for another.
pub(crate) async fn p1_a_version_compacted_while_a_watch_was_broken() {
    let scenario = Alone::new().await;
    scenario.start(&NAMES[..2]).await;
    let proxy = Proxy::to(&scenario.etcd.endpoint()).await.unwrap();
    // Its session outlives the break.
    let spec = NodeSpec { endpoints: vec![proxy.endpoint()], ttl: secs(30), ..scenario.spec(NAMES[2]) };
    let node = scenario.spawn(spec);
    scenario.stable(&NAMES).await;
    node.pass_all();
    proxy.cut();
    let late = scenario.spawn(scenario.spec("d"));
    let all = ["a", "b", "c", "d"];
    let missed = |ledger: &clustering_testkit::history::Ledger| {
        let newest = ledger.present().newest()?;
        (newest.cut.len() == all.len()).then_some(newest.version)
    };
    let missed = scenario.until("a version that it misses", missed).await;
    late.next("ready", LONG, |it| matches!(it, Observation::Ready { version } if *version == missed)).await;
    scenario.write_elsewhere(1).await;
    scenario.etcd.compact().await.unwrap();
    let since = scenario.now();
    proxy.heal();
    node.next("resynced", LONG, |it| matches!(it, Observation::Resynced { rewound: false, .. })).await;
    scenario.stable_after(missed, &all).await;
    scenario.measured("a version compacted that a node had missed", since);
    assert_eq!(node.count(|it| matches!(it, Observation::SessionLost { .. })), 0);
    let saw = |entry: &Entry| matches!(entry.observation, Observation::VersionPublished { version, .. } if version == missed);
    assert!(!node.journal().iter().any(saw), "it never had a view of that one");
    scenario.check(&all).await;
}

/// Nothing happens in the cluster while etcd's history goes on, is compacted, and etcd is restarted.
pub(crate) async fn p9_a_quiet_cluster_whose_etcd_restarts_and_compacts_stays_as_it_is() {
    let scenario = Alone::new().await;
    let nodes: Vec<_> = NAMES
        .iter()
        .map(|name| scenario.spawn(NodeSpec { write_every: None, ttl: secs(9), ..scenario.spec(name) }))
        .collect();
    scenario.stable(&NAMES).await;
    let before = scenario.present();
    let commits = scenario.follower.ledger().present().commits().len();
    scenario.write_elsewhere(20).await;
    scenario.etcd.compact().await.unwrap();
    nodes.iter().for_each(|node| node.pass_all());
    scenario.etcd.kill().await.unwrap();
    scenario.etcd.restart().await.unwrap();
    for node in &nodes {
        for _ in 0..3 {
            node.next("a renewal", LONG, |it| matches!(it, Observation::Renewed { .. })).await;
        }
        assert_eq!(node.count(|it| matches!(it, Observation::SessionLost { .. })), 0);
    }
    assert!(
        nodes
            .iter()
            .any(|node| node.count(|it| matches!(it, Observation::Resynced { rewound: false, .. })) > 0),
        "their watches were behind the compaction"
    );
    let ledger = scenario.check(&NAMES).await;
    assert_eq!(scenario.present(), before);
    assert_eq!(ledger.present().commits().len(), commits, "nothing was written");
    // And it works on.
    nodes[1].stop().await;
    scenario.stable(&["a", "c"]).await;
    scenario.check(&["a", "c"]).await;
}
