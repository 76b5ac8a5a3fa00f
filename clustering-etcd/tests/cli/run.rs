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
    printed(&a, &["a: stopped: it was asked to stop\n", "bye\n"]).await;
    b.stop().await.unwrap();
}

/// A program that says on TERM who is in the cluster at that moment, and then ends with 7.
fn tells_who_is_there(etcd: &EtcdServer) -> String {
    let command = env!("CARGO_BIN_EXE_clustering");
    let ask = format!("{command} -n c --endpoints {} find x | cut -f 2", etcd.endpoint());
    format!("trap 'echo there is $({ask}); echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done")
}

/// Else requests are routed to a program that refuses them already.
#[tokio::test]
async fn the_node_leaves_before_the_program_is_told_to_end() {
    let etcd = EtcdServer::start().await.unwrap();
    let b = node(&etcd, "b").weight(0).start().await.unwrap();
    let a = service(&etcd, &[], &["sh", "-c", &tells_who_is_there(&etcd)]).spawn().unwrap();
    present(&b, &["a", "b"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    // Only `a` takes keys: while it is in the cluster its name is printed.
    printed(&a, &["no node takes \"x\"", "there is\n", "bye\n"]).await;
    b.stop().await.unwrap();
}

#[tokio::test]
async fn a_program_is_told_to_end_although_etcd_is_away_and_at_once_by_a_second_signal() {
    let etcd = EtcdServer::start().await.unwrap();
    let told = async |second: bool| {
        let a = service(&etcd, &[], &["sh", "-c", SHELL]).spawn().unwrap();
        printed(&a, &["stable at"]).await;
        etcd.pause().unwrap();
        let began = std::time::Instant::now();
        a.terminate().unwrap();
        if second {
            // Two at once are one to the system.
            printed(&a, &["leaving the cluster"]).await;
            a.terminate().unwrap();
        }
        printed(&a, &["bye\n"]).await;
        let took = began.elapsed();
        assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
        etcd.resume().unwrap();
        took
    };
    // The library's bound is 5 s.
    let took = told(false).await;
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(15), "{took:?}");
    let took = told(true).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_second_signal_ends_the_command_although_the_program_was_not_started() {
    let etcd = EtcdServer::start().await.unwrap();
    let waiting = ["--start-when", "stable", "--stabilize", "false"];
    let a = service(&etcd, &waiting, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["joined"]).await;
    // The leave takes 5 s then.
    etcd.pause().unwrap();
    a.terminate().unwrap();
    printed(&a, &["leaving the cluster"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(128 + 15), "{}", a.log());
    etcd.resume().unwrap();
}

/// Before the node has joined there is nothing to wait for, and nothing may be left.
#[tokio::test]
async fn a_program_whose_node_has_not_joined_is_told_to_end_too() {
    let etcd = EtcdServer::start().await.unwrap();
    let a = service(&etcd, &["--health", "false"], &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["unhealthy"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    assert_eq!(registered(&etcd).await, 0);
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

/// Else a program is asked for what it has no place to do yet.
#[tokio::test]
async fn a_program_starts_when_its_node_has_joined_or_the_cluster_is_stable_if_that_is_wanted() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let mended = folder.path().join("mended");
    let hook = format!("test -e {}", mended.display());
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
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());

    let options = ["--start-when", "stable", "--stabilize", &hook];
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["refused, attempt 2"]).await;
    assert!(!a.log().contains("up\n"), "{}", a.log());
    fs::write(&mended, "").unwrap();
    printed(&a, &["up\n"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());

    // One that is ended before: as if the signal had ended the program.
    let a = service(&etcd, &["--start-when", "joined", "--health", "false"], &["sh", "-c", SHELL]);
    let a = a.spawn().unwrap();
    printed(&a, &["unhealthy"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(143), "{}", a.log());
    assert!(!a.log().contains("up\n") && registered(&etcd).await == 0, "{}", a.log());
}

#[tokio::test]
async fn each_node_can_act_when_the_cluster_is_stable_and_not_only_the_leader() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let b = nodes(&etcd, &["b"]).await;
    let everywhere = format!("env > {0}.new; mv {0}.new {0}", file("everywhere").display());
    let leader = format!("touch {}", file("leader").display());
    let options = ["--on-stable", &leader, "--on-stable-everywhere", &everywhere];
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    says(&file("everywhere"), "CLUSTERING_NODES=2").await;
    let version = soon("a version", b[0].cluster_change()).await.unwrap();
    let env = says(&file("everywhere"), &format!("CLUSTERING_VERSION={version}")).await;
    assert!(
        env.contains("CLUSTERING_HOOK=on_stable_everywhere\n") && env.contains("CLUSTERING_LEADER=b\n"),
        "{env}"
    );
    assert!(!file("leader").exists(), "b leads");
    a.terminate().unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    stop(b).await;
}

#[tokio::test]
async fn each_line_for_programs_has_its_time_and_node() {
    let etcd = EtcdServer::start().await.unwrap();
    let options = ["--json", "--stabilize", "echo a line", "--listen", "127.0.0.1:0"];
    let a = service(&etcd, &options, &["sleep", "1000"]).spawn().unwrap();
    printed(&a, &["listening", "joined", "a line", "\"event\":\"stable\""]).await;
    a.terminate().unwrap();
    soon("its end", a.wait()).await.unwrap();
    for line in a.log().lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        assert!(value["node"] == "a" && value["event"].is_string(), "{line}");
        let at = value["at"].as_str().unwrap();
        assert!(at.len() == 24 && at.starts_with("20") && at.contains('T') && at.ends_with('Z'), "{line}");
    }
}

/// Else whoever can read the environment of a program that needs no etcd can write to it.
#[tokio::test]
async fn neither_the_program_nor_hooks_inherit_a_password() {
    let etcd = users::server(EtcdServer::builder()).await;
    let folder = Folder::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let hook = format!("env > {0}.new; mv {0}.new {0}", file("hook").display());
    let program = format!("env > {0}.new; mv {0}.new {0}; {SHELL}", file("program").display());
    let both = format!("{}:{}", users::USER, users::PASSWORD);
    for (user, password) in [(users::USER, users::PASSWORD), (both.as_str(), "")] {
        let a = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env();
        let a = a.args(["run", "-n", users::PREFIX.trim_end_matches('/'), "--endpoints", &etcd.endpoint()]);
        let a = a.args(["--uri", "http://a.test:80", "--stabilize", &hook, "--", "sh", "-c", &program]);
        let a = a.env("ETCDCTL_USER", user).env("ETCDCTL_CACERT", "").env("KEPT", "kept");
        let a = a.env("ETCDCTL_PASSWORD", password).spawn().unwrap();
        printed(&a, &["stable at"]).await;
        for name in ["hook", "program"] {
            let env = says(&file(name), "KEPT=kept").await;
            assert!(!env.contains(users::PASSWORD), "{name}: {env}");
            fs::remove_file(file(name)).unwrap();
        }
        a.terminate().unwrap();
        assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    }
}

/// The children of a process that have ended, and that it has not waited for.
fn zombies(parent: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&format!(") Z {parent} "))).count()
}

/// Else a container runs out of processes.
#[tokio::test]
async fn the_first_process_of_a_container_leaves_no_zombies() {
    let namespace = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let can = std::process::Command::new("unshare").args(namespace).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        println!("left out: no namespace of processes can be made here (Linux, root, unshare)");
        return;
    }
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let calls = folder.path().join("calls");
    let hook = format!("echo >> {}; (sleep 0.05; sleep 0.05) & exit 0", calls.display());
    let a = Process::builder("unshare").clean_env().args(namespace).arg(env!("CARGO_BIN_EXE_clustering"));
    let a = a.args([
        "run",
        "-n",
        "c",
        "--endpoints",
        &etcd.endpoint(),
        "--name",
        "a",
        "--uri",
        "http://a.test:80",
    ]);
    let a = a.args(["--health", &hook, "--health-interval", "50ms", "--health-failures", "1"]);
    let a = a.args(["--", "sh", "-c", SHELL]).spawn().unwrap();
    printed(&a, &["stable at"]).await;
    let first = fs::read_to_string(format!("/proc/{0}/task/{0}/children", a.pid())).unwrap();
    says(&calls, &"\n".repeat(40)).await;
    let left = zombies(first.trim());
    assert!(left < 5, "{left} zombies");
    // And nobody else's children are taken away.
    assert!(!a.log().contains("unhealthy"), "{}", a.log());
    a.terminate().unwrap();
    assert_eq!(soon("its end", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
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
    printed(&a, &["healthy", "unhealthy after 2 failed checks: ", "session lost: the node is not healthy"])
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
