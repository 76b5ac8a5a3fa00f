//! Node records, each decoded once for all nodes of the process.
//!
//! Every node folds the record of every other. Where many nodes share a process, as they do in tests and simulations, they
//! would decode and keep the same N records N times over; so they share them. A record that stands for itself costs its
//! process one entry here, which goes when nobody holds the node any more.
//!
//! Nothing can be told from outside: what is shared is equal in everything that it was decoded from.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use xxhash_rust::xxh3::xxh3_64;

use crate::{name::NodeName, node::Node, record::decode_node, store::Entry};

static DECODED: LazyLock<Mutex<Decoded>> = LazyLock::new(Mutex::default);

/// From how many entries on those that nobody holds any more are looked for.
const FEW: usize = 256;

#[derive(Default)]
struct Decoded {
    /// By the hash of their key.
    nodes: HashMap<u64, Weak<Node>>,
    /// At how many entries to look for those that nobody holds.
    sweep_at: usize,
}

impl Decoded {
    fn find(&self, hash: u64, name: &NodeName, entry: &Entry) -> Option<Arc<Node>> {
        let node = self.nodes.get(&hash)?.upgrade()?;
        (node.name == *name && node.is_of(entry)).then_some(node)
    }

    fn keep(&mut self, hash: u64, node: &Arc<Node>) {
        if self.nodes.len() >= self.sweep_at.max(FEW) {
            self.nodes.retain(|_, node| node.strong_count() > 0);
            self.sweep_at = self.nodes.len() * 2;
        }
        self.nodes.insert(hash, Arc::downgrade(node));
    }
}

/// The node of that name, whose record the entry holds; or what is wrong with that.
pub(crate) fn node(name: NodeName, entry: &Entry) -> Result<Arc<Node>, String> {
    let hash = xxh3_64(entry.key.as_bytes());
    let lock = || DECODED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(node) = lock().find(hash, &name, entry) {
        return Ok(node);
    }
    let node = Arc::new(decode_node(name, entry)?);
    lock().keep(hash, &node);
    Ok(node)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::{LeaseId, Revision};

    fn entry(key: &str, value: &str, at: u64) -> Entry {
        Entry {
            key: key.into(),
            value: Bytes::copy_from_slice(value.as_bytes()),
            created: Revision::new(at),
            modified: Revision::new(at),
            lease: Some(LeaseId::new(at)),
        }
    }

    fn decoded(name: &str, entry: &Entry) -> Arc<Node> {
        node(NodeName::parse(name).unwrap(), entry).unwrap()
    }

    const VALUE: &str = r#"{"uri":"http://a","incarnation":"1"}"#;

    #[test]
    fn the_same_record_is_shared_and_any_other_is_not() {
        let first = entry("shared/view/nodes/a", VALUE, 7);
        let node = decoded("a", &first);
        assert!(Arc::ptr_eq(&node, &decoded("a", &entry("shared/view/nodes/a", VALUE, 7))));
        let others = [
            entry("shared/view/nodes/a", VALUE, 8),
            entry("shared/view/nodes/a", r#"{"uri":"http://b","incarnation":"1"}"#, 7),
            Entry { lease: None, ..first.clone() },
            Entry { created: Revision::new(6), ..first.clone() },
        ];
        for other in others {
            // It takes the place of the first, which is the one last seen in all nodes of a process but laggards.
            let fresh = decode_node(node.name.clone(), &other).unwrap();
            assert_eq!(*decoded("a", &other), fresh);
            assert!(!Arc::ptr_eq(&node, &decoded("a", &other)));
            assert_eq!(*decoded("a", &first), *node);
        }
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut all = Decoded::default();
        let held: Vec<_> = (0..10)
            .map(|at| Arc::new(decode_node(NodeName::parse("a").unwrap(), &entry("k", VALUE, at)).unwrap()))
            .collect();
        for (hash, node) in (0..).zip(&held) {
            all.keep(hash, node);
        }
        for hash in 10..100_000 {
            let dropped = Arc::new(Node::clone(&held[0]));
            all.keep(hash, &dropped);
        }
        assert!(all.nodes.len() <= FEW + 1, "{}", all.nodes.len());
        assert!((0..10).all(|hash| all.nodes.contains_key(&hash)));
    }
}
