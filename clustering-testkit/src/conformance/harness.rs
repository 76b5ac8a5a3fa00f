use std::{fmt, future::Future, sync::Arc, time::Duration};

use clustering_core::store::{CoordinationStore, Revision};

/// Connects the suite to the store under test and states the timings that the store documents.
///
/// All handles of one harness lead to the **same** store. Other tests may share that store: each check works under its
/// own unique key prefix and does not assume that it owns any revision.
pub trait Harness: Send + Sync + 'static {
    /// Returns the timings that the store documents.
    fn bounds(&self) -> Bounds;

    /// Opens another handle to the store under test. A check calls this several times and lets the handles compete with
    /// each other. A store with connections gives each handle its own connection. An in-process store can return clones
    /// of one `Arc`.
    ///
    /// Under [`Clock::Paused`] this is called with the clock paused.
    fn open(&self) -> impl Future<Output = Arc<dyn CoordinationStore>> + Send;

    /// Makes the store forget its changes up to and including `revision`. Returns once the store has forgotten them.
    ///
    /// [`CoordinationStore`] has no such call, but every store compacts its history eventually, and silently skipping
    /// compacted changes is the worst possible failure. This hook is therefore mandatory.
    ///
    /// Compaction affects every client of the store. [`conformance_tests!`](crate::conformance_tests) runs the check
    /// that uses this hook exclusively among its tests in the process.
    fn compact(&self, revision: Revision) -> impl Future<Output = ()> + Send;

    /// Returns a handle to a store that cannot be reached, for example at a port where nothing listens. Rule 8 judges
    /// the errors that its calls return.
    ///
    /// Without this hook the suite reports on standard error what it did not judge, and why.
    fn unreachable(&self) -> impl Future<Output = Hook<Arc<dyn CoordinationStore>>> + Send {
        async { Hook::Absent("the harness provides no handle to an unreachable store") }
    }

    /// Returns the number of watches that the store currently holds open for all of its clients. Rule 9 judges that
    /// dropped watches are released.
    ///
    /// Without this hook the suite reports on standard error what it did not judge, and why.
    fn open_watches(&self) -> impl Future<Output = Hook<usize>> + Send {
        async { Hook::Absent("the harness cannot count the open watches of the store") }
    }

    /// Returns a handle whose connections can be made to go silent. Rule 9 judges that the handle recovers although its
    /// callers give each call up before the store does.
    ///
    /// Without this hook the suite reports on standard error what it did not judge, and why.
    fn line(&self) -> impl Future<Output = Hook<Line>> + Send {
        async { Hook::Absent("the harness cannot make connections go silent") }
    }
}

/// A handle whose connections can be made to go silent, for example because they lead through a proxy.
pub struct Line {
    /// The handle.
    pub store: Arc<dyn CoordinationStore>,
    /// Makes all connections that the handle has at that moment go silent: from then on nothing that is sent on them
    /// arrives or is answered, but they stay open, as behind a firewall that has forgotten them. New connections work.
    pub silence: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

/// Result of an optional hook of the [`Harness`], or the reason why the hook is not available.
#[derive(Clone, Debug)]
pub enum Hook<T> {
    /// The hook's value.
    Have(T),
    /// The hook is not available, for this reason. The suite repeats the reason when it reports what it did not judge.
    Absent(&'static str),
}

/// Timings that a store documents. The contract leaves these to the implementation, and the suite holds the store to
/// the values given here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Clock that the store runs on.
    pub clock: Clock,
    /// Shortest TTL that the suite can use: the store grants it without extending it, and calls take a small fraction
    /// of it. On a real clock the expiry checks take a few times this long.
    pub smallest_ttl: Duration,
    /// Longest time for which a lease may live beyond its TTL (rule 4).
    pub expiry_slack: Duration,
    /// Longest time after a commit until a watch delivers its changes or ends (rule 3), and thus until the store
    /// notices that a connection died silently (rule 9).
    pub watch_lag: Duration,
    /// Longest time that a call may take to answer. The contract does not depend on it: it only turns a store that
    /// hangs into a failed check.
    pub call_timeout: Duration,
}

/// Clock that a store runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Tokio's paused clock, for in-process stores that take time only from tokio. Waiting costs nothing, and every run
    /// is the same.
    Paused,
    /// A real clock, for every store that talks to another process. The expiry checks take seconds, and
    /// [`randomized_against_the_model`](super::randomized_against_the_model) lets no lease expire.
    Real,
}

impl Bounds {
    /// Returns the longest time that one check may take before it counts as hung.
    pub(super) fn check_limit(&self) -> Duration {
        Duration::from_secs(120) + 20 * (self.smallest_ttl + self.expiry_slack + self.watch_lag)
    }
}
