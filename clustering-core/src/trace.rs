//! Names of the spans and fields that nodes report to [`tracing`](https://docs.rs/tracing). The names are stable.
//!
//! Every transition is an event under the target [`TARGET`] (P10), with the fields [`NAMESPACE`], [`NODE`] and
//! [`EVENT`], and with [`VERSION`] if the event concerns a version. Events at level `error` need operator action, those
//! at `warn` are abnormal, those at `info` describe the normal course of the cluster, and all others are at `debug`. In
//! a quiet cluster no event at `info` or above repeats.
//!
//! Each version has one span, [`VERSION_SPAN`]. It begins when the node sees the version published, and ends when the
//! node sees the version recorded as stable or a newer version published. Inside it is one [`STABILIZE_SPAN`] for each
//! attempt of this node, which in turn contains the spans and events of the service's own callback. A tracing backend
//! can therefore show for each change how long it took, and which node it waited for.

/// Target of all spans and events.
pub const TARGET: &str = "clustering";

/// Span of a version, with [`NAMESPACE`], [`NODE`], [`VERSION`], [`TERM`], [`NODES`] and [`CAUSES`].
///
/// [`OUTCOME`] is recorded at its end: `stable`, `superseded`, or `left` if the node stopped first.
pub const VERSION_SPAN: &str = "version";
/// Span of one attempt of `stabilize`, inside the span of its version, with [`NODE`], [`VERSION`] and [`ATTEMPT`].
///
/// [`OUTCOME`] is recorded at its end: `ready` or `refused`. It is not recorded if the callback was dropped.
pub const STABILIZE_SPAN: &str = "stabilize";
/// Span of one attempt of `release`, inside the span of the version that takes the slots away, with [`NODE`],
/// [`VERSION`], [`ATTEMPT`] and [`SLOTS`]. It has no version if the session ends.
///
/// [`OUTCOME`] is recorded at its end: `ready` or `refused`. It is not recorded if the callback was dropped.
pub const RELEASE_SPAN: &str = "release";
/// Span of the `on_stable` callback, with [`NODE`], [`VERSION`] and [`TERM`].
///
/// [`OUTCOME`] is recorded at its end: `ready` or `refused`. It is not recorded if the callback was dropped.
pub const ON_STABLE_SPAN: &str = "on_stable";

/// Field: the namespace of the cluster.
pub const NAMESPACE: &str = "namespace";
/// Field: the name of the node that reports the span or event.
pub const NODE: &str = "node";
/// Field: the kind of the event, one of [`Event::KINDS`](crate::Event::KINDS).
pub const EVENT: &str = "event";
/// Field: the version that the span or event concerns.
pub const VERSION: &str = "version";
/// Field: the term of the leader that published or announced the version.
pub const TERM: &str = "term";
/// Field: the number of nodes in the version's view.
pub const NODES: &str = "nodes";
/// Field: human-readable reasons why the version was published.
pub const CAUSES: &str = "causes";
/// Field: the number of the attempt, starting at 1.
pub const ATTEMPT: &str = "attempt";
/// Field: the number of slots to let go of.
pub const SLOTS: &str = "slots";
/// Field: the outcome of the span, recorded at its end.
pub const OUTCOME: &str = "outcome";
