//! Etcd's history is compacted or rewound.

use clustering_proofs::node::NodeSpec;
use clustering_testkit::{
    history::{Entry, Observation},
    proxy::Proxy,
};

use crate::scenario::{Alone, LONG, secs};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Rewinds etcd, and checks that every node notices and that all start over in the new history.
async fn rejoin_after_rewind(what: &str, take: impl AsyncFn(&Alone), prepare: impl AsyncFn(&Alone)) {
    let (scenario, nodes) = Alone::with(&NAMES).await;
    // Keeps the new history from reaching the old revisions before all nodes have noticed.
    scenario.write_elsewhere(300).await;
    prepare(&scenario).await;
    let before = scenario.stable(&NAMES).await;
    nodes.iter().for_each(|node| node.pass_all());
    let since = scenario.now();
    take(&scenario).await;
    let answers = scenario.now();
    for node in &nodes {
        node.next("a lost session", LONG, |it| matches!(it, Observation::SessionLost { .. })).await;
        node.next("a rejoin", LONG, |it| matches!(it, Observation::Rejoined { .. })).await;
    }
    scenario.until("a second era", |ledger| (ledger.eras().len() == 2).then_some(())).await;
    scenario.stable_after(before, &NAMES).await;
    scenario.measured(&format!("{what}, since before"), since);
    scenario.measured(&format!("{what}, since etcd answers again"), answers);
    for node in &nodes {
        let rewound = |it: &Observation| matches!(it, Observation::Resynced { rewound: true, .. });
        assert_eq!(node.count(rewound), 1, "{}", node.name());
    }
    scenario.check(&NAMES).await;
}

pub(crate) async fn p7_nodes_rejoin_after_etcd_was_wiped() {
    let wipe = async |scenario: &Alone| scenario.etcd.wipe().await.unwrap();
    rejoin_after_rewind("etcd wiped", wipe, async |_| {}).await;
}

pub(crate) async fn p7_nodes_rejoin_after_etcd_was_restored_from_an_older_backup() {
    let backup = tokio::sync::OnceCell::new();
    let prepare = async |scenario: &Alone| {
        backup.set(scenario.etcd.snapshot().await.unwrap()).ok().unwrap();
        // The backup lacks a node that left and many other revisions.
        let before = scenario.stable(&NAMES).await;
        let late = scenario.spawn(scenario.spec("d"));
        scenario.stable(&["a", "b", "c", "d"]).await;
        late.stop().await;
        scenario.stable_after(before, &NAMES).await;
        scenario.write_elsewhere(300).await;
    };
    let restore = async |scenario: &Alone| scenario.etcd.restore(backup.get().unwrap()).await.unwrap();
    rejoin_after_rewind("etcd restored from a backup", restore, prepare).await;
}

/// A node misses a version whose view it can never compute, so it requests another version.
pub(crate) async fn p1_a_node_that_missed_a_compacted_version_requests_another() {
    let scenario = Alone::new().await;
    scenario.start(&NAMES[..2]).await;
    let proxy = Proxy::to(&scenario.etcd.endpoint()).await.unwrap();
    // The node's session outlives the outage.
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
    let missed = scenario.until("a version that the node misses", missed).await;
    late.next("its readiness", LONG, |it| matches!(it, Observation::Ready { version } if *version == missed))
        .await;
    scenario.write_elsewhere(1).await;
    scenario.etcd.compact().await.unwrap();
    let since = scenario.now();
    proxy.heal();
    node.next("a resync", LONG, |it| matches!(it, Observation::Resynced { rewound: false, .. })).await;
    scenario.stable_after(missed, &all).await;
    scenario.measured("a version compacted that a node had missed", since);
    assert_eq!(node.count(|it| matches!(it, Observation::SessionLost { .. })), 0);
    let saw = |entry: &Entry| matches!(entry.observation, Observation::VersionPublished { version, .. } if version == missed);
    assert!(!node.journal().iter().any(saw), "the node never saw the missed version");
    scenario.check(&all).await;
}

/// Nothing happens in the cluster while etcd's history grows and is compacted, and etcd is restarted.
pub(crate) async fn p9_a_restart_and_compaction_of_etcd_do_not_change_a_quiet_cluster() {
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
        "the watches were behind the compaction"
    );
    let ledger = scenario.check(&NAMES).await;
    assert_eq!(scenario.present(), before);
    assert_eq!(ledger.present().commits().len(), commits, "the cluster wrote nothing");
    // The cluster still works.
    nodes[1].stop().await;
    scenario.stable(&["a", "c"]).await;
    scenario.check(&["a", "c"]).await;
}
