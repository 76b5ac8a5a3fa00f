//! Routing of calls to a member of the etcd cluster that answers.
//!
//! The store talks to one member at a time and leaves it for the next one when it fails. The client's own balancer, which
//! spreads the calls over all members, is not used: with one of two members dead it lets a third of the calls fail, and
//! one that hangs would hang every call that meets it, lease renewals among them.

use std::{future::Future, sync::Arc, time::Duration};

use clustering_core::store::StoreError;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    ConfigError, Endpoint, EtcdConfig,
    failure::{Call, Failure, Outcome},
    login::{Before, Login},
    members::{Clients, Member, Members},
    operation::Operation,
    pace,
    wire::Wire,
};

/// How long a call waits at most before it is made again at a member where it has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// A call that its caller gave up after so long without an answer makes its member suspect.
const SUSPICIOUS: Duration = Duration::from_millis(100);

/// The members, and the retry logic for calls to them.
pub(crate) struct Connection {
    wire: Wire,
    members: Arc<Members>,
}

impl Connection {
    /// Connections are made when they are first needed.
    ///
    /// # Errors
    ///
    /// The configuration breaks a rule.
    pub(crate) fn new(config: EtcdConfig) -> Result<Self, ConfigError> {
        let wire = Wire::new(config.prefix.clone());
        Ok(Connection { wire, members: Arc::new(Members::new(config)?) })
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
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

    /// Runs the operation on the current member, and on others where that is harmless: nothing arrived, nothing happened,
    /// or making the call twice does no more than once ([`Outcome::may_be_repeated`]). At another member at once, at one
    /// where it has failed before after a pause.
    ///
    /// A call that etcd refuses for its token is made once more after one login; one that it refuses for another reason is
    /// not made again, since the other members would say the same.
    pub(crate) async fn call<T, F>(
        &self,
        operation: Operation<'_>,
        run: impl Fn(Clients) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let call = operation.call();
        let (members, config) = (&self.members, self.config());
        let deadline = Instant::now() + config.request_timeout;
        // A connection that is begun later might be cut short, and nobody would know whether it carried the call.
        let latest = deadline - config.connect_timeout;
        // Each member once, and one more: the first failure may be about a connection that was lost long ago.
        let mut tries = members.count() + 1;
        let mut may_log_in = members.login.is_some();
        let mut failed_at = Vec::new();
        let mut unsure = false;
        let mut mismatches = Mismatches::default();
        loop {
            let member = &members.choose();
            let gate = &member.gate;
            // Until the login, if there is one, is over nothing of the call itself is sent.
            let (mut before, mut begun) = (None, false);
            let mut suspicion = None;
            let result = timeout_at(deadline, async {
                gate.pass(latest).await?;
                let clients = members.clients(member).await?;
                if let Some(login) = &members.login {
                    login.ensure(&clients.client, deadline).await?;
                    before = Some(login.before());
                }
                suspicion = Some(Suspicion { members, member, since: Instant::now(), waiting: true });
                begun = true;
                run(clients).await
            });
            let result = result.await;
            if let Some(mut suspicion) = suspicion {
                suspicion.waiting = false;
            }
            let mut failure = match result {
                Ok(Ok(value)) => {
                    gate.open();
                    members.note_answer(member);
                    return Ok(value);
                }
                Ok(Err(failure)) => failure,
                Err(_elapsed) => {
                    let within = config.request_timeout;
                    match begun {
                        // The limit for connecting is below that of a call, so the connection was made.
                        true if call == Call::Read => {
                            let why = "the connection stands, so etcd is overloaded or paused, or the reply is large";
                            Failure::new(Outcome::Slow, format!("no reply within {within:?}: {why}"))
                        }
                        true => Failure::new(Outcome::Lost, format!("no reply within {within:?}")),
                        false => Failure::new(Outcome::NeverArrived, format!("not sent within {within:?}")),
                    }
                }
            };
            if let (Outcome::LoggedOut | Outcome::ForbiddenOrLoggedOut, Some(before)) =
                (failure.outcome, before)
                && std::mem::take(&mut may_log_in)
            {
                match self.log_in_again(member, before, deadline).await {
                    Ok(()) => continue,
                    Err(why) => failure = why,
                }
            }
            match failure.outcome {
                Outcome::NeverArrived | Outcome::Mismatched => gate.close(&failure),
                Outcome::Lost | Outcome::Slow | Outcome::LoginPending => {}
                _ => gate.open(),
            }
            tries -= 1;
            let harmless = failure.outcome.may_be_repeated(call);
            if harmless || matches!(failure.outcome, Outcome::Lost | Outcome::Slow | Outcome::NoSpace) {
                members.leave(member.number, &failure.message);
            }
            unsure |= failure.outcome.may_have_happened(call);
            mismatches.note(&failure, &member.endpoint);
            failed_at.push(member.number);
            let pause = match failed_at.contains(&members.choose().number) {
                true => pace::about(PAUSE),
                false => Duration::ZERO,
            };
            if !harmless || tries == 0 || Instant::now() + pause >= deadline {
                mismatches.tell(&mut failure);
                failure.advise(operation, &self.wire, members.login.as_ref().map(Login::user));
                // That the last try did nothing does not say that an earlier one did not.
                if unsure && harmless && !failure.outcome.may_have_happened(call) {
                    failure.outcome = Outcome::Lost;
                }
                let what = format!("{operation} at {}", member.endpoint);
                return Err(failure.into_error(call, &what));
            }
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
    }

    async fn log_in_again(&self, member: &Member, before: Before, deadline: Instant) -> Result<(), Failure> {
        match &self.members.login {
            Some(login) => login.again(&self.members.clients(member).await?.client, before, deadline).await,
            None => Ok(()),
        }
    }
}

/// The tries of a call at members that it does not go together with.
#[derive(Default)]
struct Mismatches {
    /// What was said of the last, and where.
    last: Option<String>,
    /// Whether other tries failed for reasons that may pass.
    others: bool,
}

impl Mismatches {
    fn note(&mut self, failure: &Failure, endpoint: &Endpoint) {
        match failure.outcome {
            Outcome::Mismatched => self.last = Some(format!("{endpoint}: {}", failure.message)),
            _ => self.others = true,
        }
    }

    /// It is a matter of settings, which nobody need try again, only if it is at each member. Otherwise it is said beside
    /// what is the matter elsewhere.
    fn tell(self, failure: &mut Failure) {
        match (failure.outcome, self.last) {
            (Outcome::Mismatched, _) if self.others => failure.outcome = Outcome::NeverArrived,
            (
                Outcome::NeverArrived
                | Outcome::Busy
                | Outcome::NoSpace
                | Outcome::NoLeader
                | Outcome::Slow
                | Outcome::Lost,
                Some(last),
            ) => {
                failure.message = format!("{}; and at {last}", failure.message);
            }
            _ => {}
        }
    }
}

/// Leaves the member if it is dropped while waiting for long: then the caller, whose patience may be shorter than our
/// timeout, gave the call up.
struct Suspicion<'a> {
    members: &'a Members,
    member: &'a Member,
    since: Instant,
    waiting: bool,
}

impl Drop for Suspicion<'_> {
    fn drop(&mut self) {
        if self.waiting && self.since.elapsed() >= SUSPICIOUS {
            self.members.leave(self.member.number, "a call was given up without an answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use clustering_core::store::{CoordinationStore, ErrorKind, LeaseId, Txn};
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;
    use crate::EtcdStore;

    /// A server that takes connections and says nothing; the listener's backlog does the taking.
    async fn silent() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    /// A server that begins HTTP/2 and says nothing more.
    async fn mute() -> String {
        let (listener, address) = silent().await;
        tokio::spawn(async move {
            let mut connections = Vec::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                // Settings, none of them.
                connection.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
                connections.push(connection);
            }
        });
        address
    }

    fn impatient(endpoints: &[&str]) -> EtcdConfig {
        EtcdConfig {
            connect_timeout: Duration::from_millis(100),
            request_timeout: Duration::from_millis(300),
            ..EtcdConfig::new(endpoints).unwrap()
        }
    }

    #[tokio::test]
    async fn every_call_to_a_mute_server_ends_in_time() {
        let address = mute().await;
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
        // What may have happened is unknown; what can change nothing did not happen.
        assert_eq!(grant.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(renew.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(revoke.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(commit.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        // The message says that the connection stands, so that operators need not check whether etcd runs.
        let read = read.unwrap_err();
        assert!(read.to_string().contains("the connection stands"), "{read}");
        assert_eq!(read.kind(), ErrorKind::Busy);
        assert_eq!(watch.err().expect("no watch").kind(), ErrorKind::Busy);
        assert_eq!(check.unwrap_err().kind(), ErrorKind::Busy);
    }

    #[tokio::test]
    async fn what_is_no_connection_has_carried_no_call() {
        let (_listener, address) = silent().await;
        // Time for both tries, however busy the machine is: one that the call's own end cuts short may have carried it.
        let request_timeout = Duration::from_secs(60);
        let store = EtcdStore::new(EtcdConfig { request_timeout, ..impatient(&[&address]) }).unwrap();
        let error = store.commit(Txn::new().delete("k")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        assert!(error.to_string().contains("the greeting took longer than 100ms"), "{error}");
    }

    #[tokio::test]
    async fn a_login_that_gets_no_answer_is_not_taken_for_a_call() {
        let address = mute().await;
        let credentials = Some(crate::Credentials::new("me", "secret"));
        let store = EtcdStore::new(EtcdConfig { credentials, ..impatient(&[&address]) }).unwrap();
        let error = store.commit(Txn::new().delete("k")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("the login"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_leaves_the_member() {
        let connection = Connection::new(impatient(&["a:1", "b:1"])).unwrap();
        let give_up_after = |wait| {
            let never =
                connection.call(Operation::GrantLease, |_| std::future::pending::<Result<(), Failure>>());
            tokio::time::timeout(Duration::from_millis(wait), never)
        };
        let begun = connection.members.choose().number;
        give_up_after(10).await.unwrap_err();
        assert_eq!(connection.members.choose().number, begun, "10 ms say nothing about the member");
        give_up_after(200).await.unwrap_err();
        assert_ne!(connection.members.choose().number, begun);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mismatch_is_one_only_if_all_members_have_it() {
        for (outcomes, expected) in [
            ([Outcome::Mismatched, Outcome::Mismatched, Outcome::Mismatched], ErrorKind::Refused),
            ([Outcome::NeverArrived, Outcome::Mismatched, Outcome::Mismatched], ErrorKind::Unreachable),
            ([Outcome::Mismatched, Outcome::Mismatched, Outcome::NeverArrived], ErrorKind::Unreachable),
        ] {
            // A new one for each: one whose members were not there keeps calls back.
            let connection = Connection::new(impatient(&["a:1", "b:1"])).unwrap();
            let tries = AtomicUsize::new(0);
            let failing = connection.call(Operation::GrantLease, |_| {
                let outcome = outcomes[tries.fetch_add(1, Ordering::Relaxed)];
                async move { Err::<(), _>(Failure::new(outcome, format!("it is {outcome:?}"))) }
            });
            let error = failing.await.unwrap_err();
            assert_eq!(error.kind(), expected, "{error}");
            // It is not forgotten over what else went wrong.
            assert!(error.to_string().contains("it is Mismatched"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_member_has_a_pause_and_another_is_asked_at_once() {
        let connection = Connection::new(impatient(&["a:1", "b:1"])).unwrap();
        let began = Instant::now();
        let tries = std::sync::Mutex::new(Vec::new());
        let failing = connection.call(Operation::GrantLease, |clients| {
            tries.lock().unwrap().push((clients.member, began.elapsed()));
            async { Err::<(), _>(Failure::new(Outcome::Busy, "on purpose")) }
        });
        failing.await.unwrap_err();
        let tries = tries.into_inner().unwrap();
        let [(first, _), (second, at_once), (third, later)] = tries[..] else { panic!("{tries:?}") };
        assert!(first != second && first == third, "{tries:?}");
        assert_eq!(at_once, Duration::ZERO);
        assert!((PAUSE / 2..=PAUSE + Duration::from_millis(1)).contains(&later), "{later:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_is_not_there_is_passed_over() {
        let connection = Connection::new(impatient(&["a:1", "b:1"])).unwrap();
        let gone = connection.members.choose().number;
        let (began, tried) = (Instant::now(), AtomicUsize::new(0));
        for _ in 0..3 {
            // Whatever leads there.
            connection.members.prefer(&connection.members.configured()[gone]);
            let call =
                connection.call(Operation::GrantLease, |clients| {
                    let there = clients.member != gone;
                    tried.fetch_add(usize::from(!there), Ordering::Relaxed);
                    async move {
                        there.then_some(()).ok_or_else(|| Failure::new(Outcome::NeverArrived, "refused"))
                    }
                });
            call.await.unwrap();
            assert_ne!(connection.members.choose().number, gone);
        }
        assert_eq!((tried.into_inner(), began.elapsed()), (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reply_is_not_forgotten_over_later_tries() {
        let connection = Connection::new(impatient(&["a:1", "b:1"])).unwrap();
        let tries = AtomicUsize::new(0);
        let failing = connection.call(Operation::RenewLease, |_| {
            let outcome = match tries.fetch_add(1, Ordering::Relaxed) {
                0 => Outcome::Lost,
                _ => Outcome::NeverArrived,
            };
            async move { Err::<(), _>(Failure::new(outcome, "on purpose")) }
        });
        assert_eq!(failing.await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_exceeds_the_quota_is_not_made_again() {
        let connection = Connection::new(impatient(&["a:1", "b:1"])).unwrap();
        let txn = Txn::new().delete("k");
        let tries = AtomicUsize::new(0);
        let failing = connection.call(Operation::Commit(&txn), |_| {
            // A member that does nothing, then one that may have done it. A third try would hide that.
            let (outcome, said) = match tries.fetch_add(1, Ordering::Relaxed) {
                0 => (Outcome::Busy, "too many requests"),
                1 => (Outcome::NoSpace, "mvcc: database space exceeded"),
                _ => (Outcome::Busy, "made again"),
            };
            async move { Err::<(), _>(Failure::new(outcome, said)) }
        });
        let error = failing.await.unwrap_err();
        assert_eq!((error.kind(), tries.into_inner()), (ErrorKind::OutcomeUnknown, 2), "{error}");
        assert!(error.to_string().contains("database space exceeded: free some space"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_made_again_only_where_it_did_not_happen() {
        for (call, outcome, expected) in [
            (Operation::GrantLease, Outcome::Lost, 1),
            (Operation::RenewLease, Outcome::Lost, 3),
            (Operation::Check, Outcome::Lost, 3),
            (Operation::GrantLease, Outcome::NeverArrived, 3),
            (Operation::GrantLease, Outcome::Busy, 3),
            (Operation::GrantLease, Outcome::NoSpace, 1),
            (Operation::RevokeLease(LeaseId::new(7)), Outcome::NoSpace, 1),
            (Operation::RenewLease, Outcome::NoSpace, 3),
            (Operation::Check, Outcome::NoSpace, 3),
            (Operation::GrantLease, Outcome::NoLeader, 3),
            (Operation::RenewLease, Outcome::NoLeader, 3),
            (Operation::Check, Outcome::Refused, 1),
            (Operation::Check, Outcome::LoggedOut, 1),
            (Operation::Check, Outcome::Forbidden, 1),
            (Operation::Check, Outcome::ForbiddenOrLoggedOut, 1),
            (Operation::GrantLease, Outcome::Mismatched, 3),
            (Operation::Check, Outcome::Invalid, 1),
            (Operation::RenewLease, Outcome::LeaseNotFound, 1),
        ] {
            let connection = Connection::new(impatient(&["a:1", "b:1"])).unwrap();
            let tries = AtomicUsize::new(0);
            let failing = connection.call(call, |_| {
                tries.fetch_add(1, Ordering::Relaxed);
                async { Err::<(), _>(Failure::new(outcome, "on purpose")) }
            });
            failing.await.unwrap_err();
            assert_eq!(tries.load(Ordering::Relaxed), expected, "{call:?} {outcome:?}");
        }
    }
}
