//! The operator's guide: what it shows is what the commands say.
//!
//! Every line of its `console` blocks that begins with `$ ` is run, on a cluster as the comment above the block says. With
//! `UPDATE_GUIDE=1` in the environment the guide is written anew with what they say.

use std::{fs, path::Path, time::Duration};

use clustering_core::Clustering;
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::{etcd::EtcdServer, process::Process};
use tokio::process::Command;

use crate::{
    harness::{LONG, soon, stable},
    past::program,
    watch::printed,
};

const NAMESPACE: &str = "telemetry/ingest";

/// A cluster as the guide has it.
struct Scene {
    etcd: EtcdServer,
    nodes: Vec<Clustering>,
    /// A program that `clustering run` makes a node, and where that listens.
    service: Option<(Process, String)>,
}

impl Scene {
    async fn set(name: &str) -> Self {
        let mut scene = Scene { etcd: EtcdServer::start().await.unwrap(), nodes: Vec::new(), service: None };
        match name {
            "stable" => scene.nodes(&["ingest-1", "ingest-2", "ingest-3"]).await,
            "blocked" => {
                scene.nodes(&["ingest-1", "ingest-2"]).await;
                let refusing =
                    scene.node("ingest-3").stabilize(|_| async { Err::<(), _>("its disk is full") });
                let mut events = refusing.events();
                scene.nodes.push(refusing.start().await.unwrap());
                // A version for each, whatever the pace.
                let mut status = scene.nodes[0].status();
                let three =
                    status.wait_for(|status| status.newest.as_ref().is_some_and(|view| view.len() == 3));
                soon("a version of three", three).await.unwrap();
                let silent = scene.node("ingest-4").stabilize(|_| std::future::pending::<()>());
                scene.nodes.push(silent.start().await.unwrap());
                // The second refusal of the version with all: by then the first stands in the store.
                let newest = || scene.nodes[0].status().get().newest.as_ref().map_or(0, |view| view.len());
                soon("refusals", async {
                    let mut left = 2;
                    while left > 0 {
                        let event = events.recv().await.unwrap();
                        let refused = matches!(&*event, clustering_core::Event::StabilizeRefused { .. });
                        left -= u32::from(refused && newest() == 4);
                    }
                })
                .await;
                for node in &scene.nodes[..2] {
                    let mut status = node.status();
                    let ready = status
                        .wait_for(|status| status.acknowledged.as_ref().is_some_and(|view| view.len() == 4));
                    soon("their acknowledgements", ready).await.unwrap();
                }
            }
            "history" => {
                scene.nodes(&["ingest-1", "ingest-2", "ingest-3"]).await;
                scene.nodes.pop().unwrap().stop().await.unwrap();
                stable(&scene.nodes).await;
                let crashes = program(&scene.etcd, NAMESPACE, "ingest-4").await;
                crashes.kill().await.unwrap();
                stable(&scene.nodes).await;
                scene.nodes[0].request_version("a new table of devices").await.unwrap();
                stable(&scene.nodes).await;
            }
            "service" => {
                let builder = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env();
                let builder = builder.args(["run", "-n", NAMESPACE, "--endpoints", &scene.etcd.endpoint()]);
                let builder = builder.args(["--name", "ingest-1", "--uri", "http://10.0.0.1:8080"]);
                let service =
                    builder.args(["--listen", "127.0.0.1:0", "--", "sleep", "1000"]).spawn().unwrap();
                let said = printed(&service, &["metrics at http://", "stable at "]).await;
                let address = said.split("metrics at http://").nth(1).unwrap().lines().next().unwrap();
                scene.service = Some((service, address.to_owned()));
            }
            other => panic!("there is no scene {other}"),
        }
        scene
    }

    fn node(&self, name: &str) -> clustering_core::Builder {
        let store = EtcdStore::new(EtcdConfig::new(self.etcd.endpoints()).unwrap()).unwrap();
        let number = name.rsplit('-').next().unwrap();
        let zone = if number == "2" { "b" } else { "a" };
        let uri = format!("http://10.0.0.{number}:8080");
        store.node().namespace(NAMESPACE).name(name).uri(uri).metadata("zone", zone)
    }

    async fn nodes(&mut self, names: &[&str]) {
        for name in names {
            let slow = Duration::from_millis(if *name == "ingest-2" { 150 } else { 20 });
            let node = self.node(name).stabilize(move |_| tokio::time::sleep(slow));
            self.nodes.push(node.start().await.unwrap());
            stable(&self.nodes).await;
        }
    }

    /// Runs a line of the guide as a shell does, and returns all that it says.
    async fn run(&self, line: &str) -> String {
        let folder = Path::new(env!("CARGO_BIN_EXE_clustering")).parent().unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1; {line}")]).env_clear().env("PATH", path).env("USER", "ops");
        shell.env("ETCD_ENDPOINTS", self.etcd.endpoint()).env("CLUSTERING_NAMESPACE", NAMESPACE);
        shell.envs(self.service.iter().map(|(_, address)| ("CLUSTERING_LISTEN", address)));
        shell.stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(LONG, shell.output()).await.expect("it ends").unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    async fn end(self) {
        for node in self.nodes {
            node.stop().await.unwrap();
        }
        if let Some((service, _)) = self.service {
            service.terminate().unwrap();
            soon("the service's end", service.wait()).await.unwrap();
        }
    }
}

/// The guide with what its commands say now.
async fn played(guide: &str) -> String {
    let mut text = String::new();
    let mut scene = None;
    let mut name = None;
    let mut in_block = false;
    for line in guide.lines() {
        if let Some(rest) = line.strip_prefix("<!-- scene: ") {
            name = rest.strip_suffix(" -->");
        } else if line == "```console" {
            in_block = true;
            scene = Some(Scene::set(name.take().expect("a scene above the block")).await);
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

/// What is the same each time: versions, moments, times, terms, the host's name and the width of columns are not.
fn lasting(guide: &str) -> Vec<String> {
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
async fn the_guide_shows_what_the_commands_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs/operators.md");
    let guide = fs::read_to_string(&path).unwrap();
    let now = played(&guide).await;
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        let hosts = now.split_whitespace().filter_map(|word| word.strip_prefix("ops@"));
        let host = hosts.map(|host| host.trim_end_matches([',', ':'])).max().unwrap_or("host").to_owned();
        fs::write(&path, now.replace(&format!("ops@{host}"), "ops@host")).unwrap();
        return;
    }
    let (shown, said) = (lasting(&guide), lasting(&now));
    for (shown, said) in shown.iter().zip(&said) {
        assert_eq!(shown, said, "UPDATE_GUIDE=1 writes the guide anew");
    }
    assert_eq!(shown.len(), said.len());
}
