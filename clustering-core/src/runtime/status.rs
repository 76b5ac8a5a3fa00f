use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{clock::Clock, error::Ended, holds::Holds, own::Own};
use crate::{
    event::StopReason,
    machine::{Phase, Status},
    time::Timestamp,
    version::{Term, Version},
    view::View,
};

/// Watch on a node's status, for reading the current snapshot or waiting for the next one.
///
/// It returns snapshots and never a lock guard, so keeping a [`Status`] for any length of time cannot block the node.
/// Cheap to clone. It does not keep the node alive.
#[derive(Clone, Debug)]
pub struct StatusWatch {
    receiver: watch::Receiver<Arc<Status>>,
}

impl StatusWatch {
    /// Returns the newest status.
    #[must_use]
    pub fn get(&self) -> Arc<Status> {
        self.receiver.borrow().clone()
    }

    /// Waits for the next change of the status, and returns the newest status. Intermediate statuses may be skipped;
    /// subscribe to the [events](crate::Clustering::events) to see every transition.
    ///
    /// A deadline that passes is a change, since the node is then no longer a [`member`](Status::member) or has no
    /// [`active_term`](Status::active_term). A renewal that only moves deadlines is not. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Ended`], once the node has ended and its last status has been returned.
    pub async fn changed(&mut self) -> Result<Arc<Status>, Ended> {
        match self.receiver.changed().await {
            Ok(()) => Ok(self.receiver.borrow_and_update().clone()),
            Err(_) => Err(self.ended()),
        }
    }

    /// Waits until `is` returns true for the status, and returns that status. Checks the current status first. Cancel
    /// safe.
    ///
    /// # Errors
    ///
    /// [`Ended`], if the node has ended and `is` returned false for its last status.
    pub async fn wait_for(&mut self, mut is: impl FnMut(&Status) -> bool) -> Result<Arc<Status>, Ended> {
        let mut status = self.receiver.borrow_and_update().clone();
        while !is(&status) {
            status = self.changed().await?;
        }
        Ok(status)
    }

    fn ended(&self) -> Ended {
        Ended(match &self.get().phase {
            Phase::Stopped(reason) => reason.clone(),
            _ => StopReason::Aborted,
        })
    }
}

/// A node's newest status, and the clock against which its deadlines are checked.
///
/// Locks are held only while a pointer is copied, and no user code runs under them, so readers never block the driver.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    newest: StatusWatch,
    pub(crate) clock: Clock,
    pub(crate) holds: Arc<Holds>,
    /// The node itself; `None` for an observer.
    pub(crate) own: Option<Own>,
}

impl Known {
    pub(crate) fn new(status: Status, clock: Clock, own: Option<Own>) -> (Self, Publisher) {
        let (sender, receiver) = watch::channel(Arc::new(status));
        let newest = StatusWatch { receiver };
        let known = Known { newest, clock: clock.clone(), holds: Arc::new(Holds::new()), own };
        (known, Publisher { sender, clock })
    }

    pub(crate) fn status(&self) -> Arc<Status> {
        self.newest.get()
    }

    /// Returns a watch that reports changes from now on.
    pub(crate) fn watch(&self) -> StatusWatch {
        let mut watch = self.newest.clone();
        watch.receiver.mark_unchanged();
        watch
    }

    /// Returns the term under which the node may act as leader now.
    pub(crate) fn term(&self) -> Option<Term> {
        self.status().term_at(self.clock.now())
    }

    pub(crate) fn leadership_left(&self) -> Duration {
        let until = self.status().leadership.map(|leadership| leadership.until);
        self.left(until)
    }

    pub(crate) fn is_member(&self) -> bool {
        self.status().is_member_at(self.clock.now())
    }

    pub(crate) fn session_left(&self) -> Duration {
        let until = self.status().session.as_ref().map(|session| session.until);
        self.left(until)
    }

    fn left(&self, until: Option<Timestamp>) -> Duration {
        until.map_or(Duration::ZERO, |until| until.since(self.clock.now()))
    }

    /// Returns the acknowledged view, while the session is live.
    pub(crate) fn acknowledged(&self) -> Option<View> {
        self.status().acknowledged_at(self.clock.now()).cloned()
    }

    /// Returns the newest version, if the cluster is stable at it and this node is part of it now.
    pub(crate) fn stable_version(&self) -> Option<Version> {
        self.status().stable_version_at(self.clock.now())
    }

    pub(crate) fn stale_for(&self) -> Option<Duration> {
        let since = self.status().stale_since;
        since.map(|since| self.clock.now().since(since))
    }

    /// Returns the reason why the node has ended.
    pub(crate) fn stop_reason(&self) -> StopReason {
        self.newest.ended().0
    }

    /// Waits until `find` returns a value for the newest status at the current time, and returns that value.
    pub(crate) async fn wait_for_some<T>(
        &self,
        find: impl Fn(&Status, Timestamp) -> Option<T>,
    ) -> Result<T, Ended> {
        let mut watch = self.watch();
        loop {
            let status = watch.get();
            if let Phase::Stopped(reason) = &status.phase {
                return Err(Ended(reason.clone()));
            }
            if let Some(found) = find(&status, self.clock.now()) {
                return Ok(found);
            }
            // A renewal between reading the status and reading the clock may have moved the deadline without waking us.
            if Arc::ptr_eq(&status, &watch.get()) {
                watch.changed().await?;
            }
        }
    }
}

/// Publishes a node's status and wakes its watchers.
#[derive(Debug)]
pub(crate) struct Publisher {
    sender: watch::Sender<Arc<Status>>,
    clock: Clock,
}

impl Publisher {
    /// Publishes `next`. Wakes the watchers if it differs in more than deadlines, or if the current status has a
    /// deadline that has passed: the watchers may have seen it pass.
    pub(crate) fn publish(&self, next: Status) -> Arc<Status> {
        let current = self.status();
        if *current == next {
            return current;
        }
        let same = current.says_the_same(&next);
        let next = Arc::new(next);
        let mut slot = next.clone();
        self.sender.send_if_modified(|status| {
            std::mem::swap(status, &mut slot);
            !same || current.has_lapsed(self.clock.now())
        });
        next
    }

    pub(crate) fn status(&self) -> Arc<Status> {
        self.sender.borrow().clone()
    }
}
