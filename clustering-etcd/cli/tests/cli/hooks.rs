//! `run`: hooks, and the output of the command.

use std::fs;

use clustering_testkit::{
    etcd::EtcdServer,
    process::{Folder, Process},
};
use serde_json::Value;

use crate::{
    harness::{clustering, node, nodes, soon, stable, stop},
    run::{SHELL, file_with, present, service},
    users,
    watch::printed,
};

#[tokio::test]
async fn a_hook_that_fails_is_retried_and_its_last_line_is_the_reason() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let repaired = folder.path().join("repaired");
    let hook =
        format!("test -e {} || {{ echo out; echo its disk is full >&2; exit 3; }}", repaired.display());
    let a = service(&etcd, &["--stabilize", &hook], &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["stabilize: its disk is full\n", "refused, attempt 2: exit code 3: its disk is full"])
        .await;
    let said = clustering(&etcd, &["status"]).await;
    assert!(said.ended(1).contains("a refused: exit code 3: its disk is full"), "{said:?}");
    fs::write(repaired, "").unwrap();
    clustering(&etcd, &["wait", "--timeout", "60s"]).await.ended(0);
    a.terminate().unwrap();
    soon("the end of the command", a.wait()).await.unwrap();
    // A hook that never ends is killed at its time limit.
    let options = ["--stabilize-timeout", "300ms", "--stabilize", "sleep 1000"];
    let b = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&b, &["refused, attempt 2: "]).await;
    b.terminate().unwrap();
    assert_eq!(soon("the end of the command", b.wait()).await.unwrap().code(), Some(7));
}

#[tokio::test]
async fn p3_a_superseded_hook_has_ended_before_the_next_one_starts() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let calls = folder.path().join("calls");
    let hook = format!(
        "echo begin $CLUSTERING_NODES >> {0}; \
         [ $CLUSTERING_NODES -gt 1 ] || {{ trap 'echo told >> {0}' TERM; while :; do sleep 0.05; done; }}; \
         echo end $CLUSTERING_NODES >> {0}",
        calls.display()
    );
    let options = ["--hook-grace", "500ms", "--stabilize", &hook];
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    file_with(&calls, "begin 1\n").await;
    let b = node(&etcd, "b").start().await.unwrap();
    let text = file_with(&calls, "end 2\n").await;
    assert_eq!(text, "begin 1\ntold\nbegin 2\nend 2\n");
    soon("stable", b.wait_stable()).await.unwrap();
    b.stop().await.unwrap();
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7));
}

#[tokio::test]
async fn each_node_can_run_a_hook_for_a_stable_version() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let b = nodes(&etcd, &["b"]).await;
    let everywhere = format!("env > {0}.new; mv {0}.new {0}", file("everywhere").display());
    let leader = format!("touch {}", file("leader").display());
    let options = ["--on-stable", &leader, "--stable", &everywhere];
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    file_with(&file("everywhere"), "CLUSTERING_NODES=2").await;
    let version = soon("a version", b[0].cluster_change()).await.unwrap();
    let env = file_with(&file("everywhere"), &format!("CLUSTERING_VERSION={version}")).await;
    assert!(env.contains("CLUSTERING_HOOK=stable\n") && env.contains("CLUSTERING_LEADER=b\n"), "{env}");
    assert!(!file("leader").exists(), "b leads");
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    stop(b).await;
}

#[tokio::test]
async fn p7_the_end_of_a_session_runs_a_hook_and_the_node_rejoins() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = nodes(&etcd, &["b"]).await;
    let a = service(&etcd, &["--on-lost", "echo lost: $CLUSTERING_REASON"], &["sh", "-c", SHELL])
        .spawn()
        .unwrap();
    present(&nodes[0], &["a", "b"]).await;
    clustering(&etcd, &["evict", "a"]).await.ended(0);
    printed(&a, &["session lost", "on_lost: lost: the node's record was removed\n", "joined again"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7));
    stable(&nodes).await;
    stop(nodes).await;
}

#[tokio::test]
async fn each_json_line_has_a_time_and_a_node() {
    let etcd = EtcdServer::start().await.unwrap();
    let options = ["--json", "--stabilize", "echo a line", "--listen", "127.0.0.1:0"];
    let a = service(&etcd, &options, &["sleep", "1000"]).spawn().unwrap();
    printed(&a, &["listening", "joined", "a line", "\"event\":\"stable\""]).await;
    a.terminate().unwrap();
    soon("the end of the command", a.wait()).await.unwrap();
    for line in a.log().lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        assert!(value["node"] == "a" && value["event"].is_string(), "{line}");
        let at = value["at"].as_str().unwrap();
        assert!(at.len() == 24 && at.starts_with("20") && at.contains('T') && at.ends_with('Z'), "{line}");
    }
}

/// Otherwise anyone who can read the environment of the program could write to etcd.
#[tokio::test]
async fn neither_the_program_nor_hooks_inherit_a_password() {
    let etcd = users::server(EtcdServer::builder()).await;
    let folder = Folder::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let hook = format!("env > {0}.new; mv {0}.new {0}", file("hook").display());
    let program = format!("env > {0}.new; mv {0}.new {0}; {SHELL}", file("program").display());
    let both = format!("{}:{}", users::USER, users::PASSWORD);
    for (user, password) in [(users::USER, users::PASSWORD), (both.as_str(), "")] {
        let a = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env();
        let a = a.args(["run", "-n", users::PREFIX.trim_end_matches('/'), "--endpoints", &etcd.endpoint()]);
        let a = a.args(["--uri", "http://a.test:80", "--stabilize", &hook, "--", "sh", "-c", &program]);
        let a = a.env("ETCDCTL_USER", user).env("ETCDCTL_CACERT", "").env("KEPT", "kept");
        let a = a.env("ETCDCTL_PASSWORD", password).spawn().unwrap();
        printed(&a, &["stable at"]).await;
        for name in ["hook", "program"] {
            let env = file_with(&file(name), "KEPT=kept").await;
            assert!(!env.contains(users::PASSWORD), "{name}: {env}");
            fs::remove_file(file(name)).unwrap();
        }
        a.terminate().unwrap();
        assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    }
}

/// Counts the zombies among the children of a process.
fn zombies(parent: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&format!(") Z {parent} "))).count()
}

/// Otherwise a container would reach its limit of processes.
#[tokio::test]
async fn the_first_process_of_a_container_leaves_no_zombies() {
    let namespace = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let can = std::process::Command::new("unshare").args(namespace).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        println!("skipped: cannot create a process namespace here (needs Linux, root, unshare)");
        return;
    }
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let calls = folder.path().join("calls");
    let hook = format!("echo >> {}; (sleep 0.05; sleep 0.05) & exit 0", calls.display());
    let a = Process::builder("unshare").clean_env().args(namespace).arg(env!("CARGO_BIN_EXE_clustering"));
    let a = a.args([
        "run",
        "-n",
        "c",
        "--endpoints",
        &etcd.endpoint(),
        "--name",
        "a",
        "--uri",
        "http://a.test:80",
    ]);
    let a = a.args(["--health", &hook, "--health-interval", "50ms", "--health-failures", "1"]);
    let a = a.args(["--", "sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["stable at"]).await;
    let first = fs::read_to_string(format!("/proc/{0}/task/{0}/children", a.pid())).unwrap();
    file_with(&calls, &"\n".repeat(40)).await;
    let left = zombies(first.trim());
    assert!(left < 5, "{left} zombies");
    // The children that the command waits for itself are not reaped.
    assert!(!a.log().contains("unhealthy"), "{}", a.log());
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
}
