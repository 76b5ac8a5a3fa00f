//! Rolling updates and crash detection: what `status`, `why`, `watch`, `find`, `placement` and `history` show of them,
//! and the options of `run`.

use clustering_core::{CrashDetection, slots::SlotCount, store::CoordinationStoreExt};
use clustering_testkit::{etcd::EtcdServer, process::Process};
use serde_json::{Value, json};

use crate::{
    harness::{clustering, clustering_with, command, node, run, soon, stable, store},
    listen::Client,
    run::{SHELL, registered, service},
    slots::ByHand,
    watch::printed,
};

/// Writes the records of an exclusive cluster in which slots wait for `n-2`.
async fn waiting(etcd: &EtcdServer) -> ByHand {
    let mut cluster = ByHand::new(etcd, "c");
    cluster.node("n-1").await;
    let fields = json!({"cause": [{"crashed": "n-2"}], "kept": {"n-2": 20_000}});
    cluster.publish_with(8, &["n-1", "n-2"], fields).await;
    cluster.acknowledges(&["n-1"]).await;
    cluster.released().await;
    cluster.stable().await;
    cluster
}

#[tokio::test]
async fn slots_that_wait_for_an_absent_node_are_explained_and_how_to_end_the_wait() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut cluster = waiting(&etcd).await;
    let said = clustering(&etcd, &["status"]).await;
    let wanted = "Z: the process of n-2 is gone\n\
                  slots     8\n          4 wait for n-2 to come back, for up to 20s\n          \
                  to end the wait: clustering cordon n-2\nstate     stable, its one node is ready\n";
    assert!(said.ended(0).contains(wanted), "{said:?}");
    let shown = clustering(&etcd, &["status", "--json"]).await.json();
    let kept = json!([{"name": "n-2", "slots": [1, 3, 5, 7], "keep_ms": 20_000}]);
    assert_eq!((&shown["slots"]["kept"], &shown["slots"]["unowned"]), (&kept, &json!([])));
    assert_eq!(shown["version"]["causes"], json!([{"crashed": "n-2"}]));

    let said = clustering(&etcd, &["why"]).await;
    for part in [
        "\nbecause the process of n-2 is gone\nslots wait for n-2\n",
        "\nslots: 8; 4 wait for n-2 to come back, for up to 20s; to end the wait: clustering cordon n-2\n",
        "\n  slots wait for a node that has a restart grace, and for nodes that were lost at about the same time",
    ] {
        assert!(said.ended(0).contains(part), "no {part:?} in {}", said.out);
    }
    assert!(
        !said.out.contains("get one in the next version") && !said.out.contains("common cause"),
        "{said:?}"
    );
    let said = clustering(&etcd, &["history"]).await;
    assert!(said.ended(0).contains("  the process of n-2 is gone; slots wait for n-2\n"), "{said:?}");
    let shown = clustering(&etcd, &["history", "--json"]).await.json();
    assert_eq!(shown["kept"], json!({"n-2": 20_000}));

    // Most owners are absent.
    cluster.node("n-2").await;
    cluster.delete("view/nodes/n-2").await;
    let fields = json!({"cause": [], "kept": {"n-2": 15_000, "n-3": 15_000}});
    cluster.publish_with(8, &["n-1", "n-2", "n-3"], fields).await;
    let said = clustering(&etcd, &["why"]).await;
    assert!(
        said.ended(0).contains("most nodes that own slots are absent: look for a common cause"),
        "{said:?}"
    );
}

#[tokio::test]
async fn keys_of_slots_that_wait_have_no_node_and_do_not_move() {
    let etcd = EtcdServer::start().await.unwrap();
    let _cluster = waiting(&etcd).await;
    let count = SlotCount::new(8).unwrap();
    let mut keys = (0..).map(|number| format!("device-{number}"));
    let key = keys.find(|key| count.slot_of(key).number() == 3).unwrap();
    let wanted = [
        &*format!("no node takes \"{key}\": slot 3 waits for n-2 to come back\n"),
        "  to end the wait: clustering cordon n-2\n",
    ];
    clustering(&etcd, &["find", &key]).await.refused(1, &wanted);
    // The view that a hook gets says the same.
    let view = json!({
        "nodes": [{"name": "n-1", "uri": "http://x:1"}],
        "slots": {"count": 8, "owners": {"n-1": [0, 2, 4, 6]}, "kept": {"n-2": [1, 3, 5, 7]}}
    });
    let args = ["find", "--view", "-", "--endpoints", "127.0.0.1:1", &key];
    clustering_with(&etcd, &args, &view.to_string()).await.refused(1, &wanted);

    let said = clustering(&etcd, &["placement"]).await;
    let out = said.ended(0);
    assert!(out.contains("\n4 slots wait for n-2 to come back, and stay where they are\n"), "{out}");
    assert!(out.contains("\nwith new-1: 2 of 8 slots move\nwithout n-1: 4 of 8 slots move\n"), "{out}");
    assert_eq!(clustering(&etcd, &["placement", "--json"]).await.json()["kept"], json!({"n-2": 4}));
    // The other four slots are balanced by weight.
    let said = clustering(&etcd, &["placement", "--add", "x=3"]).await;
    assert!(said.ended(0).contains("\nwith x: 3 of 8 slots move\n"), "{said:?}");
}

#[tokio::test]
async fn a_version_that_waits_for_more_nodes_is_explained() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut cluster = ByHand::new(&etcd, "c");
    for name in ["n-1", "n-2"] {
        cluster.node(name).await;
    }
    let builder = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env();
    let watch = builder.args(["watch", "-n", "c", "--endpoints", &etcd.endpoint()]).spawn().unwrap();
    printed(&watch, &["there is no leader"]).await;
    cluster.publish_with(8, &["n-1", "n-2"], json!({"cause": [], "min_nodes": 3})).await;
    cluster.acknowledges(&["n-1", "n-2"]).await;
    let said = clustering(&etcd, &["status"]).await;
    assert!(said.ended(1).contains("state     not stable: waits for 3 nodes, 2 are present\n"), "{said:?}");
    let said = clustering(&etcd, &["why"]).await;
    let wanted = "\nnot stable: waits for 3 nodes, 2 are present\n  \
                  version 4 waits for 3 nodes, 2 are present: start the others, or lower --min-nodes\n";
    assert!(said.ended(0).contains(wanted), "{said:?}");
    let shown = clustering(&etcd, &["status", "--json"]).await.json();
    assert_eq!(shown["condition"], json!({"state": "waiting_for_nodes", "nodes": 2, "min_nodes": 3}));
    assert_eq!(shown["version"]["min_nodes"], json!(3));
    let said = clustering(&etcd, &["wait", "--timeout", "100ms"]).await;
    said.refused(1, &["not stable within 100ms", "waits for 3 nodes"]);
    printed(&watch, &["has 2 nodes and the cluster begins with 3"]).await;

    // Later shortfalls are only mentioned.
    cluster.publish_with(8, &["n-1", "n-2"], json!({"cause": [], "min_nodes": 3, "formed": true})).await;
    cluster.acknowledges(&["n-1", "n-2"]).await;
    cluster.released().await;
    cluster.stable().await;
    let said = clustering(&etcd, &["status"]).await;
    assert!(
        said.ended(0).contains("minimum   3 nodes, only 2 are present; the cluster keeps working\n"),
        "{said:?}"
    );
    printed(&watch, &["has only 2 nodes, fewer than the minimum of 3"]).await;
    watch.terminate().unwrap();
    soon("the end of the command", watch.wait()).await.unwrap();
}

/// Otherwise every table would have columns that say nothing.
#[tokio::test]
async fn settings_of_nodes_are_shown_where_they_differ_from_the_defaults() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = vec![node(&etcd, "a").start().await.unwrap()];
    stable(&nodes).await;
    let said = clustering(&etcd, &["status"]).await;
    let head = said.ended(0).lines().find(|line| line.starts_with("NAME")).unwrap();
    assert_eq!(
        head.split_whitespace().collect::<Vec<_>>(),
        ["NAME", "READINESS", "REGISTERED", "URI", "METADATA"]
    );
    let builder = node(&etcd, "b").priority(0).restart_grace(std::time::Duration::from_secs(90));
    let nodes = [nodes, vec![builder.start().await.unwrap()]].concat();
    stable(&nodes).await;
    let mut cluster = ByHand::new(&etcd, "c");
    let lease = cluster.plain("c-1").await;
    let endpoint = json!({"address": "10.0.0.1:7946", "process": "01ARZ3NDEKTSV4RRFFQ69G5FAV"});
    let record =
        json!({"uri": "http://10.0.0.1:80", "incarnation": "x", "priority": 100, "endpoint": endpoint});
    cluster.put("view/nodes/c-1", record, Some(lease)).await;
    let said = clustering(&etcd, &["status"]).await;
    let rows: Vec<Vec<_>> = said.out.lines().map(|line| line.split_whitespace().collect()).collect();
    let head = rows.iter().position(|row| row.first() == Some(&"NAME")).unwrap();
    assert_eq!(rows[head][2..5], ["PRIORITY", "GRACE", "ENDPOINT"]);
    let settings: Vec<_> = rows[head + 1..].iter().map(|row| row.iter().rev().nth(4).unwrap()).collect();
    assert_eq!(settings, [&"-", &"0", &"-"], "{}", said.out);
    assert!(said.out.contains("  0         1m30s  -  "), "{}", said.out);
    assert!(said.out.contains("  -         -      10.0.0.1:7946  "), "{}", said.out);
    let shown = clustering(&etcd, &["status", "--json"]).await.json();
    assert_eq!(
        (&shown["nodes"][1]["priority"], &shown["nodes"][1]["restart_grace_ms"]),
        (&json!(0), &json!(90_000))
    );
    assert_eq!(shown["nodes"][2]["endpoint"]["address"], "10.0.0.1:7946");
    crate::harness::stop(nodes).await;
}

/// Returns a record of the cluster.
async fn record(etcd: &EtcdServer, key: &str) -> Value {
    let entry = store(etcd).get(&format!("c/{key}")).await.unwrap().expect("the record");
    serde_json::from_slice(&entry.value).unwrap()
}

#[tokio::test]
async fn a_node_publishes_its_settings_and_says_how_long_its_slots_wait_when_it_is_stopped() {
    let etcd = EtcdServer::start().await.unwrap();
    let options = ["--exclusive", "8", "--priority", "7", "--restart-grace", "30s"];
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["up\n", "stable at"]).await;
    let own = record(&etcd, "view/nodes/a").await;
    assert_eq!((&own["priority"], &own["restart_grace_ms"]), (&json!(7), &json!(30_000)));
    let b = node(&etcd, "b").exclusive(8).start().await.unwrap();
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    printed(&a, &["releasing all slots, which wait for this node for 30s, and leaving the cluster;"]).await;
    assert_eq!(record(&etcd, "view/gone").await["keep_ms"], json!(30_000));
    assert_eq!(registered(&etcd).await, 1);
    b.stop().await.unwrap();
}

/// A program that has crashed is started again by its supervisor; one that has finished is not.
#[tokio::test]
async fn slots_wait_for_a_program_that_crashed_but_not_for_one_that_finished() {
    let etcd = EtcdServer::start().await.unwrap();
    let b = node(&etcd, "b").exclusive(8).start().await.unwrap();
    for (code, keep) in [(9, json!(30_000)), (0, Value::Null)] {
        let options = ["--exclusive", "8", "--restart-grace", "30s", "--start-when", "joined"];
        let a = service(&etcd, &options, &["sh", "-c", &format!("exit {code}")]).spawn().unwrap();
        assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(code), "{}", a.log());
        let departure = record(&etcd, "view/gone").await;
        assert_eq!((&departure["node"], &departure["keep_ms"]), (&json!("a"), &keep));
    }
    b.stop().await.unwrap();
}

#[tokio::test]
async fn settings_come_from_variables_and_empty_ones_count_as_unset() {
    let etcd = EtcdServer::start().await.unwrap();
    let variables = [
        ("CLUSTERING_PRIORITY", "", "5"),
        ("CLUSTERING_RESTART_GRACE", "", "1m"),
        ("CLUSTERING_MIN_NODES", "", "1"),
        ("CLUSTERING_DETECT_CRASHES", "", "false"),
        ("CLUSTERING_ADVERTISE", "", ""),
        ("CLUSTERING_TRUST_REFUSED", "", "false"),
    ];
    for (priority, grace) in [(100, Value::Null), (5, json!(60_000))] {
        let mut builder = service(&etcd, &[], &["sh", "-c", SHELL]);
        for (name, empty, set) in variables {
            builder = builder.env(name, if priority == 5 { set } else { empty });
        }
        let a = builder.spawn().unwrap();
        printed(&a, &["up\n", "stable at"]).await;
        let own = record(&etcd, "view/nodes/a").await;
        assert_eq!((&own["priority"], &own["restart_grace_ms"]), (&json!(priority), &grace));
        assert_eq!(a.log().contains("--restart-grace has no effect without --exclusive"), priority == 5);
        a.terminate().unwrap();
        soon("the end of the command", a.wait()).await.unwrap();
    }
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_before_anything_starts() {
    let refused = async |options: &[&str], parts: &[&str]| {
        let mut command = command();
        command.args(["run", "--uri", "http://a.test:80", "--endpoints", "127.0.0.1:1"]);
        command.args(options).args(["--", "echo", "started"]);
        let said = run(command).await;
        said.refused(2, parts);
        assert_eq!(said.out, "", "{said:?}");
    };
    let named = |options: &[&'static str]| [&["--name", "a"], options].concat();
    refused(&["--restart-grace", "30s"], &["--restart-grace needs --name", "each start has a new one"]).await;
    refused(&named(&["--restart-grace", "2days"]), &["restart_grace", "at most 1 day"]).await;
    refused(&named(&["--restart-grace", "soon"]), &["--restart-grace <TIME>", "expected a time such as 5s"])
        .await;
    refused(&["--priority", "-1"], &["--priority <N>", "expected a whole number from 0"]).await;
    refused(&["--min-nodes", "0"], &["--min-nodes <N>", "expected a whole number from 1"]).await;
    refused(&["--detect-crashes=7946"], &["--detect-crashes", "such as 0.0.0.0:7946, [::]:7946 or :7946"])
        .await;
    refused(&["--detect-crashes", "--advertise", "h:1"], &["--advertise <HOST>", "without a port"]).await;
    refused(&["--advertise", "h"], &["--advertise needs --detect-crashes"]).await;
    refused(&["--trust-refused"], &["--trust-refused needs --detect-crashes"]).await;
    refused(&["--detect-crashes", "--trust-refused=no"], &["--trust-refused", "expected true or false"])
        .await;
}

#[tokio::test]
async fn a_killed_command_is_removed_by_another_node_and_the_cause_is_shown() {
    let etcd = EtcdServer::start().await.unwrap();
    let options = ["--detect-crashes=127.0.0.1:0", "--advertise", "127.0.0.1"];
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["crash detection: other nodes connect to 127.0.0.1:", "stable at"]).await;
    let detection = CrashDetection::new().advertise("127.0.0.1");
    let b = node(&etcd, "b").detect_crashes(detection).start().await.unwrap();
    let mut status = b.status();
    let both = status
        .wait_for(|status| status.is_stable() && status.newest.as_ref().is_some_and(|view| view.len() == 2));
    soon("both nodes", both).await.unwrap();
    let said = clustering(&etcd, &["status"]).await;
    assert_eq!(said.ended(0).matches("  127.0.0.1:").count(), 2, "{said:?}");
    a.kill().await.unwrap();
    stable(std::slice::from_ref(&b)).await;
    let said = clustering(&etcd, &["history"]).await;
    let newest = said.ended(0).lines().nth(1).unwrap();
    assert!(newest.contains("the process of a is gone"), "{said:?}");
    b.stop().await.unwrap();
}

#[tokio::test]
async fn an_address_for_crash_detection_that_is_in_use_is_a_clear_error() {
    let etcd = EtcdServer::start().await.unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let options = [&*format!("--detect-crashes={address}"), "--advertise", "127.0.0.1"];
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(2), "{}", a.log());
    assert!(a.log().contains(&address.to_string()) && a.log().contains("in use"), "{}", a.log());
}

/// Otherwise pods that start one after the other would wait for each other forever.
#[tokio::test]
async fn a_node_is_ready_while_a_new_cluster_waits_for_more_nodes() {
    let etcd = EtcdServer::start().await.unwrap();
    let options = ["--exclusive", "8", "--min-nodes", "2", "--listen", "127.0.0.1:0"];
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["the cluster begins with 2", "a: ready at"]).await;
    let (status, text) = Client::of(&a).await.get("/readyz").await;
    assert_eq!(status, 200, "{text}");
    let said = clustering(&etcd, &["why"]).await;
    assert!(said.ended(0).contains("waits for 2 nodes, 1 is present: start the others"), "{said:?}");
    a.terminate().unwrap();
    soon("the end of the command", a.wait()).await.unwrap();
}
