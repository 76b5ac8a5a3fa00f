//! The nodes of a cluster and the owners of keys, for nodes and for processes that only route requests to them.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use crate::{
    config::Config,
    event::Event,
    keyspace::Keyspace,
    machine::{Input, Machine, RequestError},
    name::{Namespace, NodeName},
    node::Node,
    runtime::{
        Callbacks, Clock, Events, EventsError, Handle, Hub, Shared, StartError, StatusWatch, WaitError,
        id_generator, spawn,
    },
    store::{CoordinationStore, StoreError},
    view::View,
};

/// The nodes of a cluster, kept up to date by following the log. Cheap to clone.
///
/// The discovery of a [`Clustering`](crate::Clustering) uses that node's replica. A process that is not a node uses
/// [`observe`](Self::observe), which holds no lease and writes nothing. Like other handles, a discovery keeps its
/// node or observer running until the last clone is dropped.
///
/// Keys are placed by the *newest* version, even if nodes have not adapted to it yet, because this is where requests
/// should be sent. To decide if a node may work on a key, call [`Clustering::owns`](crate::Clustering::owns).
#[derive(Clone, Debug)]
pub struct Discovery {
    handle: Arc<Handle>,
}

/// The node to which requests for a key go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// Send requests to this node: it holds the key, or no other node can hold the key before this node does. If it
    /// answers that the key is still on its way, wait there with [`wait_hold`](crate::Clustering::wait_hold), which
    /// usually takes milliseconds.
    ///
    /// In a cluster that is not exclusive, this is the owner in the newest version.
    At(Arc<Node>),
    /// The key is being handed over. Keep requests until the route is known again
    /// ([`wait_route`](Discovery::wait_route)), or send them to the next owner and let them wait there.
    Moving {
        /// The former owner, if it is known and its session has not ended. It refuses requests as soon as it knows the
        /// version.
        from: Option<Arc<Node>>,
        /// The next owner, if it is known. `None` if the owner's session has ended and no version has been published
        /// since.
        to: Option<Arc<Node>>,
    },
    /// No node owns the key, because its slot waits for an absent node. It gets an owner when the node is back, or at
    /// the latest when the time for which the slot waits is over. See "Restarts" in
    /// [`ownership`](crate::docs::ownership).
    Waiting {
        /// The name of the absent node.
        node: NodeName,
    },
    /// No node owns the key, or no node is present.
    Unowned,
}

/// A subscription to changes of the nodes, the leader and the version.
#[derive(Debug)]
pub struct Changes {
    events: Events,
}

impl Discovery {
    pub(crate) fn of(handle: Arc<Handle>) -> Self {
        Discovery { handle }
    }

    /// Follows the cluster in `namespace` without joining it. Returns when the log has been read, and retries while
    /// the store is unreachable. The observer ends when the last clone is dropped.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the namespace is invalid, or if the store refuses a call.
    pub async fn observe(store: impl CoordinationStore, namespace: &str) -> Result<Self, StartError> {
        let keyspace = Keyspace::new(Namespace::parse(namespace)?);
        let clock = Clock::start();
        let machine = Machine::observer(keyspace, Config::default(), id_generator(&clock, None, None)?);
        let (started, decided) = oneshot::channel();
        let callbacks = Callbacks::default();
        let handle = spawn(machine, Arc::new(store), clock, Arc::<Hub>::default(), callbacks, None, started)?;
        let discovery = Discovery { handle };
        let mut status = discovery.status();
        let synced = status.wait_for(|status| status.synced);
        tokio::select! {
            biased;
            synced = synced => drop(synced.map_err(|ended| StartError::Stopped(ended.0))?),
            Ok(crate::runtime::Started::Refused(reason)) = decided => return Err(StartError::Refused(reason)),
        }
        Ok(discovery)
    }

    /// Returns the namespaces of all services that have nodes in the store, sorted. Reads every key of the store
    /// (without values), so call it from interactive tools rather than in a loop.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the read fails. A caller that may not read everything can use
    /// [`services_below`](Self::services_below).
    pub async fn services(store: &(impl CoordinationStore + ?Sized)) -> Result<Vec<Namespace>, StoreError> {
        Self::services_below(store, "").await
    }

    /// Like [`services`](Self::services), for namespaces that start with `prefix`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the read fails.
    pub async fn services_below(
        store: &(impl CoordinationStore + ?Sized),
        prefix: &str,
    ) -> Result<Vec<Namespace>, StoreError> {
        let keys = store.read_keys(prefix).await?;
        let mut services: Vec<_> = keys.iter().filter_map(|key| Keyspace::namespace_of_node(key)).collect();
        // The keys of namespace `a` match the prefix `a/`, although the namespace does not.
        services.retain(|namespace| namespace.as_str().starts_with(prefix));
        services.sort();
        services.dedup();
        Ok(services)
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        self.shared().keyspace.namespace()
    }

    /// Returns the nodes present, sorted by name.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.shared().machine().present().cloned().collect()
    }

    /// Returns the node with that name if it is present.
    pub fn node(&self, name: &NodeName) -> Option<Arc<Node>> {
        self.shared().machine().node_named(name).cloned()
    }

    /// Returns the view of the newest version, if it is known.
    pub fn newest(&self) -> Option<View> {
        self.shared().known.status().newest.clone()
    }

    /// Returns the owner of `key` in the newest version, or among the nodes present if its view is not known.
    ///
    /// All processes that know the version return the same owner. A node that has left remains the owner until the
    /// next version is published, and after the last node has left, the last version remains. [`node`](Self::node)
    /// returns a node only if it is still present.
    pub fn find(&self, key: impl AsRef<[u8]>) -> Option<Arc<Node>> {
        match self.newest() {
            Some(view) => view.find(key).cloned(),
            None => self.shared().machine().replica().owner_among_present(key.as_ref()).cloned(),
        }
    }

    /// Returns the owner of `key` and the nodes that would own it next, `n` in total, or fewer if fewer nodes own keys.
    pub fn find_n(&self, key: impl AsRef<[u8]>, n: usize) -> Vec<Arc<Node>> {
        match self.newest() {
            Some(view) => view.find_n(key, n),
            None => crate::view::Nodes::new(self.nodes()).find_n(key, n),
        }
    }

    /// Returns the node to which requests for `key` go now, or [`Route::Moving`] if the key is being handed over.
    ///
    /// A key that does not move is routed to its node even while other keys are handed over. A process that has not
    /// seen the newest version published uses the stored assignment of slots and the nodes that are present.
    ///
    /// The route reflects the log as far as this process has seen it. The node that receives a request decides: it
    /// answers [`NotHeld`](crate::NotHeld) if it does not hold the key, and names the owner if it knows the owner.
    pub fn route(&self, key: impl AsRef<[u8]>) -> Route {
        self.shared().machine().replica().route(key.as_ref())
    }

    /// Waits while the key is [being handed over](Route::Moving) or [waits for an absent node](Route::Waiting), and
    /// returns the route: [`Route::At`], or [`Route::Unowned`]. There is no time limit; use [`tokio::time::timeout`].
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`WaitError::Ended`] if the node or observer ends first; [`WaitError::InCallback`] in callbacks of the node.
    pub async fn wait_route(&self, key: impl AsRef<[u8]>) -> Result<Route, WaitError> {
        self.shared().may_wait()?;
        let mut status = self.status();
        loop {
            match self.route(&key) {
                Route::Moving { .. } | Route::Waiting { .. } => drop(status.changed().await?),
                route => return Ok(route),
            }
        }
    }

    /// True if requests for `key` go to this node itself. Always false for an observer.
    pub fn is_own_node(&self, key: impl AsRef<[u8]>) -> bool {
        let owner = self.find(key);
        let machine = self.shared().machine();
        machine.identity().is_some_and(|own| owner.is_some_and(|owner| owner.name == own.name))
    }

    /// Returns the leader, if it is present.
    pub fn leader_node(&self) -> Option<Arc<Node>> {
        let leader = self.shared().known.status().leader.clone()?;
        self.node(&leader.name?)
    }

    /// Subscribes to changes of the nodes, the leader and the version.
    pub fn changes(&self) -> Changes {
        Changes { events: self.shared().hub.subscribe() }
    }

    /// Returns a watch on the [`Status`](crate::Status): read the current snapshot, or wait for the next one.
    pub fn status(&self) -> StatusWatch {
        self.shared().known.watch()
    }

    /// True if the cluster is stable, as far as this process knows: the log is up to date, the newest version is
    /// recorded as stable, and no other version is due. [`Clustering::is_stable`](crate::Clustering::is_stable) also
    /// requires that the node itself is part of that version.
    pub fn is_stable(&self) -> bool {
        self.shared().known.status().consistent
    }

    /// Returns the time since the store stopped answering; `None` while it answers.
    pub fn stale_for(&self) -> Option<Duration> {
        self.shared().known.stale_for()
    }

    /// Registers this node again; see [`Clustering::register`](crate::Clustering::register).
    ///
    /// # Errors
    ///
    /// [`RequestError::Observer`] for an observer; otherwise the same as
    /// [`Clustering::register`](crate::Clustering::register).
    pub async fn register(&self) -> Result<(), RequestError> {
        self.handle.request_outside(|id| Input::Register { id }).await
    }

    /// Unregisters this node; see [`Clustering::unregister`](crate::Clustering::unregister).
    ///
    /// # Errors
    ///
    /// [`RequestError::Observer`] for an observer; otherwise the same as
    /// [`Clustering::unregister`](crate::Clustering::unregister).
    pub async fn unregister(&self) -> Result<(), RequestError> {
        self.handle.request_outside(|id| Input::Unregister { id }).await
    }
}

impl Changes {
    /// Waits for the next change: [`NodeUp`](Event::NodeUp), [`NodeChanged`](Event::NodeChanged),
    /// [`NodeDown`](Event::NodeDown), [`LeaderChanged`](Event::LeaderChanged) or
    /// [`VersionPublished`](Event::VersionPublished). Cancel safe.
    ///
    /// # Errors
    ///
    /// [`EventsError::Missed`] if changes were lost; read [`Discovery::nodes`] again and continue.
    /// [`EventsError::Ended`] if the node or observer has ended.
    pub async fn recv(&mut self) -> Result<Arc<Event>, EventsError> {
        loop {
            let event = self.events.recv().await?;
            let changes = matches!(
                &*event,
                Event::NodeUp { .. }
                    | Event::NodeChanged { .. }
                    | Event::NodeDown { .. }
                    | Event::LeaderChanged { .. }
                    | Event::VersionPublished { .. }
            );
            if changes {
                return Ok(event);
            }
        }
    }
}
