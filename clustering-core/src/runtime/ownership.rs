//! The methods of a node's handle for exclusive ownership (P12).

use std::{future::Future, sync::Arc, time::Duration};

use super::{
    Clustering,
    holds::{HeldTasks, Hold, NotHeld, WorkError, supervise, work},
    own::Own,
    status::Known,
};
use crate::{
    machine::{Input, Phase, RequestError, Status},
    name::NodeName,
    slots::{Slot, SlotSet},
    store::{Revision, Txn},
    time::Timestamp,
    version::Version,
    view::View,
};

impl Known {
    /// Returns the slot of a key, if the node is exclusive.
    pub(crate) fn slot_of(&self, key: impl AsRef<[u8]>) -> Option<Slot> {
        self.own.as_ref()?.slots.map(|slots| slots.slot_of(key))
    }

    /// Returns a hold of the key's slot, or the reason why the node does not hold it now.
    pub(crate) fn hold_key(&self, key: impl AsRef<[u8]>) -> Result<Hold, NotHeld> {
        match self.slot_of(key) {
            Some(slot) => self.hold(slot),
            None => Err(self.not_exclusive()),
        }
    }

    pub(crate) fn hold(&self, slot: Slot) -> Result<Hold, NotHeld> {
        self.holds.hold(slot).ok_or_else(|| self.why_not(slot))
    }

    /// Returns the reason why the slot is not held: its owner, if another node is known to own it, or why this node
    /// cannot hold it.
    fn why_not(&self, slot: Slot) -> NotHeld {
        let Some(own) = self.own.as_ref().filter(|own| own.slots.is_some()) else {
            return self.not_exclusive();
        };
        let status = self.status();
        if let Phase::Stopped(_) = status.phase {
            return NotHeld::Stopping;
        }
        let elsewhere = status.newest.as_ref().and_then(|newest| elsewhere(newest, slot, &own.name));
        elsewhere.unwrap_or_else(|| why_not_here(&status, self.clock.now()))
    }

    fn not_exclusive(&self) -> NotHeld {
        NotHeld::NotExclusive { nodes: self.own.iter().map(|own| own.name.clone()).collect() }
    }

    /// Waits while the slot is on its way to this node.
    async fn wait_hold(&self, slot: Slot) -> Result<Hold, NotHeld> {
        let (mut status, mut table) = (self.watch(), self.holds.changes());
        loop {
            match self.hold(slot) {
                Err(NotHeld::Moving) => {}
                decided => return decided,
            }
            tokio::select! {
                biased;
                changed = status.changed() => changed.map_err(|_| NotHeld::Stopping).map(drop)?,
                // The sender lives as long as the table.
                _ = table.changed() => {}
            }
        }
    }

    /// Waits until this node has folded the version or a later one.
    async fn wait_version(&self, version: Version) -> Result<(), NotHeld> {
        let knows =
            |status: &Status| status.newest.as_ref().is_some_and(|newest| newest.version() >= version);
        let is_over = |status: &Status| matches!(status.phase, Phase::Leaving | Phase::Stopped(_));
        let status = self.watch().wait_for(|status| knows(status) || is_over(status)).await;
        let knows_it = status.is_ok_and(|status| knows(&status));
        if knows_it { Ok(()) } else { Err(NotHeld::Stopping) }
    }
}

/// Returns the reason if the view gives the slot to no node, or to a node other than `me`.
fn elsewhere(view: &View, slot: Slot, me: &NodeName) -> Option<NotHeld> {
    if !view.not_exclusive().is_empty() {
        return Some(NotHeld::NotExclusive { nodes: view.not_exclusive().to_vec() });
    }
    if !view.has_handover() {
        return None;
    }
    match view.owner_of(slot) {
        None => Some(match view.kept_for(slot) {
            Some(node) => NotHeld::Waiting { node: node.clone(), version: view.version() },
            None => NotHeld::Unowned,
        }),
        Some(node) if node.name == *me => None,
        Some(node) => Some(NotHeld::Elsewhere { node: node.clone(), version: view.version() }),
    }
}

/// Returns the reason why a node does not hold a slot that it owns or whose owner it does not know.
fn why_not_here(status: &Status, now: Timestamp) -> NotHeld {
    let is_running_out = status.holdings.as_ref().is_some_and(|holdings| now >= holdings.until);
    match status.phase {
        Phase::Leaving | Phase::Stopped(_) => NotHeld::Stopping,
        _ if !status.is_member_at(now) || is_running_out => NotHeld::NoSession,
        _ => NotHeld::Moving,
    }
}

/// Exclusive ownership (P12), for nodes that were built with [`exclusive`](crate::Builder::exclusive).
impl Clustering {
    /// Returns a hold of the key if this node holds it at this moment: while the hold is valid, no other process can
    /// hold the key (P12).
    ///
    /// The call takes well below a microsecond if this node holds the key. It neither waits nor takes a lock. The
    /// key's slot is not handed over before the hold is dropped, so keep it only for as long as the work takes.
    ///
    /// # Errors
    ///
    /// [`NotHeld`], with the owner's node if another node owns the key.
    pub fn hold(&self, key: impl AsRef<[u8]>) -> Result<Hold, NotHeld> {
        self.shared().known.hold_key(key)
    }

    /// Like [`hold`](Self::hold), for a slot instead of a key.
    ///
    /// # Errors
    ///
    /// The same as [`hold`](Self::hold).
    pub fn hold_slot(&self, slot: Slot) -> Result<Hold, NotHeld> {
        self.shared().known.hold(slot)
    }

    /// Like [`hold`](Self::hold), but waits while the key is [on its way](NotHeld::Moving) to this node: until the
    /// former owner has let go of it and `stabilize` has succeeded. There is no time limit; use
    /// [`tokio::time::timeout`]. Cancel safe.
    ///
    /// # Errors
    ///
    /// The same as [`hold`](Self::hold), except [`NotHeld::Moving`], if the key is or becomes held by another node, or
    /// if this node cannot hold it; [`NotHeld::InCallback`] in the node's own callbacks.
    pub async fn wait_hold(&self, key: impl AsRef<[u8]>) -> Result<Hold, NotHeld> {
        self.shared().may_wait()?;
        let known = &self.shared().known;
        let slot = known.slot_of(key).ok_or_else(|| known.not_exclusive())?;
        known.wait_hold(slot).await
    }

    /// Like [`wait_hold`](Self::wait_hold), but first waits until this node knows the version or a later one. Cancel
    /// safe.
    ///
    /// Call it for a request that another node has forwarded with the version of [`NotHeld::Elsewhere`]. Otherwise a
    /// node that does not know that version yet could send the request back, and the two nodes would forward it to each
    /// other forever. The version comes from another process, so limit the time with [`tokio::time::timeout`].
    ///
    /// # Errors
    ///
    /// The same as [`wait_hold`](Self::wait_hold).
    pub async fn wait_hold_at(&self, key: impl AsRef<[u8]>, version: Version) -> Result<Hold, NotHeld> {
        self.shared().may_wait()?;
        let known = &self.shared().known;
        let slot = known.slot_of(key).ok_or_else(|| known.not_exclusive())?;
        known.wait_version(version).await?;
        known.wait_hold(slot).await
    }

    /// Commits `txn` if this node still holds the slot of `hold`. However late the transaction reaches the store, it is
    /// not applied once another process can hold the slot (P12).
    ///
    /// `txn` may have at most 15 guards, and must not touch keys under the cluster's `view/`, `ready/` or `history/`.
    /// If a newer version was published under which this node keeps the slot, the commit is repeated under that
    /// version. After [`OutcomeUnknown`](crate::store::ErrorKind::OutcomeUnknown) it is never repeated: only the caller
    /// knows whether that is safe. Dropping the future does not cancel the commit.
    ///
    /// # Errors
    ///
    /// [`RequestError::NotHeld`] if the hold is lost, or [`RequestError::Reserved`]: nothing was written.
    /// [`RequestError::Store`] with the store's error, which is [`GuardFailed`](crate::store::ErrorKind::GuardFailed)
    /// if a guard of `txn` failed. [`RequestError::Stopped`] if the node ends first.
    pub async fn commit_as_owner(&self, hold: &Hold, txn: Txn) -> Result<Revision, RequestError> {
        if hold.is_lost() {
            return Err(RequestError::NotHeld);
        }
        let (slot, acquired) = (hold.slot(), hold.token());
        self.handle().request(move |id| Input::CommitAsOwner { id, slot, acquired, txn }).await
    }

    /// Returns the slots that this node holds at this moment. Empty if it is not exclusive.
    pub fn held_slots(&self) -> SlotSet {
        self.shared().known.holds.held()
    }

    /// Returns the slot of a key; `None` if this node is not exclusive.
    pub fn slot_of(&self, key: impl AsRef<[u8]>) -> Option<Slot> {
        self.shared().known.slot_of(key)
    }

    /// Waits for a [hold](Self::wait_hold) of the key, runs `work` with it, and returns the result.
    ///
    /// When the slot is [lost](Hold::lost), the work has nine tenths of
    /// [`Config::release_timeout`](crate::Config::release_timeout) to return, but not longer than the hold is
    /// [valid](Hold::is_valid). Then the work is dropped at its next await. So the work cannot keep the slot, unless it
    /// blocks its thread or moves the hold into another task. The hold is dropped after the work.
    ///
    /// ```
    /// # use clustering_core::{Clustering, WorkError};
    /// # async fn read_next() -> u32 { 0 }
    /// # async fn example(cluster: Clustering) -> Result<(), WorkError> {
    /// cluster
    ///     .while_held("device-42", |hold| async move {
    ///         while !hold.is_lost() {
    ///             read_next().await;
    ///         }
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// Dropping the future drops the work, and then the hold.
    ///
    /// # Errors
    ///
    /// [`WorkError::NotHeld`] if the work did not begin, [`WorkError::Dropped`] if it was dropped.
    pub async fn while_held<F: Future>(
        &self,
        key: impl AsRef<[u8]>,
        run: impl FnOnce(Arc<Hold>) -> F,
    ) -> Result<F::Output, WorkError> {
        let hold = self.wait_hold(key).await?;
        work(Arc::new(hold), run, self.grace()).await.ok_or(WorkError::Dropped)
    }

    /// Runs one task for each slot that this node holds: now, and whenever it acquires a slot, until the node ends.
    ///
    /// When a slot is [lost](Hold::lost), its task has the same time to return as in [`while_held`](Self::while_held),
    /// and is dropped afterwards. A slot that is acquired again gets a new task, after the former task has ended. A
    /// task that returns or panics while its slot is held is not restarted until the slot is acquired again; a panic is
    /// reported as an error to `tracing`.
    ///
    /// The tasks do not keep the node alive. Use the returned [`HeldTasks`] to wait for their end.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn for_each_held_slot<F, R>(&self, work: F) -> HeldTasks
    where
        F: Fn(Arc<Hold>) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let shared = self.shared();
        supervise(shared.known.holds.clone(), shared.ended.clone(), self.grace(), work)
    }

    fn grace(&self) -> Option<Duration> {
        self.shared().known.own.as_ref().and_then(Own::grace)
    }
}
