//! What nodes tell [`tracing`](https://docs.rs/tracing): the names of spans and fields, which stay as they are.
//!
//! Every transition is an event under the target [`TARGET`] (P10), with [`NAMESPACE`], [`NODE`] and its [`EVENT`] kind, and
//! [`VERSION`] if it is about one. Levels: `error` is what a person has to mend, `warn` what is not as it should be, `info`
//! the course of the cluster, `debug` the rest. At `info` and above nothing repeats while all is quiet.
//!
//! A version is one span, [`VERSION_SPAN`], from when the node saw it published until it saw it recorded as stable, or a
//! newer one published; the node's own part, [`STABILIZE_SPAN`] for each try, is inside, and in that whatever the service
//! tells from its callback. So a tracing backend shows for each change how long it took and on whom.

/// The target of all spans and events.
pub const TARGET: &str = "clustering";

/// The span of a version: [`NAMESPACE`], [`NODE`], [`VERSION`], [`TERM`], [`NODES`], [`CAUSES`]; at its end [`OUTCOME`]:
/// `stable`, `superseded`, or `left` if the node ended before.
pub const VERSION_SPAN: &str = "version";
/// The span of one try of stabilize, inside that of its version: [`NODE`], [`VERSION`], [`ATTEMPT`]; at its end
/// [`OUTCOME`]: `ready` or `refused`, and none if it was dropped.
pub const STABILIZE_SPAN: &str = "stabilize";
/// The span of the `on_stable` callback: [`NODE`], [`VERSION`], [`TERM`].
pub const ON_STABLE_SPAN: &str = "on_stable";

/// The cluster.
pub const NAMESPACE: &str = "namespace";
/// The node that tells.
pub const NODE: &str = "node";
/// What kind of event it is: one of [`Event::KINDS`](crate::Event::KINDS).
pub const EVENT: &str = "event";
/// The version that it is about.
pub const VERSION: &str = "version";
/// The term of a leader.
pub const TERM: &str = "term";
/// How many nodes a version has.
pub const NODES: &str = "nodes";
/// Why a version was published, in words.
pub const CAUSES: &str = "causes";
/// Which try it is, from 1.
pub const ATTEMPT: &str = "attempt";
/// How it ended.
pub const OUTCOME: &str = "outcome";
