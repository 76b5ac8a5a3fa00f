use std::{env, fs, io, path::PathBuf};

/// Environment variable with the folder that contains `initdb` and `postgres`. If it is not set, those of the newest
/// version in `/usr/lib/postgresql` are used.
pub const PROGRAMS_VARIABLE: &str = "CLUSTERING_POSTGRES_BIN";

/// Folder in which Debian's packages keep each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Returns the folder with the programs of PostgreSQL.
pub(super) fn find() -> io::Result<PathBuf> {
    if let Some(named) = env::var_os(PROGRAMS_VARIABLE).filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let found = versions.filter(|version| version.path().join("bin/initdb").exists());
    let number = |version: &fs::DirEntry| version.file_name().to_str()?.parse::<u32>().ok();
    let newest = found.max_by_key(number).map(|version| version.path().join("bin"));
    newest.ok_or_else(|| {
        let advice = format!("install Debian's postgresql, or set {PROGRAMS_VARIABLE}");
        io::Error::new(io::ErrorKind::NotFound, format!("no PostgreSQL in {VERSIONS}: {advice}"))
    })
}
