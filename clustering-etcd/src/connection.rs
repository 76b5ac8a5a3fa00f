//! Routes calls to a member of the etcd cluster that answers.
//!
//! The store talks to one member at a time and switches to the next one when that member fails. The client library's
//! balancer, which spreads calls over all members, is not used: with one of two members dead it lets a third of the
//! calls fail, and every call that it sends to a hanging member would hang, including lease renewals.

use std::{future::Future, sync::Arc};

use clustering_core::store::StoreError;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    ConfigError, EtcdConfig,
    attempt::{Attempt, Deadlines},
    failure::{Failure, FailureKind},
    key_codec::KeyCodec,
    login::Login,
    members::{Clients, Member, Members},
    operation::Operation,
    retry::Retry,
};

/// The members, and the retry logic for calls to them.
pub(crate) struct Connection {
    codec: KeyCodec,
    members: Arc<Members>,
}

impl Connection {
    /// Creates the connection without connecting. A member is connected to when it is first needed.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the configuration is invalid.
    pub(crate) fn new(config: EtcdConfig) -> Result<Self, ConfigError> {
        let codec = KeyCodec::new(config.prefix.clone());
        Ok(Connection { codec, members: Arc::new(Members::new(config)?) })
    }

    pub(crate) fn codec(&self) -> &KeyCodec {
        &self.codec
    }

    pub(crate) fn config(&self) -> &EtcdConfig {
        self.members.config()
    }

    /// Returns a receiver that changes whenever a call fails at that member; see [`Members::failures`].
    pub(crate) fn failures(&self, member: usize) -> watch::Receiver<u64> {
        self.members.failures(member)
    }

    /// Switches to another member; see [`Members::leave`].
    pub(crate) fn leave(&self, member: usize, why: &str) {
        self.members.leave(member, why);
    }

    /// Makes a call at the current member. If it fails, makes it again, at the next member, where that is safe
    /// ([`FailureKind::may_be_repeated`]).
    ///
    /// If etcd rejects the token, the call is made once more after one login. If etcd rejects the call for another
    /// reason it is not made again, since the other members would reject it too.
    pub(crate) async fn call<T, F>(
        &self,
        operation: Operation<'_>,
        send: impl Fn(Clients) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let (members, deadlines, safety) = (&self.members, self.deadlines(), operation.retry_safety());
        let mut retry = Retry::new(safety, members, deadlines.call);
        loop {
            let member = members.choose();
            let mut attempt = Attempt::new(members, &member, deadlines);
            let mut failure = match attempt.run(safety, &send).await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if attempt.needs_token(&failure) && retry.take_token_replacement() {
                match attempt.replace_token().await {
                    Ok(()) => continue,
                    Err(of_login) => failure = of_login,
                }
            }
            update_breaker(&member, &failure);
            match retry.after(members, &member, &failure) {
                Some(pause) if pause.is_zero() => {}
                Some(pause) => sleep(pause).await,
                None => return Err(self.error(operation, retry, &member, failure)),
            }
        }
    }

    fn deadlines(&self) -> Deadlines {
        let call = Instant::now() + self.config().request_timeout;
        Deadlines { call, connect: call - self.config().connect_timeout }
    }

    /// Returns the error for the caller of a failed call.
    fn error(&self, operation: Operation<'_>, retry: Retry, member: &Member, last: Failure) -> StoreError {
        let user = self.members.login.as_ref().map(Login::user);
        let failure = retry.conclude(last, |failure| failure.advise(operation, &self.codec, user));
        let context = format!("{operation} at {}", member.endpoint);
        failure.into_error(operation.retry_safety(), &context)
    }
}

/// Trips the circuit breaker of a member that could not be connected to, and resets that of a member that answered.
fn update_breaker(member: &Member, failure: &Failure) {
    match failure.kind {
        FailureKind::NotSent | FailureKind::SettingsMismatch => member.breaker.trip(failure),
        // These do not show whether a connection can be made.
        FailureKind::ReplyLost | FailureKind::ReadTimedOut | FailureKind::LoginPending => {}
        _ => member.breaker.reset(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use clustering_core::store::{CoordinationStore, ErrorKind, LeaseId, Txn};

    use super::*;
    use crate::{EtcdStore, retry::PAUSE, test_servers};

    /// Configuration with short timeouts.
    fn impatient(endpoints: &[&str]) -> EtcdConfig {
        EtcdConfig {
            connect_timeout: Duration::from_millis(100),
            request_timeout: Duration::from_millis(300),
            ..EtcdConfig::new(endpoints).unwrap()
        }
    }

    fn two_members() -> Connection {
        Connection::new(impatient(&["a:1", "b:1"])).unwrap()
    }

    /// Makes a call whose attempts all fail: the first with the first of `kinds` and so on, further ones with the last.
    /// Returns the error and the number of attempts.
    async fn failing(
        connection: &Connection,
        operation: Operation<'_>,
        kinds: &[FailureKind],
    ) -> (StoreError, usize) {
        let attempts = AtomicUsize::new(0);
        let call = connection.call(operation, |_| {
            let kind = kinds[attempts.fetch_add(1, Ordering::Relaxed).min(kinds.len() - 1)];
            async move { Err::<(), _>(Failure::new(kind, format!("it is {kind:?}"))) }
        });
        let error = call.await.unwrap_err();
        (error, attempts.into_inner())
    }

    #[tokio::test]
    async fn every_call_to_a_member_that_does_not_reply_ends_in_time() {
        let address = test_servers::greeting_only().await.to_string();
        let store = EtcdStore::new(impatient(&[&address])).unwrap();
        let (lease, began) = (LeaseId::new(7), Instant::now());
        let (grant, renew, revoke, read, watch, check, commit) = tokio::join!(
            store.grant_lease(Duration::from_secs(15)),
            store.renew_lease(lease),
            store.revoke_lease(lease),
            store.read("k"),
            store.watch("k", clustering_core::store::Revision::ZERO),
            store.commit(Txn::new()),
            store.commit(Txn::new().delete("k")),
        );
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(grant.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(renew.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(revoke.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(commit.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        // Read-only calls had no effect. Their message says that etcd is running.
        let read = read.unwrap_err();
        assert!(read.to_string().contains("the connection is up"), "{read}");
        assert_eq!(read.kind(), ErrorKind::Busy);
        assert_eq!(watch.err().expect("no watch").kind(), ErrorKind::Busy);
        assert_eq!(check.unwrap_err().kind(), ErrorKind::Busy);
    }

    #[tokio::test]
    async fn a_commit_is_not_sent_to_a_server_without_an_http2_greeting() {
        let (_listener, address) = test_servers::silent().await;
        // Enough time for both attempts on a busy machine: one that is cut short may have been sent.
        let request_timeout = Duration::from_secs(60);
        let store =
            EtcdStore::new(EtcdConfig { request_timeout, ..impatient(&[&address.to_string()]) }).unwrap();
        let error = store.commit(Txn::new().delete("k")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        assert!(error.to_string().contains("the HTTP/2 greeting took longer than 100ms"), "{error}");
    }

    #[tokio::test]
    async fn a_commit_that_waits_for_the_login_was_not_made() {
        let address = test_servers::greeting_only().await.to_string();
        let credentials = Some(crate::Credentials::new("me", "secret"));
        let store = EtcdStore::new(EtcdConfig { credentials, ..impatient(&[&address]) }).unwrap();
        let error = store.commit(Txn::new().delete("k")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("the login"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_cancelled_after_a_long_wait_leaves_the_member() {
        let connection = two_members();
        let cancel_after = |wait| {
            let never =
                connection.call(Operation::GrantLease, |_| std::future::pending::<Result<(), Failure>>());
            tokio::time::timeout(Duration::from_millis(wait), never)
        };
        let first = connection.members.choose().number;
        cancel_after(10).await.unwrap_err();
        assert_eq!(connection.members.choose().number, first, "10 ms without a reply are normal");
        cancel_after(200).await.unwrap_err();
        assert_ne!(connection.members.choose().number, first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_fails_because_of_settings_only_if_they_match_at_no_member() {
        use FailureKind::{NotSent, SettingsMismatch};
        for (kinds, expected) in [
            ([SettingsMismatch, SettingsMismatch, SettingsMismatch], ErrorKind::Refused),
            ([NotSent, SettingsMismatch, SettingsMismatch], ErrorKind::Unreachable),
            ([SettingsMismatch, SettingsMismatch, NotSent], ErrorKind::Unreachable),
        ] {
            // A new connection each time, since the circuit breakers trip.
            let (error, _) = failing(&two_members(), Operation::GrantLease, &kinds).await;
            assert_eq!(error.kind(), expected, "{error}");
            // The error mentions the mismatch even if other failures came later.
            assert!(error.to_string().contains("it is SettingsMismatch"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_member_is_tried_at_once_and_the_same_one_after_a_pause() {
        let connection = two_members();
        let began = Instant::now();
        let attempts = Mutex::new(Vec::new());
        let failing = connection.call(Operation::GrantLease, |clients| {
            attempts.lock().unwrap().push((clients.member, began.elapsed()));
            async { Err::<(), _>(Failure::new(FailureKind::Busy, "on purpose")) }
        });
        failing.await.unwrap_err();
        let attempts = attempts.into_inner().unwrap();
        let [(first, _), (second, at_once), (third, later)] = attempts[..] else { panic!("{attempts:?}") };
        assert!(first != second && first == third, "{attempts:?}");
        assert_eq!(at_once, Duration::ZERO);
        assert!((PAUSE / 2..=PAUSE + Duration::from_millis(1)).contains(&later), "{later:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_do_not_try_an_unreachable_member_each_time() {
        let connection = two_members();
        let unreachable = connection.members.choose().number;
        let (began, attempts) = (Instant::now(), AtomicUsize::new(0));
        for _ in 0..3 {
            connection.members.prefer(&connection.members.configured()[unreachable]);
            let call = connection.call(Operation::GrantLease, |clients| {
                let is_reachable = clients.member != unreachable;
                attempts.fetch_add(usize::from(!is_reachable), Ordering::Relaxed);
                let refused = || Failure::new(FailureKind::NotSent, "refused");
                async move { is_reachable.then_some(()).ok_or_else(refused) }
            });
            call.await.unwrap();
            assert_ne!(connection.members.choose().number, unreachable);
        }
        assert_eq!((attempts.into_inner(), began.elapsed()), (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reply_makes_the_outcome_unknown_even_if_later_attempts_are_not_sent() {
        let kinds = [FailureKind::ReplyLost, FailureKind::NotSent];
        let (error, _) = failing(&two_members(), Operation::RenewLease, &kinds).await;
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_exceeds_the_quota_is_not_made_again() {
        let txn = Txn::new().delete("k");
        let attempts = AtomicUsize::new(0);
        let connection = two_members();
        let failing = connection.call(Operation::Commit(&txn), |_| {
            // A member that does nothing, then one that may have made the change. A third attempt would hide that.
            let (kind, said) = match attempts.fetch_add(1, Ordering::Relaxed) {
                0 => (FailureKind::Busy, "too many requests"),
                1 => (FailureKind::NoSpace, "mvcc: database space exceeded"),
                _ => (FailureKind::Busy, "made again"),
            };
            async move { Err::<(), _>(Failure::new(kind, said)) }
        });
        let error = failing.await.unwrap_err();
        assert_eq!((error.kind(), attempts.into_inner()), (ErrorKind::OutcomeUnknown, 2), "{error}");
        assert!(error.to_string().contains("database space exceeded: free some space"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_made_again_only_where_that_is_safe() {
        for (operation, kind, expected) in [
            (Operation::GrantLease, FailureKind::ReplyLost, 1),
            (Operation::RenewLease, FailureKind::ReplyLost, 3),
            (Operation::Check, FailureKind::ReplyLost, 3),
            (Operation::GrantLease, FailureKind::NotSent, 3),
            (Operation::GrantLease, FailureKind::Busy, 3),
            (Operation::GrantLease, FailureKind::NoSpace, 1),
            (Operation::RevokeLease(LeaseId::new(7)), FailureKind::NoSpace, 1),
            (Operation::RenewLease, FailureKind::NoSpace, 3),
            (Operation::Check, FailureKind::NoSpace, 3),
            (Operation::GrantLease, FailureKind::NoLeader, 3),
            (Operation::RenewLease, FailureKind::NoLeader, 3),
            (Operation::Check, FailureKind::LoginRejected, 1),
            (Operation::Check, FailureKind::TokenRejected, 1),
            (Operation::Check, FailureKind::PermissionDenied, 1),
            (Operation::Check, FailureKind::PermissionDeniedOrTokenRejected, 1),
            (Operation::GrantLease, FailureKind::SettingsMismatch, 3),
            (Operation::Check, FailureKind::Invalid, 1),
            (Operation::RenewLease, FailureKind::LeaseNotFound, 1),
        ] {
            let (_, attempts) = failing(&two_members(), operation, &[kind]).await;
            assert_eq!(attempts, expected, "{operation:?} {kind:?}");
        }
    }
}
