//! `demo`: its nodes, and the etcd that it starts.

use std::time::Duration;

use clustering_core::store::CoordinationStore;
use clustering_testkit::{
    etcd::EtcdServer,
    process::{Folder, Process},
};

use crate::{
    harness::{command, run, soon, store},
    watch::printed,
};

#[tokio::test]
async fn the_demo_shows_everything_and_leaves_nothing_behind() {
    let folder = Folder::new().unwrap();
    // The nodes of the demo must not listen there, nor wait for other nodes.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = command();
    command.arg("demo").env("TMPDIR", folder.path());
    for variable in ["CLUSTERING_LISTEN", "CLUSTERING_DETECT_CRASHES"] {
        command.env(variable, taken.local_addr().unwrap().to_string());
    }
    command.env("CLUSTERING_MIN_NODES", "9");
    if let Some(binary) = std::env::var_os("CLUSTERING_ETCD_BIN") {
        command.env("CLUSTERING_ETCD_BIN", binary);
    }
    let said = run(command).await;
    let out = said.ended(0);
    for part in [
        "── 3 nodes join ──",
        "node-3 is ready at",
        "── one leaves in order ──",
        "── the leader is killed",
        "leads, term",
        "an operator asks for a new version (a rebalance by hand)",
        "nothing is left behind",
    ] {
        assert!(out.contains(part), "no {part:?} in {out}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_killed_demo_leaves_nothing_behind() {
    let folder = Folder::new().unwrap();
    let builder = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env().env("TMPDIR", folder.path());
    let builder = match std::env::var_os("CLUSTERING_ETCD_BIN") {
        Some(binary) => builder.env("CLUSTERING_ETCD_BIN", binary),
        None => builder,
    };
    let demo = builder.arg("demo").spawn().unwrap();
    printed(&demo, &["stable at"]).await;
    demo.kill().await.unwrap();
    let count = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        let needle = folder.path().to_str().unwrap().as_bytes();
        lines.filter(|line| line.windows(needle.len()).any(|part| part == needle)).count()
    };
    soon("the end of the server and the nodes", async {
        while count() > 0 || std::fs::read_dir(folder.path()).unwrap().count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_demo_without_an_etcd_tells_how_to_get_one() {
    let mut command = command();
    command.arg("demo").env("CLUSTERING_ETCD_BIN", "/no/such/etcd");
    run(command).await.refused(2, &["cannot start /no/such/etcd", "apt-get install etcd-server"]);
}

#[tokio::test]
async fn the_demo_uses_a_running_etcd_and_deletes_its_keys() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut command = command();
    // The nodes would reach no etcd by the environment alone.
    command.args(["--endpoints", &etcd.endpoint(), "demo"]).env("ETCD_ENDPOINTS", "127.0.0.1:1");
    run(command).await.ended(0);
    assert_eq!(store(&etcd).read("").await.unwrap().entries, []);
}
