//! What tests start goes when they end, however they end.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test, in helpers too")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::{fd::AsFd, unix::process::ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use clustering_testkit::process::{self, Folder, Process};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, test_kill_process},
};

/// Set for the child of a test that ends in the way that it says.
const END: &str = "CLUSTERING_TESTKIT_END";

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

fn is_there(number: u32) -> bool {
    // A process that nobody has waited for yet is there for kill, but has ended.
    test_kill_process(pid(number)).is_ok()
        && !fs::read_to_string(format!("/proc/{number}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// Waits until a process that is not ours to wait for has ended.
fn wait_for_end(number: u32) {
    // An error: it has ended already.
    if let Ok(pidfd) = pidfd_open(pid(number), PidfdFlags::empty()) {
        let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
        let ended =
            poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&limit)).unwrap();
        assert_eq!(ended, 1, "process {number} is still there after a minute");
    }
}

/// Has a process, one that it started in turn, and a folder, says which, and ends.
#[tokio::test]
#[ignore = "the other half of the tests that start it"]
async fn child_that_ends() {
    let end = env::var(END).unwrap();
    let folder = Folder::new().unwrap();
    // The system sends SIGHUP to paused processes whose parent ended: that must not be what ends them.
    let script = "trap '' HUP; sleep 1000 & echo $! > pid.new; mv pid.new pid; wait";
    let process = Process::builder("/bin/sh")
        .args(["-c", &format!("cd '{}'; {script}", folder.path().display())])
        .spawn()
        .unwrap();
    let file = folder.path().join("pid");
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Paused processes that nobody has any more get SIGHUP from the system; running ones have the guardian alone.
    if end != "kill running" {
        process.pause().unwrap();
    }
    let started = fs::read_to_string(file).unwrap();
    let guardian = process::guardian().unwrap();
    println!("\nleft {guardian} {} {} {}", process.pid(), started.trim(), folder.path().display());
    match end.as_str() {
        "kill" | "kill running" => std::future::pending().await,
        "exit" => std::process::exit(0),
        "panic" => panic!("as it should"),
        other => unreachable!("{other}"),
    }
}

/// Ends a test process in that way, and sees to it that everything is gone when its guardian is.
fn leaves_nothing(end: &str) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["child_that_ends", "--exact", "--ignored", "--nocapture"])
        .env(END, end)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let line = output.lines().map(Result::unwrap).find(|line| line.starts_with("left "));
    let line = line.expect("the child says what it has");
    let [guardian, process, started, folder] = line["left ".len()..].split(' ').collect::<Vec<_>>()[..]
    else {
        panic!("{line}");
    };
    let [guardian, process, started] = [guardian, process, started].map(|number| number.parse().unwrap());
    if end.starts_with("kill") {
        assert!(is_there(guardian) && is_there(process) && is_there(started) && Path::new(folder).is_dir());
        kill_process(pid(child.id()), Signal::KILL).unwrap();
    }
    child.wait().unwrap();
    wait_for_end(guardian);
    assert!(!Path::new(folder).exists(), "{folder} is left");
    // The guardian has killed them; they end on their own time.
    wait_for_end(process);
    wait_for_end(started);
}

#[test]
fn a_killed_test_leaves_nothing() {
    leaves_nothing("kill");
}

#[test]
fn a_killed_test_leaves_nothing_that_runs() {
    leaves_nothing("kill running");
}

#[test]
fn a_test_that_exits_leaves_nothing() {
    leaves_nothing("exit");
}

#[test]
fn a_test_that_panics_leaves_nothing() {
    leaves_nothing("panic");
}

#[tokio::test]
async fn dropped_means_gone() {
    let process = Process::builder("sleep").arg("1000").spawn().unwrap();
    let (pid, log) = (process.pid(), process.log_path().to_owned());
    assert!(is_there(pid) && log.is_file());
    drop(process);
    assert!(!is_there(pid) && !log.parent().unwrap().exists());
}

#[tokio::test]
async fn a_paused_process_does_nothing_until_it_is_resumed() {
    let process = Process::builder("cat").with_input().spawn().unwrap();
    process.pause().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    assert!(stat.contains(") T "), "{stat}");
    process.write(b"said meanwhile\n").unwrap();
    assert_eq!(process.log(), "");
    process.resume().unwrap();
    while process.log() != "said meanwhile" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn the_end_of_a_process_is_told() {
    let process = Process::builder("/bin/sh").args(["-c", "echo bye; exit 7"]).spawn().unwrap();
    assert_eq!(process.wait().await.unwrap().code(), Some(7));
    assert_eq!(process.log(), "bye");
    let error = process.pause().unwrap_err().to_string();
    assert!(error.contains("/bin/sh") && error.contains("has ended"), "{error}");
    // The same as often as it is asked, also by those who come late to kill it.
    assert_eq!(process.kill().await.unwrap().code(), Some(7));

    let process = Process::builder("sleep").arg("1000").spawn().unwrap();
    process.pause().unwrap();
    process.terminate().unwrap();
    assert_eq!(process.wait().await.unwrap().signal(), Some(Signal::TERM.as_raw()));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said() {
    let process = Process::builder("/nowhere/node").spawn().unwrap();
    assert_eq!(process.wait().await.unwrap().code(), Some(127));
    assert!(process.log().contains("/nowhere/node"), "{}", process.log());
}

#[tokio::test]
async fn the_environment_can_be_left_behind() {
    let env = |builder: process::ProcessBuilder| async {
        let process = builder.env("CLUSTERING_TESTKIT_GIVEN", "yes").spawn().unwrap();
        process.wait().await.unwrap();
        fs::read_to_string(process.log_path()).unwrap()
    };
    let (all, clean) = (env(Process::builder("env")).await, env(Process::builder("env").clean_env()).await);
    // Cargo sets it for tests.
    assert!(all.contains("CARGO_MANIFEST_DIR=") && !clean.contains("CARGO_MANIFEST_DIR="), "{clean}");
    assert!(clean.contains("PATH=") && clean.contains("CLUSTERING_TESTKIT_GIVEN=yes"), "{clean}");
}
