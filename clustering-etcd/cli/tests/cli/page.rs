//! `serve`: the page in a browser.

use std::{env, process::Stdio};

use clustering_testkit::{etcd::EtcdServer, process::Process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::{
    harness::{LONG, by_hand, crowd, nodes, soon, stop},
    watch::printed,
};

/// A server of the page for the cluster in the namespace `c`.
struct Page {
    process: Process,
    address: String,
}

impl Page {
    async fn serve(etcd: &EtcdServer, listen: &str) -> Self {
        let builder = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env();
        let builder = builder.args(["serve", "-n", "c", "--endpoints", &etcd.endpoint(), "--listen", listen]);
        let process = builder.spawn().unwrap();
        let text = printed(&process, &["serving at http://", "/\n"]).await;
        let address = text.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Page { process, address }
    }

    async fn request(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.replace('\n', "\r\n").as_bytes()).await.unwrap();
        let mut response = String::new();
        soon("an answer", stream.read_to_string(&mut response)).await.unwrap();
        response
    }

    async fn get(&self, path: &str, host: &str) -> String {
        self.request(&format!("GET {path} HTTP/1.1\nHost: {host}\n\n")).await
    }

    /// Follows the states until one satisfies the condition.
    async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request = format!("GET /state HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        let found = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the stream does not end");
                let state = line.strip_prefix("data: ").map(|text| serde_json::from_str(text).unwrap());
                if let Some(state) = state.filter(|state| holds(state)) {
                    return state;
                }
            }
        };
        soon(what, found).await
    }

    async fn end(self) {
        self.process.terminate().unwrap();
        let status = soon("the end", self.process.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.process.log());
    }
}

#[tokio::test]
async fn the_page_follows_the_cluster_and_answers_nothing_else() {
    let etcd = EtcdServer::start().await.unwrap();
    let page = Page::serve(&etcd, "127.0.0.1:0").await;
    page.until("no cluster", |state| state["report"].is_null() && state["namespace"] == "c").await;

    let nodes = nodes(&etcd, &["a", "b"]).await;
    let state = page.until("a stable cluster", |state| {
        state["report"]["condition"]["state"] == "stable" && state["report"]["nodes"][1]["name"] == "b"
    });
    let state = state.await;
    assert_eq!(state["state"], json!(["stable, all 2 nodes are ready"]));
    let newest = &state["versions"][0];
    assert_eq!((&newest["course"], &newest["nodes"]), (&json!("stable"), &json!(2)), "{state}");
    let steps: Vec<&str> =
        state["life"].as_array().unwrap().iter().map(|step| step["text"].as_str().unwrap()).collect();
    assert!(steps.first().is_some_and(|step| step.starts_with("published with")), "{steps:?}");
    assert!(steps.contains(&"b is ready") && steps.last() == Some(&"stable"), "{steps:?}");

    let answer = page.get("/", &page.address).await;
    let policy = "content-security-policy: default-src 'none'; script-src 'nonce-";
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(policy), "{answer}");
    let refusals = [
        (page.get("/", "clusters.example").await, "403"),
        (page.get("/state", "127.0.0.1.nip.io").await, "403"),
        (page.get("/etc/passwd", &page.address).await, "404"),
        (
            page.request(&format!("POST /state HTTP/1.1\nHost: {}\nContent-Length: 0\n\n", page.address))
                .await,
            "405",
        ),
    ];
    for (answer, status) in refusals {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    stop(nodes).await;
    page.until("an empty cluster", |state| state["report"]["condition"]["state"] == "empty").await;
    page.end().await;
}

#[tokio::test]
async fn the_page_says_that_the_store_is_away_and_goes_on_when_it_is_back() {
    let etcd = EtcdServer::start().await.unwrap();
    let page = Page::serve(&etcd, "127.0.0.1:0").await;
    let nodes = nodes(&etcd, &["a"]).await;
    page.until("a stable cluster", |state| state["report"]["condition"]["state"] == "stable").await;
    etcd.kill().await.unwrap();
    let state = page.until("a store that is away", |state| state["away"].is_string()).await;
    assert_eq!(state["report"]["nodes"][0]["name"], "a", "the last known state is still shown");
    etcd.restart().await.unwrap();
    page.until("a store that is back", |state| state["away"].is_null()).await;
    stop(nodes).await;
    page.end().await;
}

/// Connections of strangers, and readers that do not read, keep nobody else from the page.
#[tokio::test]
async fn strangers_cannot_block_the_page() {
    let etcd = EtcdServer::start().await.unwrap();
    let page = Page::serve(&etcd, "127.0.0.1:0").await;
    crowd(&etcd, 500).await;
    let mut idle = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(&page.address).await.unwrap();
        if number % 2 == 0 {
            let request = format!("GET /state HTTP/1.1\r\nHost: {}\r\n\r\n", page.address);
            // An older connection may have been closed to make room for this one, but this one is open.
            stream.write_all(request.as_bytes()).await.unwrap();
        }
        idle.push(stream);
    }
    assert!(page.get("/", &page.address).await.starts_with("HTTP/1.1 200"));
    page.until("all nodes", |state| {
        state["report"]["nodes"].as_array().is_some_and(|nodes| nodes.len() == 500)
    })
    .await;
    drop(idle);
    page.end().await;
}

/// Returns the browser to test with; `None` if `CLUSTERING_TEST_BROWSER=none` says that there is none.
fn browser() -> Option<String> {
    match env::var("CLUSTERING_TEST_BROWSER") {
        Ok(none) if none == "none" => {
            println!("skipped: CLUSTERING_TEST_BROWSER=none");
            None
        }
        Ok(browser) => Some(browser),
        Err(_) => Some("chromium".to_owned()),
    }
}

/// Loads the page in a headless browser, and returns the document after some seconds.
async fn document(browser: &str, page: &Page, home: &std::path::Path) -> String {
    let mut command = tokio::process::Command::new(browser);
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", "--timeout=5000"]);
    command.arg(format!("--user-data-dir={}", home.display())).arg(format!("http://{}/", page.address));
    command.env("HOME", home).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LONG, command.output()).await.expect("the browser ends");
    let output = output.unwrap_or_else(|error| {
        panic!("cannot run {browser}: {error}. Install it, or set CLUSTERING_TEST_BROWSER to another one or to none")
    });
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for a document with all these parts. A busy machine may need longer than the browser waits.
async fn loaded(page: &Page, parts: &[&str]) -> Option<String> {
    let browser = browser()?;
    let home = tempfile::tempdir().unwrap();
    let mut last = String::new();
    let loading = async {
        loop {
            last = document(&browser, page, home.path()).await;
            if parts.iter().all(|part| last.contains(part)) {
                return;
            }
        }
    };
    let done = tokio::time::timeout(LONG, loading).await;
    assert!(done.is_ok(), "not all of {parts:?} in {last}");
    Some(last)
}

#[tokio::test]
async fn a_browser_shows_500_nodes() {
    let etcd = EtcdServer::start().await.unwrap();
    crowd(&etcd, 500).await;
    let page = Page::serve(&etcd, "127.0.0.1:0").await;
    let parts = ["<b id=\"count\">500</b>", ">stable</span>", "ingest-0000", "ingest-0499", "zone=a"];
    if let Some(document) = loaded(&page, &parts).await {
        assert_eq!(document.matches("class=\"name\"").count(), 500);
        assert!(document.contains("leader <b id=\"leader\">ingest-0000, term"), "{}", &document[..4000]);
    }
    page.end().await;
}

/// What nodes say about themselves is text, whatever it looks like.
#[tokio::test]
async fn a_browser_takes_no_markup_from_records() {
    let etcd = EtcdServer::start().await.unwrap();
    crowd(&etcd, 2).await;
    let attack = "<img src=x onerror=document.title=1><script>document.title=2</script>";
    let record = json!({ "uri": attack, "incarnation": "x", "metadata": { "zone": attack } });
    by_hand(&etcd, "c/view/nodes/x", &record.to_string()).await;
    let page = Page::serve(&etcd, "127.0.0.1:0").await;
    if let Some(document) = loaded(&page, &["&lt;img src=x onerror=document.title=1&gt;&lt;script&gt;"]).await
    {
        assert!(!document.contains("<img") && !document.contains("<script>document"), "{document}");
        assert!(document.contains("<title>due · c</title>"), "{document}");
    }
    page.end().await;
}
