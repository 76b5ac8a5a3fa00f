//! `find` and `placement`.

use clustering_testkit::etcd::EtcdServer;
use serde_json::json;

use crate::harness::{clustering, clustering_with, node, nodes, stable, stop};

#[tokio::test]
async fn find_agrees_with_the_nodes() {
    let etcd = EtcdServer::start().await.unwrap();
    clustering(&etcd, &["find", "k"]).await.refused(2, &["no cluster in the namespace c"]);
    let nodes = nodes(&etcd, &["a", "b", "c"]).await;
    let keys: Vec<_> = (0..50).map(|number| format!("device {number}")).collect();
    let expected: String = keys
        .iter()
        .map(|key| {
            let node = nodes[0].discovery().find(key).unwrap();
            format!("{key}\t{}\t{}\n", node.name, node.uri)
        })
        .collect();
    let args: Vec<_> = ["find"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(clustering(&etcd, &args).await.ended(0), expected);
    assert_eq!(clustering_with(&etcd, &["find"], &keys.join("\n")).await.ended(0), expected);

    // A - is replaced by the keys from the standard input.
    let mixed = [&["find"], &args[1..3], &["-"], &args[40..]].concat();
    assert_eq!(clustering_with(&etcd, &mixed, &keys[2..39].join("\n")).await.ended(0), expected);
    clustering_with(&etcd, &["find", "--view", "-", "-"], r#"{"nodes": []}"#)
        .await
        .refused(2, &["give the keys as arguments"]);

    let in_line: Vec<_> = nodes[0].discovery().find_n("k", 2).iter().map(|node| node.name.clone()).collect();
    let shown = clustering(&etcd, &["find", "-c", "2", "--json", "k"]).await.json();
    assert_eq!(json!([shown["nodes"][0]["name"], shown["nodes"][1]["name"]]), json!(in_line));
    // Uses the view of a hook, which may differ from the nodes that are present.
    let view = nodes[0].view().unwrap();
    let hooks = json!({ "nodes": view.nodes() }).to_string();
    let mine: String = keys
        .iter()
        .filter(|key| view.find(key).unwrap().name == "b")
        .map(|key| format!("{key}\tb\thttp://b.test:80\n"))
        .collect();
    let args = [&["find", "--view", "-", "--node", "b", "--endpoints", "127.0.0.1:1"], &args[1..]].concat();
    assert_eq!(clustering_with(&etcd, &args, &hooks).await.ended(0), mine);
    assert!(!mine.is_empty());
    clustering_with(&etcd, &["find", "--view", "-", "k"], "{}")
        .await
        .refused(2, &["--view -: missing field"]);
    stop(nodes).await;
    clustering(&etcd, &["find", "k"]).await.refused(1, &["no node takes \"k\"", "none is present"]);
}

#[tokio::test]
async fn placement_shows_the_keys_that_would_move() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut nodes = nodes(&etcd, &["a", "b"]).await;
    nodes.push(node(&etcd, "c").weight(2).start().await.unwrap());
    stable(&nodes).await;
    clustering(&etcd, &["placement"]).await.refused(2, &["there are no keys", "standard input"]);
    let keys: String = (0..1000).map(|number| format!("device-{number}\n")).collect();
    let shown = clustering_with(&etcd, &["placement", "--json"], &keys).await;
    shown.ended(0);
    let shown = shown.json();
    let mut all = 0;
    for (place, name) in ["a", "b", "c"].into_iter().enumerate() {
        let share = &shown["nodes"][place];
        let counted = (0..1000)
            .filter(|n| *nodes[0].discovery().find(format!("device-{n}")).unwrap().name.as_str() == *name);
        assert_eq!((&share["name"], &share["keys"]), (&json!(name), &json!(counted.count())));
        // Only the keys of the removed node move.
        assert_eq!(
            (&shown["less"][place]["nodes"], &shown["less"][place]["moved"]),
            (&json!([name]), &share["keys"])
        );
        all += share["keys"].as_u64().unwrap();
    }
    assert_eq!((all, &shown["nodes"][2]["fair"]), (1000, &json!(50.0)));
    let moved = shown["more"]["moved"].as_u64().unwrap();
    assert!((150..250).contains(&moved), "a fifth of the keys: {moved}");

    let said =
        clustering_with(&etcd, &["placement", "--add", "d=4", "--remove", "a", "--remove", "b"], &keys).await;
    let out = said.ended(0);
    assert!(out.starts_with("NODE  WEIGHT  KEYS  SHARE   FAIR\na     1       "), "{out}");
    assert!(out.contains("\nwith d: ") && out.contains("\nwithout a, b: "), "{out}");
    let unknown = clustering_with(&etcd, &["placement", "--remove", "x"], &keys).await;
    unknown.refused(1, &["no node x is present; there are a, b, c"]);
    clustering_with(&etcd, &["placement", "--add", "d=x"], &keys).await.refused(2, &["not a whole number"]);
    stop(nodes).await;
}
