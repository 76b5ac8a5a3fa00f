use std::{future::Future, sync::Arc};

use clustering_core::store::{CoordinationStore, Revision};

use super::Line;
use crate::conformance::{Bounds, Hook};

/// A store under test, with the faults of its server.
///
/// Each scenario has a store of its own, because it kills the server and rewinds or compacts the history. All handles
/// lead to that store.
pub trait Faults: Send + Sync + 'static {
    /// Returns the timings that the store documents. The suite uses the clock, the smallest TTL and the expiry slack.
    /// Under [`Clock::Paused`](crate::conformance::Clock::Paused), the nodes are tasks of the test's runtime, and the
    /// store must not need a network.
    fn bounds(&self) -> Bounds;

    /// Returns the TCP addresses (`host:port`) of the store's servers. The suite starts a proxy for each address and
    /// node, and breaks the connections through it. A store without a network returns none, and calls
    /// [`Line::wrap`] in [`open`](Self::open).
    fn addresses(&self) -> Vec<String> {
        Vec::new()
    }

    /// Opens a handle that reaches the store only through the line: at [its addresses](Line::addresses), which are
    /// proxies, or by [wrapping](Line::wrap) a store that has no network. The handle must not learn other addresses
    /// from the servers.
    ///
    /// Each node calls this on its own runtime. The store may be unavailable at that time, so a handle should connect
    /// on first use.
    fn open(&self, line: &Line) -> impl Future<Output = Arc<dyn CoordinationStore>> + Send;

    /// Kills the server, as by `kill -9`. Its data is kept.
    fn kill(&self) -> impl Future<Output = ()> + Send;

    /// Starts the killed server again at the same addresses, and returns once it answers.
    fn start(&self) -> impl Future<Output = ()> + Send;

    /// Freezes the server, as by SIGSTOP: connections stay open, but nothing is answered.
    fn pause(&self) -> impl Future<Output = ()> + Send;

    /// Resumes the server after [`pause`](Self::pause).
    fn resume(&self) -> impl Future<Output = ()> + Send;

    /// Makes the store forget its changes up to and including `revision`. Returns once the store has forgotten them.
    ///
    /// Without this hook the suite reports on standard error what it did not judge, and why.
    fn compact(&self, _revision: Revision) -> impl Future<Output = Hook<()>> + Send {
        async { Hook::Absent("this store has no hook for compaction") }
    }

    /// Copies the store's data, for [`restore`](Self::restore). A later backup replaces it.
    ///
    /// Without this hook the suite reports on standard error what it did not judge, and why.
    fn backup(&self) -> impl Future<Output = Hook<()>> + Send {
        async { Hook::Absent("this store has no hooks for backups") }
    }

    /// Replaces the store's data with the [backup](Self::backup), and returns once the store answers. Called only
    /// after a backup was made.
    fn restore(&self) -> impl Future<Output = ()> + Send {
        async { unreachable!("the store makes backups, so it must restore them, too") }
    }
}
