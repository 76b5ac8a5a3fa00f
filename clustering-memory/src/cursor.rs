use std::sync::Arc;

use clustering_core::store::{Revision, Signal, WatchEnd};

use crate::{backup::Timeline, watchers::WatchId};

/// The position of a watch in the history.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) prefix: Arc<str>,
    pub(crate) id: WatchId,
    /// Revision of the last batch yielded, or the revision after which the watch started.
    pub(crate) seen: Revision,
    /// The timeline on which `seen` was last known to be part of the store's history.
    pub(crate) timeline: Timeline,
}

/// The result of opening a watch.
pub(crate) enum Opened {
    Live(Cursor, Signal),
    Ended(WatchEnd),
}
