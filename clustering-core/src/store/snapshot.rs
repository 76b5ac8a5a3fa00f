use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use bytes::Bytes;

use super::{LeaseId, Revision};

/// The key of an entry: UTF-8 text of 1 to 512 bytes, which may contain any character, including NUL. Cheap to clone.
///
/// The length ([`Limits::KEY`](super::Limits::KEY)) is checked when a transaction is validated, not here. Keys that are
/// not valid UTF-8 cannot be written through this API; reads and watches omit them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for Key {
    fn from(text: T) -> Self {
        Key(text.into())
    }
}

impl Deref for Key {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key with its value and the metadata that the store keeps for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// The revision that created the key, that is, the last revision that put it while it was absent.
    pub created: Revision,
    /// The revision of the last put of the key.
    pub modified: Revision,
    /// The lease that the key is attached to, or `None` if the key exists until it is deleted.
    pub lease: Option<LeaseId>,
}

/// All entries under a prefix at one revision (contract rule 2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The revision of the snapshot. A watch started after this revision misses nothing and repeats nothing.
    pub revision: Revision,
    /// The entries, in byte order of their keys.
    pub entries: Vec<Entry>,
}
