//! `change`, `resign`, `evict`, `wait`.

use clustering_testkit::etcd::EtcdServer;

use crate::harness::{LONG, clustering, node, nodes, soon, stable, stop};

#[tokio::test]
async fn a_change_is_published_and_becomes_stable() {
    let etcd = EtcdServer::start().await.unwrap();
    clustering(&etcd, &["change"]).await.refused(2, &["no cluster in the namespace c"]);
    let mut nodes = nodes(&etcd, &["a", "b"]).await;
    let old = nodes[0].cluster_version().unwrap();
    let said = clustering(&etcd, &["change", "--why", "a rebalance by hand", "--wait"]).await;
    let version = said.ended(0).split_whitespace().next().unwrap();
    assert_eq!(said.out, format!("{version} is published\n{version} is stable, with 2 nodes\n"));
    assert!(version.parse::<clustering_core::Version>().unwrap() > old);
    let shown = clustering(&etcd, &["status"]).await;
    assert!(
        shown.ended(0).contains("Z: ops@") && shown.out.contains(" asked (a rebalance by hand)\n"),
        "{shown:?}"
    );

    // A version that does not become stable.
    nodes.push(node(&etcd, "c").stabilize(|_| std::future::pending::<()>()).start().await.unwrap());
    let said = clustering(&etcd, &["change", "--wait", "--timeout", "3s"]).await;
    said.refused(1, &["the new version is not stable within 3.0s", "waiting for", "c has not answered"]);
    clustering(&etcd, &["wait", "--timeout", "500ms"]).await.refused(1, &["c has not answered"]);
    stop(nodes).await;
}

#[tokio::test]
async fn p5_the_leader_steps_down_for_the_named_node() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut nodes = nodes(&etcd, &["a"]).await;
    clustering(&etcd, &["resign"]).await.refused(1, &["the only node", "start another node"]);
    for name in ["b", "c"] {
        nodes.push(node(&etcd, name).start().await.unwrap());
    }
    stable(&nodes).await;
    let term = nodes[0].term().unwrap();
    // Without a proposal, c would lead next, since it joined last.
    let said = clustering(&etcd, &["resign", "--for", "b", "--why", "maintenance of a", "--wait"]).await;
    assert!(said.ended(0).starts_with("b leads, term "), "{said:?}");
    let new = soon("the new leader", nodes[1].wait_leader()).await.unwrap();
    assert!(new > term && !nodes[0].is_leader());
    let shown = clustering(&etcd, &["status"]).await;
    assert!(shown.ended(0).contains("b was elected, ops@"), "{shown:?}");
    clustering(&etcd, &["resign", "--for", "b"]).await.refused(1, &["b is the leader already"]);
    clustering(&etcd, &["resign", "--for", "x"])
        .await
        .refused(1, &["no node x is present; there are a, b, c"]);
    let said = clustering(&etcd, &["resign"]).await;
    assert!(said.ended(0).starts_with("c leads, term "), "the youngest: {said:?}");
    stop(nodes).await;
    clustering(&etcd, &["resign"]).await.refused(1, &["there is no leader"]);
}

#[tokio::test]
async fn p7_an_evicted_node_rejoins() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = nodes(&etcd, &["a", "b", "c"]).await;
    let mut lost = nodes[1].events();
    let said = clustering(&etcd, &["evict", "b", "--wait"]).await;
    assert!(said.ended(0).starts_with("b is removed"), "{said:?}");
    soon("the end of the session", async {
        while !matches!(&*lost.recv().await.unwrap(), clustering_core::Event::SessionLost { .. }) {}
    })
    .await;
    stable(&nodes).await;
    // The leader can be evicted too.
    let term = nodes[0].term().unwrap();
    clustering(&etcd, &["evict", "a"]).await.ended(0);
    soon("the end of the leadership", nodes[0].wait_deposed(term)).await;
    stable(&nodes).await;
    clustering(&etcd, &["evict", "x"]).await.refused(1, &["no node x is present; there are a, b, c"]);
    clustering(&etcd, &["evict", "a/b"]).await.refused(2, &["name \"a/b\" cannot be used"]);
    stop(nodes).await;
}

#[tokio::test]
async fn wait_ends_when_the_cluster_is_stable() {
    let etcd = EtcdServer::start().await.unwrap();
    clustering(&etcd, &["wait", "--timeout", "300ms"]).await.refused(1, &["no cluster in the namespace c"]);
    let waiting = tokio::spawn({
        let endpoint = etcd.endpoint();
        async move {
            let mut command = crate::harness::command();
            command.args(["wait", "--stable", "--nodes", "2", "-n", "c", "--endpoints", &endpoint]);
            crate::harness::run(command).await
        }
    });
    let nodes = nodes(&etcd, &["a", "b"]).await;
    let said = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
    let version = nodes[0].cluster_version().unwrap();
    assert_eq!(said.ended(0), format!("{version} is stable, with 2 nodes\n"));
    let shown = clustering(&etcd, &["wait", "--stable", "--json", "--timeout", "30s"]).await;
    assert_eq!(shown.json()["condition"]["state"], "stable");
    let said = clustering(&etcd, &["wait", "--nodes", "3", "--timeout", "300ms"]).await;
    said.refused(1, &["not stable with 3 nodes within 300ms", "stable, all 2 nodes are ready"]);
    stop(nodes).await;
    // There is no node that could publish a version.
    let said = clustering(&etcd, &["change", "--timeout", "300ms"]).await;
    said.refused(1, &["no new version was published within 300ms", "no node is present"]);
    let closed = clustering(&etcd, &["wait", "--endpoints", "127.0.0.1:1"]).await;
    closed.refused(2, &["cannot be reached"]);
}
