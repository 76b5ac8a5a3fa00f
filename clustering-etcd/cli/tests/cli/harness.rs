//! Runs the command and nodes on an etcd.

use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use assert_cmd::Command;
use clustering_core::{
    Builder, Clustering, Version,
    store::{CoordinationStore, CoordinationStoreExt, Txn},
};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::etcd::EtcdServer;

/// Time limit for anything that a test waits for.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Exit code and output of a command that has ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Checks the exit code, and returns the standard output.
    #[track_caller]
    pub(crate) fn ended(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:#?}");
        &self.out
    }

    /// Checks the exit code, and that the standard error contains all parts.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:#?}");
        for part in parts {
            assert!(self.err.contains(part), "no {part:?} in {self:#?}");
        }
    }

    /// Parses the standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Returns the command, without environment variables that would lead to an etcd of this machine.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clustering"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("ETCD") || name.starts_with("CLUSTERING") {
            command.env_remove(name);
        }
    }
    command.env("USER", "ops").timeout(LONG);
    command
}

/// Runs a command to its end.
pub(crate) async fn run(mut command: Command) -> Said {
    tokio::task::spawn_blocking(move || {
        let output = command.output().expect("the command runs");
        Said {
            code: output.status.code().expect("it ends by itself within the time limit"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    })
    .await
    .unwrap()
}

/// Runs the command on an etcd, in the namespace `c`.
pub(crate) async fn clustering(etcd: &EtcdServer, args: &[&str]) -> Said {
    clustering_with(etcd, args, "").await
}

/// Runs the command as [`clustering`] does, with an input.
pub(crate) async fn clustering_with(etcd: &EtcdServer, args: &[&str], input: &str) -> Said {
    let mut command = command();
    command.args(args).env("ETCD_ENDPOINTS", etcd.endpoint()).env("CLUSTERING_NAMESPACE", "c");
    command.write_stdin(input.to_owned());
    run(command).await
}

pub(crate) fn store(etcd: &EtcdServer) -> EtcdStore {
    EtcdStore::new(EtcdConfig::new(etcd.endpoints()).unwrap()).unwrap()
}

/// Returns the builder of a node in the namespace `c`.
pub(crate) fn node(etcd: &EtcdServer, name: &str) -> Builder {
    store(etcd).node().namespace("c").name(name).uri(format!("http://{name}.test:80"))
}

/// Starts nodes of one cluster, and waits until all of them are stable. The first one leads.
pub(crate) async fn nodes(etcd: &EtcdServer, names: &[&str]) -> Vec<Clustering> {
    let mut nodes: Vec<Clustering> = Vec::new();
    for name in names {
        nodes.push(node(etcd, name).start().await.unwrap());
    }
    stable(&nodes).await;
    nodes
}

/// Waits until all these nodes know a stable version that consists of them.
pub(crate) async fn stable(nodes: &[Clustering]) {
    for node in nodes {
        let mut status = node.status();
        let all = status.wait_for(|status| {
            status.is_stable() && status.newest.as_ref().is_some_and(|view| view.len() == nodes.len())
        });
        soon("stable", all).await.unwrap();
    }
}

pub(crate) async fn stop(nodes: Vec<Clustering>) {
    for node in nodes.into_iter().rev() {
        node.stop().await.unwrap();
    }
}

/// Waits for the future, up to the time limit.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// Writes a key, as another program or an operator might do.
pub(crate) async fn by_hand(etcd: &EtcdServer, key: &str, value: &str) {
    store(etcd).put(key, value.to_owned().into(), None).await.unwrap();
}

/// Writes the records of a stable cluster with this number of nodes, led by `ingest-0000`, without starting nodes.
/// Returns the version.
pub(crate) async fn crowd(etcd: &EtcdServer, nodes: usize) -> Version {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let label = Version::from_u128(now << 80);
    let store = store(etcd);
    let names: Vec<_> = (0..nodes).map(|number| format!("ingest-{number:04}")).collect();
    let ready = format!(r#"{{"version":"{label}","outcome":"ready"}}"#);
    for part in names.chunks(16) {
        let record = |name: &str| {
            format!(
                r#"{{"uri":"http://{name}:8080","incarnation":"{label}","metadata":{{"zone":"a"}},"protocol":1}}"#
            )
        };
        let put = |txn: Txn, name: &String| txn.put(format!("c/view/nodes/{name}"), record(name), None);
        store.commit(part.iter().fold(Txn::new(), put)).await.unwrap();
    }
    by_hand(etcd, "c/view/leader", r#"{"node":"ingest-0000","incarnation":"x"}"#).await;
    by_hand(etcd, "c/view/version", &format!(r#"{{"version":"{label}"}}"#)).await;
    for part in names.chunks(16) {
        let put = |txn: Txn, name: &String| txn.put(format!("c/ready/{name}"), ready.clone(), None);
        store.commit(part.iter().fold(Txn::new(), put)).await.unwrap();
    }
    by_hand(etcd, "c/view/stable", &format!(r#"{{"version":"{label}"}}"#)).await;
    label
}
