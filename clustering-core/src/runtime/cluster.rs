use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

#[cfg(feature = "probes")]
use super::Known;
use super::{
    builder::{Builder, check_metadata},
    error::{Ended, InCallback, StopError, UpdateError, WaitError},
    events::Events,
    shared::{Handle, Shared},
    status::StatusWatch,
};
use crate::{
    config::MAX_TTL,
    discovery::Discovery,
    history::{HistoryEntry, history},
    keyspace::Keyspace,
    machine::{Input, RequestError, Status},
    name::{Namespace, NodeName, NodeUri},
    node::{Metadata, Node},
    record::{ReadinessOutcome, ReadinessRecord, decode},
    store::{CoordinationStore, Guard, Revision, StoreError, Txn},
    version::{Term, Version},
    view::View,
};

/// Handle to a running node of a cluster.
///
/// Cheap to clone; all clones refer to the same node. The node runs until [`stop`](Self::stop) is called or the last
/// clone is dropped. After a drop it leaves in the background, if the tokio runtime keeps running for that long;
/// otherwise its lease expires after the TTL.
///
/// Methods that are not `async` answer from the node's memory and never wait for the store.
#[derive(Clone, Debug)]
pub struct Clustering {
    handle: Arc<Handle>,
    name: NodeName,
    uri: NodeUri,
}

impl Clustering {
    /// Returns a builder for a node whose cluster is kept in `store`: any [`CoordinationStore`], or an `Arc` of one.
    pub fn builder(store: impl CoordinationStore) -> Builder {
        Builder::new(Arc::new(store))
    }

    pub(super) fn new(handle: Arc<Handle>, name: NodeName, uri: NodeUri) -> Self {
        Clustering { handle, name, uri }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    #[cfg(feature = "probes")]
    pub(crate) fn known(&self) -> Known {
        self.shared().known.clone()
    }

    /// Returns the node's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Returns the URI under which others reach the node.
    pub fn uri(&self) -> &NodeUri {
        &self.uri
    }

    /// Returns the cluster's namespace.
    pub fn namespace(&self) -> &Namespace {
        self.shared().keyspace.namespace()
    }

    /// Returns the keys of the cluster in the store.
    pub fn keyspace(&self) -> &Keyspace {
        &self.shared().keyspace
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<dyn CoordinationStore> {
        &self.shared().store
    }

    /// Returns a watch on the node's status: read the current snapshot, or wait for the next one.
    ///
    /// A snapshot describes the moment at which it was taken. For answers that depend on the current time, such as
    /// whether the node still leads, use the methods of this type.
    pub fn status(&self) -> StatusWatch {
        self.shared().known.watch()
    }

    /// Subscribes to the node's events from now on. To see the events of the start too, subscribe with
    /// [`Builder::events`].
    pub fn events(&self) -> Events {
        self.shared().hub.subscribe()
    }

    /// True if this node may act as leader at this moment (P6).
    ///
    /// False as soon as the leadership deadline has passed, without waiting for any network call. This also holds right
    /// after the process was stopped (SIGSTOP) or the machine was suspended.
    pub fn is_leader(&self) -> bool {
        self.term().is_some()
    }

    /// Returns the term under which this node may act as leader at this moment, or `None` if it may not. The term is
    /// the fencing token for the leader's writes (P5).
    pub fn term(&self) -> Option<Term> {
        self.shared().known.term()
    }

    /// Returns the time for which this node may continue to act as leader if no renewal succeeds. Zero if it does not
    /// lead.
    pub fn leadership_left(&self) -> Duration {
        self.shared().known.leadership_left()
    }

    /// True if this node is a member at this moment: it is registered in the log, and its session is live (P6).
    pub fn is_member(&self) -> bool {
        self.shared().known.is_member()
    }

    /// Returns the time until this node's session expires if no renewal succeeds. Zero if it has no session.
    pub fn session_left(&self) -> Duration {
        self.shared().known.session_left()
    }

    /// Returns the time since the store stopped answering; `None` while it answers.
    pub fn stale_for(&self) -> Option<Duration> {
        self.shared().known.stale_for()
    }

    /// Returns the leader, as far as this node has seen the log.
    pub fn leader_node(&self) -> Option<Arc<Node>> {
        self.discovery().leader_node()
    }

    /// Returns the nodes that are present now, sorted by name. The newest version may not contain them yet.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.discovery().nodes()
    }

    /// Returns the view of the version that this node acknowledged, while its session is live. The node may work
    /// according to this view.
    pub fn view(&self) -> Option<View> {
        self.shared().known.acknowledged()
    }

    /// True if this node may work on `key` at this moment.
    ///
    /// On an [exclusive](Builder::exclusive) node: it holds the key (P12). Take a [hold](Self::hold) before work
    /// begins, since the answer may be out of date right after the call.
    ///
    /// On other nodes: the session is live, and the version that the node acknowledged assigns the key to it. While the
    /// nodes adapt to a newer version, the new owner of a key may be ready before the old owner is. Work that two nodes
    /// must not do at the same time needs an exclusive cluster.
    pub fn owns(&self, key: impl AsRef<[u8]>) -> bool {
        match self.slot_of(&key) {
            Some(slot) => self.shared().known.holds.has(slot),
            None => self.view().is_some_and(|view| view.owns(key)),
        }
    }

    /// Returns the newest version that this node acknowledged in its current session.
    pub fn acknowledged_version(&self) -> Option<Version> {
        self.view().map(|view| view.version())
    }

    /// Returns the newest published version that this node knows of. The node may not have adapted to it yet.
    pub fn newest_version(&self) -> Option<Version> {
        self.status().get().newest.as_ref().map(View::version)
    }

    /// The Crystal class's name for [`acknowledged_version`](Self::acknowledged_version).
    pub fn cluster_version(&self) -> Option<Version> {
        self.acknowledged_version()
    }

    /// True if the cluster is stable and this node is part of it at this moment.
    ///
    /// The *cluster* is stable while the log is up to date, the newest version is recorded as stable, and no other
    /// version is due: the nodes present are exactly those of its view, there is a leader, and no newer version has
    /// been requested. [`Discovery::is_stable`] and the [report](crate::report::ClusterState::Stable) use the same
    /// definition. This node is part of the cluster while it is in that view with a live session (P6). The result is
    /// therefore false while the store does not answer, after [`unregister`](Self::unregister), and while the node
    /// leaves.
    ///
    /// Recent changes on other nodes may not have reached this node yet.
    pub fn is_stable(&self) -> bool {
        self.shared().known.stable_version().is_some()
    }

    /// The Crystal class's name for [`is_stable`](Self::is_stable).
    pub fn cluster_consistent(&self) -> bool {
        self.is_stable()
    }

    /// Reads the version that each node acknowledged last from the store. Costs one read.
    ///
    /// # Errors
    ///
    /// The store's error, if the read fails.
    pub async fn node_versions(&self) -> Result<BTreeMap<NodeName, Version>, StoreError> {
        let keyspace = self.keyspace();
        let snapshot = self.store().read(keyspace.ready_prefix()).await?;
        let version = |entry: crate::store::Entry| {
            let name = keyspace.acknowledger(&entry.key)?;
            let record: ReadinessRecord = decode(&entry.value).ok()?;
            (record.outcome == ReadinessOutcome::Ready).then_some((name, record.version))
        };
        Ok(snapshot.entries.into_iter().filter_map(version).collect())
    }

    /// Reads the last 64 versions, newest first: why and by which leader each was published, how long it took to become
    /// stable, and which node was last. Costs one read; see [`history`](crate::history()).
    ///
    /// # Errors
    ///
    /// The store's error, if the read fails.
    pub async fn history(&self) -> Result<Vec<HistoryEntry>, StoreError> {
        history(self.store(), self.keyspace()).await
    }

    /// Returns the cluster's nodes and the owners of keys, for routing requests.
    pub fn discovery(&self) -> Discovery {
        Discovery::of(self.handle.clone())
    }

    /// Waits until the newest version that this node knows of is stable, on any node, not only on the leader. Returns
    /// that version.
    ///
    /// Recent changes on other nodes may not have reached this node yet. To wait for their effect, call
    /// [`wait_stable_after`](Self::wait_stable_after) with the version from before the change.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`WaitError::Ended`], if the node ends first; [`WaitError::InCallback`] in the node's own callbacks.
    pub async fn wait_stable(&self) -> Result<Version, WaitError> {
        self.shared().may_wait()?;
        Ok(self.shared().known.wait_for_some(Status::stable_version_at).await?)
    }

    /// Waits until a version newer than `version` is stable, and returns that version. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`WaitError::Ended`], if the node ends first; [`WaitError::InCallback`] in the node's own callbacks.
    pub async fn wait_stable_after(&self, version: Version) -> Result<Version, WaitError> {
        self.shared().may_wait()?;
        let newer = |stable: &Version| *stable > version;
        let stable = |status: &Status, now| status.stable_version_at(now).filter(newer);
        Ok(self.shared().known.wait_for_some(stable).await?)
    }

    /// Waits until this node may act as leader, and returns its term.
    ///
    /// Use it together with [`wait_deposed`](Self::wait_deposed):
    ///
    /// ```
    /// # use clustering_core::{Clustering, Term, WaitError};
    /// # async fn lead(term: Term) {}
    /// # async fn example(cluster: Clustering) -> Result<(), WaitError> {
    /// loop {
    ///     let term = cluster.wait_leader().await?;
    ///     tokio::select! {
    ///         () = lead(term) => {}
    ///         // Drops the work at the leadership deadline, before another node can lead.
    ///         () = cluster.wait_deposed(term) => {}
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`WaitError::Ended`], if the node ends first; [`WaitError::InCallback`] in the node's own callbacks.
    pub async fn wait_leader(&self) -> Result<Term, WaitError> {
        self.shared().may_wait()?;
        Ok(self.shared().known.wait_for_some(Status::term_at).await?)
    }

    /// Waits until this node may no longer act as leader under `term`: another node was elected, this node resigned or
    /// ended, or the leadership deadline passed (P6). Cancel safe.
    pub async fn wait_deposed(&self, term: Term) {
        // An error means that the node has ended, and with it its leadership.
        let is_over = |status: &Status, now| (status.term_at(now) != Some(term)).then_some(());
        let _ = self.shared().known.wait_for_some(is_over).await;
    }

    /// Requests a new version, for example to rebalance by hand, and waits until the leader has published one that is
    /// newer than the newest version that this node knew of. `reason` appears in the causes of that version.
    ///
    /// Concurrent requests share one version. Dropping the future does not cancel the request. Dropped requests are
    /// merged into one, so they do not accumulate while the store is away.
    ///
    /// # Errors
    ///
    /// [`RequestError::Stopped`] if the node ends first.
    pub async fn request_version(&self, reason: impl Into<String>) -> Result<Version, RequestError> {
        self.request_version_for(Some(reason.into())).await
    }

    /// The Crystal class's name for [`request_version`](Self::request_version), without a reason.
    ///
    /// # Errors
    ///
    /// The same as [`request_version`](Self::request_version).
    pub async fn cluster_change(&self) -> Result<Version, RequestError> {
        self.request_version_for(None).await
    }

    async fn request_version_for(&self, reason: Option<String>) -> Result<Version, RequestError> {
        self.handle.request(move |id| Input::RequestVersion { id, why: reason }).await
    }

    /// Commits `txn` if this node leads. The commit is guarded by the current term, so the write of a deposed leader
    /// changes nothing (P5). If the write was decided under an earlier value of [`term`](Self::term), use
    /// [`commit_under`](Self::commit_under).
    ///
    /// `txn` may have at most 15 guards, and must not touch keys under the cluster's `view/`, `ready/` or `history/`.
    /// It is sent once and never retried: after [`OutcomeUnknown`](crate::store::ErrorKind::OutcomeUnknown) only the
    /// caller can tell if repeating it is safe. Dropping the future does not cancel the commit.
    ///
    /// # Errors
    ///
    /// [`RequestError::NotLeader`] or [`RequestError::Reserved`] if nothing was sent; [`RequestError::Store`]
    /// otherwise, with [`GuardFailed`](crate::store::ErrorKind::GuardFailed) if the term had ended or a guard of
    /// `txn` failed.
    pub async fn commit_as_leader(&self, txn: Txn) -> Result<Revision, RequestError> {
        self.handle.request(move |id| Input::CommitAsLeader { id, txn }).await
    }

    /// Commits `txn` only if this node leads under `term`. Use it for writes that were decided under that term.
    ///
    /// A job may begin under one term and end under a later term of the same node. With
    /// [`commit_as_leader`](Self::commit_as_leader) it would then overwrite what another leader wrote in between. The
    /// term takes one guard, so `txn` may have at most 14.
    ///
    /// # Errors
    ///
    /// The same as [`commit_as_leader`](Self::commit_as_leader);
    /// [`GuardFailed`](crate::store::ErrorKind::GuardFailed) if this node leads under another term.
    pub async fn commit_under(&self, term: Term, txn: Txn) -> Result<Revision, RequestError> {
        let lead = Guard::created_at(self.keyspace().election_key().clone(), term.revision());
        self.commit_as_leader(txn.guard(lead)).await
    }

    /// Gives up leadership and waits until the log shows it. [`is_leader`](Self::is_leader) is false from the moment of
    /// the call. This node campaigns again only after another node has led, or after one TTL. Dropping the future does
    /// not cancel the resignation.
    ///
    /// There is no need to resign before [`stop`](Self::stop): this would only publish one more version that still
    /// contains the node.
    ///
    /// # Errors
    ///
    /// [`RequestError::NotLeader`] if this node does not lead.
    pub async fn resign(&self) -> Result<(), RequestError> {
        self.handle.request(|id| Input::Resign { id }).await
    }

    /// Replaces the node's metadata and waits until the log contains the change. The node stays a member, under a new
    /// incarnation, and the leader publishes a new version. If the node has no session, this returns at once, and the
    /// node joins with the new metadata.
    ///
    /// # Errors
    ///
    /// [`UpdateError::Input`] for metadata that the builder would refuse, too.
    pub async fn set_metadata(&self, metadata: Metadata) -> Result<(), UpdateError> {
        check_metadata(&metadata)?;
        Ok(self.handle.request(|id| Input::Update { id, metadata }).await?)
    }

    /// Leaves the cluster without ending the node, and waits until the store has revoked the lease. The node still
    /// follows the log, but owns no keys and does not lead until [`register`](Self::register) is called.
    ///
    /// # Errors
    ///
    /// [`RequestError::Stopped`] if the node ends first. [`RequestError::InCallback`] in the node's own callbacks: the
    /// node begins to leave, and this call returns at once.
    pub async fn unregister(&self) -> Result<(), RequestError> {
        self.handle.request_outside(|id| Input::Unregister { id }).await
    }

    /// Rejoins the cluster after [`unregister`](Self::unregister), and waits until the node is a member.
    ///
    /// # Errors
    ///
    /// [`RequestError::Unregistered`] if the node is unregistered again first; [`RequestError::Stopped`] if it ends
    /// first. [`RequestError::InCallback`] in the node's own callbacks: the node begins to rejoin, and this call returns
    /// at once.
    pub async fn register(&self) -> Result<(), RequestError> {
        self.handle.request_outside(|id| Input::Register { id }).await
    }

    /// Leaves the cluster and ends the node: revokes the lease, tells running callbacks that they are superseded, and
    /// waits until they have ended. Afterwards no task of the node is left, except callbacks that block their thread.
    ///
    /// An [exclusive](Builder::exclusive) node hands over its keys first: its holds are lost at once, and it waits
    /// until the service has dropped them and the [`release`](Builder::release) callback has succeeded.
    ///
    /// Stopping takes one store call plus the time that the callbacks need to return. It is bounded by
    /// [`Config::stop_timeout`](field@crate::Config::stop_timeout) plus one second, as long as the runtime on which
    /// the node was started keeps running. If the store does not answer, it waits at most until the lease has
    /// expired. It ends the node for all clones of the handle, and calling it twice is harmless. The node also ends
    /// if the future is dropped.
    ///
    /// `Ok` means that the lease was revoked, or that its TTL has passed without a renewal, so the store expires it.
    /// However, a store that was down, and not merely unreachable, may restart the TTL of every lease when it comes
    /// back, as etcd does. The other nodes then see this node for up to another TTL.
    ///
    /// # Errors
    ///
    /// [`StopError::LeaseNotGivenBack`] if the store did not revoke the lease in time, and the TTL has not passed yet:
    /// the node has ended, but the other nodes see it until the TTL has passed, or for another TTL, as described above.
    ///
    /// [`StopError::InCallback`] in the node's own callbacks: the node begins to stop, and this call returns at once.
    pub async fn stop(&self) -> Result<(), StopError> {
        self.stop_for_restart(Duration::ZERO).await
    }

    /// Leaves the cluster like [`stop`](Self::stop), and says that the node will be back under the same name within
    /// `grace`. Its slots then wait for it, without an owner, and do not move to other nodes and back. If the node is
    /// not back in time, they move.
    ///
    /// The leader counts the time from the moment at which it sees the node leave; a new leader starts counting
    /// again. Times above 1 day are shortened to 1 day. Has no effect on nodes that are not
    /// [exclusive](Builder::exclusive).
    ///
    /// # Errors
    ///
    /// Same as [`stop`](Self::stop).
    pub async fn stop_for_restart(&self, grace: Duration) -> Result<(), StopError> {
        self.handle.begin_stop(grace.min(MAX_TTL));
        self.shared().may_wait().map_err(|InCallback| StopError::InCallback)?;
        self.shared().ended.cancelled().await;
        if self.shared().machine().is_given_back() { Ok(()) } else { Err(StopError::LeaseNotGivenBack) }
    }

    /// Returns a handle that does not keep the node alive, for tasks that should end with the node. Callbacks are given
    /// one; see [`Stabilization::cluster`](crate::Stabilization::cluster).
    pub fn downgrade(&self) -> WeakClustering {
        WeakClustering {
            handle: Arc::downgrade(&self.handle),
            name: self.name.clone(),
            uri: self.uri.clone(),
        }
    }

    /// Waits until the node has ended, and returns the reason. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`InCallback`] in the node's own callbacks.
    pub async fn ended(&self) -> Result<Ended, InCallback> {
        self.shared().may_wait()?;
        self.shared().ended.cancelled().await;
        Ok(Ended(self.shared().known.stop_reason()))
    }
}

/// A handle to a node that does not keep it alive. Callbacks are given one, and [`Clustering::downgrade`] returns one.
#[derive(Clone, Debug)]
pub struct WeakClustering {
    handle: Weak<Handle>,
    name: NodeName,
    uri: NodeUri,
}

impl WeakClustering {
    pub(super) fn new(handle: Weak<Handle>, name: NodeName, uri: NodeUri) -> Self {
        WeakClustering { handle, name, uri }
    }

    /// Returns the node's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Returns the URI under which others reach the node.
    pub fn uri(&self) -> &NodeUri {
        &self.uri
    }

    /// Returns a strong handle, unless all of them have been dropped.
    pub fn upgrade(&self) -> Option<Clustering> {
        let handle = self.handle.upgrade()?;
        Some(Clustering { handle, name: self.name.clone(), uri: self.uri.clone() })
    }
}
