//! `run --exclusive`: any program as a node that holds slots.

use std::{fs, path::Path};

use clustering_core::Clustering;
use clustering_testkit::{
    etcd::EtcdServer,
    process::{Folder, Process, ProcessBuilder},
};
use serde_json::{Value, json};

use crate::{
    harness::{clustering, clustering_with, node, soon},
    listen::Client,
    run::{SHELL, file_with, registered, service},
    watch::printed,
};

fn exclusive(etcd: &EtcdServer, options: &[&str], program: &[&str]) -> ProcessBuilder {
    service(etcd, &[&["--exclusive", "8"], options].concat(), program)
}

/// Returns a hook that writes its variables and its input to files with that name, and then appends its name to the
/// list of calls.
fn recorded(folder: &Path, name: &str) -> String {
    let folder = folder.display();
    format!(
        "cd {folder}; env > {name}.env; cat > {name}.new; mv {name}.new {name}.json; \
         echo {name} lost=$CLUSTERING_LOST >> calls"
    )
}

/// Waits until the node holds this number of slots.
async fn holds(node: &Clustering, slots: usize) {
    let mut status = node.status();
    let held = status.wait_for(|status| {
        status.holdings.as_ref().is_some_and(|holdings| holdings.held.len() == slots) && status.is_stable()
    });
    soon("the slots", held).await.unwrap();
}

fn input(folder: &Path, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join(format!("{name}.json"))).unwrap()).unwrap()
}

async fn ended(process: &Process) -> Option<i32> {
    soon("the end of the command", process.wait()).await.unwrap().code()
}

#[tokio::test]
async fn p12_hooks_get_the_slots_and_other_nodes_acquire_them_only_after_the_release_hook() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let path = folder.path();
    let [release, stabilize, stable] = ["release", "stabilize", "stable"].map(|name| recorded(path, name));
    let let_go = format!("{release}; while ! test -e go; do sleep 0.02; done; echo released >> calls");
    let options = ["--release", &let_go, "--stabilize", &stabilize, "--stable", &stable];
    let a = exclusive(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    file_with(&path.join("calls"), "stable lost=\n").await;
    let first = input(path, "stabilize");
    assert_eq!((&first["gained"], &first["kept"]), (&json!([0, 1, 2, 3, 4, 5, 6, 7]), &json!([])));
    let env = fs::read_to_string(path.join("stabilize.env")).unwrap();
    for line in ["CLUSTERING_SLOTS=8", "CLUSTERING_GAINED=0-7", "CLUSTERING_LOST=", "CLUSTERING_KEPT="] {
        assert!(env.lines().any(|entry| entry == line), "no {line} in {env}");
    }
    assert_eq!(input(path, "stable")["held"], json!([0, 1, 2, 3, 4, 5, 6, 7]));
    assert!(fs::read_to_string(path.join("stable.env")).unwrap().contains("CLUSTERING_HELD=0-7\n"));
    // The input says which keys belong to the node.
    let view = input(path, "stable").to_string();
    let args = ["find", "--view", "-", "--endpoints", "127.0.0.1:1", "device-7"];
    let found = clustering_with(&etcd, &args, &view).await;
    assert!(found.ended(0).starts_with("device-7\ta\t"), "{found:?}");

    let b = node(&etcd, "b").exclusive(8).start().await.unwrap();
    file_with(&path.join("calls"), "release lost=").await;
    let said = clustering(&etcd, &["status"]).await;
    assert!(said.ended(1).contains("a has not released the slots that it lost"), "{said:?}");
    let said = clustering(&etcd, &["why"]).await;
    assert!(said.ended(0).contains("release timeout"), "{said:?}");
    assert!(b.held_slots().is_empty(), "a has not released its slots");
    fs::write(path.join("go"), "").unwrap();
    holds(&b, 4).await;
    let calls = fs::read_to_string(path.join("calls")).unwrap();
    assert!(calls.contains("\nreleased\n"), "{calls}");
    let released = input(path, "release");
    assert_eq!((&released["hook"], &released["still_held"]), (&json!("release"), &json!(true)));
    assert_eq!(released["lost"], json!(b.held_slots()));
    assert_eq!(released["held"].as_array().unwrap().len(), 4);
    let env = fs::read_to_string(path.join("release.env")).unwrap();
    let lost = format!("CLUSTERING_LOST={}\n", b.held_slots());
    assert!(env.contains(&lost) && env.contains("CLUSTERING_STILL_HELD=true\n"), "{env}");
    a.terminate().unwrap();
    assert_eq!(ended(&a).await, Some(7), "{}", a.log());
    holds(&b, 8).await;
    b.stop().await.unwrap();
}

/// Otherwise another node would work on keys that the program still works on.
#[tokio::test]
async fn p12_the_program_gets_the_signal_after_its_slots_are_handed_over() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let calls = folder.path().join("calls");
    let release = format!("sleep 0.3; echo released >> {}", calls.display());
    let program =
        format!("trap 'echo bye >> {}; exit 7' TERM; echo up; while :; do sleep 0.05; done", calls.display());
    let a = exclusive(&etcd, &["--release", &release], &["sh", "-c", &program]).spawn().unwrap();
    printed(&a, &["stable at"]).await;
    a.terminate().unwrap();
    assert_eq!(ended(&a).await, Some(7), "{}", a.log());
    assert_eq!(fs::read_to_string(&calls).unwrap(), "released\nbye\n");
    printed(&a, &["handing over all slots and leaving the cluster"]).await;
    assert_eq!(registered(&etcd).await, 0);

    // A hook that never ends does not keep the program forever.
    let options = ["--release", "sleep 1000", "--stop-timeout", "1s"];
    let a = exclusive(&etcd, &options, &["sh", "-c", &program]).spawn().unwrap();
    printed(&a, &["stable at"]).await;
    a.terminate().unwrap();
    assert_eq!(ended(&a).await, Some(7), "{}", a.log());
}

#[tokio::test]
async fn a_program_can_ask_whether_it_may_work_on_a_key() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let go = folder.path().join("go");
    let release = format!("while ! test -e {}; do sleep 0.02; done", go.display());
    let options = ["--listen", "127.0.0.1:0", "--release", &release];
    let a = exclusive(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    let client = Client::of(&a).await;
    client.until("/ownz?key=device-7", 200, "{\"key\":\"device-7\",\"slot\":5,\"token\":").await;
    // The node holds the key as soon as it is ready, and the version becomes stable a moment later.
    client.until("/stablez", 200, "").await;
    assert_eq!(client.get("/ownz").await.0, 400);
    // After the first signal, the program must not begin new work, although it is still running.
    a.terminate().unwrap();
    client.until("/ownz?key=device-7", 409, "{\"key\":\"device-7\",\"slot\":5,\"why\":\"stopping\"").await;
    assert!(a.ended().is_none() && !a.log().contains("bye"), "{}", a.log());
    fs::write(go, "").unwrap();
    assert_eq!(ended(&a).await, Some(7), "{}", a.log());
}

#[tokio::test]
async fn a_drained_node_stops_its_program_in_order_and_exits_with_code_4() {
    let etcd = EtcdServer::start().await.unwrap();
    let b = node(&etcd, "b").exclusive(8).start().await.unwrap();
    let folder = Folder::new().unwrap();
    let calls = folder.path().join("calls");
    let release = format!("echo released >> {}", calls.display());
    let program =
        format!("trap 'echo bye >> {}; exit 7' TERM; echo up; while :; do sleep 0.05; done", calls.display());
    let a = exclusive(&etcd, &["--release", &release], &["sh", "-c", &program]).spawn().unwrap();
    holds(&b, 4).await;
    let said = clustering(&etcd, &["drain", "a", "--why", "a new kernel", "--wait"]).await;
    assert!(
        said.ended(0).contains("a has left; ") && said.out.contains("is stable, with 1 node"),
        "{said:?}"
    );
    assert_eq!(ended(&a).await, Some(4), "{}", a.log());
    assert_eq!(fs::read_to_string(&calls).unwrap(), "released\nbye\n");
    for part in ["drained it: a new kernel", "the node is drained; the program gets SIGTERM"] {
        printed(&a, &[part]).await;
    }
    holds(&b, 8).await;
    // The restarted node is not drained, and a cordoned node stays without slots.
    clustering(&etcd, &["cordon", "a"]).await.ended(0);
    let a = exclusive(&etcd, &[], &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["stable at"]).await;
    let shown = clustering(&etcd, &["status", "--json"]).await.json();
    assert_eq!((&shown["nodes"][0]["exclusive"], shown["nodes"][0].get("slots")), (&json!(true), None));
    clustering(&etcd, &["uncordon", "a"]).await.ended(0);
    holds(&b, 4).await;
    clustering(&etcd, &["cordon", "a", "--wait"]).await.ended(0);
    holds(&b, 8).await;
    a.terminate().unwrap();
    assert_eq!(ended(&a).await, Some(7), "{}", a.log());
    b.stop().await.unwrap();
}

#[tokio::test]
async fn a_drain_before_the_start_of_the_program_ends_the_command() {
    let etcd = EtcdServer::start().await.unwrap();
    let waiting = ["--start-when", "stable", "--stabilize", "false"];
    let a = exclusive(&etcd, &waiting, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["joined"]).await;
    clustering(&etcd, &["drain", "a", "--wait"]).await.ended(0);
    assert_eq!(ended(&a).await, Some(4), "{}", a.log());
    assert!(!a.log().contains("up\n"), "{}", a.log());
}

#[tokio::test]
async fn another_number_of_slots_is_wrong_usage() {
    let etcd = EtcdServer::start().await.unwrap();
    let b = node(&etcd, "b").exclusive(16).start().await.unwrap();
    holds(&b, 16).await;
    let a = exclusive(&etcd, &[], &["sh", "-c", SHELL]).spawn().unwrap();
    assert_eq!(ended(&a).await, Some(2), "{}", a.log());
    printed(&a, &["it is configured with 8 slots, but the cluster has 16"]).await;
    b.stop().await.unwrap();
    for (options, part) in [
        (&["--exclusive", "0"][..], "0 is not in 1..=4096"),
        (&["--exclusive", "4097"], "4097 is not in 1..=4096"),
        (&["--release", "true"], "--exclusive"),
        (&["--release-timeout", "1s"], "--exclusive"),
    ] {
        let all = [&["run", "--uri", "http://a.test:80"], options, &["--", "true"]].concat();
        clustering(&etcd, &all).await.refused(2, &[part]);
    }
}

#[tokio::test]
async fn a_node_that_does_not_release_its_slots_leaves_after_its_timeout() {
    let etcd = EtcdServer::start().await.unwrap();
    let hook = "[ -z \"$CLUSTERING_VERSION\" ] || sleep 1000";
    let options = ["--release", hook, "--release-timeout", "1s", "--stop-timeout", "1s"];
    let a = exclusive(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["stable at"]).await;
    let b = node(&etcd, "b").exclusive(8).start().await.unwrap();
    printed(&a, &["session lost: the node did not release its lost slots in time"]).await;
    // The lease of 5 s has to end first, because the hook has not let go.
    holds(&b, 8).await;
    a.kill().await.unwrap();
    b.stop().await.unwrap();
}
