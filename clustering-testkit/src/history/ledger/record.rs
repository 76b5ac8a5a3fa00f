//! Parses the values of a cluster's keys, following only the documentation of the protocol.

use std::collections::BTreeMap;

use clustering_core::{Incarnation, NodeName, Term, Version, store::Revision};
use serde_json::{Map, Value};

use crate::history::Member;

fn object(value: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(value) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str()
}

/// Returns the node that a record describes, or `None` if the record does not count as a node.
pub(super) fn member(name: &NodeName, value: &[u8]) -> Option<Member> {
    let fields = object(value)?;
    let (uri, incarnation) = (text(&fields, "uri")?, text(&fields, "incarnation")?);
    let as_text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let metadata = match fields.get("metadata") {
        Some(Value::Object(entries)) => {
            entries.iter().map(|(key, value)| (key.clone(), as_text(value))).collect()
        }
        _ => BTreeMap::new(),
    };
    Some(Member {
        name: name.clone(),
        uri: uri.to_owned(),
        incarnation: Incarnation::from(incarnation),
        metadata,
    })
}

/// Returns the version that a record names, and the term that it claims.
pub(super) fn version(value: &[u8]) -> Option<(Version, Option<Term>)> {
    let fields = object(value)?;
    Some((text(&fields, "version")?.parse().ok()?, term(&fields)))
}

fn term(fields: &Map<String, Value>) -> Option<Term> {
    Some(Term::new(Revision::new(fields.get("term")?.as_u64()?)))
}

/// Returns the name in the record of an election key.
pub(super) fn leader(value: &[u8]) -> Option<String> {
    Some(text(&object(value)?, "node")?.to_owned())
}

/// Returns the version that an acknowledgement is about, and true if the node is ready.
pub(super) fn acknowledgement(value: &[u8]) -> Option<(Version, bool)> {
    let fields = object(value)?;
    let version = text(&fields, "version")?.parse().ok()?;
    match text(&fields, "outcome")? {
        "ready" => Some((version, true)),
        "failed" => Some((version, false)),
        _ => None,
    }
}

/// Returns the id and the term of a leader commit.
pub(super) fn fenced(value: &[u8]) -> Option<(Option<String>, Term)> {
    let fields = object(value)?;
    Some((text(&fields, "id").map(str::to_owned), term(&fields)?))
}
