use std::{future::Future, pin::Pin, sync::Arc};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{WeakClustering, holds::LeaseClock};
use crate::{
    machine::SlotChange,
    node::Node,
    outcome::{IntoOutcome, Outcome},
    slots::SlotSet,
    version::{Term, Version},
    view::{Diff, View},
};

/// The future of a callback's call.
pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A callback of the service, with its return type converted to [`Outcome`].
#[cfg_attr(not(feature = "test-util"), expect(unreachable_pub, reason = "that feature exports it"))]
pub type Callback<T> = Arc<dyn Fn(T) -> Running + Send + Sync>;

tokio::task_local! {
    /// The address of the shared state of the node whose callback is running.
    static CALLBACK_OF: usize;
}

/// Runs a callback of the node whose shared state has this address.
pub(super) async fn within<F: Future>(node: usize, callback: F) -> F::Output {
    CALLBACK_OF.scope(node, callback).await
}

/// True if the caller runs inside a callback of the node whose shared state has this address.
pub(super) fn is_within(node: usize) -> bool {
    CALLBACK_OF.try_with(|running| *running == node).unwrap_or(false)
}

/// Argument of the `stabilize` callback: the view to adapt to, and the differences from the previous view.
#[derive(Clone, Debug)]
pub struct Stabilization {
    view: View,
    previous: Option<View>,
    attempt: u32,
    slots: SlotChange,
    cluster: WeakClustering,
    superseded: CancellationToken,
}

impl Stabilization {
    pub(crate) fn new(
        view: View,
        previous: Option<View>,
        attempt: u32,
        slots: SlotChange,
        cluster: WeakClustering,
        superseded: CancellationToken,
    ) -> Self {
        Stabilization { view, previous, attempt, slots, cluster, superseded }
    }

    /// Returns a weak handle to the node.
    pub fn cluster(&self) -> &WeakClustering {
        &self.cluster
    }

    /// Returns the version to adapt to.
    pub fn version(&self) -> Version {
        self.view.version()
    }

    /// Returns the version's nodes and their keys. Every node of the version is given the same view (P1).
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Returns the view of the last version for which this process's callback succeeded, even if the version was
    /// superseded by then: the view to which the process's state is adapted. `None` before the first success. It is
    /// kept across sessions, because the process's state is too.
    ///
    /// A call that refused halfway leaves the state between two views, of which this is the older one. A callback that
    /// works on differences has to undo its changes before it refuses, or compare with what the process actually holds.
    pub fn previous(&self) -> Option<&View> {
        self.previous.as_ref()
    }

    /// Returns the changes since [`previous`](Self::previous).
    pub fn diff(&self) -> Diff {
        self.view.diff(self.previous())
    }

    /// Returns the nodes that joined since [`previous`](Self::previous).
    pub fn joined(&self) -> Vec<Arc<Node>> {
        self.diff().joined
    }

    /// Returns the nodes that left since [`previous`](Self::previous).
    pub fn left(&self) -> Vec<Arc<Node>> {
        self.diff().left
    }

    /// Returns the slots that this node acquires when the callback succeeds. Load the state that belongs to them. Empty
    /// on a node that is not [exclusive](crate::Builder::exclusive).
    ///
    /// All former owners have let go of them. If the version is superseded, slots may be taken away again before the
    /// node has held them. The [`release`](crate::Builder::release) callback is called for these slots, too.
    pub fn gained(&self) -> &SlotSet {
        &self.slots.gained
    }

    /// Returns the slots that the version takes from this node. They are already released: drop any state that is left
    /// of them.
    pub fn lost(&self) -> &SlotSet {
        &self.slots.lost
    }

    /// Returns the slots that this node holds and keeps. Work on them continues during the callback.
    pub fn kept(&self) -> &SlotSet {
        &self.slots.kept
    }

    /// Returns the number of the attempt at this version, starting at 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// True if the result no longer counts: a newer version was published, or the session ended (P3).
    pub fn is_superseded(&self) -> bool {
        self.superseded.is_cancelled()
    }

    /// Resolves when the result no longer counts. Long work should select on this and return early, because the next
    /// `stabilize` call waits for this one to return.
    pub fn superseded(&self) -> WaitForCancellationFuture<'_> {
        self.superseded.cancelled()
    }
}

/// Argument of the `on_stable` callback: the version at which all nodes are ready.
#[derive(Clone, Debug)]
pub struct Stable {
    view: View,
    term: Term,
    cluster: WeakClustering,
    superseded: CancellationToken,
}

impl Stable {
    pub(crate) fn new(
        view: View,
        term: Term,
        cluster: WeakClustering,
        superseded: CancellationToken,
    ) -> Self {
        Stable { view, term, cluster, superseded }
    }

    /// Returns a weak handle to the node.
    pub fn cluster(&self) -> &WeakClustering {
        &self.cluster
    }

    /// Returns the stable version.
    pub fn version(&self) -> Version {
        self.view.version()
    }

    /// Returns the version's nodes and their keys.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Returns the term under which this node recorded the version as stable. Use it to fence the callback's writes
    /// (P5).
    pub fn term(&self) -> Term {
        self.term
    }

    /// True if the announcement is out of date: a newer version was published, or this node no longer acts as leader.
    pub fn is_superseded(&self) -> bool {
        self.superseded.is_cancelled()
    }

    /// Resolves when the announcement is out of date.
    pub fn superseded(&self) -> WaitForCancellationFuture<'_> {
        self.superseded.cancelled()
    }
}

/// Argument of the `release` callback: the slots that this node lost.
#[derive(Clone, Debug)]
pub struct Release {
    lost: SlotSet,
    view: Option<View>,
    attempt: u32,
    lease: Arc<LeaseClock>,
    cluster: WeakClustering,
}

impl Release {
    pub(crate) fn new(
        lost: SlotSet,
        view: Option<View>,
        attempt: u32,
        lease: Arc<LeaseClock>,
        cluster: WeakClustering,
    ) -> Self {
        Release { lost, view, attempt, lease, cluster }
    }

    /// Returns a weak handle to the node.
    pub fn cluster(&self) -> &WeakClustering {
        &self.cluster
    }

    /// Returns the slots to let go of. They include slots that the node was about to acquire and never held: a
    /// `stabilize` callback may have begun to load them.
    ///
    /// A newer version does not cancel the callback. Any slots that the newer version takes away are left to the next
    /// call.
    pub fn lost(&self) -> &SlotSet {
        &self.lost
    }

    /// True if no other process can hold the slots at this moment: write the state that must be kept. If false, the
    /// session was lost, and others may already work on the slots: discard all state, and write nothing.
    ///
    /// This is decided by the clock at each call. It can become false while the callback runs, so ask again before each
    /// write.
    pub fn still_held(&self) -> bool {
        self.lease.is_valid()
    }

    /// Returns the view of the version that takes the slots away, or of a newer version if one was published before the
    /// call. A newer version may even return a slot to this node, which acquires it again after the release. `None` if
    /// the session ends, for example because the node stops.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// Returns the version of the [`view`](Self::view).
    pub fn version(&self) -> Option<Version> {
        self.view().map(View::version)
    }

    /// Returns the number of the attempt, starting at 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

/// The service's callbacks.
#[derive(Clone)]
pub(crate) struct Callbacks {
    pub(crate) release: Callback<Release>,
    pub(crate) stabilize: Callback<Stabilization>,
    pub(crate) on_stable: Callback<Stable>,
    pub(crate) health: Callback<()>,
}

impl Default for Callbacks {
    fn default() -> Self {
        Callbacks {
            release: Arc::new(|_| Box::pin(std::future::ready(Outcome::Ready))),
            stabilize: Arc::new(|_| Box::pin(std::future::ready(Outcome::Ready))),
            on_stable: Arc::new(|_| Box::pin(std::future::ready(Outcome::Ready))),
            health: Arc::new(|()| Box::pin(std::future::ready(Outcome::Ready))),
        }
    }
}

impl Callbacks {
    pub(crate) fn set_stabilize<F, R>(&mut self, stabilize: F)
    where
        F: Fn(Stabilization) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.stabilize = callback(stabilize);
    }

    pub(crate) fn set_release<F, R>(&mut self, release: F)
    where
        F: Fn(Release) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.release = callback(release);
    }

    pub(crate) fn set_on_stable<F, R>(&mut self, on_stable: F)
    where
        F: Fn(Stable) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.on_stable = callback(on_stable);
    }

    pub(crate) fn set_health<F, R>(&mut self, health: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.health = callback(move |()| health());
    }
}

/// Converts the return type of a callback to [`Outcome`].
fn callback<T, F, R>(call: F) -> Callback<T>
where
    F: Fn(T) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send + 'static,
{
    Arc::new(move |argument| {
        let running = call(argument);
        Box::pin(async move { running.await.into_outcome() })
    })
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}
