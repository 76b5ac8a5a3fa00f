use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

#[cfg(feature = "test-util")]
use super::callbacks::Callback;
use super::{
    Clustering,
    callbacks::{Callbacks, Stabilization, Stable},
    clock::{Clock, Suspends},
    driver::{Driver, Started},
    error::StartError,
    events::{Events, Hub},
    shared::{Handle, Shared},
    spawn::spawn_task,
};
use crate::{
    config::{Config, Laggards, NameConflict},
    keyspace::Keyspace,
    machine::{Identity, Machine},
    name::{InvalidInput, Namespace, NodeName, NodeUri},
    node::{Metadata, WEIGHT},
    outcome::IntoOutcome,
    placement::Weight,
    record::encode,
    store::CoordinationStore,
    version::IdGenerator,
};

/// The most that a node's metadata may take, as JSON, in bytes.
const METADATA: usize = 32 * 1024;

/// The namespace if none is given.
const NAMESPACE: &str = "cluster";

/// Where seeded nodes begin their wall clock: in November 2023, so that their versions look like versions.
const SEEDED_EPOCH_MS: u64 = 1_700_000_000_000;

/// Describes a node, and [starts](Self::start) it. Everything is checked then, and only then.
///
/// A URI is needed; the rest has defaults.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    store: Store,
    namespace: String,
    name: Option<String>,
    uri: String,
    metadata: Metadata,
    config: Config,
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
            callbacks: Callbacks::default(),
            seed: None,
            hub: Arc::default(),
            suspends: Suspends::default(),
        }
    }

    /// The cluster's namespace: nodes of the same one form a cluster. `cluster` by default; see [`Namespace`].
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// The node's name, unique in the cluster; see [`NodeName`]. A new ULID by default.
    ///
    /// Keys are placed by it: a service that owns keys gives its instances names that survive a restart, such as the
    /// pod name of a stateful set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Where the node is reached, for those who look it up: a URI with scheme and host. Needed.
    pub fn uri(mut self, uri: impl Into<String>) -> Self {
        self.uri = uri.into();
        self
    }

    /// Something that the node tells about itself. All of it together takes at most 32 KiB as JSON.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The share of keys that the node takes: 1 by default, 0 for none. It is the metadata entry `weight`.
    pub fn weight(self, weight: u32) -> Self {
        self.metadata(WEIGHT, weight.to_string())
    }

    /// Adapts the node to a new view. Run for the newest version, one at a time, until it says yes (P3).
    ///
    /// It returns `()`, a `bool`, an [`Outcome`](crate::Outcome), or a `Result` of these; an error is a no with its text
    /// as the reason, and so is a panic. After a no it is tried again, 100 ms later at first, with delays doubling to
    /// 5 s. Without a callback the node is always ready.
    ///
    /// It runs as a task of its own. One that blocks its thread belongs into
    /// [`spawn_blocking`](tokio::task::spawn_blocking): with all threads blocked the node cannot renew its lease.
    ///
    /// It must not wait for what waits for it: [`wait_stable`](Clustering::wait_stable), [`stop`](Clustering::stop) and
    /// [`ended`](Clustering::ended) do. All else of [`Clustering`] may be called in it. A handle that it captures keeps
    /// the node alive: capture a [weak one](Clustering::downgrade).
    pub fn stabilize<F, R>(mut self, callback: F) -> Self
    where
        F: Fn(Stabilization) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.callbacks.set_stabilize(callback);
        self
    }

    /// Called when every node is ready at a version: at most once for each in the whole cluster, on the leader that
    /// recorded it (P4). Never two at a time. It is for what is to be done once: to announce the version, to write under
    /// the term. What each node is to do, such as opening its doors, waits for
    /// [`wait_stable`](Clustering::wait_stable) on each.
    ///
    /// A failed call is not retried: an error or a panic becomes an
    /// [`AnnouncementFailed`](crate::Event::AnnouncementFailed) event. No later version is announced while the callback
    /// runs. A callback that takes long is reported by [`AnnouncementSlow`](crate::Event::AnnouncementSlow), and is
    /// cancelled after [`Config::on_stable_timeout`], if that is set.
    pub fn on_stable<F, R>(mut self, callback: F) -> Self
    where
        F: Fn(Stable) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.callbacks.set_on_stable(callback);
        self
    }

    /// Tells whether the process is well: called every 2 s, and given 2 s to answer, by default; see
    /// [`HealthChecks`](crate::HealthChecks). Without it the node counts as healthy.
    ///
    /// A lease lives by what this library does, and that goes on when the service behind it is wedged. When the check
    /// fails, panics or hangs, three times in a row by default, the node gives up its session in order: it does not act as
    /// leader any more, from that moment on, owns nothing, and others take over. It joins again when a check passes (P11).
    /// At the start it does not join before a check has passed: [`start`](Self::start) waits for that.
    ///
    /// It returns what [`stabilize`](Self::stabilize) may, and no, for whatever reason, is a failure. It is to ask for
    /// what this node alone can lack: a deadlock, a full disk, a lost device. What all nodes lack together (a database that
    /// is down) would make all of them leave at once.
    ///
    /// It runs as a task of its own, one at a time. If *all* threads of the tokio runtime are blocked no check is begun and
    /// none fails: then no renewal is sent either, and the lease ends that.
    pub fn health<F, R>(mut self, callback: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.callbacks.set_health(callback);
        self.config.health.get_or_insert_default();
        self
    }

    /// How long the node's lease lives without a renewal; see [`Config::ttl`].
    pub fn ttl(self, ttl: Duration) -> Self {
        self.configure(|config| config.ttl = ttl)
    }

    /// What to do if the name is taken; [`NameConflict::Wait`] by default.
    pub fn name_conflict(self, policy: NameConflict) -> Self {
        self.configure(|config| config.name_conflict = policy)
    }

    /// What the leader does about nodes that keep a version from becoming stable; [`Laggards::Wait`] by default.
    pub fn laggards(self, policy: Laggards) -> Self {
        self.configure(|config| config.laggards = policy)
    }

    /// Changes any of the times and policies.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// For tests: mints ULIDs and jitter from `seed` and the node's name instead of the system's randomness and wall
    /// clock. Under tokio's paused time and on a current-thread runtime, two runs then give the same events.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Subscribes before the start, so that no event is missed.
    #[must_use]
    pub fn events(&self) -> Events {
        self.hub.subscribe()
    }

    /// Refuses input that cannot be used, by field, value and rule, as [`start`](Self::start) does before it tries anything.
    ///
    /// # Errors
    ///
    /// [`StartError::Input`] and [`StartError::Config`].
    pub fn validate(&self) -> Result<(), StartError> {
        self.parsed().map(drop)
    }

    fn parsed(&self) -> Result<(Namespace, NodeUri, Option<NodeName>), StartError> {
        let namespace = Namespace::parse(&self.namespace)?;
        let uri = NodeUri::parse(&self.uri)?;
        let name = self.name.as_deref().map(NodeName::parse).transpose()?;
        check_metadata(&self.metadata)?;
        self.config.validate()?;
        Ok((namespace, uri, name))
    }

    /// Registers the node and waits until it is a member: until its own registration came back to it in the log.
    ///
    /// Where a [health check](Self::health) is set it waits until that passes. While the store cannot be reached it goes on
    /// trying, as a node that runs already would; and under
    /// [`NameConflict::Wait`], the default, it waits until nobody else holds the name, which after a crash and restart
    /// takes up to one TTL. Bound it with [`tokio::time::timeout`] if that is not wanted. Dropping the future takes the
    /// node back.
    ///
    /// # Errors
    ///
    /// [`StartError`]: input that cannot be used, by field, value and rule, before anything is tried; a store that
    /// refuses; a name that is taken, under [`NameConflict::Fail`].
    pub async fn start(self) -> Result<Clustering, StartError> {
        #[cfg(feature = "test-util")]
        if let Some(process) = super::process::current() {
            let node = process.starting(self).begin().await?;
            process.started(&node);
            return Ok(node);
        }
        self.begin().await
    }

    async fn begin(self) -> Result<Clustering, StartError> {
        let (namespace, uri, given) = self.parsed()?;
        let clock = Clock::with(self.suspends);
        let mut ids = id_generator(&clock, self.seed, given.as_ref())?;
        let name = match given {
            Some(name) => name,
            None => NodeName::parse(&ids.ulid(clock.now()).to_string())?,
        };
        let identity = Identity { name: name.clone(), uri: uri.clone(), metadata: self.metadata };
        let machine = Machine::node(Keyspace::new(namespace), identity, self.config, ids);
        let (started, decided) = oneshot::channel();
        let handle =
            spawn(machine, self.store.0, clock, self.hub, Some(name.clone()), self.callbacks, started)?;
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

/// What test tools need to know and to change of a node that somebody else describes.
#[cfg(feature = "test-util")]
impl Builder {
    /// The namespace.
    pub fn namespace_given(&self) -> &str {
        &self.namespace
    }

    /// The name, if one is given.
    pub fn name_given(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether it is [seeded](Self::seed).
    pub fn is_seeded(&self) -> bool {
        self.seed.is_some()
    }

    /// The stabilize callback, or one that is always ready.
    pub fn stabilize_given(&self) -> Callback<Stabilization> {
        self.callbacks.stabilize.clone()
    }

    /// The `on_stable` callback, or one that does nothing.
    pub fn on_stable_given(&self) -> Callback<Stable> {
        self.callbacks.on_stable.clone()
    }

    /// The health check, or one that always passes.
    pub fn health_given(&self) -> Callback<()> {
        self.callbacks.health.clone()
    }

    /// Lets the test simulate suspends of the machine, in place of those that the operating system reports.
    pub fn suspends(mut self, simulated: &super::SimulatedSuspends) -> Self {
        self.suspends = Suspends::Simulated(simulated.clone());
        self
    }

    /// Puts something between the node and its store.
    pub fn map_store<S: CoordinationStore>(
        mut self,
        map: impl FnOnce(Arc<dyn CoordinationStore>) -> S,
    ) -> Self {
        self.store = Store(Arc::new(map(self.store.0)));
        self
    }
}

/// Refuses metadata that cannot be written or would mislead.
pub(super) fn check_metadata(metadata: &Metadata) -> Result<(), InvalidInput> {
    let size = encode(metadata).len();
    if size > METADATA {
        let rule = format!("it must take at most {METADATA} bytes as JSON");
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

/// Randomness from the system, or from the seed and the node's name.
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

/// Sets a machine going.
pub(crate) fn spawn(
    machine: Machine,
    store: Arc<dyn CoordinationStore>,
    clock: Clock,
    hub: Arc<Hub>,
    node: Option<NodeName>,
    callbacks: Callbacks,
    started: oneshot::Sender<Started>,
) -> Result<Handle, StartError> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
    let (shared, status) = Shared::new(machine, store, clock, hub);
    let shared = Arc::new(shared);
    let (commands, received) = mpsc::unbounded_channel();
    let driver = Driver::new(shared.clone(), status, node, callbacks, received, Some(started));
    spawn_task(&runtime, driver.run());
    Ok(Handle { shared, commands })
}
