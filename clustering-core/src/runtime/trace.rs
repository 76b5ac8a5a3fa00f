use std::sync::Arc;

use tracing::{Instrument, Level, Span, event, field::Empty, span};

use super::callbacks::Running;
use crate::{
    event::{Causes, Event},
    name::NodeName,
    outcome::Outcome,
    trace::{
        ATTEMPT, CAUSES, EVENT, NAMESPACE, NODE, NODES, ON_STABLE_SPAN, OUTCOME, RELEASE_SPAN, SLOTS,
        STABILIZE_SPAN, TARGET, TERM, VERSION, VERSION_SPAN,
    },
    version::Version,
    view::View,
};

/// Reports a node's events and spans to `tracing`. See [`trace`](crate::trace).
#[derive(Debug)]
pub(crate) struct Tracer {
    namespace: Arc<str>,
    node: Option<NodeName>,
    /// The span of the newest version, until the version is stable.
    version: Option<(Version, Span)>,
}

impl Tracer {
    pub(crate) fn new(namespace: &str, node: Option<NodeName>) -> Self {
        Tracer { namespace: namespace.into(), node, version: None }
    }

    fn node(&self) -> &str {
        self.node.as_ref().map_or("", NodeName::as_str)
    }

    /// Reports an event. `view` is the newest view after the event.
    pub(crate) fn emit(&mut self, event: &Event, view: Option<&View>) {
        if let Event::VersionPublished { version, nodes, causes, .. } = event {
            self.end("superseded");
            let term = view.filter(|view| view.version() == *version).map(|view| view.term().get());
            let span = span!(
                target: TARGET, parent: None, Level::INFO, VERSION_SPAN,
                { NAMESPACE } = &*self.namespace,
                { NODE } = self.node(),
                { VERSION } = %version,
                { TERM } = term,
                { NODES } = nodes,
                { CAUSES } = %Causes(causes),
                { OUTCOME } = Empty,
            );
            self.version = Some((*version, span));
        }
        let about = event.version();
        let span = self.version.as_ref().filter(|(version, _)| about == Some(*version));
        match span {
            Some((_, span)) => span.in_scope(|| self.log(event, about)),
            None => self.log(event, about),
        }
        match event {
            Event::Stable { .. } if about == self.version.as_ref().map(|(version, _)| *version) => {
                self.end("stable");
            }
            Event::Stopped { .. } => self.end("left"),
            _ => {}
        }
    }

    /// Ends the span of the current version.
    fn end(&mut self, outcome: &'static str) {
        if let Some((_, span)) = self.version.take() {
            span.record(OUTCOME, outcome);
        }
    }

    fn log(&self, event: &Event, version: Option<Version>) {
        let version = version.map(tracing::field::display);
        // The level of a `tracing` event is part of its call site and cannot be a variable.
        macro_rules! at {
            ($level:ident) => {
                event!(
                    target: TARGET, Level::$level,
                    { NAMESPACE } = &*self.namespace,
                    { NODE } = self.node(),
                    { EVENT } = event.kind(),
                    { VERSION } = version,
                    "{event}"
                )
            };
        }
        match level(event) {
            Level::ERROR => at!(ERROR),
            Level::WARN => at!(WARN),
            Level::INFO => at!(INFO),
            _ => at!(DEBUG),
        }
    }

    /// Runs one attempt of `stabilize` in a span of its own, inside the span of its version.
    pub(crate) fn stabilize(
        &self,
        version: Version,
        attempt: u32,
        run: impl FnOnce() -> Running + Send + 'static,
    ) -> Running {
        let parent = self.version.as_ref().filter(|(newest, _)| *newest == version);
        let span = span!(
            target: TARGET, parent: parent.and_then(|(_, span)| span.id()), Level::INFO, STABILIZE_SPAN,
            { NODE } = self.node(),
            { VERSION } = %version,
            { ATTEMPT } = attempt,
            { OUTCOME } = Empty,
        );
        within(span, run)
    }

    /// Runs one attempt of `release` in its own span, inside the span of the version that caused it.
    pub(crate) fn release(
        &self,
        slots: usize,
        version: Option<Version>,
        attempt: u32,
        run: impl FnOnce() -> Running + Send + 'static,
    ) -> Running {
        let parent = self.version.as_ref().filter(|(newest, _)| Some(*newest) == version);
        let span = span!(
            target: TARGET, parent: parent.and_then(|(_, span)| span.id()), Level::INFO, RELEASE_SPAN,
            { NODE } = self.node(),
            { VERSION } = version.map(tracing::field::display),
            { ATTEMPT } = attempt,
            { SLOTS } = slots,
            { OUTCOME } = Empty,
        );
        within(span, run)
    }

    /// Runs `on_stable` in a span.
    pub(crate) fn on_stable(&self, view: &View, run: impl FnOnce() -> Running + Send + 'static) -> Running {
        let span = span!(
            target: TARGET, parent: None, Level::INFO, ON_STABLE_SPAN,
            { NODE } = self.node(),
            { VERSION } = %view.version(),
            { TERM } = view.term().get(),
            { OUTCOME } = Empty,
        );
        within(span, run)
    }
}

/// Returns the level of an event. No event at `info` or above repeats in a quiet cluster.
fn level(event: &Event) -> Level {
    match event {
        Event::StoreRefused { .. } => Level::ERROR,
        Event::SessionLost { .. }
        | Event::Unhealthy { .. }
        | Event::LeadershipSuspended { .. }
        | Event::StabilizeRefused { .. }
        | Event::StabilizeSlow { .. }
        | Event::HoldsSuspended
        | Event::NotExclusive { .. }
        | Event::ReleaseRefused { .. }
        | Event::ReleaseSlow { .. }
        | Event::WorkDropped { .. }
        | Event::Reclaiming { .. }
        | Event::TooFewNodes { .. }
        | Event::FalselyRemoved { .. }
        | Event::ProcessGone { .. }
        | Event::AssignorFailed { .. }
        | Event::AnnouncementSlow { .. }
        | Event::AnnouncementFailed { .. }
        | Event::Blocked(_)
        | Event::Evicted { .. }
        | Event::MassFailure(_)
        | Event::StoreAway { .. }
        | Event::CallFailing { .. }
        | Event::Malformed { .. }
        | Event::Overwritten { .. }
        | Event::NameHeld { .. } => Level::WARN,
        Event::Joined { .. }
        | Event::Rejoined { .. }
        | Event::Healthy
        | Event::LeaderChanged { .. }
        | Event::LeadershipResumed { .. }
        | Event::HoldsResumed
        | Event::SlotsLost { .. }
        | Event::SlotsAcquired { .. }
        | Event::SlotsKept { .. }
        | Event::WaitingForNodes { .. }
        | Event::Cordoned { .. }
        | Event::Uncordoned { .. }
        | Event::VersionPublished { .. }
        | Event::Stable { .. }
        | Event::MassFailureOver { .. }
        | Event::StoreBack { .. }
        | Event::CallRecovered { .. }
        | Event::Resynced { .. }
        | Event::Unregistered
        | Event::Stopped { .. } => Level::INFO,
        Event::NodeUp { .. }
        | Event::NodeChanged { .. }
        | Event::NodeDown { .. }
        | Event::Stabilizing { .. }
        | Event::Superseded { .. }
        | Event::Releasing { .. }
        | Event::Released { .. }
        | Event::Ready { .. }
        | Event::Announcing { .. } => Level::DEBUG,
    }
}

/// Runs a callback in a span, from its call to its result.
fn within(span: Span, run: impl FnOnce() -> Running + Send + 'static) -> Running {
    let callback = async move {
        let outcome = run().await;
        let text = match outcome {
            Outcome::Ready => "ready",
            Outcome::Refused { .. } => "refused",
        };
        Span::current().record(OUTCOME, text);
        outcome
    };
    Box::pin(callback.instrument(span))
}
