//! `watch`, if the output is not a terminal.

use clustering_testkit::{etcd::EtcdServer, process::Process};

use crate::harness::{clustering, node, nodes, soon, stop};

/// Waits until the process has printed all these parts, in this order, and returns its output.
pub(crate) async fn printed(process: &Process, wanted: &[&str]) -> String {
    let mut text = String::new();
    let all = async {
        loop {
            text = std::fs::read_to_string(process.log_path()).unwrap();
            let mut rest = text.as_str();
            let found = wanted.iter().all(|part| {
                let place = rest.find(part);
                rest = place.map_or(rest, |place| &rest[place + part.len()..]);
                place.is_some()
            });
            if found || process.ended().is_some() {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(crate::harness::LONG, all).await;
    assert_eq!(found, Ok(true), "not all of {wanted:?} in {text}");
    text
}

fn watch(etcd: &EtcdServer, args: &[&str]) -> Process {
    let builder = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env();
    let builder = builder.args(["watch", "-n", "c", "--endpoints", &etcd.endpoint()]).args(args);
    builder.spawn().unwrap()
}

#[tokio::test]
async fn each_event_is_a_line() {
    let etcd = EtcdServer::start().await.unwrap();
    let watch = watch(&etcd, &[]);
    printed(&watch, &["no cluster in the namespace c yet\n"]).await;
    let mut nodes = nodes(&etcd, &["a"]).await;
    let wanted =
        ["a is present at http://a.test:80\n", "a leads, term ", "a is ready at ", "stable at ", " ms\n"];
    printed(&watch, &wanted).await;
    nodes.push(node(&etcd, "b").stabilize(|_| async { Err::<(), _>("no disk") }).start().await.unwrap());
    printed(&watch, &["of 2 nodes: b joined\n", "b refused ", ": no disk\n"]).await;
    nodes.pop().unwrap().stop().await.unwrap();
    printed(&watch, &["b is gone: it left\n", "of 1 node: b left\n", "stable at "]).await;
    etcd.kill().await.unwrap();
    printed(&watch, &["the store is away: "]).await;
    etcd.restart().await.unwrap();
    printed(&watch, &["the store is away: ", "the store is back after "]).await;
    stop(nodes).await;
    watch.terminate().unwrap();
    soon("the end of the command", watch.wait()).await.unwrap();
}

#[tokio::test]
async fn each_line_is_an_object_with_json() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = nodes(&etcd, &["a"]).await;
    let watch = watch(&etcd, &["--json"]);
    printed(&watch, &["\"event\":\"report\""]).await;
    nodes[0].cluster_change().await.unwrap();
    let text = printed(&watch, &["version_published", "node_ready", "\"event\":\"stable\""]).await;
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["at_ms"].is_u64() && value["event"].is_string(), "{line}");
    }
    stop(nodes).await;
}

#[tokio::test]
async fn watch_ends_after_the_given_time_and_reports_a_missing_etcd() {
    let etcd = EtcdServer::start().await.unwrap();
    assert!(
        clustering(&etcd, &["watch", "--for", "100ms"])
            .await
            .ended(0)
            .contains("no cluster in the namespace c yet")
    );
    clustering(&etcd, &["watch", "--endpoints", "127.0.0.1:1"]).await.refused(2, &["cannot be reached"]);
}
