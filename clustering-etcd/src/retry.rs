//! Decides whether a failed call is made again.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    backoff::jittered,
    failure::{Failure, FailureKind, RetrySafety},
    members::{Member, Members},
};

/// Longest pause before another attempt at a member where the call has already failed.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// The failed attempts of one call.
pub(crate) struct Retry {
    safety: RetrySafety,
    deadline: Instant,
    attempts_left: usize,
    /// True until the call has replaced its token. A second rejection is final.
    may_replace_token: bool,
    /// Numbers of the members at which an attempt failed.
    failed_at: Vec<usize>,
    /// True if one of the attempts may have taken effect.
    may_have_happened: bool,
    mismatches: Mismatches,
}

impl Retry {
    pub(crate) fn new(safety: RetrySafety, members: &Members, deadline: Instant) -> Self {
        Retry {
            safety,
            deadline,
            // One more than there are members: the first failure may be that of a connection that was lost long ago.
            attempts_left: members.count() + 1,
            may_replace_token: true,
            failed_at: Vec::new(),
            may_have_happened: false,
            mismatches: Mismatches::default(),
        }
    }

    /// Returns true the first time, for a call that may replace its token and be made again.
    pub(crate) fn take_token_replacement(&mut self) -> bool {
        std::mem::take(&mut self.may_replace_token)
    }

    /// Records a failed attempt, and leaves the member if it does not serve the call. Returns the pause before the next
    /// attempt, or `None` if the call must not be made again or has no time left.
    ///
    /// Another member is tried at once. A member where the call has already failed is tried after a pause.
    pub(crate) fn after(
        &mut self,
        members: &Members,
        member: &Member,
        failure: &Failure,
    ) -> Option<Duration> {
        self.attempts_left -= 1;
        let may_be_repeated = failure.kind.may_be_repeated(self.safety);
        let does_not_serve =
            matches!(failure.kind, FailureKind::ReplyLost | FailureKind::ReadTimedOut | FailureKind::NoSpace);
        if may_be_repeated || does_not_serve {
            members.leave(member.number, &failure.message);
        }
        self.may_have_happened |= failure.kind.may_have_happened(self.safety);
        self.mismatches.note(member, failure);
        self.failed_at.push(member.number);
        let pause = match self.failed_at.contains(&members.choose().number) {
            true => jittered(PAUSE),
            false => Duration::ZERO,
        };
        let has_time = Instant::now() + pause < self.deadline;
        (may_be_repeated && self.attempts_left > 0 && has_time).then_some(pause)
    }

    /// Turns the failure of the last attempt into that of the call. `advise` adds advice to its message.
    pub(crate) fn conclude(self, mut failure: Failure, advise: impl FnOnce(&mut Failure)) -> Failure {
        self.mismatches.add_to(&mut failure);
        advise(&mut failure);
        // The last attempt did nothing, but an earlier one may have taken effect.
        if self.may_have_happened && failure.kind.may_be_repeated(self.safety) {
            failure.kind = FailureKind::ReplyLost;
        }
        failure
    }
}

/// Attempts at members whose TLS settings do not match ours.
#[derive(Default)]
struct Mismatches {
    /// Member and message of the last mismatch.
    last: Option<String>,
    /// True if other attempts failed for reasons that may pass.
    has_others: bool,
}

impl Mismatches {
    fn note(&mut self, member: &Member, failure: &Failure) {
        match failure.kind {
            FailureKind::SettingsMismatch => {
                self.last = Some(format!("{}: {}", member.endpoint, failure.message));
            }
            _ => self.has_others = true,
        }
    }

    /// Adds the mismatch to the failure of the call. The call fails because of a mismatch only if the settings match at
    /// no member, because only then is a retry useless. Otherwise the message mentions the mismatch beside the other
    /// failure.
    fn add_to(self, failure: &mut Failure) {
        use FailureKind::{Busy, NoLeader, NoSpace, NotSent, ReadTimedOut, ReplyLost, SettingsMismatch};
        match (failure.kind, self.last) {
            (SettingsMismatch, _) if self.has_others => failure.kind = NotSent,
            (NotSent | Busy | NoSpace | NoLeader | ReadTimedOut | ReplyLost, Some(last)) => {
                failure.message = format!("{}; and at {last}", failure.message);
            }
            _ => {}
        }
    }
}
