use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

#[cfg(feature = "test-util")]
use super::callbacks::Callback;
use super::{
    Clustering, WeakClustering,
    callbacks::{Callbacks, Release, Stabilization, Stable},
    clock::{Clock, Suspends},
    driver::{Driver, Started},
    error::StartError,
    events::{Events, Hub},
    liveness::{Listener, Liveness, advertised_host, with_port},
    shared::{Handle, Shared},
    spawn::spawn_task,
};
use crate::{
    config::{Config, CrashDetection, Laggards, NameConflict, SharedAssignor},
    keyspace::Keyspace,
    machine::{Identity, Machine},
    name::{InvalidInput, Namespace, NodeName, NodeUri},
    node::{Endpoint, Metadata, ProcessId, WEIGHT},
    outcome::IntoOutcome,
    placement::Weight,
    record::encode,
    slots::{Assignor, SlotCount},
    store::CoordinationStore,
    version::IdGenerator,
};

/// Largest size of a node's metadata as JSON, in bytes.
const MAX_METADATA: usize = 32 * 1024;

/// Default namespace.
const NAMESPACE: &str = "cluster";

/// Start of the wall clock of seeded nodes, in milliseconds since 1970: November 2023, so that their versions look like
/// ordinary ones.
const SEEDED_EPOCH_MS: u64 = 1_700_000_000_000;

/// Describes a node and [starts](Self::start) it. Only the [URI](Self::uri) is required. All input is checked at the
/// start.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    store: Store,
    namespace: String,
    name: Option<String>,
    uri: String,
    metadata: Metadata,
    config: Config,
    /// Number of slots as given, which may be invalid.
    slots: Option<u16>,
    callbacks: Callbacks,
    seed: Option<u64>,
    hub: Arc<Hub>,
    suspends: Suspends,
}

struct Store(Arc<dyn CoordinationStore>);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Builder {
    pub(super) fn new(store: Arc<dyn CoordinationStore>) -> Self {
        Builder {
            store: Store(store),
            namespace: NAMESPACE.to_owned(),
            name: None,
            uri: String::new(),
            metadata: Metadata::new(),
            config: Config::default(),
            slots: None,
            callbacks: Callbacks::default(),
            seed: None,
            hub: Arc::default(),
            suspends: Suspends::default(),
        }
    }

    /// Sets the cluster's namespace: nodes of the same namespace form a cluster. `cluster` by default; see
    /// [`Namespace`].
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the node's name, which must be unique in the cluster; see [`NodeName`]. A new ULID by default.
    ///
    /// The name decides which keys the node owns. Use a name that survives a restart, such as the pod name of a
    /// stateful set, so that a restarted node gets its keys back.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the URI under which others reach the node. Required; it must have a scheme and a host.
    pub fn uri(mut self, uri: impl Into<String>) -> Self {
        self.uri = uri.into();
        self
    }

    /// Adds an entry to the metadata that the node publishes about itself. All entries together take at most 32 KiB as
    /// JSON.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the node's share of keys: 1 by default, 0 for no keys. It is stored as the metadata entry `weight`.
    pub fn weight(self, weight: u32) -> Self {
        self.metadata(WEIGHT, weight.to_string())
    }

    /// Sets the callback that adapts the node to a new view. It is called for the newest version, one call at a time,
    /// until it succeeds (P3). Without a callback the node is always ready.
    ///
    /// The callback returns `()`, a `bool`, an [`Outcome`](crate::Outcome), or a `Result` of any of these. `false`, an
    /// error or a panic refuses the version: the callback is called again, after 100 ms at first and with delays that
    /// double to 5 s ([`Config::stabilize_retry`]).
    ///
    /// It runs as a task of its own. Move code that blocks its thread to
    /// [`spawn_blocking`](tokio::task::spawn_blocking): while all threads are blocked, the node cannot renew its lease.
    ///
    /// The callback must not wait for its own node: [`stop`](Clustering::stop), [`ended`](Clustering::ended),
    /// [`register`](Clustering::register), [`unregister`](Clustering::unregister),
    /// [`while_held`](Clustering::while_held) and the methods whose names begin with `wait_` return an error in
    /// callbacks, except for [`wait_deposed`](Clustering::wait_deposed). Everything else of [`Clustering`] may be used
    /// through [`Stabilization::cluster`]. Do not capture a strong handle, which would keep the node alive forever.
    pub fn stabilize<F, R>(mut self, callback: F) -> Self
    where
        F: Fn(Stabilization) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.callbacks.set_stabilize(callback);
        self
    }

    /// Makes the node exclusive: each key is held by at most one process at any time (P12). Keys hash to this many
    /// slots, from 1 to 4,096, which the leader distributes among the nodes.
    ///
    /// All nodes of the namespace need the same number, for as long as the namespace exists; a node with another number
    /// is refused at the start. Choose about ten to a hundred slots per node of the largest cluster that you expect.
    /// Work on a key only while you have a [hold](Clustering::hold) of it. While any node of the cluster is not
    /// exclusive, no keys are acquired.
    ///
    /// After a crash, no node holds the keys of the crashed node until its lease has expired, so choose the TTL
    /// accordingly.
    pub fn exclusive(mut self, slots: u16) -> Self {
        self.slots = Some(slots);
        self
    }

    /// Sets the callback that releases slots that this [exclusive](Self::exclusive) node lost, for example by writing
    /// out state that is only in memory. The slots are handed over after it has succeeded and all holds are dropped.
    ///
    /// The callback returns the same types as [`stabilize`](Self::stabilize), and is called again in the same way after
    /// `false`, an error or a panic. One call runs at a time, and a newer version does not cancel it. Without a
    /// callback, the node only waits for the holds.
    ///
    /// It is also called when the node stops or loses its session. Check [`Release::still_held`] before each write: once
    /// it is false, others may work on the slots. Then discard what belongs to them and return success: the node joins
    /// again only after the callback has succeeded.
    ///
    /// A node whose callback does not succeed within [`release_timeout`](Self::release_timeout) leaves the cluster and
    /// rejoins later, because all slots that move in that version wait for it.
    pub fn release<F, R>(mut self, callback: F) -> Self
    where
        F: Fn(Release) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.callbacks.set_release(callback);
        self.config.has_release = true;
        self
    }

    /// Sets the time within which this node must let go of lost slots; see [`Config::release_timeout`]. `None` waits
    /// forever.
    pub fn release_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        let timeout = timeout.into();
        self.configure(|config| config.release_timeout = timeout)
    }

    /// Sets the assignor of slots to nodes, which is used while this node leads. The default,
    /// [`Balanced`](crate::slots::Balanced), balances by weight and moves as few slots as possible.
    pub fn assignor(self, assignor: impl Assignor) -> Self {
        self.configure(|config| config.assignor = Some(SharedAssignor(Arc::new(assignor))))
    }

    /// Sets the callback that announces a stable version. It is called when every node is ready at a version: on the
    /// leader that recorded this, and at most once per version in the whole cluster (P4). Calls never overlap.
    ///
    /// Use it for work that has to be done once per version, such as a write under the term. Work that each node has to
    /// do, such as accepting requests, waits for [`wait_stable`](Clustering::wait_stable) on that node.
    ///
    /// A failed call is not retried: an error or a panic becomes an
    /// [`AnnouncementFailed`](crate::Event::AnnouncementFailed) event. No later version is announced while the callback
    /// runs. A callback that takes long is reported by [`AnnouncementSlow`](crate::Event::AnnouncementSlow), and is
    /// cancelled after [`Config::on_stable_timeout`] if that is set.
    pub fn on_stable<F, R>(mut self, callback: F) -> Self
    where
        F: Fn(Stable) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.callbacks.set_on_stable(callback);
        self
    }

    /// Sets the check of this process's health. By default it is called every 2 s and has a time limit of 2 s; see
    /// [`HealthChecks`](crate::HealthChecks). Without a check the node counts as healthy.
    ///
    /// The library renews the lease even if the service around it is stuck; the check notices that. When it fails,
    /// panics or hangs (three times in a row by default), the node gives up its session: from that moment it neither
    /// leads nor owns keys, and other nodes take over. It rejoins when a check passes (P11). A node does not join
    /// before its first check has passed; [`start`](Self::start) waits for that.
    ///
    /// The callback returns the same types as [`stabilize`](Self::stabilize). Check only what can fail on this node
    /// alone: a deadlock, a full disk, a lost device. A check of something that all nodes share, such as a database,
    /// would make all nodes leave at once.
    ///
    /// Checks run as a task of their own, one at a time. If *all* threads of the tokio runtime are blocked, no check
    /// starts and none fails; but no renewal is sent either, so the session expires.
    pub fn health<F, R>(mut self, callback: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.callbacks.set_health(callback);
        self.config.health.get_or_insert_default();
        self
    }

    /// Sets the lifetime of the node's lease without a renewal; see [`Config::ttl`].
    pub fn ttl(self, ttl: Duration) -> Self {
        self.configure(|config| config.ttl = ttl)
    }

    /// Sets what the node does if its name is held by another process; [`NameConflict::Wait`] by default.
    pub fn name_conflict(self, policy: NameConflict) -> Self {
        self.configure(|config| config.name_conflict = policy)
    }

    /// Sets how the leader treats nodes that keep a version from becoming stable; [`Laggards::Wait`] by default.
    pub fn laggards(self, policy: Laggards) -> Self {
        self.configure(|config| config.laggards = policy)
    }

    /// Sets the priority of the node as a candidate for the lead; see [`Config::priority`].
    pub fn priority(self, priority: u32) -> Self {
        self.configure(|config| config.priority = priority)
    }

    /// Sets the time for which the slots of the node wait for it after a crash; see [`Config::restart_grace`].
    pub fn restart_grace(self, grace: Duration) -> Self {
        self.configure(|config| config.restart_grace = grace)
    }

    /// Sets the number of nodes that a new cluster needs before it begins to work; see [`Config::min_nodes`].
    pub fn min_nodes(self, nodes: u32) -> Self {
        self.configure(|config| config.min_nodes = Some(nodes))
    }

    /// Lets the nodes notice within milliseconds that the process has crashed, and this node that others have, by TCP
    /// connections between them; see [`CrashDetection`]. The node opens a port, and needs a tokio runtime with I/O.
    /// Other nodes must be able to resolve and reach the host of the [URI](Self::uri), or the advertised host. If they
    /// cannot, a crash is noticed after the TTL.
    pub fn detect_crashes(self, detection: CrashDetection) -> Self {
        self.configure(|config| config.crash_detection = Some(detection))
    }

    /// Changes any of the times and policies in [`Config`].
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// For tests: derives ULIDs and jitter from `seed` and the node's name instead of the system's randomness and wall
    /// clock. Under tokio's paused time and on a current-thread runtime, two runs then produce the same events.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Subscribes to the node's events before the start, so that none is missed.
    #[must_use]
    pub fn events(&self) -> Events {
        self.hub.subscribe()
    }

    /// Checks the input as [`start`](Self::start) does, without starting the node.
    ///
    /// # Errors
    ///
    /// [`StartError::Input`] or [`StartError::Config`], with the field, its value and the rule that it breaks.
    pub fn validate(&self) -> Result<(), StartError> {
        self.parsed().map(drop)
    }

    fn parsed(&self) -> Result<(Namespace, NodeUri, Option<NodeName>), StartError> {
        let namespace = Namespace::parse(&self.namespace)?;
        let uri = NodeUri::parse(&self.uri)?;
        let name = self.name.as_deref().map(NodeName::parse).transpose()?;
        check_metadata(&self.metadata)?;
        self.config.validate()?;
        self.slots()?;
        self.config.crash_detection.as_ref().map(|detection| advertised_host(detection, &uri)).transpose()?;
        Ok((namespace, uri, name))
    }

    /// Returns the number of slots; `None` if the node is not exclusive.
    fn slots(&self) -> Result<Option<SlotCount>, InvalidInput> {
        self.slots.map(SlotCount::new).transpose().map(|slots| slots.or(self.config.exclusive))
    }

    /// Starts the node and waits until it is a member: until it sees its own registration in the log.
    ///
    /// If a [health check](Self::health) is set, this waits until the check passes. While the store cannot be reached,
    /// it keeps retrying. Under [`NameConflict::Wait`], the default, it waits until the name is free, which takes up to
    /// one TTL after a crash and restart. Use [`tokio::time::timeout`] to limit the time. If the future is dropped, the
    /// node leaves again.
    ///
    /// # Errors
    ///
    /// - [`StartError::Input`] and [`StartError::Config`] for invalid input; the store was not called.
    /// - [`StartError::Listen`] if the socket for [crash detection](Self::detect_crashes) cannot be opened.
    /// - [`StartError::Refused`] if the store refuses the node.
    /// - [`StartError::Stopped`] if the node ended first, for example because its name is taken under
    ///   [`NameConflict::Fail`].
    /// - [`StartError::NoRuntime`] outside of a tokio runtime, [`StartError::Randomness`] if the operating system
    ///   provides no entropy.
    pub async fn start(self) -> Result<Clustering, StartError> {
        #[cfg(feature = "test-util")]
        if let Some(process) = super::process::current() {
            let node = process.starting(self).begin().await?;
            process.started(&node);
            return Ok(node);
        }
        self.begin().await
    }

    async fn begin(mut self) -> Result<Clustering, StartError> {
        let (namespace, uri, given) = self.parsed()?;
        self.config.exclusive = self.slots()?;
        let clock = Clock::with(self.suspends);
        let mut ids = id_generator(&clock, self.seed, given.as_ref())?;
        let name = match given {
            Some(name) => name,
            None => NodeName::parse(&ids.ulid(clock.now()).to_string())?,
        };
        let listening = listen(self.config.crash_detection.as_ref(), &uri, &mut ids, &clock)?;
        let endpoint = listening.as_ref().map(|(_, endpoint)| endpoint.clone());
        let identity = Identity { name: name.clone(), uri: uri.clone(), metadata: self.metadata, endpoint };
        let own = listening.map(|(listener, endpoint)| (listener, endpoint.process));
        let machine = Machine::node(Keyspace::new(namespace), identity, self.config, ids);
        let (started, decided) = oneshot::channel();
        let handle = spawn(machine, self.store.0, clock, self.hub, self.callbacks, own, started)?;
        match decided.await {
            Ok(Started::Joined) => Ok(Clustering::new(handle, name, uri)),
            Ok(Started::Refused(reason)) => {
                handle.stop().await;
                Err(StartError::Refused(reason))
            }
            Err(_) => Err(StartError::Stopped(handle.shared.known.stop_reason())),
        }
    }
}

/// Access for test tools to a builder that the code under test has filled in.
#[cfg(feature = "test-util")]
impl Builder {
    /// Returns the namespace.
    pub fn namespace_given(&self) -> &str {
        &self.namespace
    }

    /// Returns the name, if one was given.
    pub fn name_given(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// True if the builder was [seeded](Self::seed).
    pub fn is_seeded(&self) -> bool {
        self.seed.is_some()
    }

    /// Returns the `stabilize` callback; the default one is always ready.
    pub fn stabilize_given(&self) -> Callback<Stabilization> {
        self.callbacks.stabilize.clone()
    }

    /// Returns the `release` callback; the default one succeeds at once.
    pub fn release_given(&self) -> Callback<Release> {
        self.callbacks.release.clone()
    }

    /// Returns the number of slots, which may be invalid; `None` if the node is not exclusive.
    pub fn slots_given(&self) -> Option<u16> {
        self.slots.or(self.config.exclusive.map(SlotCount::get))
    }

    /// Returns the `on_stable` callback; the default one does nothing.
    pub fn on_stable_given(&self) -> Callback<Stable> {
        self.callbacks.on_stable.clone()
    }

    /// Returns the health check; the default one always passes.
    pub fn health_given(&self) -> Callback<()> {
        self.callbacks.health.clone()
    }

    /// Lets the test simulate suspends of the machine, in place of those that the operating system reports.
    pub fn suspends(mut self, simulated: &super::SimulatedSuspends) -> Self {
        self.suspends = Suspends::Simulated(simulated.clone());
        self
    }

    /// Replaces the node's store, typically by a wrapper around it.
    pub fn map_store<S: CoordinationStore>(
        mut self,
        map: impl FnOnce(Arc<dyn CoordinationStore>) -> S,
    ) -> Self {
        self.store = Store(Arc::new(map(self.store.0)));
        self
    }
}

/// Checks that metadata is not too large, has no empty key, and has a valid weight if it has one.
pub(super) fn check_metadata(metadata: &Metadata) -> Result<(), InvalidInput> {
    let size = encode(metadata).len();
    if size > MAX_METADATA {
        let rule = format!("it must take at most {MAX_METADATA} bytes as JSON");
        return Err(InvalidInput::new(
            "metadata",
            &format!("{} entries, {size} bytes", metadata.len()),
            rule,
        ));
    }
    if metadata.contains_key("") {
        return Err(InvalidInput::new("metadata", "", "a key must not be empty"));
    }
    match metadata.get(WEIGHT) {
        Some(weight) if weight.parse::<Weight>().is_err() => {
            Err(InvalidInput::new("weight", weight, "it must be a whole number from 0 to 4294967295"))
        }
        _ => Ok(()),
    }
}

/// Creates the generator of ULIDs and jitter, from the system's randomness or from the seed and the node's name.
pub(crate) fn id_generator(
    clock: &Clock,
    seed: Option<u64>,
    name: Option<&NodeName>,
) -> Result<IdGenerator, StartError> {
    let now = clock.now();
    let Some(seed) = seed else {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| StartError::Randomness(error.to_string()))?;
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        return Ok(IdGenerator::new(wall.as_millis() as u64, now, u128::from_le_bytes(random)));
    };
    let name = xxhash_rust::xxh3::xxh3_64(name.map_or("", NodeName::as_str).as_bytes());
    Ok(IdGenerator::new(SEEDED_EPOCH_MS, now, (u128::from(seed) << 64) | u128::from(name)))
}

/// Opens the socket for crash detection, if that is configured, and describes it for the record of the node.
fn listen(
    detection: Option<&CrashDetection>,
    uri: &NodeUri,
    ids: &mut IdGenerator,
    clock: &Clock,
) -> Result<Option<(Listener, Endpoint)>, StartError> {
    let Some(detection) = detection else { return Ok(None) };
    let host = advertised_host(detection, uri)?;
    tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
    let listener = Listener::open(detection.listen)?;
    let address = with_port(&host, listener.port());
    let process = ProcessId::from(ids.ulid(clock.now()));
    Ok(Some((listener, Endpoint { address, process })))
}

/// Starts the driver of a machine as a task of the current tokio runtime.
pub(crate) fn spawn(
    machine: Machine,
    store: Arc<dyn CoordinationStore>,
    clock: Clock,
    hub: Arc<Hub>,
    callbacks: Callbacks,
    own: Option<(Listener, ProcessId)>,
    started: oneshot::Sender<Started>,
) -> Result<Arc<Handle>, StartError> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
    let identity = machine.identity().cloned();
    let (shared, status) = Shared::new(machine, store, clock, hub);
    let shared = Arc::new(shared);
    let (commands, received) = mpsc::unbounded_channel();
    let handle = Arc::new(Handle { shared: shared.clone(), commands });
    let node = identity.map(|own| WeakClustering::new(Arc::downgrade(&handle), own.name, own.uri));
    let driver = Driver::new(shared, status, node, callbacks, received, Liveness::start(own), Some(started));
    spawn_task(&runtime, driver.run());
    Ok(handle)
}
