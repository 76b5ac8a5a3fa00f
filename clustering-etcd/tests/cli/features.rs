//! What users of the library compile.

use std::process::Command;

/// What only the command needs.
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

/// The names of all crates that are compiled for `clustering-etcd` with those features.
fn compiled(features: &[&str]) -> Vec<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--locked", "--package", "clustering-etcd", "--edges", "normal,build"]);
    cargo.args(["--prefix", "none", "--no-dedupe"]).args(features).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn users_of_the_library_compile_nothing_of_the_command() {
    let (plain, with) = (compiled(&[]), compiled(&["--features", "cli"]));
    assert!(plain.iter().any(|name| name == "etcd-client"), "{plain:?}");
    for name in OF_THE_COMMAND {
        assert!(with.iter().any(|compiled| compiled == name), "{name} is for nothing");
        assert!(plain.iter().all(|compiled| compiled != name), "{name} is compiled by everybody");
    }
}
