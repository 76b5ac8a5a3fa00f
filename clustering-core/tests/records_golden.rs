//! Golden tests of records: every build decodes them alike (P1), even if another crate of the program enables
//! features of `serde_json`. `scripts/test` runs these tests with those features too.
//!
//! `records_golden.txt` contains records and, indented below each, its decoded contents. `UPDATE_GOLDEN=1` in the
//! environment rewrites the file; no line that decides if a node counts may change.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::{fmt::Write, path::Path};

use clustering_core::{
    Discovery, Keyspace, Namespace, Node, Report, history,
    store::{CoordinationStoreExt, Entry, Key, Revision, Snapshot},
};
use clustering_memory::MemoryStore;

const VERSION: &str = r#"{"version": "01HF7YAT000000000000000000"}"#;

fn keys() -> Keyspace {
    Keyspace::new(Namespace::parse("c").unwrap())
}

fn shown(node: &Node) -> String {
    let Node { uri, incarnation, metadata, protocol, .. } = node;
    format!("node {uri:?} {incarnation:?} {metadata:?} protocol {protocol} weight {}", node.weight().get())
}

/// Decodes a node record.
fn node(record: &str) -> String {
    match report(keys().node_key(&"n".to_owned().try_into().unwrap()), record) {
        Some(report) if report.nodes.len() == 1 => shown(&report.nodes[0]),
        Some(report) => {
            assert_eq!(report.malformed.len(), 1);
            "no node".to_owned()
        }
        None => panic!("the report does not mention {record}"),
    }
}

fn report(key: Key, record: &str) -> Option<Report> {
    let at = Revision::new(7);
    let entry = Entry { key, value: record.to_owned().into(), created: at, modified: at, lease: None };
    let snapshot = |entries| Snapshot { revision: at, entries };
    Report::of(&keys(), &snapshot(vec![entry]), &snapshot(Vec::new()))
}

/// Decodes a version record, and the same record as a history entry.
async fn version(record: &str) -> String {
    let report = report(keys().version_key().clone(), record).unwrap();
    let version = report.version.unwrap();
    let Some(label) = version.version else { return "no version".to_owned() };
    let mut text = format!("version {label} term {:?} leader {:?}", version.term, version.leader);
    let store = MemoryStore::new();
    store.put(&keys().history_key(1), record.to_owned().into(), None).await.unwrap();
    let entry = history(&store, &keys()).await.unwrap().remove(0);
    assert_eq!((entry.version, &entry.causes), (label, &version.causes));
    write!(text, " number {} stable {:?}", entry.number, entry.stable.map(|stable| stable.after)).unwrap();
    for cause in version.causes {
        write!(text, "\n  {cause:?}").unwrap();
    }
    text
}

async fn read(golden: &str) -> String {
    let mut text = String::new();
    for line in golden.lines().filter(|line| !line.starts_with(' ')) {
        writeln!(text, "{line}").unwrap();
        match line.split_once(' ') {
            Some(("node", record)) => writeln!(text, "  {}", node(record)).unwrap(),
            Some(("version", record)) => writeln!(text, "  {}", version(record).await).unwrap(),
            _ => assert!(line.is_empty() || line.starts_with('#'), "{line}"),
        }
    }
    text
}

#[tokio::test]
async fn p1_records_decode_alike_in_every_build() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records_golden.txt");
    let golden = std::fs::read_to_string(&path).unwrap();
    let now = read(&golden).await;
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, now).unwrap();
        return;
    }
    for (golden, now) in golden.lines().zip(now.lines()) {
        assert_eq!(golden, now);
    }
    assert_eq!(golden.lines().count(), now.lines().count());
}

/// The view of a version that is cut from all these records has the nodes that the golden file lists.
#[tokio::test(start_paused = true)]
async fn p1_the_view_has_the_nodes_of_the_valid_records() {
    let store = MemoryStore::new();
    let discovery = Discovery::observe(store.clone(), "c").await.unwrap();
    let mut expected = Vec::new();
    let golden = include_str!("records_golden.txt");
    for (line, said) in golden.lines().zip(golden.lines().skip(1)) {
        let Some(record) = line.strip_prefix("node ") else { continue };
        let key = format!("c/view/nodes/{:03}", expected.len());
        store.put(&key, record.to_owned().into(), None).await.unwrap();
        expected.push(said.trim_start());
    }
    store.put("c/view/version", VERSION.into(), None).await.unwrap();
    let mut status = discovery.status();
    let view = status.wait_for(|status| status.newest.is_some()).await.unwrap().newest.clone().unwrap();
    let of = |place: usize| view.get(&format!("{place:03}").try_into().unwrap()).cloned();
    let seen: Vec<_> = (0..expected.len())
        .map(|place| of(place).map_or_else(|| "no node".to_owned(), |node| shown(&node)))
        .collect();
    assert_eq!(seen, expected);
}
