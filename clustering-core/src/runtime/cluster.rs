use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

#[cfg(feature = "probes")]
use super::Known;
use super::{
    builder::{Builder, check_metadata},
    error::{Ended, StopError, UpdateError},
    events::Events,
    shared::{Handle, Shared},
    status::StatusWatch,
};
use crate::{
    discovery::Discovery,
    history::{HistoryEntry, history},
    keyspace::Keyspace,
    machine::{Input, Reply, RequestError, Status},
    name::{Namespace, NodeName, NodeUri},
    node::{Metadata, Node},
    record::{ReadinessOutcome, ReadinessRecord, decode},
    store::{CoordinationStore, Guard, Revision, StoreError, Txn},
    version::{Term, Version},
    view::View,
};

/// A node of a cluster, running.
///
/// Cheap to clone; all clones are the same node. It runs until [`stop`](Self::stop), or until the last clone is
/// dropped: then it leaves in the background, if the tokio runtime lives on for the moment that this takes. Otherwise
/// its lease ends by its TTL.
///
/// Questions are answered at once, from what the node knows; only methods that are `async` may wait for the store.
#[derive(Clone, Debug)]
pub struct Clustering {
    handle: Arc<Handle>,
    name: NodeName,
    uri: NodeUri,
}

impl Clustering {
    /// Describes a node that keeps its cluster in `store`: any [`CoordinationStore`], or an `Arc` of one.
    pub fn builder(store: impl CoordinationStore) -> Builder {
        Builder::new(Arc::new(store))
    }

    pub(super) fn new(handle: Handle, name: NodeName, uri: NodeUri) -> Self {
        Clustering { handle: Arc::new(handle), name, uri }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    #[cfg(feature = "probes")]
    pub(crate) fn known(&self) -> Known {
        self.shared().known.clone()
    }

    /// The node's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Where the node is reached.
    pub fn uri(&self) -> &NodeUri {
        &self.uri
    }

    /// The namespace that the nodes of the service share.
    pub fn namespace(&self) -> &Namespace {
        self.shared().keyspace.namespace()
    }

    /// The keys under which the cluster keeps what it knows.
    pub fn keyspace(&self) -> &Keyspace {
        &self.shared().keyspace
    }

    /// The store.
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

    /// What happens to the node from now on. To miss nothing from the start on, subscribe at the
    /// [builder](Builder::events).
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

    /// The term under which this node may act as leader at this moment: the fencing token (P5).
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

    /// The node that leads, by what this node knows of the log.
    pub fn leader_node(&self) -> Option<Arc<Node>> {
        self.discovery().leader_node()
    }

    /// The nodes that are present now, sorted by name. A version need not have them yet.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.discovery().nodes()
    }

    /// Returns the view of the version that this node acknowledged, while its session is live. The node may work
    /// according to this view.
    pub fn view(&self) -> Option<View> {
        self.shared().known.acknowledged()
    }

    /// True if this node may work on `key` at this moment: its session is live, and the version that it acknowledged
    /// assigns the key to it.
    ///
    /// While the nodes adapt to a newer version, the new owner of a key may be ready before the old owner is. Work that
    /// two nodes must not do at the same time has to wait until the version is [stable](Self::wait_stable).
    pub fn owns(&self, key: impl AsRef<[u8]>) -> bool {
        self.view().is_some_and(|view| view.owns(key))
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

    /// Which version each node acknowledged last, as the store has it now. Costs one read.
    ///
    /// # Errors
    ///
    /// What the store says.
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

    /// The last versions, the newest first: why each was published and by whom, how long it took to become stable, and
    /// who was last. Costs one read; see [`history`](crate::history()).
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn history(&self) -> Result<Vec<HistoryEntry>, StoreError> {
        history(self.store(), self.keyspace()).await
    }

    /// Who is there and which node takes which key, for routing.
    pub fn discovery(&self) -> Discovery {
        Discovery::of(self.handle.clone())
    }

    /// Waits until the newest version that this node knows of is stable, on any node, not only on the leader. Returns
    /// that version.
    ///
    /// What has just happened elsewhere may not have reached this node yet: to wait for what follows from it, take
    /// [`wait_stable_after`](Self::wait_stable_after) with the version from before.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Ended`], if the node ends before.
    pub async fn wait_stable(&self) -> Result<Version, Ended> {
        self.shared().known.wait_for_some(Status::stable_version_at).await
    }

    /// Waits until a version newer than `version` is stable, and returns it. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Ended`], if the node ends before.
    pub async fn wait_stable_after(&self, version: Version) -> Result<Version, Ended> {
        let newer = |stable: &Version| *stable > version;
        let stable = |status: &Status, now| status.stable_version_at(now).filter(newer);
        self.shared().known.wait_for_some(stable).await
    }

    /// Waits until this node may act as leader, and returns its term.
    ///
    /// Together with [`wait_deposed`](Self::wait_deposed) it is the life of a leader:
    ///
    /// ```
    /// # use clustering_core::{Clustering, Ended, Term};
    /// # async fn lead(term: Term) {}
    /// # async fn example(cluster: Clustering) -> Result<(), Ended> {
    /// loop {
    ///     let term = cluster.wait_leader().await?;
    ///     tokio::select! {
    ///         () = lead(term) => {}
    ///         // Dropped at the deadline, before another can lead.
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
    /// [`Ended`], if the node ends before.
    pub async fn wait_leader(&self) -> Result<Term, Ended> {
        self.shared().known.wait_for_some(Status::term_at).await
    }

    /// Waits until this node may no longer act as leader under `term`: deposed, resigned, past its leadership deadline
    /// (P6), or ended. Cancel safe.
    pub async fn wait_deposed(&self, term: Term) {
        // An error says that the node has ended, and its lead with it.
        let is_over = |status: &Status, now| (status.term_at(now) != Some(term)).then_some(());
        let _ = self.shared().known.wait_for_some(is_over).await;
    }

    /// Requests a new version, for example to rebalance by hand, and waits until the leader has published one that is
    /// newer than the newest version that this node knew of. `reason` appears in the causes of that version.
    ///
    /// Concurrent requests share one version. Dropping the future does not cancel the request. Dropped requests are merged
    /// into one, so they do not accumulate while the store is away.
    ///
    /// # Errors
    ///
    /// [`RequestError::Stopped`] if the node ends before.
    pub async fn request_version(&self, reason: impl Into<String>) -> Result<Version, RequestError> {
        self.request_version_for(Some(reason.into())).await
    }

    /// The Crystal class's name for [`request_version`](Self::request_version), without a reason.
    ///
    /// # Errors
    ///
    /// As [`request_version`](Self::request_version).
    pub async fn cluster_change(&self) -> Result<Version, RequestError> {
        self.request_version_for(None).await
    }

    async fn request_version_for(&self, reason: Option<String>) -> Result<Version, RequestError> {
        match self.handle.request(move |id| Input::RequestVersion { id, why: reason }).await? {
            Reply::Version(version) => Ok(version),
            _ => unreachable!("requests for a version are answered with a version"),
        }
    }

    /// Commits `txn` if this node leads, guarded by its present term: a deposed leader's write changes nothing (P5). For
    /// what was decided under an earlier look at [`term`](Self::term) take [`commit_under`](Self::commit_under).
    ///
    /// At most 15 guards of the user's own; no keys under the cluster's `view/`, `ready/` and `history/`. It is sent once: after
    /// [`OutcomeUnknown`](crate::store::ErrorKind::OutcomeUnknown) only the user knows whether it may be repeated.
    /// Dropping the future does not take the write back.
    ///
    /// # Errors
    ///
    /// [`RequestError::NotLeader`] and [`RequestError::Reserved`] if nothing was tried; [`RequestError::Store`] with
    /// [`GuardFailed`](crate::store::ErrorKind::GuardFailed) if the term had ended or a guard of the user's did not
    /// hold.
    pub async fn commit_as_leader(&self, txn: Txn) -> Result<Revision, RequestError> {
        match self.handle.request(move |id| Input::CommitAsLeader { id, txn }).await? {
            Reply::Committed(revision) => Ok(revision),
            _ => unreachable!("fenced writes are answered with a revision"),
        }
    }

    /// As [`commit_as_leader`](Self::commit_as_leader), but only under `term`: for what was decided under it.
    ///
    /// A job that began under one term and ends under a later one of the same node would otherwise overwrite what another
    /// leader wrote between the two. Takes one more of the guards: 14 are the user's.
    ///
    /// # Errors
    ///
    /// As [`commit_as_leader`](Self::commit_as_leader); [`GuardFailed`](crate::store::ErrorKind::GuardFailed) if this
    /// node leads under another term.
    pub async fn commit_under(&self, term: Term, txn: Txn) -> Result<Revision, RequestError> {
        let lead = Guard::created_at(self.keyspace().election_key().clone(), term.revision());
        self.commit_as_leader(txn.guard(lead)).await
    }

    /// Gives up the lead and waits until the log says so. From the call on [`is_leader`](Self::is_leader) is false. This
    /// node leads again only after another did, or after one TTL.
    ///
    /// To end a leader just [`stop`](Self::stop) it: resigning first would publish a version that still has it.
    ///
    /// # Errors
    ///
    /// [`RequestError::NotLeader`] if it does not lead.
    pub async fn resign(&self) -> Result<(), RequestError> {
        self.handle.request(|id| Input::Resign { id }).await.map(drop)
    }

    /// Replaces the node's metadata, and waits until the log has it. The node stays, in a new incarnation, and a newer
    /// version follows. A node that has no session at the time registers with it when it gets one, and does not wait.
    ///
    /// # Errors
    ///
    /// [`UpdateError::Input`] for metadata that the builder would refuse too.
    pub async fn set_metadata(&self, metadata: Metadata) -> Result<(), UpdateError> {
        check_metadata(&metadata)?;
        self.handle.request(|id| Input::Update { id, metadata }).await?;
        Ok(())
    }

    /// Gives the node's place up and waits until the store took its lease back. It goes on to follow the log, owns
    /// nothing and leads nothing, until [`register`](Self::register).
    ///
    /// # Errors
    ///
    /// [`RequestError::Stopped`] if the node ends before.
    pub async fn unregister(&self) -> Result<(), RequestError> {
        self.handle.request(|id| Input::Unregister { id }).await.map(drop)
    }

    /// Takes the node's place again after [`unregister`](Self::unregister), and waits until it is a member.
    ///
    /// # Errors
    ///
    /// [`RequestError::Unregistered`] if it is unregistered again before; [`RequestError::Stopped`] if it ends before.
    pub async fn register(&self) -> Result<(), RequestError> {
        self.handle.request(|id| Input::Register { id }).await.map(drop)
    }

    /// Leaves the cluster and ends: gives the lease back, tells running callbacks that they are superseded, and waits
    /// until all has ended. Afterwards no task of the node is left, save callbacks that block their thread.
    ///
    /// Stopping takes one store call plus the time that the callbacks need to return. It is bounded by
    /// [`Config::stop_timeout`](crate::Config::stop_timeout) plus one second, as long as the runtime on which the node
    /// was started keeps running. If the store does not answer, it waits at most until the lease has expired. Do not
    /// await it in the node's own callbacks: it waits for them to end. It ends the node for all clones of the handle,
    /// and calling it twice is harmless. The node also ends if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`StopError::LeaseNotGivenBack`] if the store did not answer: the node has ended, but the others may see it
    /// until its TTL has passed. If the store was down, and not merely unreachable, it may restart the TTL of every
    /// lease when it comes back, as etcd does. The others may then see the node for another TTL.
    pub async fn stop(&self) -> Result<(), StopError> {
        self.handle.stop().await;
        if self.shared().machine().is_given_back() { Ok(()) } else { Err(StopError::LeaseNotGivenBack) }
    }

    /// A handle that does not keep the node alive: for its own callbacks, which would otherwise keep it for ever.
    pub fn downgrade(&self) -> WeakClustering {
        WeakClustering {
            handle: Arc::downgrade(&self.handle),
            name: self.name.clone(),
            uri: self.uri.clone(),
        }
    }

    /// Resolves when the node has ended, for whatever reason, with that reason.
    pub async fn ended(&self) -> Ended {
        self.shared().ended.cancelled().await;
        Ended(self.shared().known.stop_reason())
    }
}

/// A handle to a node that does not keep it alive. See [`Clustering::downgrade`].
#[derive(Clone, Debug)]
pub struct WeakClustering {
    handle: Weak<Handle>,
    name: NodeName,
    uri: NodeUri,
}

impl WeakClustering {
    /// The node, if somebody still holds it.
    pub fn upgrade(&self) -> Option<Clustering> {
        let handle = self.handle.upgrade()?;
        Some(Clustering { handle, name: self.name.clone(), uri: self.uri.clone() })
    }
}
