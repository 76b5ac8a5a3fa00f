//! `serve` and `run --page`: the page in a browser.

use std::{env, process::Stdio};

use clustering_testkit::{etcd::EtcdServer, process::Process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
};

use crate::{
    harness::{LONG, by_hand, clustering, command, crowd, node, nodes, run, soon, stop},
    listen::limit,
    run::{SHELL, service},
    watch::printed,
};

/// A server of the page for the cluster in the namespace `c`.
struct Page {
    process: Process,
    address: String,
}

/// A browser's connection to the stream of states.
struct Reader(Lines<BufReader<TcpStream>>);

impl Reader {
    /// Reads the states until one satisfies the condition.
    async fn until(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let found = async {
            loop {
                let line = self.0.next_line().await.unwrap().expect("the stream does not end");
                let state = line.strip_prefix("data: {").map(|text| format!("{{{text}"));
                let Some(state) = state else { continue };
                let state: Value = serde_json::from_str(&state).unwrap();
                if holds(&state) {
                    return state;
                }
                last = Some(state);
            }
        };
        match tokio::time::timeout(LONG, found).await {
            Ok(state) => state,
            Err(_) => panic!("{what} did not come, only {last:?}"),
        }
    }
}

impl Page {
    /// Starts node `a` with the page.
    async fn of_a_node(etcd: &EtcdServer, options: &[&str]) -> Self {
        let options = [&["--listen", "127.0.0.1:0", "--page"], options].concat();
        let process = service(etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
        let text = printed(&process, &["a: the cluster in a browser at http://", "/\n"]).await;
        let address = text.split("browser at http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Page { process, address }
    }

    /// Ends a node, while streams may be open.
    async fn end_of_the_node(self) {
        self.process.terminate().unwrap();
        let status = soon("the end", self.process.wait()).await.unwrap();
        assert_eq!(status.code(), Some(7), "{}", self.process.log());
    }

    async fn open(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        // Fails if the server has already closed the connection to make room for others.
        let _ = stream.write_all(request.replace('\n', "\r\n").as_bytes()).await;
        stream
    }

    async fn reader(&self) -> Reader {
        let request = format!("GET /state HTTP/1.1\nHost: {}\n\n", self.address);
        Reader(BufReader::new(self.open(&request).await).lines())
    }

    /// Checks that the request gets this status.
    async fn answers(&self, method: &str, path: &str, host: &str, status: u16) {
        let answer =
            self.request(&format!("{method} {path} HTTP/1.1\nHost: {host}\nContent-Length: 0\n\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path} {host}: {answer}");
    }

    async fn serve(etcd: &EtcdServer, listen: &str) -> Self {
        let builder = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env();
        let builder = builder.args(["serve", "-n", "c", "--endpoints", &etcd.endpoint(), "--listen", listen]);
        let process = builder.spawn().unwrap();
        let text = printed(&process, &["serving at http://", "/\n"]).await;
        let address = text.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Page { process, address }
    }

    async fn request(&self, request: &str) -> String {
        let mut response = String::new();
        soon("an answer", self.open(request).await.read_to_string(&mut response)).await.unwrap();
        response
    }

    /// Checks that only the page and its state can be read, and that nothing can be written.
    async fn answers_nothing_else(&self) {
        self.answers("GET", "/", "clusters.example", 403).await;
        self.answers("GET", "/state", "127.0.0.1.nip.io", 403).await;
        self.answers("GET", "/etc/passwd", &self.address, 404).await;
        self.answers("GET", "/state/..", &self.address, 404).await;
        for path in ["/", "/state"] {
            self.answers("HEAD", path, &self.address, 200).await;
            for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
                self.answers(method, path, &self.address, 405).await;
            }
        }
        // A body is neither read nor waited for.
        let endless = "POST /state HTTP/1.1\nHost: localhost\nContent-Length: 1000000000\n\n";
        assert!(self.request(endless).await.starts_with("HTTP/1.1 405"));
    }

    async fn get(&self, path: &str, host: &str) -> String {
        self.request(&format!("GET {path} HTTP/1.1\nHost: {host}\n\n")).await
    }

    /// Follows the states until one satisfies the condition.
    async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.reader().await.until(what, holds).await
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
    page.answers_nothing_else().await;
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

/// Idle connections and readers that do not read cannot keep others from the page.
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

#[tokio::test]
async fn a_node_shows_no_page_unless_it_is_asked_for() {
    let etcd = EtcdServer::start().await.unwrap();
    for options in [&["--listen", "127.0.0.1:0"][..], &["--listen", "127.0.0.1:0", "--page=false"]] {
        let process = service(&etcd, options, &["sh", "-c", SHELL]).spawn().unwrap();
        let text = printed(&process, &["a: probes and metrics at http://", "\n"]).await;
        let address = text.split("metrics at http://").nth(1).unwrap().lines().next().unwrap().to_owned();
        let page = Page { process, address };
        for path in ["/", "/state"] {
            page.answers("GET", path, &page.address, 404).await;
        }
        page.answers("GET", "/livez", &page.address, 200).await;
        assert!(!page.process.log().contains("browser"), "{}", page.process.log());
        page.end_of_the_node().await;
    }
}

#[tokio::test]
async fn a_page_without_an_address_is_refused_before_anything_starts() {
    let etcd = EtcdServer::start().await.unwrap();
    let with = |options: &[&str], listen: &str, page: &str| {
        let mut command = command();
        command.args(["run", "-n", "c", "--endpoints", &etcd.endpoint(), "--uri", "http://a.test:80"]);
        command.args(options).args(["--", "echo", "started"]);
        command.env("CLUSTERING_LISTEN", listen).env("CLUSTERING_PAGE", page);
        run(command)
    };
    let parts = ["--page needs --listen", "CLUSTERING_PAGE", "CLUSTERING_LISTEN"];
    for (options, page) in [(&["--page"][..], ""), (&[], "true")] {
        let said = with(options, "", page).await;
        said.refused(2, &parts);
        assert_eq!(said.out, "");
    }
    with(&["--page=maybe"], "127.0.0.1:0", "").await.refused(2, &["expected true or false"]);
    with(&[], "127.0.0.1:0", "true").await.ended(0);
    with(&[], "", "false").await.ended(0);
}

/// The page and the probes answer from the start, even while etcd is away.
#[tokio::test]
async fn the_page_of_a_node_waits_for_the_store() {
    let etcd = EtcdServer::start().await.unwrap();
    etcd.kill().await.unwrap();
    let page = Page::of_a_node(&etcd, &[]).await;
    let mut reader = page.reader().await;
    let state = reader.until("a store that is away", |state| state["away"].is_string()).await;
    assert_eq!((&state["is_known"], &state["report"]), (&json!(false), &Value::Null));
    let sentence = state["verdict"]["text"].as_str().unwrap();
    assert!(sentence.contains("etcd does not answer") && sentence.contains("waits for etcd"), "{sentence}");
    page.answers("GET", "/livez", &page.address, 200).await;
    page.answers("GET", "/readyz", &page.address, 503).await;

    etcd.restart().await.unwrap();
    let is_stable = |state: &Value| state["report"]["condition"]["state"] == "stable";
    let state = reader.until("a stable cluster", is_stable).await;
    assert_eq!(state["verdict"], json!({ "tone": "good", "text": "Stable, its one node is ready." }));
    assert_eq!((&state["is_known"], &state["away"]), (&json!(true), &Value::Null));

    etcd.kill().await.unwrap();
    let state = reader.until("a store that is away", |state| state["away"].is_string()).await;
    assert_eq!(state["report"]["nodes"][0]["name"], "a", "the last known state is still shown");
    assert!(state["verdict"]["text"].as_str().unwrap().contains("last known state"), "{state}");
    page.answers("GET", "/livez", &page.address, 200).await;
    etcd.restart().await.unwrap();
    reader.until("a stable cluster", |state| is_stable(state) && state["away"].is_null()).await;
    // The open stream does not delay the end.
    page.end_of_the_node().await;
}

/// Probes answer requests under any name: only the page is for browsers.
#[tokio::test]
async fn the_page_of_a_node_is_read_only_and_for_names_of_this_machine() {
    let etcd = EtcdServer::start().await.unwrap();
    let page = Page::of_a_node(&etcd, &[]).await;
    let answer = page.get("/", &page.address).await;
    assert!(answer.contains("content-security-policy: default-src 'none'; script-src 'nonce-"), "{answer}");
    page.answers_nothing_else().await;
    page.answers("GET", "/livez", "node-1.example", 200).await;
    page.answers("GET", "/metrics", "node-1.example", 200).await;
    page.end_of_the_node().await;
}

/// Clients that open the page and do nothing more take nothing away from probes, health checks and other readers.
#[tokio::test]
async fn stuck_readers_of_the_page_of_a_node_do_not_harm_it() {
    let etcd = EtcdServer::start().await.unwrap();
    crowd(&etcd, 500).await;
    limit(std::process::id(), 4096);
    let page = Page::of_a_node(&etcd, &[]).await;
    let mut first = page.reader().await;
    first
        .until("node a", |state| state["report"]["nodes"].as_array().is_some_and(|nodes| nodes.len() == 501))
        .await;
    let mut stuck = Vec::new();
    let request = |path: &str| format!("GET {path} HTTP/1.1\nHost: localhost\n\n");
    for number in 0..1_000 {
        stuck.push(match number % 3 {
            0 => page.open("").await,
            1 => page.open("GET /state HTTP/1.1\nHost: ").await,
            _ => page.open(&request("/")).await,
        });
        if number % 100 == 0 {
            page.answers("GET", "/livez", &page.address, 200).await;
        }
    }
    // None of them has pushed out a reader that came before.
    by_hand(&etcd, "c/view/nodes/late", r#"{"uri":"http://h:1","incarnation":"x"}"#).await;
    let has_changed = |state: &Value| {
        let nodes = state["report"]["nodes"].as_array();
        nodes.is_some_and(|nodes| nodes.iter().any(|node| node["name"] == "late"))
    };
    first.until("the change", has_changed).await;
    for _ in 0..100 {
        stuck.push(page.open(&request("/state")).await);
    }
    page.answers("GET", "/livez", &page.address, 200).await;
    page.until("the change", has_changed).await;
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", page.process.pid())).unwrap().count();
    assert!(descriptors < 150, "{descriptors} descriptors");
    assert!(!page.process.log().contains("session lost"), "{}", page.process.log());
    page.end_of_the_node().await;
}

#[tokio::test]
async fn a_reader_that_is_slow_gets_the_newest_state_and_others_do_not_wait() {
    let etcd = EtcdServer::start().await.unwrap();
    crowd(&etcd, 500).await;
    let page = Page::serve(&etcd, "127.0.0.1:0").await;
    let mut slow = page.reader().await;
    let (mut one, mut two) = (page.reader().await, page.reader().await);
    let mut last = None;
    for number in 0..40 {
        let name = format!("late-{number}");
        by_hand(&etcd, &format!("c/view/nodes/{name}"), r#"{"uri":"http://h:1","incarnation":"x"}"#).await;
        let has = |state: &Value| {
            state["report"]["nodes"]
                .as_array()
                .is_some_and(|nodes| nodes.iter().any(|node| node["name"] == name))
        };
        one.until(&name, has).await;
        last = Some(two.until(&name, has).await);
    }
    let count = last.unwrap()["report"]["nodes"].as_array().unwrap().len();
    let is_newest =
        |state: &Value| state["report"]["nodes"].as_array().is_some_and(|nodes| nodes.len() == count);
    slow.until("the newest state", is_newest).await;
    page.end().await;
}

#[tokio::test]
async fn the_page_is_served_at_ipv6_addresses_and_at_all_addresses() {
    let etcd = EtcdServer::start().await.unwrap();
    let page = Page::serve(&etcd, "[::1]:0").await;
    page.answers("GET", "/", &page.address, 200).await;
    page.answers("GET", "/", "clusters.example", 403).await;
    page.end().await;
    let page = Page::serve(&etcd, ":0").await;
    assert!(page.address.starts_with("localhost:"), "{}", page.address);
    // Without a loopback address, names say nothing about who asks.
    page.answers("GET", "/", "clusters.example", 200).await;
    page.end().await;
}

#[tokio::test]
async fn an_address_in_use_is_reported() {
    let etcd = EtcdServer::start().await.unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    let said = clustering(&etcd, &["serve", "--listen", &busy]).await;
    said.refused(2, &["cannot listen at", "Address already in use", "use another port", "--listen"]);
}

/// Returns the browser to test with; `None` if `CLUSTERING_TEST_BROWSER` is `none`.
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

/// The first sentence names the node that blocks, with its reason.
#[tokio::test]
async fn a_browser_says_first_who_blocks_and_why() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = nodes(&etcd, &["b"]).await;
    let refuses = |_: clustering_core::Stabilization| async { Err::<(), _>("its disk is full") };
    let blocker = node(&etcd, "c").stabilize(refuses).start().await.unwrap();
    let page = Page::of_a_node(&etcd, &[]).await;
    let sentence = "✕ Not stable: waiting for 1 of 3 nodes: c refused: its disk is full.</span>";
    if let Some(document) = loaded(&page, &[sentence, "2 of 3 ready"]).await {
        let first = document.split("id=\"late\"").nth(1).unwrap();
        assert!(first.split("</tr>").next().unwrap().contains(">c</td>"), "{first}");
    }
    page.end_of_the_node().await;
    blocker.stop().await.unwrap();
    stop(nodes).await;
}

/// The page shows the metadata of nodes as text, even if it looks like markup.
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
