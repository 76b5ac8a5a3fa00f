//! Tests that processes and folders started by a test are removed when the test ends in any way.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers panic to fail the test")]

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

/// Environment variable that tells the child process of a test how to end.
const END: &str = "CLUSTERING_TESTKIT_END";

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

fn is_there(number: u32) -> bool {
    // A zombie process has ended, although it can still be signalled.
    test_kill_process(pid(number)).is_ok()
        && !fs::read_to_string(format!("/proc/{number}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// Waits for the end of a process that is not a child of this one.
fn wait_for_end(number: u32) {
    // An error means that the process has already ended.
    if let Ok(pidfd) = pidfd_open(pid(number), PidfdFlags::empty()) {
        let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
        let ended =
            poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&limit)).unwrap();
        assert_eq!(ended, 1, "process {number} is still there after a minute");
    }
}

/// Creates a folder and a process with a child process, prints them, and ends as requested.
#[tokio::test]
#[ignore = "run as a child process by other tests"]
async fn child_that_ends() {
    let end = env::var(END).unwrap();
    let folder = Folder::new().unwrap();
    // The system sends SIGHUP to stopped process groups whose parent has ended. Ignore it, so that only the guardian
    // can end them.
    let script = "trap '' HUP; sleep 1000 & echo $! > pid.new; mv pid.new pid; wait";
    let process = Process::builder("/bin/sh")
        .args(["-c", &format!("cd '{}'; {script}", folder.path().display())])
        .spawn()
        .unwrap();
    let file = folder.path().join("pid");
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Stopped processes get SIGHUP when they are orphaned, but only the guardian ends running ones.
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

/// Ends a test process in the given way, and checks that everything has been removed once its guardian has ended.
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
    let line = line.expect("the child prints what it started");
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
    // The guardian has sent the signals, but the processes may take a moment to end.
    wait_for_end(process);
    wait_for_end(started);
}

#[test]
fn a_killed_test_leaves_nothing() {
    leaves_nothing("kill");
}

#[test]
fn a_killed_test_leaves_no_running_process() {
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
async fn dropping_a_process_removes_it_and_its_log() {
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
    process.write(b"sent while paused\n").unwrap();
    assert_eq!(process.log(), "");
    process.resume().unwrap();
    while process.log() != "sent while paused" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn the_exit_status_of_a_process_is_reported() {
    let process = Process::builder("/bin/sh").args(["-c", "echo bye; exit 7"]).spawn().unwrap();
    assert_eq!(process.wait().await.unwrap().code(), Some(7));
    assert_eq!(process.log(), "bye");
    let error = process.pause().unwrap_err().to_string();
    assert!(error.contains("/bin/sh") && error.contains("has ended"), "{error}");
    // The status can be queried again, and killing a process that has ended is not an error.
    assert_eq!(process.kill().await.unwrap().code(), Some(7));

    let process = Process::builder("sleep").arg("1000").spawn().unwrap();
    process.pause().unwrap();
    process.terminate().unwrap();
    assert_eq!(process.wait().await.unwrap().signal(), Some(Signal::TERM.as_raw()));
}

#[tokio::test]
async fn a_missing_program_is_reported_in_the_log() {
    let process = Process::builder("/nowhere/node").spawn().unwrap();
    assert_eq!(process.wait().await.unwrap().code(), Some(127));
    assert!(process.log().contains("/nowhere/node"), "{}", process.log());
}

#[tokio::test]
async fn the_environment_can_be_cleared() {
    let env = |builder: process::ProcessBuilder| async {
        let process = builder.env("CLUSTERING_TESTKIT_GIVEN", "yes").spawn().unwrap();
        process.wait().await.unwrap();
        fs::read_to_string(process.log_path()).unwrap()
    };
    let (all, clean) = (env(Process::builder("env")).await, env(Process::builder("env").clean_env()).await);
    // Cargo sets this variable for tests.
    assert!(all.contains("CARGO_MANIFEST_DIR=") && !clean.contains("CARGO_MANIFEST_DIR="), "{clean}");
    assert!(clean.contains("PATH=") && clean.contains("CLUSTERING_TESTKIT_GIVEN=yes"), "{clean}");
}
