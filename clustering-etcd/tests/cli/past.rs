//! `history` and `why`.

use clustering_testkit::etcd::EtcdServer;
use serde_json::{Value, json};

use crate::harness::{clustering, node, nodes, stop};

#[tokio::test]
async fn the_past_is_listed_and_each_version_says_why() {
    let etcd = EtcdServer::start().await.unwrap();
    clustering(&etcd, &["history"]).await.refused(2, &["no cluster in the namespace c"]);
    clustering(&etcd, &["why"]).await.refused(2, &["no cluster in the namespace c"]);
    let mut nodes = nodes(&etcd, &["a", "b"]).await;
    clustering(&etcd, &["change", "--why", "a rebalance", "--wait"]).await.ended(0);

    let entries = nodes[0].history().await.unwrap();
    let said = clustering(&etcd, &["history"]).await;
    let lines: Vec<_> = said.ended(0).lines().collect();
    assert_eq!(lines[0].split_whitespace().next_back(), Some("WHY"));
    assert_eq!(lines.len(), entries.len() + 1);
    let first: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!((first[0], first[2], first[4]), (&*entries[0].number.to_string(), "a", "2"));
    assert!(lines[1].contains("  ops@") && lines[1].ends_with(" asked (a rebalance)"), "{said:?}");
    let said = clustering(&etcd, &["history", "--json", "-c", "1"]).await;
    let shown: Value = serde_json::from_str(said.ended(0)).unwrap();
    assert_eq!(shown["version"], json!(entries[0].version.to_string()));

    let said = clustering(&etcd, &["why"]).await;
    let out = said.ended(0);
    let begins = format!("{} (number {}) was published by a, term ", entries[0].version, entries[0].number);
    assert!(out.starts_with(&begins) && out.contains("\nbecause ops@"), "{out}");
    assert!(out.contains("\nstable after ") && out.contains(", with 2 nodes; "), "{out}");
    // Another one, by number and by its label.
    for which in [format!("#{}", entries[1].number), entries[1].version.to_string().to_lowercase()] {
        let said = clustering(&etcd, &["why", &which]).await;
        assert!(said.ended(0).starts_with(&entries[1].version.to_string()), "{said:?}");
    }
    clustering(&etcd, &["why", "4711"])
        .await
        .refused(1, &["no version 4711 in the history", "clustering history"]);

    // One that is not stable says who blocks it.
    nodes.push(node(&etcd, "c").stabilize(|_| std::future::pending::<()>()).start().await.unwrap());
    nodes[0].cluster_change().await.unwrap();
    let said = clustering(&etcd, &["why"]).await;
    assert!(said.ended(0).contains("waiting for ") && said.out.contains("c has not answered"), "{said:?}");
    stop(nodes).await;
}
