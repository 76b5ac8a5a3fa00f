//! `run`: programs that know nothing of clusters, as nodes.

use std::{fs, path::Path, time::Duration};

use clustering_core::{Clustering, store::CoordinationStore};
use clustering_testkit::{
    etcd::EtcdServer,
    process::{Folder, Process, ProcessBuilder},
};
use serde_json::{Value, json};

use crate::{
    harness::{LONG, clustering, command, node, nodes, run, soon, stable, stop, store},
    users,
    watch::printed,
};

/// A service in shell: says that it is up, and ends with 7 when it is asked to.
pub(crate) const SHELL: &str = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done";

/// A service in Python: counts USR1, and ends with 40 and that count when it is interrupted.
const PYTHON: &str = "
import signal, sys
count = 0
def counts(*_):
    global count
    count += 1
    print('counted', count, flush=True)
signal.signal(signal.SIGUSR1, counts)
signal.signal(signal.SIGINT, lambda *_: sys.exit(40 + count))
print('up', flush=True)
while True:
    signal.pause()
";

/// `clustering run` as node `a` with these options, to run a program.
pub(crate) fn service(etcd: &EtcdServer, options: &[&str], program: &[&str]) -> ProcessBuilder {
    let builder = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env();
    let builder = builder.args(["run", "-n", "c", "--endpoints", &etcd.endpoint()]);
    let builder = builder.args(["--name", "a", "--uri", "http://a.test:80", "--ttl", "5s"]);
    builder.args(options).arg("--").args(program)
}

/// Waits until the file says all of that, and returns what it says.
async fn says(path: &Path, part: &str) -> String {
    let mut text = String::new();
    let said = async {
        loop {
            text = fs::read_to_string(path).unwrap_or_default();
            if text.contains(part) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let said = tokio::time::timeout(LONG, said).await;
    assert!(said.is_ok(), "no {part:?} in {}: {text}", path.display());
    text
}

/// Waits until the nodes present, as that one knows them, are these.
async fn present(node: &Clustering, names: &[&str]) {
    let mut changes = node.discovery().changes();
    let so = || node.nodes().iter().map(|node| node.name.clone()).collect::<Vec<_>>() == names;
    soon("the nodes", async {
        while !so() {
            let _ = changes.recv().await;
        }
    })
    .await;
}

pub(crate) async fn registered(etcd: &EtcdServer) -> usize {
    store(etcd).read("c/view/nodes/").await.unwrap().entries.len()
}

#[tokio::test]
async fn a_shell_service_is_a_node_with_hooks_and_leaves_with_its_exit_code() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let stabilize = format!("cd {}; env > env; cat > view.new; mv view.new view", folder.path().display());
    let announce = format!("cat > {}", file("stable").display());
    let options =
        ["--metadata", "zone=z1", "--weight", "2", "--stabilize", &stabilize, "--on-stable", &announce];
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["up\n"]).await;
    says(&file("stable"), "\"on_stable\"").await;
    let b = node(&etcd, "b").start().await.unwrap();
    present(&b, &["a", "b"]).await;
    let a_seen = b.nodes()[0].clone();
    assert_eq!(
        (a_seen.uri.as_str(), a_seen.weight().get(), &*a_seen.metadata["zone"]),
        ("http://a.test:80", 2, "z1")
    );
    let version =
        soon("stable", b.wait_stable_after("00000000000000000000000000".parse().unwrap())).await.unwrap();

    let view: Value = serde_json::from_str(&says(&file("view"), &version.to_string()).await).unwrap();
    assert_eq!(
        (&view["hook"], &view["name"], &view["attempt"]),
        (&json!("stabilize"), &json!("a"), &json!(1))
    );
    assert_eq!((&view["joined"], &view["left"], &view["leader"]), (&json!(["b"]), &json!([]), &json!("a")));
    let names: Vec<_> = view["nodes"].as_array().unwrap().iter().map(|node| node["name"].clone()).collect();
    assert_eq!(names, ["a", "b"]);
    let env = says(&file("env"), &version.to_string()).await;
    for line in [
        "CLUSTERING_HOOK=stabilize",
        "CLUSTERING_NAMESPACE=c",
        "CLUSTERING_NAME=a",
        "CLUSTERING_URI=http://a.test:80",
        "CLUSTERING_LEADER=a",
        "CLUSTERING_NODES=2",
        "CLUSTERING_ATTEMPT=1",
        &format!("CLUSTERING_VERSION={version}"),
        &format!("CLUSTERING_TERM={}", b.discovery().newest().unwrap().term()),
    ] {
        assert!(env.lines().any(|entry| entry == line), "no {line} in {env}");
    }
    let stable: Value = serde_json::from_str(&says(&file("stable"), &version.to_string()).await).unwrap();
    assert_eq!((&stable["hook"], &stable["version"]), (&json!("on_stable"), &json!(version.to_string())));

    a.terminate().unwrap();
    let status = soon("its end", a.wait()).await.unwrap();
    assert_eq!(status.code(), Some(7), "{}", a.log());
    // Not by its lease running out: it is gone before the command is.
    assert_eq!(registered(&etcd).await, 1);
    printed(&a, &["bye\n", "a: stopped: it was asked to stop\n"]).await;
    b.stop().await.unwrap();
}

#[tokio::test]
async fn a_python_service_gets_signals_and_its_end_ends_the_node() {
    let etcd = EtcdServer::start().await.unwrap();
    let a = service(&etcd, &[], &["python3", "-c", PYTHON]).spawn().unwrap();
    printed(&a, &["up\n"]).await;
    printed(&a, &["stable at"]).await;
    for count in ["counted 1\n", "counted 2\n"] {
        kill(&a, "USR1");
        printed(&a, &[count]).await;
    }
    kill(&a, "INT");
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(42), "{}", a.log());
    assert_eq!(registered(&etcd).await, 0);

    // One that breaks, and one that is killed.
    let broken = service(&etcd, &[], &["python3", "-c", "raise RuntimeError('broken')"]).spawn().unwrap();
    assert_eq!(soon("its end", broken.wait()).await.unwrap().code(), Some(1), "{}", broken.log());
    let killed = service(&etcd, &[], &["sh", "-c", "kill -KILL $$"]).spawn().unwrap();
    assert_eq!(soon("its end", killed.wait()).await.unwrap().code(), Some(137), "{}", killed.log());
    assert_eq!(registered(&etcd).await, 0);
}

/// Sends a signal to the command alone.
fn kill(process: &Process, signal: &str) {
    let status = std::process::Command::new("kill").args(["-s", signal, &process.pid().to_string()]).status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn a_hook_that_says_no_is_tried_again_and_its_last_words_are_the_reason() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let mended = folder.path().join("mended");
    let hook = format!("test -e {} || {{ echo out; echo its disk is full >&2; exit 3; }}", mended.display());
    let a = service(&etcd, &["--stabilize", &hook], &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["stabilize: its disk is full\n", "refused, attempt 2: exit code 3: its disk is full"])
        .await;
    let said = clustering(&etcd, &["status"]).await;
    assert!(said.ended(1).contains("a refused: exit code 3: its disk is full"), "{said:?}");
    fs::write(mended, "").unwrap();
    clustering(&etcd, &["wait", "--timeout", "60s"]).await.ended(0);
    // Killed by itself, and never ending.
    a.terminate().unwrap();
    soon("its end", a.wait()).await.unwrap();
    let options = ["--stabilize-timeout", "300ms", "--stabilize", "sleep 1000"];
    let b = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&b, &["refused, attempt 2: "]).await;
    b.terminate().unwrap();
    assert_eq!(soon("its end", b.wait()).await.unwrap().code(), Some(7));
}

#[tokio::test]
async fn p3_a_hook_that_is_superseded_is_ended_before_the_next_one_begins() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let calls = folder.path().join("calls");
    let hook = format!(
        "echo begin $CLUSTERING_NODES >> {0}; \
         [ $CLUSTERING_NODES -gt 1 ] || {{ trap 'echo told >> {0}' TERM; while :; do sleep 0.05; done; }}; \
         echo end $CLUSTERING_NODES >> {0}",
        calls.display()
    );
    let options = ["--hook-grace", "500ms", "--stabilize", &hook];
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    says(&calls, "begin 1\n").await;
    let b = node(&etcd, "b").start().await.unwrap();
    let text = says(&calls, "end 2\n").await;
    assert_eq!(text, "begin 1\ntold\nbegin 2\nend 2\n");
    soon("stable", b.wait_stable()).await.unwrap();
    b.stop().await.unwrap();
    a.terminate().unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7));
}

/// Whether the process is paused, by the kernel's word; `None` if there is none.
fn is_paused(pid: &str) -> Option<bool> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok()?;
    Some(stat.rsplit_once(')')?.1.trim_start().starts_with('T'))
}

/// Else it would go on working, its session over, on keys that others have.
#[tokio::test]
async fn p7_what_pauses_the_command_pauses_the_program_and_both_go_on_together() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let pid = folder.path().join("pid");
    let program = format!("echo $$ > {}; {SHELL}", pid.display());
    let a = service(&etcd, &[], &["sh", "-c", &program]).spawn().unwrap();
    printed(&a, &["stable at"]).await;
    let pids = [fs::read_to_string(&pid).unwrap(), a.pid().to_string()];
    let paused = |are: bool| {
        let pids = &pids;
        async move {
            while pids.iter().any(|pid| is_paused(pid) != Some(are)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    soon("both to run", paused(false)).await;
    kill(&a, "TSTP");
    soon("both to be paused", paused(true)).await;
    kill(&a, "CONT");
    soon("both to go on", paused(false)).await;
    a.terminate().unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    assert_eq!(registered(&etcd).await, 0);
}

#[tokio::test]
async fn p7_a_program_does_not_outlive_its_node() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let pid = folder.path().join("pid");
    let program = format!("echo $$ > {}; echo up; exec sleep 1000", pid.display());
    let lives = || {
        let pid = fs::read_to_string(&pid).unwrap();
        // One that has ended, and that nobody has waited for, does not count.
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    let gone = || async {
        while lives() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Killed: nobody is left to look after the program, and it ends all the same.
    let a = service(&etcd, &[], &["sh", "-c", &program]).spawn().unwrap();
    printed(&a, &["stable at"]).await;
    assert!(lives());
    a.kill().await.unwrap();
    soon("the program's end", gone()).await;
    // Taken over: the node ends, and the program with it.
    let a = service(&etcd, &["--name-conflict", "take-over"], &["sh", "-c", &program]).spawn().unwrap();
    printed(&a, &["stable at"]).await;
    let other = service(&etcd, &["--name-conflict", "fail"], &["sh", "-c", SHELL]).spawn().unwrap();
    assert_eq!(soon("its end", other.wait()).await.unwrap().code(), Some(3), "{}", other.log());
    let b = node(&etcd, "a").name_conflict(clustering_core::NameConflict::TakeOver).start().await.unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(3), "{}", a.log());
    assert!(!lives());
    printed(&a, &["clustering: the node has ended"]).await;
    b.stop().await.unwrap();
}

#[tokio::test]
async fn p7_the_end_of_a_session_is_told_and_the_node_comes_back() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = nodes(&etcd, &["b"]).await;
    let a = service(&etcd, &["--on-lost", "echo lost: $CLUSTERING_REASON"], &["sh", "-c", SHELL])
        .spawn()
        .unwrap();
    present(&nodes[0], &["a", "b"]).await;
    clustering(&etcd, &["evict", "a"]).await.ended(0);
    printed(&a, &["session lost", "on_lost: lost: the node's record was removed\n", "joined again"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7));
    stable(&nodes).await;
    stop(nodes).await;
}

#[tokio::test]
async fn what_cannot_work_is_said_and_nothing_is_left_behind() {
    let etcd = EtcdServer::start().await.unwrap();
    let with = |options: &[&str], program: &[&str]| {
        let mut command = command();
        command
            .args(["run", "-n", "c", "--endpoints", &etcd.endpoint()])
            .args(options)
            .arg("--")
            .args(program);
        run(command)
    };
    let uri = ["--uri", "http://a.test:80"];
    with(&uri, &["/no/such/program"]).await.refused(127, &["/no/such/program cannot be run"]);
    with(&uri, &["/etc/passwd"]).await.refused(126, &["/etc/passwd cannot be run"]);
    with(&["--uri", "nonsense"], &["true"]).await.refused(2, &["uri \"nonsense\" cannot be used"]);
    with(&[], &["true"]).await.refused(2, &["--uri"]);
    let secured = [&uri[..], &["--health-url", "https://127.0.0.1/"]].concat();
    with(&secured, &["true"]).await.refused(2, &["must begin with http://", "--health"]);
    with(&[&uri[..], &["--metadata", "x"]].concat(), &["true"]).await.refused(2, &["expected KEY=VALUE"]);
    // All of that before the program starts.
    let folder = Folder::new().unwrap();
    let ran = folder.path().join("ran");
    let ill = [
        (&["--ttl", "100ms"][..], "ttl of 100ms"),
        (&["--metadata", "=x"], "metadata"),
        (&["--weight", "-1"], "-1"),
        (&["--health", "true", "--health-failures", "0"], "0 is not in 1.."),
        (&["--health-interval", "1s"], "--health"),
        (&["--health", "true", "--health-url", "http://127.0.0.1/"], "cannot be used with"),
    ];
    for (options, says) in ill {
        let said = with(&[&uri[..], options].concat(), &["touch", ran.to_str().unwrap()]).await;
        said.refused(2, &[says]);
    }
    assert!(!ran.exists() && registered(&etcd).await == 0);
    // While etcd is away the program runs, and its exit code is the command's.
    let mut command = command();
    command.args(["run", "--endpoints", "127.0.0.1:1"]).args(uri).args(["--", "sh", "-c", "exit 5"]);
    run(command).await.ended(5);
}

#[tokio::test]
async fn a_program_whose_node_is_refused_is_ended() {
    let etcd = users::server(EtcdServer::builder()).await;
    let mut command = command();
    command.args(["run", "-n", "c", "--uri", "http://a.test:80", "--endpoints", &etcd.endpoint()]);
    command.args(["--user", users::USER, "--", "sleep", "1000"]).env("ETCDCTL_PASSWORD", "wrong");
    run(command).await.refused(2, &["wrong user or password"]);
}

/// A service in Python that answers health checks: well while the file is there, and not at all while another one is.
const WEB: &str = "
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while os.path.exists('hang'):
            time.sleep(0.05)
        self.send_response(200 if self.path == '/health?x=1' and os.path.exists('well') else 503)
        self.end_headers()
    def log_message(self, *_):
        pass
os.chdir(sys.argv[1])
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
with open('port.new', 'w') as file:
    file.write(str(server.server_address[1]))
os.rename('port.new', 'port')
server.serve_forever()
";

#[tokio::test]
async fn p11_a_program_that_is_not_well_has_no_place_by_its_url() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let web = Process::builder("python3").args(["-c", WEB, folder.path().to_str().unwrap()]).spawn().unwrap();
    soon("the port", async {
        while !file("port").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let url = format!("http://127.0.0.1:{}/health?x=1", fs::read_to_string(file("port")).unwrap());
    let quick = ["--health-interval", "100ms", "--health-deadline", "1s", "--health-failures", "2"];
    let options = [&["--health-url", &url][..], &quick].concat();
    let b = nodes(&etcd, &["b"]).await;
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    // It does not join before it is well.
    printed(&a, &["unhealthy: ", "/health?x=1: 503 Service Unavailable"]).await;
    present(&b[0], &["b"]).await;
    fs::write(file("well"), "").unwrap();
    present(&b[0], &["a", "b"]).await;
    fs::remove_file(file("well")).unwrap();
    present(&b[0], &["b"]).await;
    printed(&a, &["healthy", "unhealthy, 2 checks in a row: ", "session lost: the node is not healthy"])
        .await;
    fs::write(file("well"), "").unwrap();
    present(&b[0], &["a", "b"]).await;
    // One that hangs is not well either.
    fs::write(file("hang"), "").unwrap();
    present(&b[0], &["b"]).await;
    fs::remove_file(file("hang")).unwrap();
    present(&b[0], &["a", "b"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    drop(web);
    stop(b).await;
}

#[tokio::test]
async fn p11_a_program_that_is_not_well_has_no_place_by_its_command() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let ill = folder.path().join("ill");
    let check = format!("if [ -e {} ]; then echo the disk is gone >&2; exit 1; fi", ill.display());
    let options = ["--health", &check, "--health-interval", "100ms", "--health-failures", "1"];
    let b = nodes(&etcd, &["b"]).await;
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    present(&b[0], &["a", "b"]).await;
    fs::write(&ill, "").unwrap();
    printed(&a, &["unhealthy: exit code 1: the disk is gone\n"]).await;
    present(&b[0], &["b"]).await;
    fs::remove_file(&ill).unwrap();
    present(&b[0], &["a", "b"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    stop(b).await;
}
