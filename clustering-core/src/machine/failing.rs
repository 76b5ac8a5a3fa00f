use std::collections::BTreeMap;

use super::{Machine, Timers};
use crate::{
    event::{Event, StoreCall},
    store::StoreError,
    time::Timestamp,
};

/// Store calls that the node needs and that keep failing (P10).
///
/// Every concern retries its own calls. This type detects a call that has failed for too long, whatever the reason: a
/// full store, a missing permission, overload, lost replies, or a guard that never holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FailingCalls(BTreeMap<StoreCall, Failure>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Failure {
    /// Time of the first failure since the call last succeeded or was not needed.
    since: Timestamp,
    /// Error of the last failure.
    reason: String,
    /// True once an event reported it.
    told: bool,
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
        let new = || Failure { since: now, reason: String::new(), told: false };
        self.0.entry(call).or_insert_with(new).reason = error.to_string();
    }

    /// Returns the calls that were reported as failing and still fail.
    pub(crate) fn reported(&self) -> Vec<FailingCall> {
        let told = self.0.iter().filter(|(_, failure)| failure.told);
        let call = |(call, failure): (&StoreCall, &Failure)| FailingCall {
            call: *call,
            since: failure.since,
            reason: failure.reason.clone(),
        };
        told.map(call).collect()
    }
}

impl Machine {
    pub(super) fn failing_timers(&self, timers: &mut Timers) {
        let unreported = self.failing.0.values().filter(|failure| !failure.told);
        timers.maybe(unreported.map(|failure| failure.since + self.config.warn_after).min());
    }

    /// Reports calls that have kept failing for too long, and drops those that succeeded or are no longer needed. Runs
    /// after all concerns: a call that was due for a retry and was not retried is no longer needed.
    pub(super) fn reconcile_failing(&mut self, now: Timestamp) {
        if self.failing.0.is_empty() {
            return;
        }
        for (call, mut failure) in std::mem::take(&mut self.failing.0) {
            let failing = now.since(failure.since);
            if !self.still_fails(now, call) {
                if failure.told {
                    self.emit(Event::CallRecovered { call, failed: failing });
                }
                continue;
            }
            if !failure.told && failing >= self.config.warn_after {
                failure.told = true;
                self.emit(Event::CallFailing { call, failing, reason: failure.reason.clone() });
            }
            self.failing.0.insert(call, failure);
        }
    }

    /// True if the last attempt of that call failed, and another attempt is in flight or due later.
    fn still_fails(&self, now: Timestamp, call: StoreCall) -> bool {
        let flight = match call {
            StoreCall::Grant => return self.session.fails_to_grant(),
            StoreCall::Revoke => return self.session.fails_to_revoke(),
            StoreCall::Acknowledge => return self.acknowledgement.is_failing(),
            StoreCall::FollowAcknowledgements => return self.consistency.follow.is_failing(),
            StoreCall::Join => &self.membership.join,
            StoreCall::Rewrite => &self.membership.rewrite,
            StoreCall::RequestVersion => &self.requests.ask,
            StoreCall::Elect => &self.election.campaign,
            StoreCall::Resign => &self.election.resign,
            StoreCall::Publish => &self.publication.publish,
            StoreCall::Confirm => &self.consistency.confirm,
            StoreCall::Evict => &self.consistency.evict,
        };
        flight.is_failing(now, self.fold.revision())
    }
}
