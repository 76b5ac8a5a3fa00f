use std::{future::Future, pin::Pin, sync::Arc};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::{
    node::Node,
    outcome::{IntoOutcome, Outcome},
    version::{Term, Version},
    view::{Diff, View},
};

pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A callback of the user's.
#[cfg_attr(not(feature = "test-util"), expect(unreachable_pub, reason = "that feature exports it"))]
pub type Callback<T> = Arc<dyn Fn(T) -> Running + Send + Sync>;

/// What a stabilize callback is given: the view to adapt to, and what is different from the last one.
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

    /// The version to adapt to.
    pub fn version(&self) -> Version {
        self.view.version()
    }

    /// The nodes of that version, and who owns what. Every node of the version is given the same (P1).
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The view of the last version to which this process said yes, whether or not that still mattered then: what its
    /// state is adapted to. `None` at first. It outlives sessions, since the process does.
    ///
    /// A stabilize that said no halfway has left the state somewhere between two views, and this is the older one. One
    /// that works by differences undoes what it did before it says no, or compares with what the process really holds.
    pub fn previous(&self) -> Option<&View> {
        self.previous.as_ref()
    }

    /// What changed since [`previous`](Self::previous).
    pub fn diff(&self) -> Diff {
        self.view.diff(self.previous())
    }

    /// The nodes that are new since [`previous`](Self::previous).
    pub fn joined(&self) -> Vec<Arc<Node>> {
        self.diff().joined
    }

    /// The nodes that are gone since [`previous`](Self::previous).
    pub fn left(&self) -> Vec<Arc<Node>> {
        self.diff().left
    }

    /// Which try at this version it is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the answer no longer matters: a newer version is published, or the session is over (P3).
    pub fn is_superseded(&self) -> bool {
        self.superseded.is_cancelled()
    }

    /// Resolves once the answer no longer matters. Long work races against it, and returns early: the next stabilize
    /// waits for this one to return.
    pub fn superseded(&self) -> WaitForCancellationFuture<'_> {
        self.superseded.cancelled()
    }
}

/// What an `on_stable` callback is given: the version at which all nodes are ready.
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

    /// The version.
    pub fn version(&self) -> Version {
        self.view.version()
    }

    /// Its nodes.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The term under which this node recorded it: the token with which to fence what the callback writes (P5).
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether it is out of date: a newer version is published, or this node no longer acts as leader.
    pub fn is_superseded(&self) -> bool {
        self.superseded.is_cancelled()
    }

    /// Resolves once it is out of date.
    pub fn superseded(&self) -> WaitForCancellationFuture<'_> {
        self.superseded.cancelled()
    }
}

/// The user's callbacks.
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
