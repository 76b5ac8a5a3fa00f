//! Etcd's history is compacted or begins again.

use clustering_proofs::node::NodeSpec;
use clustering_testkit::history::Observation;

use crate::scenario::{Alone, LONG, secs};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Every node notices that the history began again, and all start over in the new one.
pub(crate) async fn p7_nodes_rejoin_after_etcd_was_wiped() {
    let (scenario, nodes) = Alone::with(&NAMES).await;
    // Keeps the new history from reaching the old revisions before all nodes have noticed.
    scenario.write_elsewhere(300).await;
    let before = scenario.stable(&NAMES).await;
    nodes.iter().for_each(|node| node.pass_all());
    let since = scenario.now();
    scenario.etcd.wipe().await.unwrap();
    let answers = scenario.now();
    for node in &nodes {
        node.next("a lost session", LONG, |it| matches!(it, Observation::SessionLost { .. })).await;
        node.next("a rejoin", LONG, |it| matches!(it, Observation::Rejoined { .. })).await;
    }
    scenario.until("a second era", |ledger| (ledger.eras().len() == 2).then_some(())).await;
    scenario.stable_after(before, &NAMES).await;
    scenario.measured("etcd wiped, since before", since);
    scenario.measured("etcd wiped, since etcd answers again", answers);
    for node in &nodes {
        let rewound = |it: &Observation| matches!(it, Observation::Resynced { rewound: true, .. });
        assert_eq!(node.count(rewound), 1, "{}", node.name());
    }
    scenario.check(&NAMES).await;
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
