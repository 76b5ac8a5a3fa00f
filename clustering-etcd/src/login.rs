//! Login to etcd: one token for all members, and never more than one login at a time.

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
    backoff::Backoff,
    failure::{Failure, FailureKind},
};

/// First and longest pause after a failed login that cost etcd work.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Time limit for the reply to a login. It is long because etcd's work for an abandoned login is wasted: when many
/// nodes log in at the same time and etcd has few cores, the reply may take half a minute. The keepalive pings of the
/// connection detect a dead member sooner.
const LONGEST_LOGIN: Duration = Duration::from_secs(60);

/// Obtains the auth token that calls carry, and renews it when etcd rejects it. Tokens expire, are lost when a member
/// restarts, and become invalid when a password changes (with some token types, when any user or role changes).
///
/// A login deliberately costs etcd some 0.1 s of work (bcrypt), and etcd finishes that work even if the client has
/// given up. A login therefore runs in its own task: it outlives the deadlines of the calls that wait for it, and they
/// share its result. Etcd replicates tokens, so every member accepts a token that another member issued.
///
/// The client library can log in too, but it recognises only one of the errors by which etcd rejects a token, and logs
/// in once for each call.
#[derive(Clone)]
pub(crate) struct Login {
    shared: Arc<Shared>,
}

struct Shared {
    credentials: Credentials,
    token: RwLock<Option<HeaderValue>>,
    state: Mutex<State>,
    /// Wakes the calls that wait for the pending login.
    finished: Notify,
}

struct State {
    /// Number of logins that have ended, with or without success.
    ended: u64,
    /// True while a login is in flight.
    pending: bool,
    /// Failure of the last login, if it failed.
    failed: Option<(FailureKind, String)>,
    /// Earliest time of the next login.
    next: Instant,
    backoff: Backoff,
}

/// Marks a token by the number of logins that had ended before it was used. Tells whether there was a login since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenMark(u64);

impl Login {
    pub(crate) fn new(credentials: Credentials) -> Self {
        let state = State {
            ended: 0,
            pending: false,
            failed: None,
            next: Instant::now(),
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
        };
        let (token, finished) = (RwLock::default(), Notify::new());
        Login { shared: Arc::new(Shared { credentials, token, state: Mutex::new(state), finished }) }
    }

    pub(crate) fn user(&self) -> &str {
        &self.shared.credentials.user
    }

    /// Returns a channel that adds the current token to each request.
    pub(crate) fn channel(&self, channel: tonic::transport::Channel) -> Channel {
        let shared = self.shared.clone();
        let with_token = channel.map_request(move |mut request: Request<tonic::body::Body>| {
            // A login needs no token, and must not fail because of an old one.
            if !request.uri().path().ends_with("/Authenticate")
                && let Some(token) = shared.token()
            {
                request.headers_mut().insert("token", token);
            }
            request
        });
        Channel::Custom(BoxCloneSyncService::new(with_token.map_err(BoxError::from)))
    }

    /// Returns the mark of the current token, to pass to [`renew`](Self::renew) if etcd rejects the token.
    pub(crate) fn mark(&self) -> TokenMark {
        TokenMark(self.shared.state().ended)
    }

    /// Logs in if there is no token yet. Does not check whether an existing token is valid.
    ///
    /// # Errors
    ///
    /// Same as [`renew`](Self::renew).
    pub(crate) async fn ensure(&self, client: &Client, deadline: Instant) -> Result<(), Failure> {
        let current = self.mark();
        match self.shared.token() {
            Some(_) => Ok(()),
            None => self.renew(client, current, deadline).await,
        }
    }

    /// Obtains a token that is newer than `old`: starts a login at the client's member, or waits for the pending
    /// login, at whichever member it runs. After a failed login the next one starts after a pause.
    ///
    /// # Errors
    ///
    /// The failure of the login; [`FailureKind::LoginPending`] if it has not ended by the deadline.
    pub(crate) async fn renew(
        &self,
        client: &Client,
        old: TokenMark,
        deadline: Instant,
    ) -> Result<(), Failure> {
        loop {
            // Created before the state is read, so that no notification is missed.
            let finished = self.shared.finished.notified();
            let (starts, may_start_at) = {
                let mut state = self.shared.state();
                if state.ended != old.0 {
                    return state.result();
                }
                if !state.pending && state.next > deadline {
                    return state.result();
                }
                let starts = !state.pending && state.next <= Instant::now();
                state.pending |= starts;
                (starts, (!state.pending).then_some(state.next))
            };
            // Not under the lock: a runtime that is shutting down drops the task at once, which locks the state.
            if starts {
                self.start(client.clone());
            }
            match may_start_at {
                Some(next) => sleep_until(next).await,
                None => {
                    if timeout_at(deadline, finished).await.is_err() {
                        let message = "etcd has not answered the login yet; the login continues, and later calls use its token";
                        return Err(Failure::new(FailureKind::LoginPending, message));
                    }
                }
            }
        }
    }

    /// Starts a login in its own task.
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
                    Err(Failure::new(FailureKind::ReplyLost, message))
                }
            };
            pending.end(result);
        });
    }
}

/// Converts the token to a header value, marked as sensitive so that logs do not show it.
fn token(text: &str) -> Result<HeaderValue, Failure> {
    let unfit =
        |_| Failure::new(FailureKind::ReplyLost, "the reply to the login contains no token that can be sent");
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

    /// Records the result of the pending login and wakes the calls that wait for it.
    fn end(&self, result: Result<HeaderValue, Failure>) {
        let mut state = self.state();
        match result {
            Ok(new) => {
                let old = self.token.write().unwrap_or_else(PoisonError::into_inner).replace(new);
                if old.is_some() {
                    tracing::debug!(user = self.credentials.user, "logged in to etcd again");
                }
                state.failed = None;
                state.backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
            }
            Err(failure) => {
                // Without a connection the login cost etcd nothing, and another member can be tried at once.
                if !matches!(failure.kind, FailureKind::NotSent | FailureKind::SettingsMismatch) {
                    state.next = Instant::now() + state.backoff.pause();
                }
                let failure = failure.before_the_call();
                state.failed = Some((failure.kind, failure.message));
            }
        }
        state.pending = false;
        state.ended += 1;
        drop(state);
        self.finished.notify_waiters();
    }
}

impl State {
    /// Returns the result of the last login.
    fn result(&self) -> Result<(), Failure> {
        match &self.failed {
            Some((kind, message)) => Err(Failure::new(*kind, message.clone())),
            None => Ok(()),
        }
    }
}

/// A login in flight. It also ends if its task is dropped, for example when the runtime shuts down.
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
            shared.end(Err(Failure::new(FailureKind::NotSent, "the runtime dropped the login")));
        }
    }
}
