//! Store calls that keep failing (P10).

use std::{collections::BTreeMap, time::Duration};

use super::timers::Timers;
use crate::{
    event::{Event, StoreCall},
    store::StoreError,
    time::Timestamp,
};

/// Detects store calls that the node needs and that have failed for too long.
///
/// Every concern retries its own calls. This type reports those that keep failing, whatever the reason: a full store, a
/// missing permission, overload, lost replies, or a guard that never holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FailingCalls(BTreeMap<StoreCall, Failure>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Failure {
    /// Time of the first failure since the call last succeeded or was not needed.
    since: Timestamp,
    /// Error of the last failure.
    reason: String,
    /// True once an event reported it.
    reported: bool,
}

/// A store call that the node needs and that has kept failing for at least
/// [`Config::warn_after`](crate::Config::warn_after).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailingCall {
    /// The call.
    pub call: StoreCall,
    /// Time of its first failure.
    pub since: Timestamp,
    /// Error of its last failure.
    pub reason: String,
}

impl FailingCalls {
    /// Records a failed attempt.
    pub(crate) fn failed(&mut self, now: Timestamp, call: StoreCall, error: &StoreError) {
        let new = || Failure { since: now, reason: String::new(), reported: false };
        self.0.entry(call).or_insert_with(new).reason = error.to_string();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the calls that were reported as failing and still fail.
    pub(crate) fn reported(&self) -> Vec<FailingCall> {
        let reported = self.0.iter().filter(|(_, failure)| failure.reported);
        let call = |(call, failure): (&StoreCall, &Failure)| FailingCall {
            call: *call,
            since: failure.since,
            reason: failure.reason.clone(),
        };
        reported.map(call).collect()
    }

    pub(crate) fn timers(&self, warn_after: Duration, timers: &mut Timers) {
        let unreported = self.0.values().filter(|failure| !failure.reported);
        timers.maybe(unreported.map(|failure| failure.since + warn_after).min());
    }

    /// Returns the events that are due: for calls that have failed for `warn_after`, and for reported calls that
    /// recovered. Drops calls for which `still_fails` is false.
    ///
    /// Call it after all concerns have reconciled: a call that was due for a retry and was not retried is no longer
    /// needed.
    pub(crate) fn update(
        &mut self,
        now: Timestamp,
        warn_after: Duration,
        still_fails: impl Fn(StoreCall) -> bool,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        self.0.retain(|call, failure| {
            let (call, failing) = (*call, now.since(failure.since));
            let still_fails = still_fails(call);
            if !still_fails && failure.reported {
                events.push(Event::CallRecovered { call, failed: failing });
            }
            if still_fails && !failure.reported && failing >= warn_after {
                failure.reported = true;
                events.push(Event::CallFailing { call, failing, reason: failure.reason.clone() });
            }
            still_fails
        });
        events
    }
}
