//! Scenarios in which the store is restored from a backup.

use std::sync::Arc;

use super::{
    Faults,
    report::not_judged,
    scene::{NAMES, Scene, is_lost, is_rejoined},
};
use crate::{conformance::Hook, history::Observation};

/// Number of writes after the backup. So many revisions are lost that all nodes notice the restore before the new
/// history reaches them again.
const WRITES: usize = 300;

/// Restores the store to a state from before a node joined: every node notices that the history went back, and rejoins.
pub async fn p7_nodes_rejoin_after_the_store_was_restored_from_an_older_backup<F: Faults>(faults: Arc<F>) {
    let (scene, nodes) = Scene::with(faults, &NAMES).await;
    if let Hook::Absent(why) = scene.faults.backup().await {
        return not_judged("what nodes do after a restore of the store", why);
    }
    let settings = scene.settings();
    let late = scene.join("d", settings).await;
    let with_it = scene.stable(&["a", "b", "c", "d"]).await;
    late.kill().await;
    let before = scene.stable_after(with_it, &NAMES).await;
    scene.write_elsewhere(WRITES).await;
    nodes.iter().for_each(|node| node.pass_all());
    scene.faults.restore().await;
    let answers = scene.now();
    for node in &nodes {
        scene.next(node, "a lost session", is_lost).await;
        scene.next(node, "a rejoin", is_rejoined).await;
        let rewound = |it: &Observation| matches!(it, Observation::Resynced { rewound: true, .. });
        assert!(
            node.count(rewound) > 0,
            "{} missed that the history went back; {}",
            node.name,
            scene.story()
        );
    }
    scene.until("a second era", |ledger| (ledger.eras().len() == 2).then_some(())).await;
    scene.stable_after(before, &NAMES).await;
    scene.measured("the store was restored, since it answers again", answers);
    scene.check(&NAMES).await;
}
