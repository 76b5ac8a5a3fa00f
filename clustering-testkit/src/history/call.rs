use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use clustering_core::store::{Entry, ErrorKind, Guard, Key, Operation, Revision, Snapshot, StoreError, Txn};
use serde::{Deserialize, Serialize};

/// Call of a node to its store: a read or a commit, with digests in place of values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreCall {
    /// A read of the keys with this prefix.
    Read(String),
    /// A commit.
    Commit(Commit),
}

/// Commit as recorded in a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Guards: keys with the revisions at which they must have been created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub created_at: Vec<(String, Revision)>,
    /// Guards: keys with the revisions at which they must have been last put.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modified_at: Vec<(String, Revision)>,
    /// Keys to put, with digests of the values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub puts: Vec<(String, Digest)>,
    /// Keys to delete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deletes: Vec<String>,
}

/// The store's answer to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreAnswer {
    /// A read succeeded: the revision of the snapshot and its entries.
    Shown(Revision, Vec<StoredEntry>),
    /// A commit succeeded at this revision.
    Committed(Revision),
    /// A commit was refused because a guard did not hold at this revision.
    GuardFailed(Revision),
    /// The call failed without any effect.
    Failed(String),
    /// The call failed, but may have taken effect.
    Unknown(String),
}

/// Entry of a read snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEntry {
    /// The key.
    pub key: String,
    /// Digest of the value.
    pub value: Digest,
    /// Revision at which the key was created.
    pub created: Revision,
    /// Revision at which the key was last put.
    pub modified: Revision,
}

/// Hash of a value, to compare values without storing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(u64);

impl Digest {
    /// Returns the digest of a value. All processes of the same binary compute the same digest.
    pub fn of(value: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Digest(hasher.finish())
    }

    /// Returns the digest as bytes, to stand in for the value.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<&Txn> for Commit {
    fn from(txn: &Txn) -> Self {
        let mut commit = Commit::default();
        for guard in txn.guards() {
            match guard {
                Guard::CreatedAt(key, revision) => commit.created_at.push((key.to_string(), *revision)),
                Guard::ModifiedAt(key, revision) => commit.modified_at.push((key.to_string(), *revision)),
            }
        }
        for operation in txn.operations() {
            match operation {
                Operation::Put { key, value, .. } => commit.puts.push((key.to_string(), Digest::of(value))),
                Operation::Delete { key } => commit.deletes.push(key.to_string()),
            }
        }
        commit
    }
}

/// Creates a transaction with digests in place of the values, and without leases.
impl From<&Commit> for Txn {
    fn from(commit: &Commit) -> Self {
        let key = |key: &String| Key::from(key.as_str());
        let created = commit.created_at.iter().map(|(of, at)| Guard::created_at(key(of), *at));
        let modified = commit.modified_at.iter().map(|(of, at)| Guard::modified_at(key(of), *at));
        let guarded = created.chain(modified).fold(Txn::new(), Txn::guard);
        let put =
            |txn: Txn, (of, value): &(String, Digest)| txn.put(key(of), value.to_bytes().to_vec(), None);
        let written = commit.puts.iter().fold(guarded, put);
        commit.deletes.iter().fold(written, |txn, of| txn.delete(key(of)))
    }
}

impl From<&Entry> for StoredEntry {
    fn from(entry: &Entry) -> Self {
        let (key, value) = (entry.key.to_string(), Digest::of(&entry.value));
        StoredEntry { key, value, created: entry.created, modified: entry.modified }
    }
}

impl From<&Result<Snapshot, StoreError>> for StoreAnswer {
    fn from(result: &Result<Snapshot, StoreError>) -> Self {
        match result {
            Ok(snapshot) => StoreAnswer::Shown(
                snapshot.revision,
                snapshot.entries.iter().map(StoredEntry::from).collect(),
            ),
            // A read has no effect, no matter how it failed.
            Err(error) => StoreAnswer::Failed(error.to_string()),
        }
    }
}

impl From<&Result<Revision, StoreError>> for StoreAnswer {
    fn from(result: &Result<Revision, StoreError>) -> Self {
        match result {
            Ok(revision) => StoreAnswer::Committed(*revision),
            Err(error) => match error.kind() {
                ErrorKind::GuardFailed { revision } => StoreAnswer::GuardFailed(revision),
                ErrorKind::OutcomeUnknown => StoreAnswer::Unknown(error.to_string()),
                _ => StoreAnswer::Failed(error.to_string()),
            },
        }
    }
}

impl fmt::Display for StoreCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = match self {
            StoreCall::Read(prefix) => return write!(f, "read {prefix}"),
            StoreCall::Commit(commit) => commit,
        };
        f.write_str("commit")?;
        for (key, revision) in &commit.created_at {
            write!(f, ", if {key} was created at {revision}")?;
        }
        for (key, revision) in &commit.modified_at {
            write!(f, ", if {key} was last put at {revision}")?;
        }
        for (key, value) in &commit.puts {
            write!(f, ", put {key} {value}")?;
        }
        commit.deletes.iter().try_for_each(|key| write!(f, ", delete {key}"))
    }
}

impl fmt::Display for StoreAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreAnswer::Shown(revision, entries) => write!(f, "{} keys at {revision}", entries.len()),
            StoreAnswer::Committed(revision) => write!(f, "done at {revision}"),
            StoreAnswer::GuardFailed(revision) => write!(f, "guard failed at {revision}"),
            StoreAnswer::Failed(why) => write!(f, "not done: {why}"),
            StoreAnswer::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}
