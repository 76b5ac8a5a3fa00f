//! Which key holds what. Other programs rely on these names: they are part of the protocol.

use std::sync::Arc;

use crate::{
    name::{Namespace, NodeName},
    store::Key,
};

/// The keys of one cluster.
///
/// ```text
/// {ns}/view/leader         who leads            under the leader's lease   (the election key)
/// {ns}/view/nodes/{name}   who is there         under the node's lease
/// {ns}/view/version        the newest version   no lease
/// {ns}/view/request        a wish for another   no lease
/// {ns}/view/stable         the newest version that became stable, no lease
/// {ns}/view/gone           the node that last went in order, and how, no lease
/// {ns}/ready/{name}        which version a node acknowledged, under the node's lease
/// {ns}/history/{slot}      how a version came about and went, no lease
/// ```
///
/// Keys under `{ns}/view/` that are not in this list are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Keyspace(Arc<Keys>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Keys {
    namespace: Namespace,
    view: Key,
    nodes: Key,
    leader: Key,
    version: Key,
    request: Key,
    stable: Key,
    gone: Key,
    ready: Key,
    history: Key,
}

/// What a key under `{ns}/view/` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    Leader,
    Version,
    Request,
    Stable,
    Gone,
    Node(NodeName),
    /// A key under `nodes/` whose rest is no name, and why.
    BadName(String),
    /// Not ours, or not ours yet.
    Unknown,
}

impl Keyspace {
    /// How many versions the [history](crate::history()) keeps: each has a slot, and the next one after so many takes it.
    pub const HISTORY: u64 = 64;

    /// The keys of the cluster in that namespace.
    pub fn new(namespace: Namespace) -> Self {
        let key = |rest: &str| Key::from(format!("{namespace}/{rest}"));
        Keyspace(Arc::new(Keys {
            view: key("view/"),
            nodes: key("view/nodes/"),
            leader: key("view/leader"),
            version: key("view/version"),
            request: key("view/request"),
            stable: key("view/stable"),
            gone: key("view/gone"),
            ready: key("ready/"),
            history: key("history/"),
            namespace,
        }))
    }

    /// The namespace: all of the cluster's keys start with it and a slash.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// The prefix under which all lies that defines the cluster: its ordered log. (The original's `meta_namespace`.)
    pub fn meta_namespace(&self) -> &Key {
        &self.0.view
    }

    /// The prefix of the node records. (The original's `service_namespace`.)
    pub fn service_namespace(&self) -> &Key {
        &self.0.nodes
    }

    /// The key that the leader holds; its creation revision is the term. (The original's `election_key`.)
    pub fn election_key(&self) -> &Key {
        &self.0.leader
    }

    /// The key of the newest version.
    pub fn version_key(&self) -> &Key {
        &self.0.version
    }

    /// The key of the newest wish for another version.
    pub fn request_key(&self) -> &Key {
        &self.0.request
    }

    /// The key of the newest version that became stable.
    pub fn stable_key(&self) -> &Key {
        &self.0.stable
    }

    /// The key of the node that last went in order: left, or was evicted.
    pub fn gone_key(&self) -> &Key {
        &self.0.gone
    }

    /// The prefix of the acknowledgements. (The original's `readiness_key`.)
    pub fn readiness_namespace(&self) -> &Key {
        &self.0.ready
    }

    /// The key of a node's record.
    pub fn node_key(&self, name: &NodeName) -> Key {
        format!("{}{name}", self.0.nodes).into()
    }

    /// The key of a node's acknowledgement.
    pub fn readiness_key(&self, name: &NodeName) -> Key {
        format!("{}{name}", self.0.ready).into()
    }

    /// The prefix of the versions' history. Nobody watches it.
    pub fn history_namespace(&self) -> &Key {
        &self.0.history
    }

    /// The key of the history's entry of the version with that number.
    pub fn history_key(&self, number: u64) -> Key {
        format!("{}{}", self.0.history, number % Self::HISTORY).into()
    }

    /// Whether the key is the cluster's own: users' fenced writes stay clear of these.
    pub fn is_reserved(&self, key: &str) -> bool {
        [&self.0.view, &self.0.ready, &self.0.history].iter().any(|own| key.starts_with(own.as_str()))
    }

    pub(crate) fn holds(&self, key: &Key) -> Holds {
        let keys = &*self.0;
        if let Some(name) = key.strip_prefix(keys.nodes.as_str()) {
            NodeName::parse(name).map_or_else(|error| Holds::BadName(error.to_string()), Holds::Node)
        } else if *key == keys.version {
            Holds::Version
        } else if *key == keys.leader {
            Holds::Leader
        } else if *key == keys.stable {
            Holds::Stable
        } else if *key == keys.request {
            Holds::Request
        } else if *key == keys.gone {
            Holds::Gone
        } else {
            Holds::Unknown
        }
    }

    /// Whose acknowledgement that key holds.
    pub(crate) fn acknowledger(&self, key: &str) -> Option<NodeName> {
        NodeName::parse(key.strip_prefix(self.0.ready.as_str())?).ok()
    }

    /// Returns the slot of the history entry under that key.
    pub(crate) fn history_slot(&self, key: &str) -> Option<u64> {
        let text = key.strip_prefix(self.0.history.as_str())?;
        let slot = text.parse().ok().filter(|slot| *slot < Self::HISTORY)?;
        (*self.history_key(slot) == *key).then_some(slot)
    }

    /// True if a cluster in this namespace writes exactly this key, or the protocol reserves it. Stricter than
    /// [`is_reserved`](Self::is_reserved): other clients may have put any keys below the cluster's prefixes, and only
    /// keys that parse may be read or deleted as the cluster's own.
    pub(crate) fn is_own(&self, key: &Key) -> bool {
        match self.holds(key) {
            Holds::BadName(_) => false,
            Holds::Unknown => {
                let reserved = key.strip_prefix(self.0.view.as_str()).is_some_and(|rest| {
                    let removed = rest.strip_prefix("removed/");
                    rest == "released" || removed.is_some_and(|name| NodeName::parse(name).is_ok())
                });
                reserved || self.acknowledger(key).is_some() || self.history_slot(key).is_some()
            }
            _ => true,
        }
    }

    /// Returns the namespace of the cluster to which a key under `view/` or `ready/` belongs, and true if it is under
    /// `view/`. The first reserved segment ends the namespace, because namespaces have no reserved segments.
    pub(crate) fn namespace_of(key: &str) -> Option<(Namespace, bool)> {
        let ends = |part: &'static str| Some((key.find(&format!("/{part}/"))?, part));
        let (end, part) = Namespace::RESERVED.into_iter().filter_map(ends).min()?;
        let namespace = Namespace::parse(&key[..end]).ok()?;
        (part != "history").then_some((namespace, part == "view"))
    }

    /// The namespace of the cluster to which a node record under that key belongs.
    pub(crate) fn namespace_of_node(key: &str) -> Option<Namespace> {
        let (rest, name) = key.rsplit_once('/')?;
        let namespace = rest.strip_suffix("/view/nodes")?;
        NodeName::parse(name).ok()?;
        Namespace::parse(namespace).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_keys_are_fixed() {
        let keys = Keyspace::new(Namespace::parse("telemetry/ingest").unwrap());
        let node = NodeName::parse("n 1").unwrap();
        assert_eq!(keys.meta_namespace().as_str(), "telemetry/ingest/view/");
        assert_eq!(keys.service_namespace().as_str(), "telemetry/ingest/view/nodes/");
        assert_eq!(keys.election_key().as_str(), "telemetry/ingest/view/leader");
        assert_eq!(keys.version_key().as_str(), "telemetry/ingest/view/version");
        assert_eq!(keys.request_key().as_str(), "telemetry/ingest/view/request");
        assert_eq!(keys.stable_key().as_str(), "telemetry/ingest/view/stable");
        assert_eq!(keys.gone_key().as_str(), "telemetry/ingest/view/gone");
        assert_eq!(keys.readiness_namespace().as_str(), "telemetry/ingest/ready/");
        assert_eq!(keys.node_key(&node).as_str(), "telemetry/ingest/view/nodes/n 1");
        assert_eq!(keys.readiness_key(&node).as_str(), "telemetry/ingest/ready/n 1");
        assert_eq!(keys.history_namespace().as_str(), "telemetry/ingest/history/");
        assert_eq!(keys.history_key(130).as_str(), "telemetry/ingest/history/2");
    }

    #[test]
    fn every_key_is_told_apart() {
        let keys = Keyspace::new(Namespace::parse("c").unwrap());
        let holds = |key: &str| keys.holds(&Key::from(key));
        assert_eq!(holds("c/view/leader"), Holds::Leader);
        assert_eq!(holds("c/view/version"), Holds::Version);
        assert_eq!(holds("c/view/request"), Holds::Request);
        assert_eq!(holds("c/view/stable"), Holds::Stable);
        assert_eq!(holds("c/view/gone"), Holds::Gone);
        assert_eq!(holds("c/view/nodes/a"), Holds::Node(NodeName::parse("a").unwrap()));
        assert!(matches!(holds("c/view/nodes/a/b"), Holds::BadName(_)));
        assert!(matches!(holds("c/view/nodes/"), Holds::BadName(_)));
        for unknown in ["c/view/released", "c/view/leader/x", "c/view/removed/a", "c/view/", "d/view/leader"]
        {
            assert_eq!(holds(unknown), Holds::Unknown, "{unknown}");
        }
        assert_eq!(keys.acknowledger("c/ready/a"), Some(NodeName::parse("a").unwrap()));
        assert_eq!(keys.acknowledger("c/ready/a/b"), None);
        for own in ["c/view/x", "c/ready/a", "c/history/7"] {
            assert!(keys.is_reserved(own), "{own}");
        }
        for mine in ["c/mine", "c/historic", "c/view", "d/view/x"] {
            assert!(!keys.is_reserved(mine), "{mine}");
        }
    }

    #[test]
    fn only_keys_that_parse_are_the_clusters_own() {
        let keys = Keyspace::new(Namespace::parse("c").unwrap());
        let own = [
            "view/leader",
            "view/nodes/a",
            "view/released",
            "view/removed/a",
            "ready/a",
            "history/0",
            "history/63",
        ];
        for own in own {
            assert!(keys.is_own(&Key::from(format!("c/{own}"))), "{own}");
        }
        let others = [
            "view/",
            "view/x",
            "view/leader/x",
            "view/nodes/",
            "view/nodes/a/b",
            "view/removed/a/b",
            "view/a/view/leader",
            "ready/a/b",
            "ready/a/view/leader",
            "history/",
            "history/64",
            "history/07",
            "history/+7",
            "history/7/view/leader",
            "history/view/leader",
            "history/history/7",
            "mine",
        ];
        for other in others {
            assert!(!keys.is_own(&Key::from(format!("c/{other}"))), "{other}");
        }
        assert!(!keys.is_own(&"d/view/leader".into()));
    }

    #[test]
    fn the_longest_names_make_a_key_that_every_store_takes() {
        let keys = Keyspace::new(Namespace::parse(&"n".repeat(Namespace::MAX)).unwrap());
        let node = NodeName::parse(&"m".repeat(NodeName::MAX)).unwrap();
        assert!(keys.node_key(&node).len() <= crate::store::Limits::KEY);
    }

    #[test]
    fn every_key_tells_its_namespace() {
        let of =
            |key| Keyspace::namespace_of(key).map(|(namespace, is_view)| (namespace.to_string(), is_view));
        assert_eq!(of("a/b/view/leader"), Some(("a/b".to_owned(), true)));
        assert_eq!(of("a/ready/view/x"), Some(("a".to_owned(), false)));
        assert_eq!(of("a/view/ready/x"), Some(("a".to_owned(), true)));
        for none in ["a/b/c", "view/leader", "/view/leader", "a/view", "a/history/7", "a/history/view/leader"]
        {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn a_node_key_tells_its_namespace() {
        let of = Keyspace::namespace_of_node;
        assert_eq!(of("a/b/view/nodes/n"), Some(Namespace::parse("a/b").unwrap()));
        assert_eq!(of("a/view/nodes/n/m"), None);
        assert_eq!(of("view/nodes/n"), None);
        assert_eq!(of("a/view/version"), None);
    }
}
