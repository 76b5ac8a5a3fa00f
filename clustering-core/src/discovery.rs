//! Who is there and which node takes which key: for nodes, and for processes that only route to them.

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
        Callbacks, Clock, Events, EventsError, Handle, Hub, Shared, StartError, StatusWatch, id_generator,
        spawn,
    },
    store::{CoordinationStore, StoreError},
    view::{Nodes, View},
};

/// The nodes of a service, kept up to date by following the log. Cheap to clone.
///
/// One that comes from a [`Clustering`](crate::Clustering) shares the node's own replica. One that
/// [observes](Self::observe) is for a process that is no node: it holds no lease, and writes nothing. Like any handle it
/// keeps going what it comes from, until the last clone is dropped.
///
/// It routes by the *newest* version, whether or not the nodes have adapted to it: where to send what. What a node may
/// work on is another question, which [`Clustering::owns`](crate::Clustering::owns) answers.
#[derive(Clone, Debug)]
pub struct Discovery {
    handle: Arc<Handle>,
}

/// Something changed about who is there.
#[derive(Debug)]
pub struct Changes {
    events: Events,
}

impl Discovery {
    pub(crate) fn of(handle: Arc<Handle>) -> Self {
        Discovery { handle }
    }

    /// Follows the cluster in `namespace` without being a node of it. Returns once the log was read; while the store
    /// cannot be reached it goes on trying. It ends when the last clone is dropped.
    ///
    /// # Errors
    ///
    /// [`StartError`] for a namespace that cannot be used, or a store that refuses.
    pub async fn observe(store: impl CoordinationStore, namespace: &str) -> Result<Self, StartError> {
        let keyspace = Keyspace::new(Namespace::parse(namespace)?);
        let clock = Clock::start();
        let machine = Machine::observer(keyspace, Config::default(), id_generator(&clock, None, None)?);
        let (started, decided) = oneshot::channel();
        let callbacks = Callbacks::default();
        let handle = spawn(machine, Arc::new(store), clock, Arc::<Hub>::default(), None, callbacks, started)?;
        let discovery = Discovery { handle: Arc::new(handle) };
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
    /// What the store says, such as a refusal where the caller may not read everything; then ask for those
    /// [below](Self::services_below) a prefix.
    pub async fn services(store: &(impl CoordinationStore + ?Sized)) -> Result<Vec<Namespace>, StoreError> {
        Self::services_below(store, "").await
    }

    /// As [`services`](Self::services), for namespaces that start with `prefix`.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn services_below(
        store: &(impl CoordinationStore + ?Sized),
        prefix: &str,
    ) -> Result<Vec<Namespace>, StoreError> {
        let keys = store.read_keys(prefix).await?;
        let mut services: Vec<_> = keys.iter().filter_map(|key| Keyspace::namespace_of_node(key)).collect();
        // Keys start with the namespace and a slash: those of `a` lie below `a/` too.
        services.retain(|namespace| namespace.as_str().starts_with(prefix));
        services.sort();
        services.dedup();
        Ok(services)
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        self.shared().keyspace.namespace()
    }

    /// The nodes that are present now, sorted by name.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.shared().machine().present().cloned().collect()
    }

    /// The node of that name, if it is present.
    pub fn node(&self, name: &NodeName) -> Option<Arc<Node>> {
        self.shared().machine().node_named(name).cloned()
    }

    /// The view of the newest version, if it is known.
    pub fn newest(&self) -> Option<View> {
        self.shared().known.status().newest.clone()
    }

    /// The node that takes `key`, by the newest version; by the nodes present where its view is not known.
    ///
    /// Every process that knows the version gives the same answer. A node that has just gone is still named until the
    /// leader publishes the next version, and after the last node went the last version stands: whether the node is
    /// present now is what [`node`](Self::node) tells.
    pub fn find(&self, key: impl AsRef<[u8]>) -> Option<Arc<Node>> {
        match self.newest() {
            Some(view) => view.find(key).cloned(),
            None => Nodes::new(self.nodes()).find(key).cloned(),
        }
    }

    /// The node that takes `key` and those next in line, `n` in all, or fewer if there are fewer.
    pub fn find_n(&self, key: impl AsRef<[u8]>, n: usize) -> Vec<Arc<Node>> {
        match self.newest() {
            Some(view) => view.find_n(key, n),
            None => Nodes::new(self.nodes()).find_n(key, n),
        }
    }

    /// Whether requests for `key` go to this node itself. Always false for an observer.
    pub fn is_own_node(&self, key: impl AsRef<[u8]>) -> bool {
        let owner = self.find(key);
        let machine = self.shared().machine();
        machine.identity().is_some_and(|own| owner.is_some_and(|owner| owner.name == own.name))
    }

    /// The node that leads.
    pub fn leader_node(&self) -> Option<Arc<Node>> {
        let leader = self.shared().known.status().leader.clone()?;
        self.node(&leader.name?)
    }

    /// What happens from now on to who is there and who leads, and the versions published.
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

    /// Takes the own node's place again; see [`Clustering::register`](crate::Clustering::register).
    ///
    /// # Errors
    ///
    /// [`RequestError::Observer`] for an observer.
    pub async fn register(&self) -> Result<(), RequestError> {
        self.handle.request(|id| Input::Register { id }).await
    }

    /// Gives the own node's place up; see [`Clustering::unregister`](crate::Clustering::unregister).
    ///
    /// # Errors
    ///
    /// [`RequestError::Observer`] for an observer.
    pub async fn unregister(&self) -> Result<(), RequestError> {
        self.handle.request(|id| Input::Unregister { id }).await
    }
}

impl Changes {
    /// The next change: [`NodeUp`](Event::NodeUp), [`NodeChanged`](Event::NodeChanged), [`NodeDown`](Event::NodeDown),
    /// [`LeaderChanged`](Event::LeaderChanged) or [`VersionPublished`](Event::VersionPublished). Cancel safe.
    ///
    /// # Errors
    ///
    /// [`EventsError::Missed`], after which it goes on: look at [`Discovery::nodes`] again. [`EventsError::Ended`].
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
