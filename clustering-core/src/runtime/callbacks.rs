use std::{future::Future, pin::Pin, sync::Arc};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::{
    node::Node,
    outcome::{IntoOutcome, Outcome},
    version::{Term, Version},
    view::{Diff, View},
};

/// The future of a callback's call.
pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A callback of the service, with its return type converted to [`Outcome`].
#[cfg_attr(not(feature = "test-util"), expect(unreachable_pub, reason = "that feature exports it"))]
pub type Callback<T> = Arc<dyn Fn(T) -> Running + Send + Sync>;

/// Argument of the `stabilize` callback: the view to adapt to, and the differences from the previous view.
#[derive(Clone, Debug)]
pub struct Stabilization {
    view: View,
    previous: Option<View>,
    attempt: u32,
    superseded: CancellationToken,
}

impl Stabilization {
    pub(crate) fn new(
        view: View,
        previous: Option<View>,
        attempt: u32,
        superseded: CancellationToken,
    ) -> Self {
        Stabilization { view, previous, attempt, superseded }
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
    /// superseded by then: the view to which the process's state is adapted. `None` before the first success. It is kept
    /// across sessions, because the process's state is too.
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
    superseded: CancellationToken,
}

impl Stable {
    pub(crate) fn new(view: View, term: Term, superseded: CancellationToken) -> Self {
        Stable { view, term, superseded }
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

/// The service's callbacks.
#[derive(Clone)]
pub(crate) struct Callbacks {
    pub(crate) stabilize: Callback<Stabilization>,
    pub(crate) on_stable: Callback<Stable>,
    pub(crate) health: Callback<()>,
}

impl Default for Callbacks {
    fn default() -> Self {
        Callbacks {
            stabilize: Arc::new(|_| Box::pin(std::future::ready(Outcome::Ready))),
            on_stable: Arc::new(|_| Box::pin(std::future::ready(Outcome::Ready))),
            health: Arc::new(|()| Box::pin(std::future::ready(Outcome::Ready))),
        }
    }
}

impl Callbacks {
    pub(crate) fn set_stabilize<F, R>(&mut self, callback: F)
    where
        F: Fn(Stabilization) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.stabilize = Arc::new(move |stabilization| {
            let running = callback(stabilization);
            Box::pin(async move { running.await.into_outcome() })
        });
    }

    pub(crate) fn set_health<F, R>(&mut self, callback: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.health = Arc::new(move |()| {
            let running = callback();
            Box::pin(async move { running.await.into_outcome() })
        });
    }

    pub(crate) fn set_on_stable<F, R>(&mut self, callback: F)
    where
        F: Fn(Stable) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.on_stable = Arc::new(move |stable| {
            let running = callback(stable);
            Box::pin(async move { running.await.into_outcome() })
        });
    }
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}
