//! That the harness itself sees what it should.

use crate::common::{Audit, Cluster, leader, stable};

#[tokio::test(start_paused = true)]
async fn three_nodes_become_stable_and_the_history_is_in_order() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let version = stable(&nodes).await;
    leader(&nodes);
    let audit: Audit = cluster.audit().await;
    assert_eq!(audit.stable.last(), Some(&version.to_string()));
    assert_eq!(audit.versions.last().unwrap().nodes.len(), 3);
    assert_eq!(audit.elections, 1);
}
