//! The operator's guide shows the real output of the commands.
//!
//! Every line of its `console` blocks that begins with `$ ` is run, on the cluster that the comment above the block
//! names. With `UPDATE_GUIDE=1` in the environment, the outputs in the guide are replaced by the current ones.

use std::{fs, path::Path, time::Duration};

use clustering_core::{Clustering, Event, Events};
use clustering_testkit::{etcd::EtcdServer, process::Process};
use serde_json::json;
use tokio::process::Command;

use crate::{
    harness::{LONG, soon, stable, store},
    history::program,
    slots::ByHand,
    watch::printed,
};

const NAMESPACE: &str = "telemetry/ingest";

/// The cluster that the commands of a block run on.
struct Scene {
    etcd: EtcdServer,
    nodes: Vec<Clustering>,
    /// An exclusive cluster whose records are written by hand.
    by_hand: Option<ByHand>,
    /// A program that `clustering run` turns into a node, and the address of its probes.
    service: Option<(Process, String)>,
}

impl Scene {
    async fn set(name: &str) -> Self {
        let mut scene = Scene {
            etcd: EtcdServer::start().await.unwrap(),
            nodes: Vec::new(),
            by_hand: None,
            service: None,
        };
        match name {
            "stable" => scene.nodes(&["ingest-1", "ingest-2", "ingest-3"]).await,
            "blocked" => scene.blocked().await,
            "history" => scene.history().await,
            "service" => scene.service().await,
            "exclusive" => scene.exclusive().await,
            "handover" => scene.handover().await,
            "waiting" => scene.waiting().await,
            other => panic!("there is no scene {other}"),
        }
        scene
    }

    /// Starts four nodes, of which one refuses the version and one does not answer.
    async fn blocked(&mut self) {
        self.nodes(&["ingest-1", "ingest-2"]).await;
        let refusing = self.node("ingest-3").stabilize(|_| async { Err::<(), _>("its disk is full") });
        let events = refusing.events();
        self.nodes.push(refusing.start().await.unwrap());
        // Wait for a version with three nodes, so that each node gets a version of its own.
        let mut status = self.nodes[0].status();
        let three = status.wait_for(|status| status.newest.as_ref().is_some_and(|view| view.len() == 3));
        soon("a version of three", three).await.unwrap();
        let silent = self.node("ingest-4").stabilize(|_| std::future::pending::<()>());
        self.nodes.push(silent.start().await.unwrap());
        // After the second refusal of the version with all nodes, the first one is in the store.
        soon("refusals", self.refusals(events, 2)).await;
        for node in &self.nodes[..2] {
            let mut status = node.status();
            let ready =
                status.wait_for(|status| status.acknowledged.as_ref().is_some_and(|view| view.len() == 4));
            soon("the acknowledgements", ready).await.unwrap();
        }
    }

    /// Waits until a node has refused the version with four nodes this number of times.
    async fn refusals(&self, mut events: Events, mut count: u32) {
        while count > 0 {
            let event = events.recv().await.unwrap();
            let newest = self.nodes[0].status().get().newest.as_ref().map_or(0, |view| view.len());
            count -= u32::from(newest == 4 && matches!(&*event, Event::StabilizeRefused { .. }));
        }
    }

    /// Lets nodes join, leave and crash, and requests a version.
    async fn history(&mut self) {
        self.nodes(&["ingest-1", "ingest-2", "ingest-3"]).await;
        self.nodes.pop().unwrap().stop().await.unwrap();
        stable(&self.nodes).await;
        let crashing = program(&self.etcd, NAMESPACE, "ingest-4").await;
        crashing.kill().await.unwrap();
        stable(&self.nodes).await;
        self.nodes[0].request_version("a new table of devices").await.unwrap();
        stable(&self.nodes).await;
    }

    /// Writes the records of an exclusive cluster of three nodes.
    async fn exclusive(&mut self) {
        let mut cluster = ByHand::new(&self.etcd, NAMESPACE);
        let names = ["ingest-1", "ingest-2", "ingest-3"];
        for name in names {
            cluster.node(name).await;
        }
        cluster.publish(256, &names, json!([{"joined": "ingest-3"}])).await;
        cluster.acknowledges(&names).await;
        cluster.released().await;
        cluster.stable().await;
        self.by_hand = Some(cluster);
    }

    /// Writes the records of an exclusive cluster in which slots move: one node has not released its slots, and another
    /// was evicted while its process is still running.
    async fn handover(&mut self) {
        let mut cluster = ByHand::new(&self.etcd, NAMESPACE);
        let names = ["ingest-1", "ingest-2", "ingest-3"];
        for name in ["ingest-4"].iter().chain(&names) {
            cluster.node(name).await;
        }
        cluster.delete("view/nodes/ingest-4").await;
        cluster.publish(256, &names, json!([{"evicted": "ingest-4"}, {"joined": "ingest-3"}])).await;
        for name in ["ingest-1", "ingest-3"] {
            cluster.releases(name).await;
        }
        self.by_hand = Some(cluster);
    }

    /// Writes the records of an exclusive cluster in which slots wait for a node that restarts.
    async fn waiting(&mut self) {
        let mut cluster = ByHand::new(&self.etcd, NAMESPACE);
        for name in ["ingest-1", "ingest-2"] {
            cluster.node(name).await;
        }
        let fields = json!({"cause": [{"left": "ingest-3"}], "kept": {"ingest-3": 120_000}});
        cluster.publish_with(256, &["ingest-1", "ingest-2", "ingest-3"], fields).await;
        cluster.acknowledges(&["ingest-1", "ingest-2"]).await;
        cluster.released().await;
        cluster.stable().await;
        self.by_hand = Some(cluster);
    }

    /// Starts a program with `clustering run`.
    async fn service(&mut self) {
        let builder = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env();
        let builder = builder.args(["run", "-n", NAMESPACE, "--endpoints", &self.etcd.endpoint()]);
        let builder = builder.args(["--name", "ingest-1", "--uri", "http://10.0.0.1:8080"]);
        let service = builder.args(["--listen", "127.0.0.1:0", "--", "sleep", "1000"]).spawn().unwrap();
        let log = printed(&service, &["metrics at http://", "stable at "]).await;
        let address = log.split("metrics at http://").nth(1).unwrap().lines().next().unwrap();
        self.service = Some((service, address.to_owned()));
    }

    fn node(&self, name: &str) -> clustering_core::Builder {
        let number = name.rsplit('-').next().unwrap();
        let zone = if number == "2" { "b" } else { "a" };
        let uri = format!("http://10.0.0.{number}:8080");
        Clustering::builder(store(&self.etcd)).namespace(NAMESPACE).name(name).uri(uri).metadata("zone", zone)
    }

    async fn nodes(&mut self, names: &[&str]) {
        for name in names {
            let slow = Duration::from_millis(if *name == "ingest-2" { 150 } else { 20 });
            let node = self.node(name).stabilize(move |_| tokio::time::sleep(slow));
            self.nodes.push(node.start().await.unwrap());
            stable(&self.nodes).await;
        }
    }

    /// Runs a line of the guide in a shell, and returns its output.
    async fn run(&self, line: &str) -> String {
        let folder = Path::new(env!("CARGO_BIN_EXE_clustering")).parent().unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1; {line}")]).env_clear().env("PATH", path).env("USER", "ops");
        shell.env("ETCD_ENDPOINTS", self.etcd.endpoint()).env("CLUSTERING_NAMESPACE", NAMESPACE);
        shell.envs(self.service.iter().map(|(_, address)| ("CLUSTERING_LISTEN", address)));
        shell.stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(LONG, shell.output()).await.expect("the command ends").unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    async fn end(self) {
        for node in self.nodes {
            node.stop().await.unwrap();
        }
        if let Some((service, _)) = self.service {
            service.terminate().unwrap();
            soon("the end of the service", service.wait()).await.unwrap();
        }
    }
}

/// Returns the guide with the current output of its commands.
async fn updated(guide: &str) -> String {
    let mut text = String::new();
    let mut scene = None;
    let mut name = None;
    let mut in_block = false;
    for line in guide.lines() {
        if let Some(rest) = line.strip_prefix("<!-- scene: ") {
            name = rest.strip_suffix(" -->");
        } else if line == "```console" {
            in_block = true;
            scene = Some(Scene::set(name.take().expect("a comment above the block names the scene")).await);
        } else if in_block && line == "```" {
            in_block = false;
            scene.take().unwrap().end().await;
        } else if let (true, Some(command)) = (in_block, line.strip_prefix("$ ")) {
            text += &format!("{line}\n{}", scene.as_ref().unwrap().run(command).await);
            continue;
        } else if in_block {
            continue;
        }
        text += line;
        text.push('\n');
    }
    text
}

/// Replaces the parts that differ from run to run: versions, times, durations, terms, the host name and the width of
/// columns.
fn normalized(guide: &str) -> Vec<String> {
    let is_version =
        |word: &str| word.len() == 26 && word.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase());
    let is_moment = |word: &str| word.len() == 20 && word.starts_with("20") && word.ends_with('Z');
    let is_time = |word: &str| {
        let number = word.trim_end_matches(|c: char| c.is_ascii_lowercase());
        number != word && number.parse::<f64>().is_ok()
    };
    let mut in_block = false;
    let line = |line: &str| {
        in_block = match line {
            "```console" => true,
            "```" => false,
            _ => in_block,
        };
        if !in_block {
            return line.to_owned();
        }
        let mut before = "";
        let mut words = Vec::new();
        for word in line.split_whitespace() {
            let bare = word.trim_end_matches([',', ':', ';']);
            words.push(match bare {
                bare if is_version(bare) => "VERSION".to_owned(),
                bare if is_moment(bare) => "MOMENT".to_owned(),
                bare if is_time(bare) => "TIME".to_owned(),
                _ if before == "term" => "TERM".to_owned(),
                bare if before == "lease" && bare.len() > 10 => "LEASE".to_owned(),
                bare if bare.starts_with("ops@") => "ops@HOST".to_owned(),
                _ => word.to_owned(),
            });
            before = word;
        }
        words.join(" ")
    };
    guide.lines().map(line).collect()
}

#[tokio::test]
async fn the_guide_shows_the_real_output_of_the_commands() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs/operators.md");
    let guide = fs::read_to_string(&path).unwrap();
    let now = updated(&guide).await;
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        let hosts = now.split_whitespace().filter_map(|word| word.strip_prefix("ops@"));
        let host = hosts.map(|host| host.trim_end_matches([',', ':'])).max().unwrap_or("host").to_owned();
        fs::write(&path, now.replace(&format!("ops@{host}"), "ops@host")).unwrap();
        return;
    }
    let (shown, current) = (normalized(&guide), normalized(&now));
    for (shown, current) in shown.iter().zip(&current) {
        assert_eq!(shown, current, "UPDATE_GUIDE=1 updates the guide");
    }
    assert_eq!(shown.len(), current.len());
}
