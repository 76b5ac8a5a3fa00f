//! `services` and `purge`.

use clustering_core::store::CoordinationStore;
use clustering_testkit::etcd::EtcdServer;
use clustering_testkit::proxy::Proxy;

use crate::{
    harness::{by_hand, clustering, command, node, nodes, run, soon, stop, store},
    users,
};

#[tokio::test]
async fn clusters_are_listed_and_their_remains_are_purged() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = nodes(&etcd, &["a", "b"]).await;
    let other = node(&etcd, "x").namespace("other/one").start().await.unwrap();
    other.wait_stable().await.unwrap();
    by_hand(&etcd, "c/mine", "1").await;
    let rows = |out: &str| -> Vec<Vec<String>> {
        out.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let said = clustering(&etcd, &["services"]).await;
    let listed = rows(said.ended(0));
    assert_eq!(listed[0][..4], ["c", "2", "stable", "a,"]);
    assert_eq!((listed[1][0].as_str(), listed.len()), ("other/one", 2));
    assert_eq!(rows(clustering(&etcd, &["services", "oth"]).await.ended(0)).len(), 1);

    let all = || async { store(&etcd).read("").await.unwrap().entries.len() };
    let before = all().await;
    clustering(&etcd, &["purge", "c"]).await.refused(1, &["nodes are present: a, b", "--force"]);
    assert_eq!(all().await, before);
    stop(nodes).await;
    clustering(&etcd, &["services", "c"]).await.refused(0, &["no cluster with nodes here; --all lists"]);
    clustering(&etcd, &["purge", "c"]).await.refused(2, &["cannot ask for confirmation", "--yes"]);
    let said = clustering(&etcd, &["services", "--all"]).await;
    assert_eq!(rows(said.ended(0))[0][..4], ["c", "0", "left", "over"]);
    let said = clustering(&etcd, &["purge", "c", "--yes"]).await;
    assert!(said.ended(0).ends_with(" keys deleted\n"), "{said:?}");
    let left: Vec<_> =
        store(&etcd).read("c/").await.unwrap().entries.into_iter().map(|entry| entry.key).collect();
    assert_eq!(left.iter().map(|key| key.as_str()).collect::<Vec<_>>(), ["c/mine"]);
    clustering(&etcd, &["purge", "c", "--yes"]).await.refused(2, &["no cluster in the namespace c"]);

    // With --force, a node that is alive rejoins.
    let version = other.cluster_version().unwrap();
    clustering(&etcd, &["purge", "other/one", "--yes", "--force"]).await.ended(0);
    soon("the node to rejoin", other.wait_stable_after(version)).await.unwrap();
    other.stop().await.unwrap();
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let etcd = users::server(EtcdServer::builder()).await;
    let with = |args: &[&str]| {
        let mut command = command();
        command.args(args).args(["--endpoints", &etcd.endpoint(), "--user", users::USER]);
        command.env("ETCDCTL_PASSWORD", users::PASSWORD);
        run(command)
    };
    with(&["services"]).await.refused(2, &["the store refused"]);
    with(&["services", "telemetry/ingest/"]).await.ended(0);
    for verb in
        [&["purge", "c"][..], &["change", "-n", "c"], &["resign", "-n", "c"], &["evict", "a", "-n", "c"]]
    {
        with(verb).await.refused(2, &["the store refused", "c/view/"]);
    }
}

#[tokio::test]
async fn clusters_are_found_without_reading_large_foreign_values() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = nodes(&etcd, &["a"]).await;
    let mut client = etcd.client().await.unwrap();
    for number in 0..20 {
        client.put(format!("foreign/{number}"), vec![b'x'; 1 << 20], None).await.unwrap();
    }
    let line = Proxy::to(&etcd.endpoint()).await.unwrap();
    let mut services = command();
    services.args(["services", "--endpoints", &line.endpoint()]);
    let said = run(services).await;
    assert!(said.ended(0).lines().nth(1).is_some_and(|row| row.starts_with("c ")), "{said:?}");
    assert!(line.received() < 100_000, "{} bytes to list one cluster", line.received());
    stop(nodes).await;
}

#[tokio::test]
async fn the_reason_why_etcd_does_not_answer_is_named() {
    // No process listens at the port.
    let gone = Proxy::to("127.0.0.1:1").await.unwrap().endpoint();
    let status = |endpoint: &str| {
        let mut command = command();
        command.args(["status", "--endpoints", endpoint]);
        run(command)
    };
    status(&gone).await.refused(2, &["cannot be reached", "is etcd running"]);

    // A paused or overloaded etcd is running, so the error must not ask whether it is.
    let etcd = EtcdServer::start().await.unwrap();
    let line = Proxy::to(&etcd.endpoint()).await.unwrap();
    let status_fails = async {
        let said = status(&line.endpoint()).await;
        said.refused(2, &["no reply within 2s", "overloaded or paused"]);
        assert!(!said.err.contains("is etcd running"), "{said:?}");
    };
    // The connection is established once the client has sent more than the preface of HTTP/2. Replies get lost from
    // then on.
    let hang = async {
        while line.sent() <= 24 {
            tokio::task::yield_now().await;
        }
        line.hang_answers();
    };
    tokio::join!(status_fails, hang);

    // A learner serves no reads.
    let mut cluster = EtcdServer::builder().start_cluster(1).await.unwrap();
    let learner = cluster.add_learner().await.unwrap();
    let said = status(&cluster[learner].endpoint()).await;
    said.refused(2, &["the store is busy", "is a learner", "endpoints of voting members"]);
    assert!(!said.err.contains("no space") && !said.err.contains("is etcd running"), "{said:?}");
}
