//! Ends the build with advice if the build script of etcd-client could not use `protoc`.
//!
//! A crate cannot provide `protoc` to the build scripts of its dependencies, because it cannot set their environment.
//! Nor can it run before them: cargo runs this script first only if it has many cores (eight sufficed, four did not).
//! Otherwise etcd-client fails first, and its error does not say that cargo has downloaded a `protoc`; the README
//! does.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    if let Err(problem) = try_protoc(&folder) {
        println!("cargo::error=the dependency etcd-client cannot be built without protoc: {problem}");
        if let Some(downloaded) = downloaded() {
            println!(
                "cargo::error=either use the protoc that cargo has downloaded: export PROTOC='{}'",
                downloaded.display()
            );
        }
        println!(
            "cargo::error=or install it: apt-get install protobuf-compiler libprotobuf-dev, apk add protobuf-dev, or \
             brew install protobuf"
        );
    }
}

/// Runs `protoc` in the same way as etcd-client does, on a file that needs the standard `.proto` files.
fn try_protoc(folder: &Path) -> Result<(), String> {
    let source = folder.join("probe.proto");
    let text = "syntax = \"proto3\";\nimport \"google/protobuf/descriptor.proto\";\n";
    fs::write(&source, text).map_err(|error| format!("cannot write {}: {error}", source.display()))?;

    let program = env::var_os("PROTOC").unwrap_or_else(|| "protoc".into());
    let mut protoc = Command::new(&program);
    protoc.arg("-I").arg(folder);
    if let Some(include) = env::var_os("PROTOC_INCLUDE") {
        protoc.arg("-I").arg(include);
    }
    protoc.arg("-o").arg(folder.join("probe.bin")).arg(&source);
    let output = protoc.output().map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} failed: {}", program.display(), said.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// Returns the path of the `protoc` in the build dependency for this platform.
fn downloaded() -> Option<PathBuf> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return Some(protoc_bin_vendored_linux_x86_64::protoc_bin_path());
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    return Some(protoc_bin_vendored_linux_aarch_64::protoc_bin_path());
    #[cfg(all(target_os = "macos", target_arch = "x86_64"))]
    return Some(protoc_bin_vendored_macos_x86_64::protoc_bin_path());
    #[cfg(all(target_os = "macos", target_arch = "aarch64"))]
    return Some(protoc_bin_vendored_macos_aarch_64::protoc_bin_path());
    #[allow(unreachable_code, reason = "only on other platforms")]
    None
}
