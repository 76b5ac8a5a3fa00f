//! The example `memory` is the complete command for another store.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::{path::Path, process::Command};

use clustering_memory::Version;

/// Runs the example, and returns its exit code, standard output and standard error.
fn memory(arguments: &[&str]) -> (Option<i32>, String, String) {
    // Cargo builds examples together with tests.
    let example = Path::new(env!("CARGO_BIN_EXE_clustering")).parent().unwrap().join("examples/memory");
    assert!(example.exists(), "run `cargo build --example memory` first");
    let mut command = Command::new(example);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLUSTERING"))
    {
        command.env_remove(name);
    }
    let output = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn another_store_takes_no_more_than_its_arguments_and_a_connection() {
    let source = include_str!("../examples/memory.rs");
    let code = source.lines().filter(|line| !line.is_empty() && !line.starts_with("//"));
    assert!(code.count() <= 33);
}

#[test]
fn commands_work_on_the_cluster_in_the_store() {
    let (code, out, err) = memory(&["status"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(
        out.contains("leader    node-1, term ") && out.contains("stable, all 3 nodes are ready"),
        "{out}"
    );

    let (code, out, err) = memory(&["change", "--why", "a test", "--wait", "--size", "2"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let version = out.split_whitespace().next().unwrap();
    assert!(version.parse::<Version>().is_ok(), "{out}");
    assert_eq!(out, format!("{version} is published\n{version} is stable, with 2 nodes\n"));

    let (code, out, err) = memory(&["evict", "node-4"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(err, "clustering: no node node-4 is present; there are node-1, node-2, node-3\n");
}

#[test]
fn a_program_runs_as_a_node_on_the_store() {
    let program = "echo \"$CLUSTERING_NAME in $CLUSTERING_NAMESPACE\"; exit 7";
    let options = ["--name", "a", "--uri", "http://a.test:80", "--start-when", "stable"];
    let (code, out, err) = memory(&[&["run"], &options[..], &["--", "sh", "-c", program]].concat());
    assert_eq!((code, out.as_str()), (Some(7), "a in cluster\n"), "{err}");
    assert!(err.contains("a: stable at "), "{err}");
}

#[test]
fn texts_name_the_store() {
    let (_, help, _) = memory(&["--help"]);
    assert!(
        help.starts_with("Show and operate clusters in the memory store, and turn any program"),
        "{help}"
    );
    assert!(help.contains("--size <N>") && !help.to_lowercase().contains("etcd"), "{help}");
    for command in ["status", "watch", "run", "find", "wait", "services", "purge", "demo"] {
        let (code, help, _) = memory(&[command, "--help"]);
        assert!(code == Some(0) && !help.to_lowercase().contains("etcd"), "{command}: {help}");
    }
    let (code, _, err) = memory(&["demo"]);
    assert_eq!(code, Some(2));
    assert_eq!(
        err,
        "clustering: demo needs a store that several processes can reach, unlike the memory store\n"
    );
}
