//! Dependencies that users of the crates compile.

use std::process::Command;

/// Crates that only the command needs.
const OF_THE_COMMAND: [&str; 10] = [
    "clap",
    "clap_complete",
    "clap_mangen",
    "crossterm",
    "humantime",
    "metrics",
    "metrics-exporter-prometheus",
    "ratatui",
    "rpassword",
    "unicode-width",
];

/// Returns the names of all crates that a package compiles, itself included.
fn compiled(package: &str, options: &[&str]) -> Vec<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--locked", "--package", package, "--edges", "normal,build"]);
    cargo.args(["--prefix", "none", "--no-dedupe"]).args(options).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn users_of_the_store_compile_nothing_of_the_command() {
    let (store, command) = (compiled("clustering-etcd", &[]), compiled("clustering-cli", &[]));
    assert!(store.iter().any(|name| name == "etcd-client"), "{store:?}");
    for name in OF_THE_COMMAND {
        assert!(command.iter().any(|compiled| compiled == name), "the command does not need {name}");
        assert!(store.iter().all(|compiled| compiled != name), "the store compiles {name}");
    }
}

#[test]
fn a_command_for_another_store_compiles_nothing_of_etcd() {
    let library = compiled("clustering-cli", &["--no-default-features"]);
    assert!(library.iter().any(|name| name == "clustering-core"), "{library:?}");
    for name in ["clustering-etcd", "etcd-client", "tonic", "prost-build"] {
        assert!(library.iter().all(|compiled| compiled != name), "the library compiles {name}");
    }
}
