use std::time::Instant;

use clustering_testkit::etcd::{EtcdServer, Metrics};
use serde_json::json;

use crate::{
    harness::{by_hand, clustering, command, crowd, node, nodes, run, soon, stop},
    users,
};

#[tokio::test]
async fn a_stable_cluster_exits_with_0() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut nodes = nodes(&etcd, &["a", "b"]).await;
    nodes.push(node(&etcd, "c").metadata("zone", "z1").start().await.unwrap());
    crate::harness::stable(&nodes).await;
    let (term, version) = (nodes[0].term().unwrap(), nodes[0].cluster_version().unwrap());

    let said = clustering(&etcd, &["status"]).await;
    let out = said.ended(0);
    for line in
        ["cluster   c\n", &format!("leader    a, term {term}\n"), "state     stable, all 3 nodes are ready\n"]
    {
        assert!(out.contains(line), "no {line:?} in {out}");
    }
    assert!(
        out.contains(&format!("version   {version}, labelled 20")) && out.contains("Z: c joined\n"),
        "{out}"
    );
    let rows: Vec<Vec<_>> = out.lines().skip(5).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "READINESS", "REGISTERED", "URI", "METADATA"]);
    assert_eq!(rows[1][..3], ["a", "ready,", "leads"]);
    assert_eq!((rows[3][0], rows[3][1], &rows[3][3..]), ("c", "ready", &["http://c.test:80", "zone=z1"][..]));

    let said = clustering(&etcd, &["status", "--json"]).await;
    said.ended(0);
    let shown = said.json();
    assert_eq!(shown["condition"], json!({ "state": "stable" }));
    // The options of etcdctl.
    let same = clustering(&etcd, &["status", "-w", "json"]).await.json();
    assert_eq!(same["version"], shown["version"]);
    assert!(clustering(&etcd, &["status", "--write-out=table"]).await.ended(0).starts_with("cluster   c\n"));
    clustering(&etcd, &["status", "-w", "xml"]).await.refused(2, &["invalid value 'xml'", "json"]);
    assert_eq!(shown["leader"], json!({ "name": "a", "term": term.get() }));
    assert_eq!(shown["version"]["version"], json!(version.to_string()));
    assert_eq!(shown["nodes"][2]["metadata"], json!({ "zone": "z1" }));
    assert_eq!(
        (&shown["nodes"][0]["leads"], &shown["nodes"][0]["readiness"]),
        (&json!(true), &json!("ready"))
    );
    stop(nodes).await;

    let said = clustering(&etcd, &["status"]).await;
    assert!(said.ended(1).contains("not stable: no node is present"), "{said:?}");
}

#[tokio::test]
async fn the_nodes_that_block_are_named_and_it_exits_with_1() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut nodes = nodes(&etcd, &["a"]).await;
    let refusing = node(&etcd, "b").stabilize(|_| async { Err::<(), _>("its disk is full") });
    let mut events = refusing.events();
    nodes.push(refusing.start().await.unwrap());
    nodes.push(node(&etcd, "c").stabilize(|_| std::future::pending::<()>()).start().await.unwrap());
    // After the second refusal, the first one is in the store.
    soon("refusals", async {
        let of_all = |nodes: &[clustering_core::Clustering]| {
            nodes[0].status().get().newest.as_ref().is_some_and(|view| view.len() == 3)
        };
        let mut left = 2;
        while left > 0 {
            let event = events.recv().await.unwrap();
            let refused = matches!(&*event, clustering_core::Event::StabilizeRefused { .. });
            left -= u32::from(refused && of_all(&nodes));
        }
    })
    .await;
    let said = clustering(&etcd, &["status"]).await;
    let out = said.ended(1);
    assert!(out.contains(": waiting for 2 of 3 nodes\n          b refused: its disk is full\n"), "{out}");
    assert!(out.contains("          c has not answered\n"), "{out}");
    let shown = clustering(&etcd, &["status", "--json"]).await.json();
    let waiting = json!([{ "name": "b", "refused": "its disk is full" }, { "name": "c", "refused": null }]);
    assert_eq!(shown["condition"], json!({ "state": "adapting", "waiting_for": waiting }));
    assert_eq!(shown["nodes"][1]["readiness"], json!({ "refused": "its disk is full" }));
    stop(nodes).await;
}

#[tokio::test]
async fn unreadable_records_are_shown_beside_the_others() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = nodes(&etcd, &["a"]).await;
    by_hand(&etcd, "c/view/nodes/bad", "garbage").await;
    by_hand(&etcd, "c/ready/bad", "[]").await;
    let said = clustering(&etcd, &["status"]).await;
    let out = said.ended(0);
    assert!(out.contains("c/view/nodes/bad (expected value") && out.contains("c/ready/bad ("), "{out}");
    by_hand(&etcd, "c/view/leader", "garbage").await;
    let said = clustering(&etcd, &["status"]).await;
    let out = said.ended(1);
    assert!(out.contains("leader    unreadable") && out.contains("delete the key below"), "{out}");
    stop(nodes).await;
}

#[tokio::test]
async fn unknown_states_exit_with_2_and_name_the_reason() {
    let etcd = EtcdServer::start().await.unwrap();
    clustering(&etcd, &["status"])
        .await
        .refused(2, &["no cluster in the namespace c", "clustering services"]);
    // The option takes precedence over the variable.
    clustering(&etcd, &["status", "--namespace", "d"]).await.refused(2, &["namespace d"]);
    clustering(&etcd, &["status", "-n", "a//b"]).await.refused(2, &["namespace \"a//b\" cannot be used"]);
    clustering(&etcd, &["status", "--endpoints", "http://"]).await.refused(2, &["endpoint"]);
    let began = Instant::now();
    let closed = "127.0.0.1:1";
    let said = clustering(&etcd, &["status", "--endpoints", closed]).await;
    said.refused(2, &["the store cannot be reached", "ETCD_ENDPOINTS"]);
    etcd.pause().unwrap();
    let said = clustering(&etcd, &["status", "--command-timeout", "500ms"]).await;
    said.refused(2, &["no answer within 500ms", "--command-timeout"]);
    assert!(began.elapsed() < crate::harness::LONG);
    etcd.resume().unwrap();
}

#[tokio::test]
async fn missing_permissions_are_named_and_passwords_come_from_several_sources() {
    let etcd = users::server(EtcdServer::builder()).await;
    let with = |args: &[&str], password: Option<&str>, input: &str| {
        let mut command = command();
        command.args(["status", "--endpoints", &etcd.endpoint()]).args(args).write_stdin(input.to_owned());
        password.map(|password| command.env("ETCDCTL_PASSWORD", password));
        run(command)
    };
    let user = &["-n", "telemetry/ingest", "--user", users::USER][..];
    with(&["-n", "c"], None, "").await.refused(2, &["etcd requires a user", "ETCDCTL_USER"]);
    let refused = with(user, Some("wrong"), "").await;
    refused.refused(2, &["wrong user or password"]);
    with(user, None, "").await.refused(2, &["the user ingest needs a password", "--password-file"]);
    // With the right password, from a variable, a file, the input or an option, there is no cluster.
    let none = ["no cluster in the namespace telemetry/ingest"];
    with(user, Some(users::PASSWORD), "").await.refused(2, &none);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{}\n", users::PASSWORD)).unwrap();
    let path = file.path().to_str().unwrap();
    with(&[user, &["--password-file", path]].concat(), Some("wrong"), "").await.refused(2, &none);
    with(&[user, &["--password-file", "-"]].concat(), None, users::PASSWORD).await.refused(2, &none);
    with(&[user, &["--password", users::PASSWORD]].concat(), Some("wrong"), "").await.refused(2, &none);
    let both = format!("{}:{}", users::USER, users::PASSWORD);
    with(&["-n", "telemetry/ingest", "--user", &both], Some("wrong"), "").await.refused(2, &none);
    // If a permission is missing, the error names its keys.
    let foreign = with(&["-n", "c", "--user", users::USER], Some(users::PASSWORD), "").await;
    foreign.refused(2, &["the store refused", "c/view/"]);
    assert!(!foreign.err.contains(users::PASSWORD));
}

/// Returns the number of reads that etcd counted.
fn ranges(metrics: &Metrics) -> f64 {
    metrics.sum("grpc_server_started_total", &[("grpc_method", "Range")])
}

#[tokio::test]
async fn a_thousand_nodes_cost_two_reads_and_less_than_a_second() {
    let etcd = EtcdServer::start().await.unwrap();
    crowd(&etcd, 1000).await;
    let before = ranges(&etcd.metrics().await.unwrap());
    // Take the quickest of several runs, since other tests keep the machine busy.
    let mut quickest = f64::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let said = clustering(&etcd, &["status"]).await;
        quickest = quickest.min(began.elapsed().as_secs_f64());
        assert_eq!(said.ended(0).lines().count(), 1006);
    }
    let reads = (ranges(&etcd.metrics().await.unwrap()) - before) / 5.0;
    println!("1,000 nodes: {reads} requests, {quickest:.3} s");
    assert!(quickest < 1.0, "{quickest} s");
    assert_eq!(reads, 2.0, "one read of view/ and one of ready/");
}
