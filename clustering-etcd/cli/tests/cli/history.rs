//! `history` and `why`.

use clustering_testkit::{etcd::EtcdServer, process::Process};
use serde_json::{Value, json};

use crate::{
    harness::{by_hand, clustering, node, nodes, soon, stable, stop},
    watch::printed,
};

#[tokio::test]
async fn versions_are_listed_with_their_causes() {
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
    // An older version, by its number and by its label.
    for which in [format!("#{}", entries[1].number), entries[1].version.to_string().to_lowercase()] {
        let said = clustering(&etcd, &["why", &which]).await;
        assert!(said.ended(0).starts_with(&entries[1].version.to_string()), "{said:?}");
    }
    clustering(&etcd, &["why", "4711"])
        .await
        .refused(1, &["no version 4711 in the history", "clustering history"]);

    // A version that is not stable names the nodes that it waits for.
    nodes.push(node(&etcd, "c").stabilize(|_| std::future::pending::<()>()).start().await.unwrap());
    nodes[0].cluster_change().await.unwrap();
    let said = clustering(&etcd, &["why"]).await;
    assert!(said.ended(0).contains("waiting for ") && said.out.contains("c has not answered"), "{said:?}");
    stop(nodes).await;
}

/// The labels are written by hand: two after the year 9999, which dates cannot express, and one from a clock that is a
/// day ahead.
#[tokio::test]
async fn labels_of_any_time_are_shown_and_not_used_for_durations() {
    let etcd = EtcdServer::start().await.unwrap();
    let tomorrow = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() + 86_400_000;
    let tomorrow = clustering_core::Version::from_u128(tomorrow << 80).to_string();
    for label in ["7Z000000000000000000000000", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", &tomorrow] {
        let node = format!(r#"{{"uri": "http://a:1", "incarnation": "{label}"}}"#);
        by_hand(&etcd, "c/view/nodes/a", &node).await;
        by_hand(&etcd, "c/view/leader", r#"{"node": "a", "incarnation": "x"}"#).await;
        let version = format!(r#"{{"version": "{label}", "number": 7, "cause": [{{"joined": "a"}}]}}"#);
        by_hand(&etcd, "c/view/version", &version).await;
        by_hand(&etcd, "c/history/7", &version).await;

        let said = clustering(&etcd, &["status"]).await;
        assert!(said.ended(1).contains(&format!("version   {label}")), "{said:?}");
        assert!(said.out.contains("state     not stable: waiting for 1 of 1 node"), "{said:?}");
        let said = clustering(&etcd, &["status", "--json"]).await;
        said.ended(1);
        let known = label == tomorrow;
        assert_eq!(said.json()["version"]["published_ms"].is_u64(), known, "{said:?}");
        assert_eq!(said.json()["nodes"][0]["registered_ms"].is_u64(), known, "{said:?}");
        let said = clustering(&etcd, &["history"]).await;
        assert!(said.ended(0).contains(if known { "Z  " } else { label }), "{said:?}");
        let said = clustering(&etcd, &["why"]).await;
        assert!(said.ended(0).starts_with(&format!("{label} (number 7) was published")), "{said:?}");
        assert!(said.out.contains("not stable: waiting for 1 of 1 node"), "{said:?}");
        clustering(&etcd, &["history", "--json"]).await.ended(0);
        let said = clustering(&etcd, &["watch", "--for", "300ms"]).await;
        assert!(said.ended(0).contains(&format!("version {label}")), "{said:?}");
        let said = clustering(&etcd, &["wait", "--timeout", "100ms"]).await;
        said.refused(1, &["not stable: waiting for 1 of 1 node"]);
    }
}

/// Starts a program as a node with `clustering run`, and waits until it is stable.
pub(crate) async fn program(etcd: &EtcdServer, namespace: &str, name: &str) -> Process {
    let builder = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env();
    let builder = builder.args(["run", "-n", namespace, "--endpoints", &etcd.endpoint(), "--ttl", "3s"]);
    let uri = format!("http://{name}.test:80");
    let program = builder.args(["--name", name, "--uri", &uri, "--", "sleep", "1000"]).spawn().unwrap();
    printed(&program, &["stable at "]).await;
    program
}

#[tokio::test]
async fn nodes_that_left_differ_from_nodes_whose_session_ended() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = nodes(&etcd, &["a"]).await;
    let (leaves, crashes) = (program(&etcd, "c", "leaves").await, program(&etcd, "c", "crashes").await);
    leaves.terminate().unwrap();
    soon("the end of the command", leaves.wait()).await.unwrap();
    crashes.kill().await.unwrap();
    stable(&nodes).await;

    let said = clustering(&etcd, &["history", "--json"]).await;
    let causes = said.ended(0).lines().flat_map(|line| {
        let entry: Value = serde_json::from_str(line).unwrap();
        entry["causes"].as_array().unwrap().clone()
    });
    let went = |cause: &Value| ["left", "ended"].iter().any(|kind| cause.get(kind).is_some());
    let went: Vec<_> = causes.filter(went).collect();
    assert_eq!(went, [json!({"ended": "crashes"}), json!({"left": "leaves"})], "{said:?}");
    let said = clustering(&etcd, &["history"]).await;
    for part in ["leaves left\n", "crashes's session ended\n"] {
        assert!(said.ended(0).contains(part), "no {part:?} in {said:?}");
    }
    stop(nodes).await;
}
