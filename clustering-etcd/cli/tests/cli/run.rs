//! `run`: programs as nodes.

use std::{fs, path::Path, time::Duration};

use clustering_core::{Clustering, Term, Version, store::CoordinationStore};
use clustering_testkit::{
    etcd::EtcdServer,
    process::{Folder, Process, ProcessBuilder},
};
use serde_json::{Value, json};

use crate::{
    harness::{LONG, command, node, run, soon, store},
    users,
    watch::printed,
};

/// A service in shell that prints `up`, and exits with code 7 on SIGTERM.
pub(crate) const SHELL: &str = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done";

/// A service in Python that counts SIGUSR1, and exits with code 40 plus this count on SIGINT.
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

/// Returns the builder of `clustering run` for node `a`, with these options and this program.
pub(crate) fn service(etcd: &EtcdServer, options: &[&str], program: &[&str]) -> ProcessBuilder {
    let builder = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env();
    let builder = builder.args(["run", "-n", "c", "--endpoints", &etcd.endpoint()]);
    let builder = builder.args(["--name", "a", "--uri", "http://a.test:80", "--ttl", "5s"]);
    builder.args(options).arg("--").args(program)
}

/// Waits until the file contains the part, and returns its text.
pub(crate) async fn file_with(path: &Path, part: &str) -> String {
    let mut text = String::new();
    let reading = async {
        loop {
            text = fs::read_to_string(path).unwrap_or_default();
            if text.contains(part) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let read = tokio::time::timeout(LONG, reading).await;
    assert!(read.is_ok(), "no {part:?} in {}: {text}", path.display());
    text
}

/// Waits until the node knows exactly these nodes as present.
pub(crate) async fn present(node: &Clustering, names: &[&str]) {
    let mut changes = node.discovery().changes();
    let is_reached = || node.nodes().iter().map(|node| node.name.clone()).collect::<Vec<_>>() == names;
    soon("the nodes", async {
        while !is_reached() {
            let _ = changes.recv().await;
        }
    })
    .await;
}

/// Counts the node records in the store.
pub(crate) async fn registered(etcd: &EtcdServer) -> usize {
    store(etcd).read("c/view/nodes/").await.unwrap().entries.len()
}

/// Checks the input of a stabilize hook.
fn check_view(view: &Value) {
    assert_eq!(
        (&view["hook"], &view["name"], &view["attempt"]),
        (&json!("stabilize"), &json!("a"), &json!(1))
    );
    assert_eq!((&view["joined"], &view["left"], &view["leader"]), (&json!(["b"]), &json!([]), &json!("a")));
    let names: Vec<_> = view["nodes"].as_array().unwrap().iter().map(|node| node["name"].clone()).collect();
    assert_eq!(names, ["a", "b"]);
}

/// Checks the environment of a stabilize hook.
fn check_variables(env: &str, version: Version, term: Term) {
    for line in [
        "CLUSTERING_HOOK=stabilize",
        "CLUSTERING_NAMESPACE=c",
        "CLUSTERING_NAME=a",
        "CLUSTERING_URI=http://a.test:80",
        "CLUSTERING_LEADER=a",
        "CLUSTERING_NODES=2",
        "CLUSTERING_ATTEMPT=1",
        &format!("CLUSTERING_VERSION={version}"),
        &format!("CLUSTERING_TERM={term}"),
    ] {
        assert!(env.lines().any(|entry| entry == line), "no {line} in {env}");
    }
}

#[tokio::test]
async fn a_service_in_shell_is_a_node_with_hooks() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let stabilize = format!("cd {}; env > env; cat > view.new; mv view.new view", folder.path().display());
    let announce = format!("cat > {}", file("stable").display());
    let options =
        ["--metadata", "zone=z1", "--weight", "2", "--stabilize", &stabilize, "--on-stable", &announce];
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["up\n"]).await;
    file_with(&file("stable"), "\"on_stable\"").await;
    let b = node(&etcd, "b").start().await.unwrap();
    present(&b, &["a", "b"]).await;
    let a_seen = b.nodes()[0].clone();
    assert_eq!(
        (a_seen.uri.as_str(), a_seen.weight().get(), &*a_seen.metadata["zone"]),
        ("http://a.test:80", 2, "z1")
    );
    let version =
        soon("stable", b.wait_stable_after("00000000000000000000000000".parse().unwrap())).await.unwrap();

    let view = file_with(&file("view"), &version.to_string()).await;
    check_view(&serde_json::from_str(&view).unwrap());
    let env = file_with(&file("env"), &version.to_string()).await;
    check_variables(&env, version, b.discovery().newest().unwrap().term());
    let stable: Value =
        serde_json::from_str(&file_with(&file("stable"), &version.to_string()).await).unwrap();
    assert_eq!((&stable["hook"], &stable["version"]), (&json!("on_stable"), &json!(version.to_string())));

    a.terminate().unwrap();
    let status = soon("the end of the command", a.wait()).await.unwrap();
    assert_eq!(status.code(), Some(7), "{}", a.log());
    // The node has left before the command ends, so its lease did not have to expire.
    assert_eq!(registered(&etcd).await, 1);
    printed(&a, &["a: stopped: it was asked to stop\n", "bye\n"]).await;
    b.stop().await.unwrap();
}

/// Returns a shell program that prints the present nodes on SIGTERM, and exits with code 7.
fn prints_nodes_at_the_end(etcd: &EtcdServer) -> String {
    let command = env!("CARGO_BIN_EXE_clustering");
    let ask = format!("{command} -n c --endpoints {} find x | cut -f 2", etcd.endpoint());
    format!("trap 'echo present: $({ask}); echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done")
}

/// Otherwise requests would be sent to a program that refuses them.
#[tokio::test]
async fn the_node_leaves_before_the_program_gets_the_signal() {
    let etcd = EtcdServer::start().await.unwrap();
    let b = node(&etcd, "b").weight(0).start().await.unwrap();
    let a = service(&etcd, &[], &["sh", "-c", &prints_nodes_at_the_end(&etcd)]).spawn().unwrap();
    present(&b, &["a", "b"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    // Only `a` takes keys, so its name would be printed if it were still in the cluster.
    printed(&a, &["no node takes \"x\"", "present:\n", "bye\n"]).await;
    b.stop().await.unwrap();
}

#[tokio::test]
async fn the_signal_is_passed_on_while_etcd_is_away_and_at_once_if_repeated() {
    let etcd = EtcdServer::start().await.unwrap();
    let time_to_signal = async |second: bool| {
        let a = service(&etcd, &[], &["sh", "-c", SHELL]).spawn().unwrap();
        printed(&a, &["stable at"]).await;
        etcd.pause().unwrap();
        let began = std::time::Instant::now();
        a.terminate().unwrap();
        if second {
            // The system may merge two signals that are sent at once.
            printed(&a, &["leaving the cluster"]).await;
            a.terminate().unwrap();
        }
        printed(&a, &["bye\n"]).await;
        let took = began.elapsed();
        assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
        etcd.resume().unwrap();
        took
    };
    // The library limits leaving to 5 s.
    let took = time_to_signal(false).await;
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(15), "{took:?}");
    let took = time_to_signal(true).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_second_signal_ends_the_command_before_the_program_has_started() {
    let etcd = EtcdServer::start().await.unwrap();
    let waiting = ["--start-when", "stable", "--stabilize", "false"];
    let a = service(&etcd, &waiting, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["joined"]).await;
    // Leaving takes 5 s then.
    etcd.pause().unwrap();
    a.terminate().unwrap();
    printed(&a, &["leaving the cluster"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(128 + 15), "{}", a.log());
    etcd.resume().unwrap();
}

#[tokio::test]
async fn a_program_gets_the_signal_before_its_node_has_joined() {
    let etcd = EtcdServer::start().await.unwrap();
    let a = service(&etcd, &["--health", "false"], &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["unhealthy"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    assert_eq!(registered(&etcd).await, 0);
}

#[tokio::test]
async fn a_service_in_python_gets_signals_and_its_end_ends_the_node() {
    let etcd = EtcdServer::start().await.unwrap();
    let a = service(&etcd, &[], &["python3", "-c", PYTHON]).spawn().unwrap();
    printed(&a, &["up\n"]).await;
    printed(&a, &["stable at"]).await;
    for count in ["counted 1\n", "counted 2\n"] {
        kill(&a, "USR1");
        printed(&a, &[count]).await;
    }
    kill(&a, "INT");
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(42), "{}", a.log());
    assert_eq!(registered(&etcd).await, 0);

    // A program that fails, and one that is killed.
    let broken = service(&etcd, &[], &["python3", "-c", "raise RuntimeError('broken')"]).spawn().unwrap();
    assert_eq!(
        soon("the end of the command", broken.wait()).await.unwrap().code(),
        Some(1),
        "{}",
        broken.log()
    );
    let killed = service(&etcd, &[], &["sh", "-c", "kill -KILL $$"]).spawn().unwrap();
    assert_eq!(
        soon("the end of the command", killed.wait()).await.unwrap().code(),
        Some(137),
        "{}",
        killed.log()
    );
    assert_eq!(registered(&etcd).await, 0);
}

/// Sends a signal to the command, but not to its process group.
fn kill(process: &Process, signal: &str) {
    let status = std::process::Command::new("kill").args(["-s", signal, &process.pid().to_string()]).status();
    assert!(status.unwrap().success());
}

/// Returns true if the process is paused, or `None` if it does not exist.
fn is_paused(pid: &str) -> Option<bool> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok()?;
    Some(stat.rsplit_once(')')?.1.trim_start().starts_with('T'))
}

/// Otherwise the program would work on keys that other nodes have taken over after the end of the session.
#[tokio::test]
async fn p7_the_program_is_paused_and_resumed_together_with_the_command() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let pid = folder.path().join("pid");
    let program = format!("echo $$ > {}; {SHELL}", pid.display());
    let a = service(&etcd, &[], &["sh", "-c", &program]).spawn().unwrap();
    printed(&a, &["stable at"]).await;
    let pids = [fs::read_to_string(&pid).unwrap(), a.pid().to_string()];
    let paused = |expected: bool| {
        let pids = &pids;
        async move {
            while pids.iter().any(|pid| is_paused(pid) != Some(expected)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    soon("both to run", paused(false)).await;
    kill(&a, "TSTP");
    soon("both to be paused", paused(true)).await;
    kill(&a, "CONT");
    soon("both to be resumed", paused(false)).await;
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    assert_eq!(registered(&etcd).await, 0);
}

#[tokio::test]
async fn p7_the_program_does_not_outlive_its_node() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let pid = folder.path().join("pid");
    let program = format!("echo $$ > {}; echo up; exec sleep 1000", pid.display());
    let is_alive = || {
        let pid = fs::read_to_string(&pid).unwrap();
        // A zombie does not count.
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    let gone = || async {
        while is_alive() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The guardian ends the program if the command is killed.
    let a = service(&etcd, &[], &["sh", "-c", &program]).spawn().unwrap();
    printed(&a, &["stable at"]).await;
    assert!(is_alive());
    a.kill().await.unwrap();
    soon("the end of the program", gone()).await;
    // If another process takes over the name, the node and the program end.
    let a = service(&etcd, &["--name-conflict", "take-over"], &["sh", "-c", &program]).spawn().unwrap();
    printed(&a, &["stable at"]).await;
    let other = service(&etcd, &["--name-conflict", "fail"], &["sh", "-c", SHELL]).spawn().unwrap();
    assert_eq!(
        soon("the end of the command", other.wait()).await.unwrap().code(),
        Some(3),
        "{}",
        other.log()
    );
    let b = node(&etcd, "a").name_conflict(clustering_core::NameConflict::TakeOver).start().await.unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(3), "{}", a.log());
    assert!(!is_alive());
    printed(&a, &["clustering: the node has ended"]).await;
    b.stop().await.unwrap();
}

#[tokio::test]
async fn invalid_arguments_are_reported_and_nothing_is_left_behind() {
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
    with(&uri, &["/no/such/program"]).await.refused(127, &["cannot execute /no/such/program"]);
    with(&uri, &["/etc/passwd"]).await.refused(126, &["cannot execute /etc/passwd"]);
    with(&["--uri", "nonsense"], &["true"]).await.refused(2, &["uri \"nonsense\" cannot be used"]);
    with(&[], &["true"]).await.refused(2, &["--uri"]);
    let secured = [&uri[..], &["--health-url", "https://127.0.0.1/"]].concat();
    with(&secured, &["true"]).await.refused(2, &["must begin with http://", "--health"]);
    with(&[&uri[..], &["--metadata", "x"]].concat(), &["true"]).await.refused(2, &["expected KEY=VALUE"]);
    // Arguments are checked before the program starts.
    let folder = Folder::new().unwrap();
    let ran = folder.path().join("ran");
    let invalid = [
        (&["--ttl", "100ms"][..], "ttl of 100ms"),
        (&["--metadata", "=x"], "metadata"),
        (&["--weight", "-1"], "-1"),
        (&["--health", "true", "--health-failures", "0"], "0 is not in 1.."),
        (&["--health-interval", "1s"], "--health"),
        (&["--health", "true", "--health-url", "http://127.0.0.1/"], "cannot be used with"),
    ];
    for (options, part) in invalid {
        let said = with(&[&uri[..], options].concat(), &["touch", ran.to_str().unwrap()]).await;
        said.refused(2, &[part]);
    }
    assert!(!ran.exists() && registered(&etcd).await == 0);
    // The program runs even while etcd is away.
    let mut command = command();
    command.args(["run", "--endpoints", "127.0.0.1:1"]).args(uri).args(["--", "sh", "-c", "exit 5"]);
    run(command).await.ended(5);
}

#[tokio::test]
async fn a_program_is_ended_if_etcd_refuses_its_node() {
    let etcd = users::server(EtcdServer::builder()).await;
    let mut command = command();
    command.args(["run", "-n", "c", "--uri", "http://a.test:80", "--endpoints", &etcd.endpoint()]);
    command.args(["--user", users::USER, "--", "sleep", "1000"]).env("ETCDCTL_PASSWORD", "wrong");
    run(command).await.refused(2, &["wrong user or password"]);
}

#[tokio::test]
async fn the_program_starts_after_joining_or_stability_if_requested() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let ready = folder.path().join("ready");
    let hook = format!("test -e {}", ready.display());
    etcd.kill().await.unwrap();
    let a = service(&etcd, &["--start-when", "joined", "--stabilize", &hook], &["sh", "-c", SHELL]);
    let a = a.spawn().unwrap();
    printed(&a, &["the store is away"]).await;
    assert!(!a.log().contains("up\n"), "{}", a.log());
    etcd.restart().await.unwrap();
    printed(&a, &["up\n"]).await;
    printed(&a, &["joined as"]).await;
    assert!(!a.log().contains("stable at"), "{}", a.log());
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());

    let options = ["--start-when", "stable", "--stabilize", &hook];
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["refused, attempt 2"]).await;
    assert!(!a.log().contains("up\n"), "{}", a.log());
    fs::write(&ready, "").unwrap();
    printed(&a, &["up\n"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());

    // A signal before the start gives the exit code of a program that the signal has killed.
    let a = service(&etcd, &["--start-when", "joined", "--health", "false"], &["sh", "-c", SHELL]);
    let a = a.spawn().unwrap();
    printed(&a, &["unhealthy"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(143), "{}", a.log());
    assert!(!a.log().contains("up\n") && registered(&etcd).await == 0, "{}", a.log());
}
