//! The names of the keys of a cluster. They are part of the protocol, because other programs rely on them.

use std::sync::Arc;

use crate::{
    name::{Namespace, NodeName},
    store::{Key, LeaseId},
};

/// The keys of one cluster.
///
/// ```text
/// {ns}/view/leader           election key: the leader                      leader's lease
/// {ns}/view/nodes/{name}     record of a node                              node's lease
/// {ns}/view/holds/{lease}    witness that a session may still hold keys    that lease
/// {ns}/view/version          newest version                                no lease
/// {ns}/view/slots            assignment of slots to nodes                  no lease
/// {ns}/view/released         newest version whose slots may be acquired    no lease
/// {ns}/view/stable           newest version that became stable             no lease
/// {ns}/view/request          newest request for a version                  no lease
/// {ns}/view/gone             last node that left or was evicted            no lease
/// {ns}/view/cordoned/{name}  node that must not own slots                  no lease
/// {ns}/view/drain/{name}     request to a node to leave in order           node's lease
/// {ns}/ready/{name}          version that a node released or acknowledged  node's lease
/// {ns}/history/{entry}       causes and stabilization of a past version    no lease
/// ```
///
/// Nodes ignore all other keys under `{ns}/view/`.
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
    holds: Key,
    slots: Key,
    released: Key,
    cordoned: Key,
    drain: Key,
    ready: Key,
    history: Key,
}

/// The kind of record under a key of `{ns}/view/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Leader,
    Version,
    Request,
    Stable,
    Departure,
    Holds(LeaseId),
    Slots,
    Released,
    Cordon(NodeName),
    Drain(NodeName),
    Node(NodeName),
    /// A key under `nodes/`, `holds/`, `cordoned/` or `drain/` that does not end in a valid name or lease, with the
    /// reason.
    BadName(String),
    /// A key of another client or of a newer release.
    Unknown,
}

impl Keyspace {
    /// Number of versions in the [history](crate::history()). Versions use its entries in turn.
    pub const HISTORY: u64 = 64;

    /// Returns the keys of the cluster in `namespace`.
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
            holds: key("view/holds/"),
            slots: key("view/slots"),
            released: key("view/released"),
            cordoned: key("view/cordoned/"),
            drain: key("view/drain/"),
            ready: key("ready/"),
            history: key("history/"),
            namespace,
        }))
    }

    /// Returns the namespace. All keys of the cluster start with it and a slash.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// Returns the prefix of all keys that define the cluster. Their changes, in order of revision, are its log.
    pub fn view_prefix(&self) -> &Key {
        &self.0.view
    }

    /// Returns the prefix of the node records.
    pub fn nodes_prefix(&self) -> &Key {
        &self.0.nodes
    }

    /// Returns the key that the leader creates under its lease. Its creation revision is the term.
    pub fn election_key(&self) -> &Key {
        &self.0.leader
    }

    /// Returns the key of the newest version.
    pub fn version_key(&self) -> &Key {
        &self.0.version
    }

    /// Returns the key of the newest request for a version.
    pub fn request_key(&self) -> &Key {
        &self.0.request
    }

    /// Returns the key of the newest version that became stable.
    pub fn stable_key(&self) -> &Key {
        &self.0.stable
    }

    /// Returns the key that records the last departure other than by an expired lease: a node that left or was evicted.
    pub fn departure_key(&self) -> &Key {
        &self.0.gone
    }

    /// Returns the key whose existence shows that the session with that lease may still hold keys.
    pub fn holds_key(&self, lease: LeaseId) -> Key {
        format!("{}{lease}", self.0.holds).into()
    }

    /// Returns the key of the assignment of slots to nodes.
    pub fn slots_key(&self) -> &Key {
        &self.0.slots
    }

    /// Returns the key of the newest version whose slots their new owners may acquire.
    pub fn released_key(&self) -> &Key {
        &self.0.released
    }

    /// Returns the key that cordons a node.
    pub fn cordon_key(&self, name: &NodeName) -> Key {
        format!("{}{name}", self.0.cordoned).into()
    }

    /// Returns the key that asks a node to leave in order.
    pub fn drain_key(&self, name: &NodeName) -> Key {
        format!("{}{name}", self.0.drain).into()
    }

    /// Returns the prefix of the acknowledgements.
    pub fn ready_prefix(&self) -> &Key {
        &self.0.ready
    }

    /// Returns the key of a node's record.
    pub fn node_key(&self, name: &NodeName) -> Key {
        format!("{}{name}", self.0.nodes).into()
    }

    /// Returns the key of a node's acknowledgement.
    pub fn readiness_key(&self, name: &NodeName) -> Key {
        format!("{}{name}", self.0.ready).into()
    }

    /// Returns the prefix of the history of versions. Nodes do not watch it.
    pub fn history_prefix(&self) -> &Key {
        &self.0.history
    }

    /// Returns the key of the history entry for the version with the given number.
    pub fn history_key(&self, number: u64) -> Key {
        format!("{}{}", self.0.history, number % Self::HISTORY).into()
    }

    /// True if the key belongs to the cluster. [`commit_as_leader`](crate::Clustering::commit_as_leader) refuses such
    /// keys.
    pub fn is_reserved(&self, key: &str) -> bool {
        [&self.0.view, &self.0.ready, &self.0.history].iter().any(|own| key.starts_with(own.as_str()))
    }

    /// The Crystal class's name for [`view_prefix`](Self::view_prefix).
    pub fn meta_namespace(&self) -> &Key {
        self.view_prefix()
    }

    /// The Crystal class's name for [`nodes_prefix`](Self::nodes_prefix).
    pub fn service_namespace(&self) -> &Key {
        self.nodes_prefix()
    }

    pub(crate) fn kind_of(&self, key: &Key) -> KeyKind {
        let keys = &*self.0;
        let named = |name: &str, kind: fn(NodeName) -> KeyKind| {
            NodeName::parse(name).map_or_else(|error| KeyKind::BadName(error.to_string()), kind)
        };
        if let Some(name) = key.strip_prefix(keys.nodes.as_str()) {
            named(name, KeyKind::Node)
        } else if let Some(lease) = key.strip_prefix(keys.holds.as_str()) {
            let lease = lease.parse().ok().filter(|lease| self.holds_key(*lease) == *key);
            lease.map_or_else(|| KeyKind::BadName("its last part is not a lease".to_owned()), KeyKind::Holds)
        } else if let Some(name) = key.strip_prefix(keys.cordoned.as_str()) {
            named(name, KeyKind::Cordon)
        } else if let Some(name) = key.strip_prefix(keys.drain.as_str()) {
            named(name, KeyKind::Drain)
        } else if *key == keys.version {
            KeyKind::Version
        } else if *key == keys.leader {
            KeyKind::Leader
        } else if *key == keys.stable {
            KeyKind::Stable
        } else if *key == keys.request {
            KeyKind::Request
        } else if *key == keys.gone {
            KeyKind::Departure
        } else if *key == keys.slots {
            KeyKind::Slots
        } else if *key == keys.released {
            KeyKind::Released
        } else {
            KeyKind::Unknown
        }
    }

    /// Returns the node whose acknowledgement is under that key.
    pub(crate) fn acknowledger(&self, key: &str) -> Option<NodeName> {
        NodeName::parse(key.strip_prefix(self.0.ready.as_str())?).ok()
    }

    /// Returns the number of the history entry under that key.
    pub(crate) fn history_entry(&self, key: &str) -> Option<u64> {
        let text = key.strip_prefix(self.0.history.as_str())?;
        let entry = text.parse().ok().filter(|entry| *entry < Self::HISTORY)?;
        (*self.history_key(entry) == *key).then_some(entry)
    }

    /// True if a cluster in this namespace writes exactly this key. Stricter than
    /// [`is_reserved`](Self::is_reserved): other clients may have put any keys below the cluster's prefixes, and only
    /// keys that parse may be read or deleted as the cluster's own.
    pub(crate) fn is_own(&self, key: &Key) -> bool {
        match self.kind_of(key) {
            KeyKind::BadName(_) => false,
            KeyKind::Unknown => self.acknowledger(key).is_some() || self.history_entry(key).is_some(),
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

    /// Returns the namespace of the cluster to which a node record under that key belongs.
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
    fn keys_have_the_names_that_the_protocol_defines() {
        let keys = Keyspace::new(Namespace::parse("telemetry/ingest").unwrap());
        let node = NodeName::parse("n 1").unwrap();
        assert_eq!(keys.view_prefix().as_str(), "telemetry/ingest/view/");
        assert_eq!(keys.nodes_prefix().as_str(), "telemetry/ingest/view/nodes/");
        assert_eq!(keys.election_key().as_str(), "telemetry/ingest/view/leader");
        assert_eq!(keys.version_key().as_str(), "telemetry/ingest/view/version");
        assert_eq!(keys.request_key().as_str(), "telemetry/ingest/view/request");
        assert_eq!(keys.stable_key().as_str(), "telemetry/ingest/view/stable");
        assert_eq!(keys.departure_key().as_str(), "telemetry/ingest/view/gone");
        assert_eq!(keys.holds_key(LeaseId::new(255)).as_str(), "telemetry/ingest/view/holds/ff");
        assert_eq!(keys.slots_key().as_str(), "telemetry/ingest/view/slots");
        assert_eq!(keys.released_key().as_str(), "telemetry/ingest/view/released");
        assert_eq!(keys.cordon_key(&node).as_str(), "telemetry/ingest/view/cordoned/n 1");
        assert_eq!(keys.drain_key(&node).as_str(), "telemetry/ingest/view/drain/n 1");
        assert_eq!(keys.ready_prefix().as_str(), "telemetry/ingest/ready/");
        assert_eq!(keys.node_key(&node).as_str(), "telemetry/ingest/view/nodes/n 1");
        assert_eq!(keys.readiness_key(&node).as_str(), "telemetry/ingest/ready/n 1");
        assert_eq!(keys.history_prefix().as_str(), "telemetry/ingest/history/");
        assert_eq!(keys.history_key(130).as_str(), "telemetry/ingest/history/2");
    }

    /// Clients in other languages rely on the page.
    #[test]
    fn the_protocol_page_lists_all_keys() {
        let page = include_str!("docs/protocol.md");
        let keys = Keyspace::new(Namespace::parse("{ns}").unwrap());
        let name = NodeName::parse("{name}").unwrap();
        let lease = LeaseId::new(0x2f);
        let table = [
            keys.election_key().to_string(),
            keys.node_key(&name).to_string(),
            keys.holds_key(lease).replace("2f", "{lease}"),
            keys.version_key().to_string(),
            keys.slots_key().to_string(),
            keys.released_key().to_string(),
            keys.request_key().to_string(),
            keys.stable_key().to_string(),
            keys.departure_key().to_string(),
            keys.cordon_key(&name).to_string(),
            keys.drain_key(&name).to_string(),
            keys.history_prefix().to_string() + "{entry}",
            keys.readiness_key(&name).to_string(),
        ];
        let row = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
        let rows: Vec<String> = page.lines().filter_map(row).filter(|key| key.starts_with("{ns}/")).collect();
        assert_eq!(rows, table);
    }

    #[test]
    fn every_key_is_classified() {
        let keys = Keyspace::new(Namespace::parse("c").unwrap());
        let kind_of = |key: &str| keys.kind_of(&Key::from(key));
        assert_eq!(kind_of("c/view/leader"), KeyKind::Leader);
        assert_eq!(kind_of("c/view/version"), KeyKind::Version);
        assert_eq!(kind_of("c/view/request"), KeyKind::Request);
        assert_eq!(kind_of("c/view/stable"), KeyKind::Stable);
        assert_eq!(kind_of("c/view/gone"), KeyKind::Departure);
        assert_eq!(kind_of("c/view/nodes/a"), KeyKind::Node(NodeName::parse("a").unwrap()));
        assert!(matches!(kind_of("c/view/nodes/a/b"), KeyKind::BadName(_)));
        assert!(matches!(kind_of("c/view/nodes/"), KeyKind::BadName(_)));
        assert_eq!(kind_of("c/view/slots"), KeyKind::Slots);
        assert_eq!(kind_of("c/view/released"), KeyKind::Released);
        assert_eq!(kind_of("c/view/holds/2f"), KeyKind::Holds(LeaseId::new(0x2f)));
        for bad in ["", "2F", "02f", "x", "+2f", "2f/x", "1ffffffffffffffff"] {
            assert!(matches!(kind_of(&format!("c/view/holds/{bad}")), KeyKind::BadName(_)), "{bad}");
        }
        assert_eq!(kind_of("c/view/cordoned/a"), KeyKind::Cordon(NodeName::parse("a").unwrap()));
        assert_eq!(kind_of("c/view/drain/a"), KeyKind::Drain(NodeName::parse("a").unwrap()));
        assert!(matches!(kind_of("c/view/drain/a/b"), KeyKind::BadName(_)));
        for unknown in ["c/view/releases", "c/view/leader/x", "c/view/removed/a", "c/view/", "d/view/leader"]
        {
            assert_eq!(kind_of(unknown), KeyKind::Unknown, "{unknown}");
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
            "view/slots",
            "view/holds/2f",
            "view/cordoned/a",
            "view/drain/a",
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
            "view/removed/a",
            "view/holds/2F",
            "view/cordoned/a/b",
            "view/drain/",
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
    fn the_longest_names_fit_into_the_key_limit_of_stores() {
        let keys = Keyspace::new(Namespace::parse(&"n".repeat(Namespace::MAX)).unwrap());
        let node = NodeName::parse(&"m".repeat(NodeName::MAX)).unwrap();
        assert!(keys.node_key(&node).len() <= crate::store::Limits::KEY);
    }

    #[test]
    fn the_namespace_can_be_parsed_from_any_key_of_the_protocol() {
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
    fn the_namespace_can_be_parsed_from_a_node_key() {
        let of = Keyspace::namespace_of_node;
        assert_eq!(of("a/b/view/nodes/n"), Some(Namespace::parse("a/b").unwrap()));
        assert_eq!(of("a/view/nodes/n/m"), None);
        assert_eq!(of("view/nodes/n"), None);
        assert_eq!(of("a/view/version"), None);
    }
}
