//! One attempt of a call at one member.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{
    failure::{Failure, FailureKind, RetrySafety},
    login::TokenMark,
    members::{Clients, Member, Members},
};

/// Waiting time after which a cancelled attempt makes its member suspect. The caller may be less patient than the
/// request timeout.
const SUSPICIOUS: Duration = Duration::from_millis(100);

/// Time limits of a call, for all of its attempts together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// End of the call.
    pub(crate) call: Instant,
    /// Latest start of a connection attempt. An attempt that starts later could be cut short by the end of the call,
    /// and then it would be unknown whether the request was sent.
    pub(crate) connect: Instant,
}

/// One attempt of a call at one member: connects, logs in, sends the request and waits for the reply.
///
/// If the caller drops an attempt that has waited for long, the store leaves the member, so that the next call does not
/// wait for it too.
pub(crate) struct Attempt<'a> {
    members: &'a Arc<Members>,
    member: &'a Member,
    deadlines: Deadlines,
    /// Mark of the token that the request carries, with credentials.
    token: Option<TokenMark>,
    /// Time at which the request was sent. Until then nothing of the call itself has left this process.
    sent_at: Option<Instant>,
    /// True after the attempt has ended, with or without a reply.
    is_over: bool,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(members: &'a Arc<Members>, member: &'a Member, deadlines: Deadlines) -> Self {
        Attempt { members, member, deadlines, token: None, sent_at: None, is_over: false }
    }

    /// Runs the attempt until the deadline, and records in the members whether the member answered.
    pub(crate) async fn run<T, F>(
        &mut self,
        safety: RetrySafety,
        send: impl Fn(Clients) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let result = timeout_at(self.deadlines.call, self.connect_and_send(send)).await;
        self.is_over = true;
        let value = result.unwrap_or_else(|_elapsed| Err(self.timed_out(safety)))?;
        self.member.breaker.reset();
        self.members.note_answer(self.member);
        Ok(value)
    }

    /// True if etcd rejected the token of this attempt.
    pub(crate) fn needs_token(&self, failure: &Failure) -> bool {
        use FailureKind::{PermissionDeniedOrTokenRejected, TokenRejected};
        self.token.is_some() && matches!(failure.kind, TokenRejected | PermissionDeniedOrTokenRejected)
    }

    /// Replaces the token of this attempt by a login.
    ///
    /// # Errors
    ///
    /// The failure of the login.
    pub(crate) async fn replace_token(&self) -> Result<(), Failure> {
        let (Some(login), Some(rejected)) = (&self.members.login, self.token) else { return Ok(()) };
        let clients = self.members.clients(self.member).await?;
        login.renew(&clients.client, rejected, self.deadlines.call).await
    }

    async fn connect_and_send<T, F>(&mut self, send: impl Fn(Clients) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.member.breaker.admit(self.deadlines.connect).await?;
        let clients = self.members.clients(self.member).await?;
        if let Some(login) = &self.members.login {
            login.ensure(&clients.client, self.deadlines.call).await?;
            self.token = Some(login.mark());
        }
        self.sent_at = Some(Instant::now());
        send(clients).await
    }

    fn timed_out(&self, safety: RetrySafety) -> Failure {
        let within = self.members.config().request_timeout;
        match (self.sent_at, safety) {
            (None, _) => {
                Failure::new(FailureKind::NotSent, format!("the request was not sent within {within:?}"))
            }
            // The limit for connecting is below that of a call, so the connection was made.
            (Some(_), RetrySafety::ReadOnly) => {
                let why = "the connection is up, so etcd is overloaded or paused, or the reply is large";
                Failure::new(FailureKind::ReadTimedOut, format!("no reply within {within:?}: {why}"))
            }
            (Some(_), _) => Failure::new(FailureKind::ReplyLost, format!("no reply within {within:?}")),
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let is_suspicious = |sent_at: Instant| sent_at.elapsed() >= SUSPICIOUS;
        if !self.is_over && self.sent_at.is_some_and(is_suspicious) {
            self.members.leave(self.member.number, "the caller stopped waiting for a reply");
        }
    }
}
