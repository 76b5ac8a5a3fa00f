//! The scripts and the CI workflow use only pinned versions of external tools.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use clustering_testkit::process::Folder;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// Returns the name of the crate that contains protoc for this platform, and its version in Cargo.lock.
fn locked_protoc() -> Option<(String, String)> {
    let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
    let platform = format!("{system}-{}", machine.replace("aarch64", "aarch_64"));
    let name = format!("protoc-bin-vendored-{platform}");
    let lock = read("Cargo.lock");
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{name}\"\n")))?;
    let version = entry.split("version = \"").nth(1)?.split('"').next()?;
    Some((name, version.to_owned()))
}

/// Creates a fake protoc that prints `output`.
fn fake(path: &Path, output: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\necho {output}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Otherwise another version, or a forged one, that happens to be unpacked could generate the code.
#[test]
fn the_protoc_script_uses_the_version_in_cargo_lock() {
    let Some((name, version)) = locked_protoc() else {
        println!("skipped: there is no protoc crate for this platform");
        return;
    };
    let folder = Folder::new().unwrap();
    let registry = folder.path().join("registry/src");
    for (index, other) in [("a", "0.0.1"), ("a", "9.9.9"), ("z", "9.9.9")] {
        fake(&registry.join(index).join(format!("{name}-{other}/bin/protoc")), "another");
    }
    let on_path = folder.path().join("bin");
    fake(&on_path.join("protoc"), "on the path");
    let output = || {
        let mut script = Command::new(root().join("scripts/protoc"));
        script.env("CARGO_HOME", folder.path());
        script.env("PATH", format!("{}:{}", on_path.display(), std::env::var("PATH").unwrap()));
        String::from_utf8(script.output().unwrap().stdout).unwrap()
    };
    assert_eq!(output(), "on the path\n", "cargo has not unpacked the locked version");
    fake(&registry.join("m").join(format!("{name}-{version}/bin/protoc")), "locked");
    assert_eq!(output(), "locked\n");
}

#[test]
fn external_packages_and_actions_are_pinned() {
    let script = read("scripts/test");
    let downloads = script.matches("pip download").count();
    let quoted = script.matches("(python3 -m pip download)").count();
    assert_eq!((downloads - quoted, script.matches("--require-hashes").count()), (1, 1));

    let workflow = read(".github/workflows/ci.yml");
    let mut actions = 0;
    for used in workflow.lines().filter_map(|line| line.split("uses: ").nth(1)) {
        let commit = used.split('@').nth(1).unwrap().split(' ').next().unwrap();
        assert!(commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{used}");
        actions += 1;
    }
    assert!(actions > 0);
    for install in workflow.lines().filter(|line| line.contains("cargo install")) {
        assert!(install.contains("--locked"), "{install}");
        let tools = install.split(' ').filter(|word| word.starts_with("cargo-"));
        tools.for_each(|tool| assert!(tool.contains('@'), "{tool}"));
    }
}
