//! `run --listen`: probes and metrics.

use std::{collections::BTreeMap, net::TcpListener};

use clustering_core::{
    Clustering,
    metrics::{ALL, Kind, Metric},
};
use clustering_etcd::METRICS;
use clustering_testkit::{
    etcd::EtcdServer,
    process::{Folder, Process},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{clustering, command, node, run, soon, stable},
    run::{SHELL, registered, service},
    watch::printed,
};

/// A client for the probes and metrics of a service.
pub(crate) struct Client {
    address: String,
}

impl Client {
    /// Reads the address from the log of the command.
    pub(crate) async fn of(process: &Process) -> Self {
        let text = printed(process, &["a: probes and metrics at http://", "\n"]).await;
        let address = text.split("at http://").nth(1).unwrap().lines().next().unwrap();
        Client { address: address.to_owned() }
    }

    /// Returns the status and the body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    #[track_caller]
    fn check(answer: &(u16, String), status: u16, text: &str) {
        assert!(answer.0 == status && answer.1.starts_with(text), "{answer:?}, not {status} {text:?}");
    }

    /// Checks the current answers of three probes.
    async fn probes(&self, live: (u16, &str), ready: (u16, &str), leader: (u16, &str)) {
        for (path, (status, text)) in [("/livez", live), ("/readyz", ready), ("/leaderz", leader)] {
            Client::check(&self.get(path).await, status, text);
        }
    }

    /// Waits for an answer with this status and beginning.
    pub(crate) async fn until(&self, path: &str, status: u16, text: &str) {
        soon(&format!("{path}: {status} {text:?}"), async {
            loop {
                let answer = self.get(path).await;
                if answer.0 == status && answer.1.starts_with(text) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Returns the values of `/metrics`, by name and labels as they are written.
    async fn metrics(&self) -> BTreeMap<String, f64> {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200);
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, number)| (name.to_owned(), number.parse().unwrap()))
            .collect()
    }

    /// Waits until the program is unhealthy: another node leads, and /livez does not ask for a restart.
    async fn shows_an_unhealthy_program(&self, others: &[Clustering]) {
        self.until("/readyz", 503, "not a member: unhealthy: exit code 1: no disk\n").await;
        self.until("/leaderz", 503, "b leads\n").await;
        Self::check(&self.get("/stablez").await, 503, "not a member: unhealthy: ");
        Self::check(&self.get("/livez").await, 200, "joining");
        stable(others).await;
        let unhealthy = self.metrics().await;
        assert_eq!(unhealthy["clustering_sessions_lost_total{namespace=\"c\",reason=\"unhealthy\"}"], 1.0);
        assert_eq!(
            (unhealthy[&in_c("clustering_member")], unhealthy[&in_c("clustering_leader")]),
            (0.0, 0.0),
            "{unhealthy:?}"
        );
    }
}

/// Returns the name of a metric with the label of the namespace `c`.
fn in_c(name: &str) -> String {
    format!("{name}{{namespace=\"c\"}}")
}

/// Checks the metrics of a single node before and after it has joined.
fn check_joined(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) {
    for gauge in ["clustering_member", "clustering_healthy", "clustering_leader", "clustering_stable"] {
        assert_eq!(after[&in_c(gauge)], 1.0, "{gauge} in {after:?}");
    }
    let joined = "clustering_events_total{namespace=\"c\",event=\"joined\"}";
    assert_eq!((after[joined], before.get(joined)), (1.0, None));
    let version = concat!("clustering_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    assert_eq!(after[version], 1.0);
}

#[tokio::test]
async fn p10_probes_and_metrics_follow_the_life_of_a_node() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let well = folder.path().join("well");
    let check = format!("test -e {} || {{ echo no disk >&2; exit 1; }}", well.display());
    let quick = ["--health-interval", "100ms", "--health-failures", "1", "--listen", "127.0.0.1:0"];
    let options = [&["--health", &check][..], &quick].concat();
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    let client = Client::of(&a).await;

    // The program is unhealthy, so the node does not join.
    client.probes((200, "starting"), (503, "starting"), (503, "starting")).await;
    printed(&a, &["unhealthy: "]).await;
    client.probes((200, "starting"), (503, "starting"), (503, "starting")).await;
    let before = client.metrics().await;
    assert_eq!(
        (before[&in_c("clustering_member")], before[&in_c("clustering_healthy")]),
        (0.0, 0.0),
        "{before:?}"
    );
    assert_eq!(client.get("/").await.0, 404);

    std::fs::write(&well, "").unwrap();
    client.until("/readyz", 200, "ready at ").await;
    client.probes((200, "member"), (200, "ready at "), (200, "leads, term ")).await;
    printed(&a, &["stable at "]).await;
    let alone = client.metrics().await;
    check_joined(&before, &alone);
    Client::check(&client.get("/stablez").await, 200, "stable at ");

    let b = vec![node(&etcd, "b").start().await.unwrap()];
    let mut status = b[0].status();
    soon("stable", status.wait_for(|status| status.is_stable())).await.unwrap();
    let two = "clustering_nodes{namespace=\"c\",state=\"present\"}";
    let by_join = "clustering_versions_total{namespace=\"c\",cause=\"joined\"}";
    client.until("/readyz", 200, "ready at ").await;
    let both = client.metrics().await;
    assert_eq!((alone[two], both[two]), (1.0, 2.0));
    assert_eq!(both[by_join], alone[by_join] + 1.0);

    std::fs::remove_file(&well).unwrap();
    client.shows_an_unhealthy_program(&b).await;
    std::fs::write(&well, "").unwrap();
    client.until("/readyz", 200, "ready at ").await;
    client.until("/leaderz", 503, "b leads\n").await;

    // The node leaves while etcd does not answer.
    etcd.pause().unwrap();
    a.terminate().unwrap();
    client.until("/livez", 200, "leaving").await;
    Client::check(&client.get("/readyz").await, 503, "not a member: ");
    etcd.resume().unwrap();
    printed(&a, &["bye\n"]).await;
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    stable(&b).await;
    b.into_iter().next().unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn all_metrics_are_documented() {
    let etcd = EtcdServer::start().await.unwrap();
    let a = service(&etcd, &["--listen", "127.0.0.1:0", "--health", "true"], &["sh", "-c", SHELL])
        .spawn()
        .unwrap();
    let client = Client::of(&a).await;
    printed(&a, &["stable at "]).await;
    let (_, text) = client.get("/metrics").await;
    let metric = |name: &str| -> Metric {
        let known = ALL.iter().chain(METRICS).find(|metric| metric.name == name);
        *known.unwrap_or_else(|| panic!("{name} is not among the names"))
    };
    let mut seen = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let expected = match metric(name).kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Seconds => "histogram",
        };
        assert_eq!(kind, expected, "{name}");
        assert!(text.contains(&format!("# HELP {name} {}\n", metric(name).help)), "{name} in {text}");
        seen.push(name);
    }
    // Metrics of a single node that have values by now. Others appear with their first event.
    for name in
        ["clustering_version_stable_seconds", "clustering_commits_total", "clustering_health_checks_total"]
    {
        assert!(seen.contains(&name), "no {name} in {text}");
    }
    assert!(text.contains("clustering_version_stable_seconds_bucket{namespace=\"c\",le=\"0.1\"}"), "{text}");
    a.terminate().unwrap();
    soon("the end of the command", a.wait()).await.unwrap();
}

#[tokio::test]
async fn an_invalid_address_is_reported_before_anything_starts() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let ran = folder.path().join("ran");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    let with = |options: &[&str], variable: &str| {
        let mut command = command();
        command.args(["run", "-n", "c", "--endpoints", &etcd.endpoint(), "--uri", "http://a.test:80"]);
        command.args(options).args(["--", "touch", ran.to_str().unwrap()]).env("CLUSTERING_LISTEN", variable);
        run(command)
    };
    let in_use =
        [&format!("cannot listen at {busy:?}: Address already in use")[..], "use another port", "--listen"];
    with(&["--listen", &busy], "").await.refused(2, &in_use);
    with(&[], &busy).await.refused(2, &in_use);
    let shape = "such as :8081 or 127.0.0.1:8081";
    for bad in ["8081", "localhost", "127.0.0.1:99999", "nonsense:x"] {
        with(&["--listen", bad], "").await.refused(2, &[&format!("cannot listen at {bad:?}: "), shape]);
    }
    with(&["--listen", "192.0.2.1:8081"], "").await.refused(2, &["this machine has no such address"]);
    assert!(!ran.exists() && registered(&etcd).await == 0);
    // An empty variable counts as unset.
    with(&[], "").await.ended(0);
    assert!(ran.exists());
}

#[tokio::test]
async fn a_port_alone_means_all_addresses() {
    let etcd = EtcdServer::start().await.unwrap();
    let a = service(&etcd, &["--listen", ":0"], &["sh", "-c", SHELL]).spawn().unwrap();
    let all = Client::of(&a).await;
    let port = all.address.rsplit(':').next().unwrap();
    let local = Client { address: format!("127.0.0.1:{port}") };
    Client::check(&local.get("/livez").await, 200, "");
    a.terminate().unwrap();
    soon("the end of the command", a.wait()).await.unwrap();
}

#[tokio::test]
async fn the_program_and_its_hooks_know_the_address_of_the_probes() {
    let folder = Folder::new().unwrap();
    let hook = folder.path().join("hook");
    let etcd = EtcdServer::start().await.unwrap();
    etcd.kill().await.unwrap();
    let stabilize = format!("echo $CLUSTERING_LISTEN > {0}.new; mv {0}.new {0}", hook.display());
    let program = format!("echo program: $CLUSTERING_LISTEN; {SHELL}");
    let options = ["--json", "--stabilize", &stabilize];
    let a = service(&etcd, &options, &["sh", "-c", &program]).env("CLUSTERING_LISTEN", "127.0.0.1:0");
    let a = a.spawn().unwrap();
    let text = printed(&a, &["\"event\":\"listening\"", "\"event\":\"store_away\""]).await;
    let line = text.lines().find(|line| line.contains("listening")).unwrap();
    let said: serde_json::Value = serde_json::from_str(line).unwrap();
    let client = Client { address: said["address"].as_str().unwrap().to_owned() };
    printed(&a, &[&format!("program: {}\n", client.address)]).await;
    client.probes((200, "starting"), (503, "starting"), (503, "starting")).await;
    assert_eq!(client.metrics().await["clustering_store_away{namespace=\"c\"}"], 1.0);
    etcd.restart().await.unwrap();
    client.until("/leaderz", 200, "leads, term ").await;
    client.until("/readyz", 200, "ready at ").await;
    assert_eq!(std::fs::read_to_string(hook).unwrap().trim(), client.address);
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
}

/// Limit of file descriptors for the command.
const DESCRIPTORS: u64 = 256;
/// Number of connections, which exceeds the limit.
const HALF_OPEN: usize = 1100;

/// Sets the limit of file descriptors for a process.
pub(crate) fn limit(pid: u32, descriptors: u64) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap());
    let limit = rustix::process::Rlimit { current: Some(descriptors), maximum: Some(20_000) };
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
}

/// Counts the open file descriptors of a process.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test]
async fn p6_half_open_connections_do_not_harm_a_leader() {
    let etcd = EtcdServer::start().await.unwrap();
    let options = ["--listen", "127.0.0.1:0", "--health", "true", "--health-interval", "100ms"];
    let options = [&options[..], &["--health-failures", "1"]].concat();
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    let client = Client::of(&a).await;
    printed(&a, &["stable at "]).await;
    client.until("/leaderz", 200, "leads, term ").await;
    limit(a.pid(), DESCRIPTORS);
    limit(std::process::id(), 4096);

    let opening = async {
        let mut open = Vec::new();
        for _ in 0..HALF_OPEN {
            let mut stream = TcpStream::connect(&client.address).await.unwrap();
            // Fails if the server has already dropped the connection.
            let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: ").await;
            open.push(stream);
        }
        open
    };
    let open = soon("the connections", opening).await;
    // Ten health checks, which need file descriptors, with probes in between.
    let checks = "clustering_health_checks_total{namespace=\"c\",outcome=\"passed\"}";
    let passed = client.metrics().await[checks];
    soon("health checks", async {
        while client.metrics().await[checks] < passed + 10.0 {
            Client::check(&client.get("/leaderz").await, 200, "leads, term ");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(descriptors(a.pid()) < 100, "{} descriptors", descriptors(a.pid()));
    // All slow connections are dropped, even without newer ones.
    soon("the end of all connections", async {
        for mut stream in open {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    })
    .await;
    assert!(!a.log().contains("unhealthy") && !a.log().contains("has to wait"), "{}", a.log());
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
}

#[tokio::test]
async fn p11_a_shortage_of_descriptors_does_not_make_the_program_unhealthy() {
    let etcd = EtcdServer::start().await.unwrap();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", web.local_addr().unwrap());
    // Answers each request with a status that means healthy.
    std::thread::spawn(move || {
        for stream in web.incoming() {
            let mut stream = stream.unwrap();
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 204 No Content\r\n\r\n");
        }
    });
    for check in [["--health", "true"], ["--health-url", &url]] {
        let options = ["--health-interval", "100ms", "--health-failures", "1", "--health-deadline", "50s"];
        let a = service(&etcd, &[&check[..], &options].concat(), &["sh", "-c", SHELL]).spawn().unwrap();
        printed(&a, &["stable at "]).await;
        limit(a.pid(), 3);
        printed(&a, &["has to wait: Too many open files", "; trying again"]).await;
        limit(a.pid(), 1024);
        // The same check is repeated and passes.
        let status = clustering(&etcd, &["change", "--wait"]).await;
        status.ended(0);
        assert!(!a.log().contains("unhealthy") && !a.log().contains("session lost"), "{}", a.log());
        a.terminate().unwrap();
        assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    }
}
