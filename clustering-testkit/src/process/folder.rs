use std::{
    env, fs,
    hash::{BuildHasher, RandomState},
    io,
    path::{Path, PathBuf},
    process,
};

use super::guardian::{self, Kept};

/// Prefix of the names of all [`Folder`]s.
pub const FOLDER_PREFIX: &str = "clustering-testkit-";

/// A temporary folder under `TMPDIR` or `/tmp`. It is removed when this is dropped, and when the test process ends in
/// any way.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    kept: Kept,
}

impl Folder {
    /// Creates an empty folder.
    pub fn new() -> io::Result<Self> {
        let name = format!("{FOLDER_PREFIX}{}-{:016x}", process::id(), random());
        let path = env::temp_dir().join(name);
        let Some(text) = path.to_str() else {
            return Err(io::Error::other(format!("TMPDIR must be UTF-8: {}", path.display())));
        };
        let kept = Kept::Folder(text.to_owned());
        guardian::keep(&kept)?;
        fs::create_dir(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("creating {}: {error}", path.display())))?;
        Ok(Self { path, kept })
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Ok(()) => guardian::release(&self.kept),
            Err(error) if error.kind() == io::ErrorKind::NotFound => guardian::release(&self.kept),
            // If this fails, the guardian tries again.
            Err(_) => {}
        }
    }
}

/// Returns a random number. It is practically unique across calls and processes.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(process::id())
}
