use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{clock::Clock, error::Ended};
use crate::{
    event::StopReason,
    machine::{Phase, Status},
    time::Timestamp,
    version::{Term, Version},
    view::View,
};

/// The status of a node, to read and to wait for.
///
/// It hands out values and never a guard: nobody who keeps, nests or forgets a [`Status`] holds the node up. Cheap to clone;
/// it does not keep the node alive.
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

    /// Waits for a status that this watch has not waited for yet, and returns the newest one: others may be skipped. For
    /// every transition subscribe to the [events](crate::Clustering::events).
    ///
    /// It resolves when something happens, and when a deadline passes: then the node is no longer a
    /// [`member`](Status::member), or has no [`active_term`](Status::active_term). A renewal that only moves deadlines is no
    /// change. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Ended`], once the node has ended and the last status was returned.
    pub async fn changed(&mut self) -> Result<Arc<Status>, Ended> {
        match self.receiver.changed().await {
            Ok(()) => Ok(self.receiver.borrow_and_update().clone()),
            Err(_) => Err(self.ended()),
        }
    }

    /// Waits until the status is as `is` says, and returns it. The present status counts. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Ended`], once the node has ended and its last status is not as wanted.
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

/// What a node knows now: its newest status, and the clock that the deadlines in it are compared with.
///
/// Locks are held only while a pointer is copied, and no code of the user runs under them: the driver never waits for anybody.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    newest: StatusWatch,
    pub(crate) clock: Clock,
}

impl Known {
    pub(crate) fn new(status: Status, clock: Clock) -> (Self, Publisher) {
        let (sender, receiver) = watch::channel(Arc::new(status));
        let known = Known { newest: StatusWatch { receiver }, clock: clock.clone() };
        (known, Publisher { sender, clock })
    }

    pub(crate) fn status(&self) -> Arc<Status> {
        self.newest.get()
    }

    /// A watch for changes from now on.
    pub(crate) fn watch(&self) -> StatusWatch {
        let mut watch = self.newest.clone();
        watch.receiver.mark_unchanged();
        watch
    }

    /// The term under which the node may act as leader.
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

    /// The view that the node may work by.
    pub(crate) fn acknowledged(&self) -> Option<View> {
        self.status().acknowledged_at(self.clock.now()).cloned()
    }

    /// The version at which the node is stable.
    pub(crate) fn stable_version(&self) -> Option<Version> {
        self.status().stable_version_at(self.clock.now())
    }

    pub(crate) fn stale_for(&self) -> Option<Duration> {
        let since = self.status().stale_since;
        since.map(|since| self.clock.now().since(since))
    }

    /// Why the node has ended.
    pub(crate) fn stop_reason(&self) -> StopReason {
        self.newest.ended().0
    }

    /// Waits until `what` finds something in the newest status at the present time.
    pub(crate) async fn wait_for_some<T>(
        &self,
        what: impl Fn(&Status, Timestamp) -> Option<T>,
    ) -> Result<T, Ended> {
        let mut watch = self.watch();
        loop {
            let status = watch.get();
            if let Phase::Stopped(reason) = &status.phase {
                return Err(Ended(reason.clone()));
            }
            if let Some(found) = what(&status, self.clock.now()) {
                return Ok(found);
            }
            // A renewal may have moved the deadline without waking anybody, after the status was read and before the clock was.
            if Arc::ptr_eq(&status, &watch.get()) {
                watch.changed().await?;
            }
        }
    }
}

/// Replaces the status of a node, and wakes those who watch it.
#[derive(Debug)]
pub(crate) struct Publisher {
    sender: watch::Sender<Arc<Status>>,
    clock: Clock,
}

impl Publisher {
    /// Publishes `next`. Those who watch are woken if it says something new, or if a deadline that had passed was moved: they
    /// may have seen it pass.
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
