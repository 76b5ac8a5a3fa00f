//! Logging in to etcd: one token for all members, and never more than one login at a time.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use etcd_client::{Channel, Client};
use hyper::{Request, header::HeaderValue};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tower::{BoxError, ServiceExt, util::BoxCloneSyncService};

use crate::{
    Credentials,
    failure::{Failure, Outcome},
    pace::Pace,
};

/// Pause after a login that etcd worked for in vain: at first, and in the end.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Longest wait for the reply to a login. Long, because a login that is given up is lost work for etcd: a crowd of nodes
/// that log in together, on few cores, may have to wait for half a minute. A member that died is noticed sooner, by the
/// pings of its connection.
const LONGEST_LOGIN: Duration = Duration::from_secs(60);

/// Gets the token that calls carry, and a new one when etcd wants it: tokens expire, are forgotten when a member
/// restarts, and become void when a password, or with some kinds of token any user or role, is changed.
///
/// A login costs etcd some 0.1 s of work on purpose (bcrypt), and etcd finishes that work even if the client has given up.
/// So a login runs in a task of its own: it outlives the deadlines of the calls that wait for it, and they share its result.
/// Etcd replicates tokens, so all members accept the token of one.
///
/// The client library can log in too, but only for one of the ways in which etcd says that a token is void, and once for
/// each call.
#[derive(Clone)]
pub(crate) struct Login {
    shared: Arc<Shared>,
}

struct Shared {
    credentials: Credentials,
    token: RwLock<Option<HeaderValue>>,
    state: Mutex<State>,
    /// Wakes those who wait for the pending login.
    finished: Notify,
}

struct State {
    /// Number of logins that have ended, with or without success.
    ended: u64,
    /// True while a login is on its way.
    pending: bool,
    /// Why the last login failed, if it did.
    failed: Option<(Outcome, String)>,
    /// Earliest time of the next login.
    next: Instant,
    pace: Pace,
}

/// A number of ended logins: those that end later are news to whoever holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before(u64);

impl Login {
    pub(crate) fn new(credentials: Credentials) -> Self {
        let state = State {
            ended: 0,
            pending: false,
            failed: None,
            next: Instant::now(),
            pace: Pace::new(FIRST_PAUSE, LONGEST_PAUSE),
        };
        let (token, finished) = (RwLock::default(), Notify::new());
        Login { shared: Arc::new(Shared { credentials, token, state: Mutex::new(state), finished }) }
    }

    pub(crate) fn user(&self) -> &str {
        &self.shared.credentials.user
    }

    /// A channel whose requests carry the token of the time at which they are sent.
    pub(crate) fn channel(&self, channel: tonic::transport::Channel) -> Channel {
        let shared = self.shared.clone();
        let with_token = channel.map_request(move |mut request: Request<tonic::body::Body>| {
            // A login needs no token, and must not fail for the old one.
            if !request.uri().path().ends_with("/Authenticate")
                && let Some(token) = shared.token()
            {
                request.headers_mut().insert("token", token);
            }
            request
        });
        Channel::Custom(BoxCloneSyncService::new(with_token.map_err(BoxError::from)))
    }

    /// To be called before the token is used.
    pub(crate) fn before(&self) -> Before {
        Before(self.shared.state().ended)
    }

    /// Logs in unless there is a token, valid or not.
    ///
    /// # Errors
    ///
    /// Those of [`again`](Self::again).
    pub(crate) async fn ensure(&self, client: &Client, deadline: Instant) -> Result<(), Failure> {
        let before = self.before();
        match self.shared.token() {
            Some(_) => Ok(()),
            None => self.again(client, before, deadline).await,
        }
    }

    /// Gets a token that is newer than `before`: starts a login at the client's member, or waits for the one that is
    /// pending, wherever that is. After a login that failed the next one waits for a pause.
    ///
    /// # Errors
    ///
    /// Why the login failed; [`Outcome::LoginPending`] if it has not ended by the deadline.
    pub(crate) async fn again(
        &self,
        client: &Client,
        before: Before,
        deadline: Instant,
    ) -> Result<(), Failure> {
        loop {
            // Hears from here on.
            let finished = self.shared.finished.notified();
            let (starts, may_start_at) = {
                let mut state = self.shared.state();
                if state.ended != before.0 {
                    return state.result();
                }
                if !state.pending && state.next > deadline {
                    return state.result();
                }
                let starts = !state.pending && state.next <= Instant::now();
                state.pending |= starts;
                (starts, (!state.pending).then_some(state.next))
            };
            // Not under the lock: a runtime that is shutting down drops the task at once, and that takes the lock.
            if starts {
                self.start(client.clone());
            }
            match may_start_at {
                Some(next) => sleep_until(next).await,
                None => {
                    if timeout_at(deadline, finished).await.is_err() {
                        let message =
                            "etcd has not answered the login yet; it goes on, and later calls use its token";
                        return Err(Failure::new(Outcome::LoginPending, message));
                    }
                }
            }
        }
    }

    /// Logs in, in a task of its own.
    fn start(&self, client: Client) {
        let pending = Pending(Some(self.shared.clone()));
        let Credentials { user, password } = self.shared.credentials.clone();
        tokio::spawn(async move {
            let mut client = client.auth_client();
            let login = client.authenticate(user, password.expose().to_owned());
            let result = match timeout(LONGEST_LOGIN, login).await {
                Ok(Ok(reply)) => token(reply.token()),
                Ok(Err(error)) => Err(Failure::from(error)),
                Err(_) => {
                    let message = format!("no reply to the login within {LONGEST_LOGIN:?}");
                    Err(Failure::new(Outcome::Lost, message))
                }
            };
            pending.end(result);
        });
    }
}

/// The token as the header that carries it, which no log shows.
fn token(text: &str) -> Result<HeaderValue, Failure> {
    let unfit = |_| Failure::new(Outcome::Lost, "the reply to the login holds no token that can be sent");
    let mut token = HeaderValue::from_str(text).map_err(unfit)?;
    token.set_sensitive(true);
    Ok(token)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self) -> Option<HeaderValue> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pending login has ended.
    fn end(&self, result: Result<HeaderValue, Failure>) {
        let mut state = self.state();
        match result {
            Ok(new) => {
                let old = self.token.write().unwrap_or_else(PoisonError::into_inner).replace(new);
                if old.is_some() {
                    tracing::debug!(user = self.credentials.user, "logged in to etcd again");
                }
                state.failed = None;
                state.pace = Pace::new(FIRST_PAUSE, LONGEST_PAUSE);
            }
            Err(failure) => {
                // Without a connection the login cost etcd nothing, and another member can be tried at once.
                if !matches!(failure.outcome, Outcome::NeverArrived | Outcome::Mismatched) {
                    state.next = Instant::now() + state.pace.pause();
                }
                let failure = failure.before_the_call();
                state.failed = Some((failure.outcome, failure.message));
            }
        }
        state.pending = false;
        state.ended += 1;
        drop(state);
        self.finished.notify_waiters();
    }
}

impl State {
    /// The result of the last login.
    fn result(&self) -> Result<(), Failure> {
        match &self.failed {
            Some((outcome, message)) => Err(Failure::new(*outcome, message.clone())),
            None => Ok(()),
        }
    }
}

/// A login that is on its way. It ends also when its task is dropped, such as by a runtime that shuts down.
struct Pending(Option<Arc<Shared>>);

impl Pending {
    fn end(mut self, result: Result<HeaderValue, Failure>) {
        if let Some(shared) = self.0.take() {
            shared.end(result);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.end(Err(Failure::new(Outcome::NeverArrived, "the runtime dropped the login")));
        }
    }
}
