use std::{future::Future, sync::Arc, time::Duration};

use clustering_core::store::{CoordinationStore, Revision};

/// What the author of a store hands in: how to reach the store under test, and what its documentation promises.
///
/// All handles of one harness lead to **one** store. That store may be shared with other tests: each check works under
/// a prefix that no other has, and takes no revision for its own.
pub trait Harness: Send + Sync + 'static {
    /// What the store states about its times.
    fn bounds(&self) -> Bounds;

    /// A further handle to the store under test. The suite calls this several times within a check and lets the
    /// handles work against each other. A store that has connections gives each handle one of its own; one that lives
    /// in the process gives the same `Arc` again.
    ///
    /// Under [`Clock::Paused`] it is called with the clock paused.
    fn open(&self) -> impl Future<Output = Arc<dyn CoordinationStore>> + Send;

    /// Makes the store forget its changes up to and including `revision`, and returns when it has.
    ///
    /// The trait has no such call, but every store forgets some day, and skipping over the gap in silence is the worst
    /// that one can do. So this is no optional hook.
    ///
    /// It touches all who share the store. [`conformance_tests!`](crate::conformance_tests) runs the rule that uses
    /// it alone among its tests in the process.
    fn compact(&self, revision: Revision) -> impl Future<Output = ()> + Send;

    /// A handle that leads nowhere: to a port where nobody listens, say. Rule 8 judges what its calls answer.
    ///
    /// Without one the suite says on standard error what it did not judge, and why.
    fn unreachable(&self) -> impl Future<Output = Hook<Arc<dyn CoordinationStore>>> + Send {
        async { Hook::Absent("the harness has no handle that leads nowhere") }
    }

    /// How many watches the store holds open at its end, everybody's taken together. Rule 9 judges whether dropped
    /// ones go away.
    ///
    /// Without it the suite says on standard error what it did not judge, and why.
    fn open_watches(&self) -> impl Future<Output = Hook<usize>> + Send {
        async { Hook::Absent("the harness cannot count the watches that the store holds") }
    }
}

/// What a hook of the [`Harness`] gives, or why it has nothing to give.
#[derive(Clone, Debug)]
pub enum Hook<T> {
    /// What was asked for.
    Have(T),
    /// There is no such thing, for this reason. The suite repeats it when it names what it did not judge.
    Absent(&'static str),
}

/// What a store states about its times. The contract leaves these to the implementation and demands that it says them;
/// the suite holds the store to what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Which clock the store runs on.
    pub clock: Clock,
    /// The shortest TTL that makes sense here: the store grants it without lengthening it, and calls answer in a small
    /// part of it. The checks of expiry take a few times this long on a real clock.
    pub smallest_ttl: Duration,
    /// How long after its TTL a lease may still stand (rule 4).
    pub expiry_slack: Duration,
    /// How long after a commit its changes may reach a watch, or the watch end (rule 3).
    pub watch_lag: Duration,
    /// The longest that a call may take to answer. Nothing in the contract depends on it: it only turns a store that
    /// hangs into a failed check.
    pub call_timeout: Duration,
}

/// Which clock a store runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Tokio's, paused: for stores within the process whose time is tokio's alone. Waiting costs nothing and every
    /// run is the same.
    Paused,
    /// A real one: for everything that talks to another process. The suite then never waits for a lease with random
    /// steps (see [`randomized_against_the_model`](super::randomized_against_the_model)), and the checks of expiry
    /// take seconds.
    Real,
}

impl Bounds {
    /// The longest that one check may take before it counts as hung.
    pub(super) fn check_limit(&self) -> Duration {
        Duration::from_secs(120) + 20 * (self.smallest_ttl + self.expiry_slack + self.watch_lag)
    }
}
