//! `services` and `purge`.

use clustering_core::store::CoordinationStore;
use clustering_testkit::etcd::EtcdServer;

use crate::{
    harness::{by_hand, clustering, command, node, nodes, run, stop, store},
    users,
};

#[tokio::test]
async fn clusters_are_listed_and_what_they_left_is_purged() {
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
    clustering(&etcd, &["purge", "c"]).await.refused(2, &["nobody to ask", "--yes"]);
    let said = clustering(&etcd, &["services", "--all"]).await;
    assert_eq!(rows(said.ended(0))[0][..4], ["c", "0", "left", "over"]);
    let said = clustering(&etcd, &["purge", "c", "--yes"]).await;
    assert!(said.ended(0).ends_with(" keys deleted\n"), "{said:?}");
    let left: Vec<_> =
        store(&etcd).read("c/").await.unwrap().entries.into_iter().map(|entry| entry.key).collect();
    assert_eq!(left.iter().map(|key| key.as_str()).collect::<Vec<_>>(), ["c/mine"]);
    clustering(&etcd, &["purge", "c", "--yes"]).await.refused(2, &["no cluster in the namespace c"]);

    // By force, and a node that lives comes back.
    let version = other.cluster_version().unwrap();
    clustering(&etcd, &["purge", "other/one", "--yes", "--force"]).await.ended(0);
    crate::harness::soon("its return", other.wait_stable_after(version)).await.unwrap();
    other.stop().await.unwrap();
}

#[tokio::test]
async fn who_may_not_read_all_is_told_which_right_is_missing() {
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
