//! Test of the harness itself.

use crate::common::{Cluster, leader, stable};

#[tokio::test(start_paused = true)]
async fn three_nodes_become_stable_and_the_history_is_in_order() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let version = stable(&nodes).await;
    leader(&nodes);
    let audit = cluster.audit().await;
    assert_eq!(audit.confirmed().last().unwrap().version, version);
    assert_eq!(audit.versions().last().unwrap().cut.len(), 3);
    assert_eq!(audit.reigns().len(), 1);
}
