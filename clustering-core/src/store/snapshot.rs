use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use bytes::Bytes;

use super::{LeaseId, Revision};

/// A key: UTF-8, 1 to 512 bytes ([`Limits::KEY`](super::Limits::KEY), checked when it is written). Cheap to clone.
///
/// Keys of the store that are not UTF-8 cannot be written through this API, and reads and watches leave them out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key as text.
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

/// A key with its value and what the store knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// The revision that created it: the last one that put it while it was absent.
    pub created: Revision,
    /// The revision of its last put.
    pub modified: Revision,
    /// The lease that it lives under, or `None` if it lives until it is deleted.
    pub lease: Option<LeaseId>,
}

/// All keys under a prefix as they stood at one revision (contract rule 2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The revision that it shows. A watch after it misses nothing and repeats nothing.
    pub revision: Revision,
    /// The entries, in the order of their keys' bytes.
    pub entries: Vec<Entry>,
}
