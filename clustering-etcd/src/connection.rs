//! The members of the etcd cluster, and how calls find one that answers.
//!
//! The store talks to one member at a time and leaves it for the next one when it fails. The client's own balancer, which
//! spreads the calls over all members, is not used: with one of two members dead it lets a third of the calls fail, and
//! one that hangs would hang every call that meets it, lease renewals among them.

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use clustering_core::store::StoreError;
use etcd_client::{Client, ConnectOptions, KvClient, LeaseClient, WatchClient};
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    Endpoint, EtcdConfig,
    failure::{Call, Failure, Outcome},
};

/// No limit of our own on the size of replies: a page of large values, or the changes that a watch catches up with, exceed
/// the client's 4 MiB. Etcd's own client has none either.
const LARGEST_REPLY: usize = i32::MAX as usize;

/// A call that its caller gave up after so long without an answer makes its member suspect.
const SUSPICIOUS: Duration = Duration::from_millis(100);

/// The clients of one member. Cheap to clone: all clones share one connection.
#[derive(Clone)]
pub(crate) struct Clients {
    /// Which member it is.
    pub(crate) member: usize,
    pub(crate) kv: KvClient,
    pub(crate) lease: LeaseClient,
    pub(crate) watch: WatchClient,
    login: Client,
}

struct Member {
    endpoint: Endpoint,
    clients: OnceCell<Clients>,
}

/// The members, and which of them the calls go to.
pub(crate) struct Connection {
    config: EtcdConfig,
    members: Vec<Member>,
    current: AtomicUsize,
    /// The last one that answered, for the log.
    answered: AtomicUsize,
}

impl Connection {
    /// For a valid configuration. Connections are made when they are first needed.
    pub(crate) fn new(config: EtcdConfig) -> Self {
        let members: Vec<_> = config
            .endpoints
            .iter()
            .map(|endpoint| Member { endpoint: endpoint.clone(), clients: OnceCell::new() })
            .collect();
        // Where to begin is left to chance, so that the nodes of a cluster spread over the members.
        let chance = RandomState::new().hash_one(0) as usize % members.len();
        Connection { config, members, current: AtomicUsize::new(chance), answered: AtomicUsize::new(chance) }
    }

    pub(crate) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    /// Runs `call` on the current member, and on others where that is harmless: nothing arrived, nothing happened, or
    /// making the call twice does no more than once. `what` is the call's name in errors.
    pub(crate) async fn call<T, F>(
        &self,
        call: Call,
        what: &str,
        run: impl Fn(Clients) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let deadline = Instant::now() + self.config.request_timeout;
        // Each member once, and one more: the first failure may be about a connection that was lost long ago.
        let mut tries = self.members.len() + 1;
        let mut may_log_in = self.config.credentials.is_some();
        let mut lost = false;
        loop {
            let member = self.current.load(Ordering::Relaxed);
            let mut suspicion = Suspicion { connection: self, member, since: Instant::now(), waiting: true };
            let result = timeout_at(deadline, async { run(self.clients(member).await?).await }).await;
            suspicion.waiting = false;
            let mut failure = match result {
                Ok(Ok(value)) => {
                    self.note_answer(member);
                    return Ok(value);
                }
                Ok(Err(failure)) => failure,
                Err(_elapsed) => {
                    Failure::new(Outcome::Lost, format!("no reply within {:?}", self.config.request_timeout))
                }
            };
            if failure.outcome == Outcome::LoggedOut && may_log_in {
                may_log_in = false;
                match timeout_at(deadline, self.log_in(member)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(why)) => failure = why,
                    Err(_elapsed) => failure.outcome = Outcome::NeverArrived,
                }
            }
            tries -= 1;
            let harmless = match failure.outcome {
                Outcome::NeverArrived | Outcome::Busy => true,
                Outcome::Lost => call != Call::Change,
                _ => false,
            };
            if matches!(failure.outcome, Outcome::NeverArrived | Outcome::Busy | Outcome::Lost) {
                self.leave(member, &failure.message);
            }
            lost |= failure.outcome == Outcome::Lost;
            if !harmless || tries == 0 || Instant::now() >= deadline {
                // That the last try did nothing does not say that an earlier one did not.
                if lost && harmless {
                    failure.outcome = Outcome::Lost;
                }
                let what = format!("{what} at {}", self.members[member].endpoint);
                return Err(failure.into_error(call, &what));
            }
        }
    }

    /// Goes on to the next member, unless somebody else did already.
    pub(crate) fn leave(&self, member: usize, why: &str) {
        let next = (member + 1) % self.members.len();
        let left = self.current.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if left {
            tracing::debug!(member = %self.members[member].endpoint, why, "an etcd member failed");
        }
    }

    /// Logs where the store has settled. While none answers it tries one after the other, which is not worth a line each.
    fn note_answer(&self, member: usize) {
        let before = self.answered.swap(member, Ordering::Relaxed);
        if before != member {
            let (from, to) = (&self.members[before].endpoint, &self.members[member].endpoint);
            tracing::info!(%from, %to, "went on to another etcd member");
        }
    }

    async fn clients(&self, member: usize) -> Result<Clients, Failure> {
        let Member { endpoint, clients } = &self.members[member];
        let connect = || async {
            let options = self.options();
            // With credentials this logs in.
            let login = Client::connect([endpoint.as_url()], Some(options)).await.map_err(before_the_call)?;
            Ok(Clients {
                member,
                kv: login.kv_client().max_decoding_message_size(LARGEST_REPLY),
                lease: login.lease_client(),
                watch: login.watch_client().max_decoding_message_size(LARGEST_REPLY),
                login,
            })
        };
        clients.get_or_try_init(connect).await.cloned()
    }

    fn options(&self) -> ConnectOptions {
        let config = &self.config;
        let options = ConnectOptions::new()
            .with_connect_timeout(config.connect_timeout)
            .with_keep_alive(config.keep_alive_interval, config.keep_alive_timeout)
            .with_keep_alive_while_idle(true)
            // A member that has lost its leader says so and ends its watches, instead of going silent.
            .with_require_leader(true);
        match &config.credentials {
            Some(credentials) => options
                .with_user(&credentials.user, credentials.password.expose())
                .with_auto_token_refresh(true),
            None => options,
        }
    }

    /// Logs in anew. The client does so by itself for one of the ways in which etcd refuses a token, not for the others.
    async fn log_in(&self, member: usize) -> Result<(), Failure> {
        let clients = self.clients(member).await?;
        clients.login.refresh_token().await.map_err(before_the_call)
    }

    /// How long anything that is no call may wait for an answer.
    pub(crate) async fn bounded<F: Future>(&self, wait: F) -> Option<F::Output> {
        timeout(self.config.request_timeout, wait).await.ok()
    }
}

/// What failed while nothing of the call itself was sent.
fn before_the_call(error: etcd_client::Error) -> Failure {
    let mut failure = Failure::from(error);
    if failure.outcome == Outcome::Lost {
        failure.outcome = Outcome::NeverArrived;
    }
    failure
}

/// Leaves the member if it is dropped while waiting for long: then the caller, whose patience may be shorter than our
/// timeout, gave the call up.
struct Suspicion<'a> {
    connection: &'a Connection,
    member: usize,
    since: Instant,
    waiting: bool,
}

impl Drop for Suspicion<'_> {
    fn drop(&mut self) {
        if self.waiting && self.since.elapsed() >= SUSPICIOUS {
            self.connection.leave(self.member, "a call was given up without an answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use clustering_core::store::{CoordinationStore, ErrorKind, LeaseId, Txn};
    use tokio::net::TcpListener;

    use super::*;
    use crate::EtcdStore;

    /// A server that takes connections and says nothing; the listener's backlog does the taking.
    async fn silent() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    fn impatient(endpoints: &[&str]) -> EtcdConfig {
        EtcdConfig {
            connect_timeout: Duration::from_millis(100),
            request_timeout: Duration::from_millis(300),
            ..EtcdConfig::new(endpoints).unwrap()
        }
    }

    #[tokio::test]
    async fn every_call_to_a_silent_server_ends_in_time() {
        let (_listener, address) = silent().await;
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
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Unreachable);
        assert_eq!(watch.err().expect("no watch").kind(), ErrorKind::Unreachable);
        assert_eq!(check.unwrap_err().kind(), ErrorKind::Unreachable);
    }

    #[tokio::test]
    async fn a_login_that_gets_no_answer_is_not_taken_for_a_call() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let credentials = Some(crate::Credentials::new("me", "secret"));
        let store = EtcdStore::new(EtcdConfig { credentials, ..impatient(&[&address]) }).unwrap();
        let error = store.commit(Txn::new().delete("k")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_the_member() {
        let ((_one, first), (_two, second)) = (silent().await, silent().await);
        let connection = Connection::new(impatient(&[&first, &second]));
        let give_up_after = |wait| {
            let never =
                connection.call(Call::Change, "commit", |_| std::future::pending::<Result<(), Failure>>());
            timeout(Duration::from_millis(wait), never)
        };
        let begun = connection.current.load(Ordering::Relaxed);
        give_up_after(10).await.unwrap_err();
        assert_eq!(connection.current.load(Ordering::Relaxed), begun, "10 ms say nothing about the member");
        give_up_after(200).await.unwrap_err();
        assert_ne!(connection.current.load(Ordering::Relaxed), begun);
    }

    #[tokio::test]
    async fn a_lost_reply_is_not_forgotten_over_later_tries() {
        let connection = Connection::new(impatient(&["a:1", "b:1"]));
        let tries = AtomicUsize::new(0);
        let failing = connection.call(Call::Repeatable, "renew_lease", |_| {
            let outcome = match tries.fetch_add(1, Ordering::Relaxed) {
                0 => Outcome::Lost,
                _ => Outcome::NeverArrived,
            };
            async move { Err::<(), _>(Failure::new(outcome, "on purpose")) }
        });
        assert_eq!(failing.await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    }

    #[tokio::test]
    async fn a_change_is_made_again_only_where_it_did_not_happen() {
        let connection = Connection::new(impatient(&["a:1", "b:1"]));
        for (call, outcome, expected) in [
            (Call::Change, Outcome::Lost, 1),
            (Call::Repeatable, Outcome::Lost, 3),
            (Call::Read, Outcome::Lost, 3),
            (Call::Change, Outcome::NeverArrived, 3),
            (Call::Change, Outcome::Busy, 3),
            (Call::Read, Outcome::Refused, 1),
            (Call::Read, Outcome::LoggedOut, 1),
            (Call::Read, Outcome::Invalid, 1),
            (Call::Repeatable, Outcome::LeaseNotFound, 1),
        ] {
            let tries = AtomicUsize::new(0);
            let failing = connection.call(call, "call", |_| {
                tries.fetch_add(1, Ordering::Relaxed);
                async { Err::<(), _>(Failure::new(outcome, "on purpose")) }
            });
            failing.await.unwrap_err();
            assert_eq!(tries.load(Ordering::Relaxed), expected, "{call:?} {outcome:?}");
        }
    }
}
