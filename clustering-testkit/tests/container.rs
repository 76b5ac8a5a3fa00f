//! Tests that etcd in a container supports the same operations as an etcd process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers panic to fail the test")]

use std::{
    env,
    io::{BufRead, BufReader},
    os::fd::AsFd,
    process::{Command, Stdio},
    time::Duration,
};

use clustering_testkit::{
    etcd::{Etcd, EtcdContainer},
    process,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

async fn value(etcd: &dyn Etcd, key: &str) -> Option<String> {
    let reply = etcd.client().await.unwrap().get(key, None).await.unwrap();
    reply.kvs().first().map(|kv| kv.value_str().unwrap().to_owned())
}

async fn put(etcd: &dyn Etcd, key: &str, value: &str) {
    etcd.client().await.unwrap().put(key, value, None).await.unwrap();
}

async fn answers(etcd: &dyn Etcd) -> bool {
    let mut client = etcd.client().await.unwrap();
    tokio::time::timeout(Duration::from_millis(500), client.get("k", None))
        .await
        .is_ok_and(|reply| reply.is_ok())
}

fn is_there(container: &str) -> bool {
    let inspect = Command::new("docker").args(["container", "inspect", container]).output().unwrap();
    inspect.status.success()
}

#[tokio::test]
async fn data_and_endpoint_survive_a_restart() {
    let etcd = EtcdContainer::start().await.unwrap();
    let endpoints = etcd.endpoints();
    put(&etcd, "k", "v").await;
    let before = etcd.revision().await.unwrap();
    etcd.kill().await.unwrap();
    assert!(!answers(&etcd).await);
    // Killing a server that is down is not an error.
    etcd.kill().await.unwrap();
    etcd.restart().await.unwrap();
    assert_eq!((value(&etcd, "k").await.as_deref(), etcd.revision().await.unwrap()), (Some("v"), before));
    assert_eq!(etcd.endpoints(), endpoints);
    assert!(etcd.version().await.unwrap().starts_with("3."));
    assert_eq!(etcd.metrics().await.unwrap().get("etcd_server_has_leader", &[]), Some(1.0));

    etcd.wipe().await.unwrap();
    assert_eq!((value(&etcd, "k").await, etcd.endpoints()), (None, endpoints));
    assert!(etcd.revision().await.unwrap() < before);
}

#[tokio::test]
async fn a_paused_container_does_not_answer() {
    let etcd = EtcdContainer::start().await.unwrap();
    assert!(answers(&etcd).await);
    etcd.pause().await.unwrap();
    assert!(!answers(&etcd).await);
    etcd.resume().await.unwrap();
    assert!(answers(&etcd).await);
    etcd.pause().await.unwrap();
    etcd.restart().await.unwrap();
    assert!(answers(&etcd).await);

    // A paused container is removed too.
    etcd.pause().await.unwrap();
    let name = etcd.name().to_owned();
    assert!(is_there(&name));
    drop(etcd);
    assert!(!is_there(&name));
}

#[tokio::test]
async fn a_disconnected_container_keeps_running() {
    let etcd = EtcdContainer::start().await.unwrap();
    put(&etcd, "k", "v").await;
    let mut connected = etcd.client().await.unwrap();
    connected.get("k", None).await.unwrap();

    etcd.cut_off().await.unwrap();
    assert!(!answers(&etcd).await);
    assert!(
        !tokio::time::timeout(Duration::from_millis(500), connected.get("k", None))
            .await
            .is_ok_and(|r| r.is_ok())
    );
    etcd.reconnect().await.unwrap();
    assert_eq!(value(&etcd, "k").await.as_deref(), Some("v"));
    // The container was not restarted.
    let state = ["inspect", "--format", "{{.RestartCount}} {{.State.Status}}", etcd.name()];
    let state = Command::new("docker").arg("container").args(state).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&state.stdout).trim(), "0 running");
}

#[tokio::test]
async fn a_compacted_revision_cannot_be_read() {
    let etcd = EtcdContainer::start().await.unwrap();
    put(&etcd, "k", "1").await;
    put(&etcd, "k", "2").await;
    let compacted = etcd.compact().await.unwrap();
    let old = etcd_client::GetOptions::new().with_revision(i64::try_from(compacted.get()).unwrap() - 1);
    let error = etcd.client().await.unwrap().get("k", Some(old)).await.unwrap_err().to_string();
    assert!(error.contains("compacted"), "{error}");
}

#[tokio::test]
async fn a_missing_image_is_reported_with_advice() {
    let error = EtcdContainer::start_image("clustering.invalid/etcd:v0").await.unwrap_err().to_string();
    assert!(error.contains("clustering.invalid/etcd") && error.contains("scripts/etcd-image"), "{error}");
}

/// Starts a container, prints its name and waits to be killed.
#[tokio::test]
#[ignore = "run as a child process by another test"]
async fn child_that_is_killed() {
    let etcd = EtcdContainer::start().await.unwrap();
    println!("\nleft {} {}", process::guardian().unwrap(), etcd.name());
    std::future::pending::<()>().await;
}

#[test]
fn a_killed_test_leaves_no_container() {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["child_that_is_killed", "--exact", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let line = output.lines().map(Result::unwrap).find(|line| line.starts_with("left "));
    let line = line.expect("the child prints what it started");
    let (guardian, container) = line["left ".len()..].split_once(' ').unwrap();
    assert!(is_there(container));
    let guardian = Pid::from_raw(guardian.parse().unwrap()).unwrap();
    let pidfd = pidfd_open(guardian, PidfdFlags::empty()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ended, 1, "the guardian has not ended within a minute");
    assert!(!is_there(container));
}
