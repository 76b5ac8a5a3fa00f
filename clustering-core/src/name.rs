//! Validated names: of nodes and namespaces, incarnations of nodes, and their URIs.
//!
//! Input from users is parsed into these types once; the rest of the code does not handle raw strings.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

/// An invalid name or URI.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} {given:?} cannot be used: {rule}")]
pub struct InvalidInput {
    /// The field whose value is invalid.
    pub field: &'static str,
    /// The value, truncated if it is very long.
    pub given: String,
    /// The rule that the value breaks.
    pub rule: String,
}

impl InvalidInput {
    pub(crate) fn new(field: &'static str, given: &str, rule: impl Into<String>) -> Self {
        const SHOWN: usize = 80;
        let given = match given.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}… ({} bytes)", &given[..end], given.len()),
            None => given.to_owned(),
        };
        InvalidInput { field, given, rule: rule.into() }
    }
}

macro_rules! text {
    ($type:ident) => {
        impl $type {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }
        impl PartialEq<&str> for $type {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

/// The name of a node: 1 to 255 bytes without slashes or control characters, and without blanks at either end.
///
/// Keys are placed by name: a node that comes back under the same name gets its keys back.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeName(Arc<str>);
text!(NodeName);

impl NodeName {
    /// Maximum length in bytes.
    pub const MAX: usize = 255;

    /// Parses a name.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`] with the rule that `name` breaks.
    pub fn parse(name: &str) -> Result<Self, InvalidInput> {
        let refuse = |rule: &str| Err(InvalidInput::new("name", name, rule));
        if name.is_empty() {
            refuse("it must not be empty")
        } else if name.len() > Self::MAX {
            refuse("it must have at most 255 bytes")
        } else if name.contains('/') {
            refuse("it must not contain a slash")
        } else if name.chars().any(char::is_control) {
            refuse("it must not contain control characters")
        } else if name.trim() != name {
            refuse("it must not start or end with blanks")
        } else {
            Ok(NodeName(name.into()))
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = InvalidInput;
    fn try_from(name: String) -> Result<Self, InvalidInput> {
        NodeName::parse(&name)
    }
}

/// The namespace of a cluster, which stores all its keys under `{namespace}/`.
///
/// One or more segments separated by slashes, at most 200 bytes in total, such as `telemetry/ingest`. A segment must
/// not be empty, contain control characters, begin or end with a blank, or be [reserved](Self::RESERVED).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);
text!(Namespace);

impl Namespace {
    /// Maximum length in bytes.
    pub const MAX: usize = 200;

    /// The segments under which a cluster keeps its own keys. Namespaces must not contain them, so that namespaces can
    /// nest (`a` and `a/b`) without one cluster's keys lying below those of another.
    pub const RESERVED: [&str; 3] = ["view", "ready", "history"];

    /// Parses a namespace.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`] with the rule that `namespace` breaks.
    pub fn parse(namespace: &str) -> Result<Self, InvalidInput> {
        let refuse = |rule: &str| Err(InvalidInput::new("namespace", namespace, rule));
        if namespace.is_empty() {
            refuse("it must not be empty")
        } else if namespace.len() > Self::MAX {
            refuse("it must have at most 200 bytes")
        } else if namespace.split('/').any(str::is_empty) {
            refuse("it must not start or end with a slash, nor have two in a row")
        } else if namespace.split('/').any(|segment| Self::RESERVED.contains(&segment)) {
            refuse(
                "no part of it may be `view`, `ready` or `history`: a cluster keeps its own keys under these",
            )
        } else if namespace.chars().any(char::is_control) {
            refuse("it must not contain control characters")
        } else if namespace.split('/').any(|segment| segment.trim() != segment) {
            refuse("no part of it may start or end with blanks")
        } else {
            Ok(Namespace(namespace.into()))
        }
    }
}

/// The incarnation of a node, which changes with each session and with each change of the node's record.
///
/// This library uses ULIDs. It accepts any text in the records of other clients, and only compares it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Incarnation(Arc<str>);
text!(Incarnation);

impl<T: Into<Arc<str>>> From<T> for Incarnation {
    fn from(text: T) -> Self {
        Incarnation(text.into())
    }
}

/// The URI under which other processes can reach a node. The cluster itself never connects to it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeUri(Arc<str>);
text!(NodeUri);

impl NodeUri {
    /// Maximum length in bytes.
    pub const MAX: usize = 4096;

    /// Parses an [RFC 3986](https://www.rfc-editor.org/rfc/rfc3986) URI with a scheme and a host.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`] with the rule that `uri` breaks.
    pub fn parse(uri: &str) -> Result<Self, InvalidInput> {
        // The part before an `@` may contain a password.
        let shown = if uri.contains('@') { "(not shown)" } else { uri };
        let refuse = |rule: &str| Err(InvalidInput::new("uri", shown, rule));
        if uri.is_empty() {
            return refuse(
                "it is required: the URI under which others reach this node, such as `http://10.0.0.7:8080`",
            );
        }
        if uri.len() > Self::MAX {
            return refuse("it must have at most 4096 bytes");
        }
        // `10.0.0.7:8080` is not an RFC 3986 URI, or is one without a host. The rule below is more helpful than a
        // parse error.
        if !uri.contains("://") {
            return refuse("it needs a scheme and a host, as in `http://10.0.0.7:8080`");
        }
        match fluent_uri::Uri::parse(uri) {
            Err(error) => {
                refuse(&format!("it is not a URI ({error}); expected one such as `http://10.0.0.7:8080`"))
            }
            Ok(parsed) => match parsed.authority() {
                None => refuse("it needs a host, as in `http://10.0.0.7:8080`"),
                // All nodes can read the URI, and it is logged.
                Some(authority) if authority.has_userinfo() => {
                    refuse("it must not contain a user or password: every node's URI is public")
                }
                Some(authority) if authority.host().is_empty() => {
                    refuse("it needs a host, as in `http://10.0.0.7:8080`")
                }
                Some(authority) if authority.port_to_u16().is_err() => {
                    refuse("its port must be from 0 to 65535")
                }
                Some(_) => Ok(NodeUri(uri.into())),
            },
        }
    }

    /// Returns the host as written in the URI. The host is empty if the URI of another node is invalid.
    pub(crate) fn host(&self) -> &str {
        let parsed = fluent_uri::Uri::parse(&*self.0).ok();
        parsed.and_then(|uri| uri.authority()).map_or("", |authority| authority.host())
    }

    /// Accepts the URI in another node's record without validating it.
    pub(crate) fn recorded(uri: &str) -> Self {
        NodeUri(uri.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_by_their_rules() {
        for good in ["a", "ingest-1", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "zwölf", "a b", &"n".repeat(255)] {
            assert_eq!(NodeName::parse(good).unwrap(), good);
        }
        for (bad, rule) in [
            ("", "empty"),
            ("a/b", "slash"),
            ("/", "slash"),
            (" a", "blanks"),
            ("a\n", "control"),
            (&*"n".repeat(256), "255 bytes"),
        ] {
            let error = NodeName::parse(bad).unwrap_err();
            assert_eq!(error.field, "name");
            assert!(error.rule.contains(rule), "{error}");
        }
    }

    #[test]
    fn namespaces_with_reserved_segments_are_refused() {
        for good in ["cluster", "telemetry/ingest", "a/b/c", "viewer/readying/history-1", &"n".repeat(200)] {
            assert_eq!(Namespace::parse(good).unwrap(), good);
        }
        let long = "n".repeat(201);
        for bad in ["", "/", "/a", "a/", "a//b", "a\0", " ", "a /b", &long] {
            assert_eq!(Namespace::parse(bad).unwrap_err().field, "namespace", "{bad}");
        }
        for reserved in ["view", "a/view", "ready/b", "history", "telemetry/history", "a/history/b"] {
            let error = Namespace::parse(reserved).unwrap_err().to_string();
            assert!(error.contains("`view`, `ready` or `history`"), "{error}");
        }
    }

    #[test]
    fn uris_need_a_scheme_and_a_host() {
        for good in ["http://10.0.0.7:8080", "grpc://host", "https://[::1]:443/path?x=1", "tcp://h:1"] {
            assert_eq!(NodeUri::parse(good).unwrap(), good);
        }
        for bad in [
            "",
            "10.0.0.7:8080",
            "host",
            "http://",
            "http://:80",
            "://host",
            "http:/x",
            "h ttp://x",
            "mailto:a@b",
        ] {
            assert_eq!(NodeUri::parse(bad).unwrap_err().field, "uri", "{bad}");
        }
        assert!(NodeUri::parse("http://h:99999").unwrap_err().rule.contains("65535"));
        let secret = NodeUri::parse("http://user:hunter2@h").unwrap_err().to_string();
        assert!(secret.contains("password") && !secret.contains("hunter2"), "{secret}");
        // Found by fuzzing.
        for secret in ["http://:hunter2@", "user:hunter2@h", "http://user:hunter2@h:%"] {
            let error = NodeUri::parse(secret).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn long_input_is_truncated_in_error_messages() {
        let message = NodeName::parse(&"ä".repeat(4000)).unwrap_err().to_string();
        assert!(message.len() < 400 && message.contains("(8000 bytes)"), "{message}");
    }
}
