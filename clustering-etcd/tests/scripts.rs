//! The scripts and the CI workflow use only pinned versions of external tools, and the crates are ready to be
//! published.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use clustering_testkit::process::Folder;
use serde_json::Value;

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

/// Returns the metadata of the crates that are published.
fn published() -> Vec<Value> {
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.filter(|package| package["publish"].is_null()).cloned().collect()
}

#[test]
fn published_crates_have_all_that_their_page_on_crates_io_shows() {
    let crates = published();
    let names: Vec<_> = crates.iter().map(|package| package["name"].as_str().unwrap()).collect();
    for name in
        ["clustering-core", "clustering-memory", "clustering-etcd", "clustering-testkit", "clustering-cli"]
    {
        assert!(names.contains(&name), "{name} is not published");
    }
    for package in &crates {
        let name = package["name"].as_str().unwrap();
        assert!(
            package["description"].as_str().is_some_and(|text| text.len() > 20),
            "{name}: no description"
        );
        assert_eq!(package["documentation"], format!("https://docs.rs/{name}"));
        assert_eq!(package["license"], "MIT OR Apache-2.0", "{name}");
        assert!(package["repository"].is_string(), "{name}: repository.workspace = true is missing");
        assert!(package["rust_version"].is_string(), "{name}: no rust-version");
        for (list, limit) in [("keywords", 5), ("categories", 5)] {
            let entries = package[list].as_array().unwrap();
            assert!((1..=limit).contains(&entries.len()), "{name}: {list}");
        }
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        assert!(readme.starts_with(&format!("# {name}\n")), "{name}: the README is that of another crate");
        // Crates.io does not know the folder of the README, so relative links would be broken.
        for target in readme.split("](").skip(1) {
            assert!(target.starts_with("https://"), "{name}: {}", target.split(')').next().unwrap());
        }
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            assert_eq!(
                fs::read(folder.join(licence)).unwrap(),
                fs::read(root().join(licence)).unwrap(),
                "{name}"
            );
        }
    }
}

/// Otherwise CI would check another version than the one that the crates require.
#[test]
fn ci_builds_with_the_minimum_rust_version() {
    let crates = published();
    let minimum = crates[0]["rust_version"].as_str().unwrap();
    let workflow = read(".github/workflows/ci.yml");
    assert!(workflow.contains(&format!("rustup toolchain install {minimum} ")));
    assert!(workflow.contains(&format!("cargo +{minimum} check --locked --workspace")));
    assert!(read("README.md").contains(&format!("Rust {minimum} or later")));
}

#[test]
fn the_release_check_names_a_missing_repository() {
    let output = Command::new(root().join("scripts/release-check")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let is_missing = published()[0]["repository"] == "";
    assert_eq!(said.contains("set `repository` in [workspace.package]"), is_missing, "{said}");
    assert!(!is_missing || output.status.code() == Some(1), "{said}");
}

/// Runs the build script of this crate alone, in a package outside of the workspace, and returns what cargo prints.
fn build_script(folder: &Folder, protoc: &Path) -> (bool, String) {
    let package = folder.path();
    let manifest = read("clustering-etcd/Cargo.toml");
    let dependencies: String = manifest
        .split("\n[target.")
        .filter(|section| section.contains("protoc-bin-vendored"))
        .map(|section| format!("\n[target.{}", section.split("\n[lints]").next().unwrap()))
        .collect();
    let script = root().join("clustering-etcd/build.rs");
    let head = "[package]\nname = \"outside\"\nedition = \"2024\"\n";
    fs::write(package.join("Cargo.toml"), format!("{head}build = {script:?}\n[workspace]\n{dependencies}"))
        .unwrap();
    fs::create_dir_all(package.join("src")).unwrap();
    fs::write(package.join("src/lib.rs"), "").unwrap();
    fs::copy(root().join("Cargo.lock"), package.join("Cargo.lock")).unwrap();

    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["check", "--offline"]).current_dir(package).env("CARGO_TARGET_DIR", package.join("target"));
    cargo.env("PROTOC", protoc).env_remove("PROTOC_INCLUDE");
    let output = cargo.output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_build_without_protoc_says_how_to_get_one() {
    let folder = Folder::new().unwrap();
    let (succeeded, said) = build_script(&folder, Path::new("/nonexistent/protoc"));
    assert!(!succeeded && said.contains("cannot run /nonexistent/protoc"), "{said}");
    let first = "the dependency etcd-client cannot be built without protoc";
    assert!(said.contains(&format!("@0.0.0: {first}")), "{said}");
    assert!(said.contains("apt-get install protobuf-compiler libprotobuf-dev"), "{said}");
    for page in ["clustering-etcd/README.md", "clustering-etcd/src/lib.rs"] {
        assert!(read(page).contains(first), "{page} does not quote the error");
    }

    // The errors of a program that runs but cannot compile are shown.
    let broken = folder.path().join("broken");
    fs::write(&broken, "#!/bin/sh\necho 'descriptor.proto:  File not found.' >&2\nexit 1\n").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    let (succeeded, said_again) = build_script(&folder, &broken);
    assert!(!succeeded && said_again.contains("failed: descriptor.proto: File not found."), "{said_again}");

    if locked_protoc().is_some() {
        let advised = said.split("export PROTOC='").nth(1).unwrap().split('\'').next().unwrap();
        let (succeeded, said) = build_script(&folder, Path::new(advised));
        assert!(succeeded, "{said}");
    }
}
