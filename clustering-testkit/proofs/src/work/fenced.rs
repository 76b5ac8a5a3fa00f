use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Counted;

/// A counter outside of the cluster, which is safe because of fencing tokens alone: it keeps the largest token that it
/// has seen, and refuses smaller ones.
///
/// Each record is a separate file, which is named by its number and created only if it does not exist. So a process
/// that stops in the middle blocks no other process, and no record is overwritten.
#[derive(Debug)]
pub struct FencedFile {
    folder: PathBuf,
    token: u64,
    /// Number of the next record.
    next: u64,
    /// Value of the counter in the worker's memory.
    count: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    token: u64,
    count: u64,
    /// Unique id of the increment; `None` for the record that shows a new token.
    id: Option<String>,
}

impl FencedFile {
    /// Loads the counter, and makes it refuse all tokens below this one. Returns `None` if the counter has seen a
    /// larger token.
    ///
    /// # Errors
    ///
    /// Returns the file system's error.
    pub fn load(folder: impl Into<PathBuf>, token: u64) -> io::Result<Option<Self>> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        let mut file = FencedFile { folder, token, next: 1, count: 0 };
        let shown = file.append(|last| Record { token, count: last.count, id: None })?;
        Ok(shown.map(|record| FencedFile { count: record.count, ..file }))
    }

    /// Sets the counter to the next value from this worker's memory. Returns false if a larger token was seen.
    ///
    /// # Errors
    ///
    /// Returns the file system's error.
    pub fn increment(&mut self, id: &str) -> io::Result<bool> {
        let (token, count) = (self.token, self.count + 1);
        let made = self.append(|_| Record { token, count, id: Some(id.to_owned()) })?;
        self.count = made.as_ref().map_or(self.count, |record| record.count);
        Ok(made.is_some())
    }

    /// Appends a record that is derived from the last record, unless the last record has a larger token.
    fn append(&mut self, make: impl Fn(&Record) -> Record) -> io::Result<Option<Record>> {
        let mut last = read(&self.folder, self.next - 1)?.unwrap_or_default();
        loop {
            while let Some(later) = read(&self.folder, self.next)? {
                self.next += 1;
                last = later;
            }
            if last.token > self.token {
                return Ok(None);
            }
            let record = make(&last);
            if self.create(&record)? {
                self.next += 1;
                return Ok(Some(record));
            }
        }
    }

    /// Creates the next record. Returns false if another process has created it.
    fn create(&self, record: &Record) -> io::Result<bool> {
        let new = self.folder.join(format!("new-{}-{}", std::process::id(), self.token));
        fs::write(&new, serde_json::to_vec(record)?)?;
        let linked = fs::hard_link(&new, place(&self.folder, self.next));
        fs::remove_file(&new)?;
        match linked {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns all increments in order.
    ///
    /// # Errors
    ///
    /// Returns the file system's error.
    pub fn counts(folder: impl AsRef<Path>) -> io::Result<Vec<Counted>> {
        let mut counts = Vec::new();
        for number in 1.. {
            let Some(record) = read(folder.as_ref(), number)? else { break };
            let Record { token, count, id } = record;
            counts.extend(id.map(|id| Counted { id, count, token }));
        }
        Ok(counts)
    }
}

fn place(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}"))
}

fn read(folder: &Path, number: u64) -> io::Result<Option<Record>> {
    match fs::read(place(folder, number)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use clustering_testkit::process::Folder;

    use super::*;

    #[test]
    fn a_former_holder_cannot_increment_a_fenced_file() {
        let folder = Folder::new().unwrap();
        let path = folder.path().join("key");
        let mut old = FencedFile::load(&path, 7).unwrap().unwrap();
        assert!(old.increment("a").unwrap());
        let mut new = FencedFile::load(&path, 9).unwrap().unwrap();
        assert!(!old.increment("b").unwrap());
        assert!(FencedFile::load(&path, 8).unwrap().is_none());
        assert!(new.increment("c").unwrap());
        let counted: Vec<_> =
            FencedFile::counts(&path).unwrap().into_iter().map(|it| (it.id, it.count, it.token)).collect();
        assert_eq!(counted, [("a".to_owned(), 1, 7), ("c".to_owned(), 2, 9)]);
    }
}
