//! Text from other processes cannot control the terminal, or forge lines and columns.

use clustering_core::Clustering;
use clustering_testkit::etcd::EtcdServer;
use serde_json::{Value, json};

use crate::{
    harness::{by_hand, clustering, clustering_with, node, nodes, soon, stop},
    run::{SHELL, service},
    watch::printed,
};

/// Text that clears the screen, sets the title, forges a line and a column, and changes colours (with a C1 character)
/// and the direction of text.
const HOSTILE: &str = "x\u{1b}[2J\u{1b}]0;mine\u{7} y\r\nforged\tcell\u{7f} \u{9b}31m \u{202e}back\u{200b}";

/// Checks that the text contains no character that a terminal executes or hides, except for those in `allowed`.
#[track_caller]
fn is_harmless(what: &str, text: &str, allowed: &[char]) {
    let hidden = ['\u{202e}', '\u{200b}'];
    let bad = text.chars().find(|c| (c.is_control() || hidden.contains(c)) && !allowed.contains(c));
    assert_eq!(bad, None, "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.trim_start().starts_with("forged")), "{what}: {text}");
}

/// Starts a cluster in which all text from other processes is hostile.
async fn cluster(etcd: &EtcdServer) -> Vec<Clustering> {
    let mut nodes = nodes(etcd, &["a"]).await;
    let record = json!({ "uri": format!("http://{HOSTILE}"), "incarnation": "01HF7YAT000000000000000000" });
    by_hand(etcd, "c/view/nodes/x", &record.to_string()).await;
    let b = node(etcd, "b").metadata("zone", HOSTILE).stabilize(|_| async { Err::<(), _>(HOSTILE) });
    let mut events = b.events();
    nodes.push(b.start().await.unwrap());
    soon("a refusal in the store", async {
        let mut refusals = 0;
        while refusals < 2 {
            let event = events.recv().await.unwrap();
            refusals += u32::from(matches!(&*event, clustering_core::Event::StabilizeRefused { .. }));
        }
    })
    .await;
    clustering(etcd, &["change", "--why", HOSTILE]).await.ended(0);
    nodes
}

#[tokio::test]
async fn records_cannot_forge_the_output_of_commands() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = cluster(&etcd).await;
    let lines: [&[&str]; 7] = [
        &["status"],
        &["why"],
        &["history"],
        &["services"],
        &["wait", "--timeout", "200ms"],
        &["watch", "--for", "500ms"],
        &["placement"],
    ];
    let mut all = String::new();
    for args in lines {
        let said = clustering_with(&etcd, args, "k\n").await;
        is_harmless(args[0], &said.out, &['\n']);
        is_harmless(args[0], &said.err, &['\n']);
        all += &(said.out + &said.err);
    }
    // The escaped texts are shown: the reasons of a refusal and of a request, the URI and the metadata.
    for part in [
        "refused: x\\u{1b}[2J",
        "asked (x\\u{1b}[2J",
        "http://x\\u{1b}[2J\\u{1b}]0;mine\\u{7} y\\r\\nforged\\tcell\\u{7f} \\u{9b}31m \\u{202e}back\\u{200b}",
        "zone=x\\u{1b}",
    ] {
        assert!(all.contains(part), "no {part:?} in {all}");
    }
    // Each line has three cells, whatever they contain.
    let keys = ["find", "-c", "3", "k", HOSTILE];
    let said = clustering(&etcd, &keys).await;
    is_harmless("find", said.ended(0), &['\n', '\t']);
    assert_eq!(said.out.lines().count(), 6, "{said:?}");
    assert!(said.out.lines().all(|line| line.split('\t').count() == 3), "{said:?}");

    for args in
        [&["status", "--json"][..], &["why", "--json"], &["history", "--json"], &["find", "--json", "k"]]
    {
        let said = clustering(&etcd, args).await;
        is_harmless(args[0], &said.out, &['\n']);
        said.out.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
    }
    let shown = clustering(&etcd, &["status", "--json"]).await.json();
    assert_eq!(shown["nodes"][1]["metadata"]["zone"], HOSTILE);
    stop(nodes).await;
}

#[tokio::test]
async fn hooks_and_records_cannot_forge_the_log_of_run() {
    let etcd = EtcdServer::start().await.unwrap();
    let hook = r"printf '\033[2J bad\r\033]0;mine\007\302\2331m\nforged\tcell\n' >&2; exit 1";
    for options in [&["--stabilize", hook][..], &["--stabilize", hook, "--json"]] {
        let a = service(&etcd, options, &["sh", "-c", SHELL]).spawn().unwrap();
        printed(&a, &["stabilize_refused"][..usize::from(options.len() > 2)]).await;
        let record =
            json!({ "uri": format!("http://{HOSTILE}"), "incarnation": "01HF7YAT000000000000000000" });
        by_hand(&etcd, "c/view/nodes/x", &record.to_string()).await;
        let seen = if options.len() > 2 { "http://x\\u001b" } else { "http://x\\u{1b}" };
        printed(&a, &[seen]).await;
        printed(&a, &["forged\\tcell"]).await;
        by_hand(&etcd, "c/view/nodes/x", "{}").await;
        a.terminate().unwrap();
        soon("the end of the command", a.wait()).await.unwrap();
        is_harmless("run", &a.log(), &['\n']);
    }
}
