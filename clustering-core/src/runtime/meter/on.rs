use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use metrics::{counter, gauge, histogram};

use crate::{
    event::Event,
    machine::{Health, Input, Machine, Output, Purpose, Token},
    metrics::{self as names, Metric},
    outcome::Outcome,
    runtime::Status,
    store::{ErrorKind, StoreError, WatchEnd},
    time::Timestamp,
    version::Version,
};

/// Number of gauges that a node sets.
const GAUGES: usize = 13;

/// Records the metrics of a node from the inputs and outputs of its machine. Nothing else depends on it.
#[derive(Debug)]
pub(crate) struct Meter {
    namespace: Arc<str>,
    /// False for observers, which are not measured.
    is_node: bool,
    calls: BTreeMap<Token, Call>,
    /// The running `stabilize` calls that were superseded.
    superseded: BTreeSet<Token>,
    /// End of the session if no further renewal succeeds.
    session_until: Option<Timestamp>,
    /// The newest version and the time at which it was seen, until it is stable.
    published: Option<(Version, Timestamp)>,
    present: usize,
    unready: usize,
    /// The values that were set last, by gauge.
    shown: [Option<f64>; GAUGES],
}

/// A store call or callback that has not finished, with its start if its duration is measured.
#[derive(Clone, Copy, Debug)]
enum Call {
    Lease(Timestamp),
    Commit(Purpose),
    Stabilize(Timestamp),
    Announce(Timestamp),
    Check(Timestamp),
}

fn build_info() {
    gauge!(names::BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Returns the outcome of a commit as a label value.
fn outcome<T>(result: &Result<T, StoreError>) -> &'static str {
    match result.as_ref().map_err(StoreError::kind) {
        Ok(_) => "done",
        Err(ErrorKind::GuardFailed { .. }) => "refused",
        Err(ErrorKind::OutcomeUnknown) => "unknown",
        Err(_) => "failed",
    }
}

impl Meter {
    pub(crate) fn new(namespace: &str, is_node: bool) -> Self {
        if is_node {
            names::describe(names::ALL);
            build_info();
        }
        Meter {
            namespace: namespace.into(),
            is_node,
            calls: BTreeMap::new(),
            superseded: BTreeSet::new(),
            session_until: None,
            published: None,
            present: 0,
            unready: 0,
            shown: [None; GAUGES],
        }
    }

    fn count(&self, metric: Metric) {
        counter!(metric.name, "namespace" => self.namespace.clone()).increment(1);
    }

    fn count_by(&self, metric: Metric, label: &'static str, value: &'static str) {
        counter!(metric.name, "namespace" => self.namespace.clone(), label => value).increment(1);
    }

    fn took(&self, metric: Metric, time: Duration) {
        histogram!(metric.name, "namespace" => self.namespace.clone()).record(time);
    }

    fn took_with(&self, metric: Metric, time: Duration, outcome: &'static str) {
        histogram!(metric.name, "namespace" => self.namespace.clone(), "outcome" => outcome).record(time);
    }

    /// Measures an input that is about to be passed to the machine.
    pub(crate) fn input(&mut self, now: Timestamp, input: &Input) {
        if !self.is_node {
            return;
        }
        match input {
            Input::Granted { token, result } => {
                if let (Some(Call::Lease(sent)), Ok(lease)) = (self.calls.remove(token), result) {
                    self.session_until = Some(sent + lease.ttl);
                }
            }
            Input::Renewed { token, result } => self.renewed(now, *token, result),
            Input::Committed { token, result } => self.committed(*token, result),
            Input::Stabilized { token, outcome } => self.stabilized(now, *token, outcome),
            Input::Announced { token, result } => {
                let Some(Call::Announce(began)) = self.calls.remove(token) else { return };
                let outcome = if result.is_ok() { "done" } else { "failed" };
                self.took_with(names::ON_STABLE, now.since(began), outcome);
            }
            Input::HealthReported { token, result } => {
                let Some(Call::Check(began)) = self.calls.remove(token) else { return };
                self.took(names::HEALTH_CHECK, now.since(began));
                // A check that exceeded its deadline is reported as an error.
                let outcome = if result.is_ok() { "passed" } else { "failed" };
                self.count_by(names::HEALTH_CHECKS, "outcome", outcome);
            }
            Input::WatchEnded { end, .. } => {
                let reason = match end {
                    WatchEnd::Compacted { .. } => "compacted",
                    WatchEnd::Disconnected { .. } => "disconnected",
                    WatchEnd::Rewound { .. } => "rewound",
                };
                self.count_by(names::WATCH_RESUMES, "reason", reason);
            }
            _ => {}
        }
    }

    fn renewed(&mut self, now: Timestamp, token: Token, result: &Result<Duration, StoreError>) {
        // Recorders may forget gauges that are not set for a while, so each renewal sets all of them again.
        self.shown = [None; GAUGES];
        build_info();
        let Some(Call::Lease(sent)) = self.calls.remove(&token) else { return };
        self.took(names::RENEWAL, now.since(sent));
        match result {
            Ok(left) if !left.is_zero() => {
                self.count_by(names::RENEWALS, "outcome", "done");
                let until = self.session_until.replace(sent + *left);
                self.took(names::RENEWAL_LEFT, until.unwrap_or_default().since(now));
            }
            _ => self.count_by(names::RENEWALS, "outcome", "failed"),
        }
    }

    fn committed<T>(&mut self, token: Token, result: &Result<T, StoreError>) {
        let Some(Call::Commit(purpose)) = self.calls.remove(&token) else { return };
        counter!(
            names::COMMITS.name,
            "namespace" => self.namespace.clone(),
            "purpose" => purpose.name(),
            "outcome" => outcome(result),
        )
        .increment(1);
    }

    fn stabilized(&mut self, now: Timestamp, token: Token, outcome: &Outcome) {
        let Some(Call::Stabilize(began)) = self.calls.remove(&token) else { return };
        let outcome = match outcome {
            _ if self.superseded.remove(&token) => "superseded",
            Outcome::Ready => "ready",
            Outcome::Refused { .. } => "refused",
        };
        self.took_with(names::STABILIZE, now.since(began), outcome);
    }

    /// Reads counts from the machine. Calls no recorder, because the machine is locked.
    pub(crate) fn look(&mut self, machine: &Machine) {
        if !self.is_node {
            return;
        }
        self.unready = machine.unready().unwrap_or_default();
        self.present = machine.present_count();
    }

    /// Measures the machine's outputs and sets the gauges to the node's new status.
    pub(crate) fn outputs(&mut self, now: Timestamp, outputs: &[Output], status: &Status) {
        if !self.is_node {
            return;
        }
        for output in outputs {
            let call = match output {
                Output::Grant { token, .. } | Output::Renew { token, .. } => Some((token, Call::Lease(now))),
                Output::Commit { token, purpose, .. } => Some((token, Call::Commit(*purpose))),
                Output::Stabilize { token, .. } => {
                    self.count(names::STABILIZE_ATTEMPTS);
                    Some((token, Call::Stabilize(now)))
                }
                Output::Announce { token, .. } => Some((token, Call::Announce(now))),
                Output::CheckHealth { token } => Some((token, Call::Check(now))),
                Output::Supersede { token } => {
                    if matches!(self.calls.get(token), Some(Call::Stabilize(_))) {
                        self.superseded.insert(*token);
                    }
                    None
                }
                Output::Event(event) => {
                    self.event(now, event);
                    None
                }
                _ => None,
            };
            self.calls.extend(call.map(|(token, call)| (*token, call)));
        }
        self.gauges(status);
    }

    /// Sets the gauges whose values have changed.
    fn gauges(&mut self, status: &Status) {
        let flag = |is: bool| if is { 1.0 } else { 0.0 };
        let term = status.leader.as_ref().map_or(0, |leader| leader.term.get());
        let versioned = status.newest.as_ref().map_or(0, |view| view.len());
        let holdings = status.holdings.as_ref();
        let healthy = matches!(status.health, Health::Unchecked | Health::Healthy);
        let gauges: [_; GAUGES] = [
            (names::LEADER, None, flag(status.active_term.is_some())),
            (names::MEMBER, None, flag(status.member)),
            (names::STABLE, None, flag(status.member && status.is_stable())),
            (names::STORE_AWAY, None, flag(status.stale_since.is_some())),
            (names::HEALTHY, None, flag(healthy)),
            (names::TERM, None, term as f64),
            (names::NODES, Some("present"), self.present as f64),
            (names::NODES, Some("versioned"), versioned as f64),
            (names::NODES, Some("unready"), self.unready as f64),
            (names::SLOTS, Some("held"), holdings.map_or(0, |holdings| holdings.held.len()) as f64),
            (names::SLOTS, Some("in_use"), holdings.map_or(0, |holdings| holdings.in_use.len()) as f64),
            (names::FAILING_CALLS, None, status.failing.len() as f64),
            (names::MASS_FAILURE, None, flag(status.mass_failure.is_some())),
        ];
        for ((metric, state, value), shown) in gauges.into_iter().zip(&mut self.shown) {
            if shown.replace(value) == Some(value) {
                continue;
            }
            let namespace = self.namespace.clone();
            match state {
                Some(state) => gauge!(metric.name, "namespace" => namespace, "state" => state),
                None => gauge!(metric.name, "namespace" => namespace),
            }
            .set(value);
        }
    }

    /// Counts the event (P10), and updates the metrics that depend on it.
    fn event(&mut self, now: Timestamp, event: &Event) {
        self.count_by(names::EVENTS, "event", event.kind());
        match event {
            Event::VersionPublished { version, causes, .. } => {
                self.published = Some((*version, now));
                let kinds: BTreeSet<&'static str> = causes.iter().filter_map(|cause| cause.kind()).collect();
                kinds.into_iter().for_each(|kind| self.count_by(names::VERSIONS, "cause", kind));
            }
            Event::Stable { version } => {
                if let Some((_, at)) = self.published.take_if(|(published, _)| published == version) {
                    self.took(names::VERSION_STABLE, now.since(at));
                }
            }
            Event::LeaderChanged { term: Some(_), own, .. } => {
                self.count_by(names::ELECTIONS, "own", if *own { "true" } else { "false" });
            }
            Event::SessionLost { reason } => {
                self.session_until = None;
                self.count_by(names::SESSIONS_LOST, "reason", reason.kind());
            }
            Event::Resynced { rewound, .. } => {
                self.count_by(names::RESYNCS, "rewound", if *rewound { "true" } else { "false" });
            }
            _ => {}
        }
    }
}

/// Counts events that a slow subscriber missed.
pub(crate) fn missed(events: u64) {
    counter!(names::EVENTS_MISSED.name).increment(events);
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;
    use crate::{config::Config, keyspace::Keyspace, name::Namespace, version::IdGenerator};

    /// P10: every transition is an event, and every event is counted.
    #[test]
    fn p10_every_kind_of_event_is_counted() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            let mut meter = Meter::new("c", true);
            for event in crate::event::samples() {
                meter.event(Timestamp::ZERO, &event);
            }
        });
        let mut counted: Vec<String> = Vec::new();
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let label = key.key().labels().find(|label| label.key() == "event");
            if let (Some(label), "clustering_events_total") = (label, key.key().name()) {
                assert_eq!(value, DebugValue::Counter(1), "{label:?}");
                counted.push(label.value().to_owned());
            }
        }
        counted.sort();
        let mut kinds = Event::KINDS.to_vec();
        kinds.sort_unstable();
        assert_eq!(counted, kinds);
    }

    /// Recorders may forget gauges that are not set for a while. Setting all of them at every input would cost more
    /// than handling the input.
    #[tokio::test]
    async fn gauges_are_set_when_they_change_and_with_every_renewal() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let shows = || {
            let seen = snapshotter.snapshot().into_vec().into_iter();
            let mut values = seen.filter(|(key, ..)| key.key().name() == names::MEMBER.name);
            values.next().map(|(.., value)| value)
        };
        let keyspace = Keyspace::new(Namespace::parse("c").unwrap());
        let ids = IdGenerator::new(0, Timestamp::ZERO, 1);
        let mut machine = Machine::observer(keyspace, Config::default(), ids);
        machine.handle(Timestamp::ZERO, Input::Tick);
        let Some(Output::Read { token, .. }) = machine.poll_output() else { panic!("it reads") };
        let status = machine.status(Timestamp::ZERO);
        let mut meter = Meter::new("c", true);
        let renewed = Input::Renewed { token, result: Ok(Duration::from_secs(9)) };
        metrics::with_local_recorder(&recorder, || {
            meter.outputs(Timestamp::ZERO, &[], &status);
            assert_eq!(shows(), Some(DebugValue::Gauge(0.0.into())));
            let forgotten = || gauge!(names::MEMBER.name, "namespace" => "c").set(7.0);
            forgotten();
            meter.outputs(Timestamp::ZERO, &[], &status);
            assert_eq!(shows(), Some(DebugValue::Gauge(7.0.into())), "nothing changed");
            meter.input(Timestamp::ZERO, &renewed);
            meter.outputs(Timestamp::ZERO, &[], &status);
            assert_eq!(shows(), Some(DebugValue::Gauge(0.0.into())));
            meter.present = 3;
            forgotten();
            meter.outputs(Timestamp::ZERO, &[], &status);
            assert_eq!(shows(), Some(DebugValue::Gauge(7.0.into())), "another one changed");
        });
    }
}
