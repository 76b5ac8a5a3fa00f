//! Who the store is to a member of etcd.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use etcd_client::Client;
use tokio::sync::Mutex;

use crate::{
    Credentials,
    failure::{Failure, Outcome},
};

/// Gets the token that calls carry, and a new one when etcd wants it: tokens expire, are forgotten when the member
/// restarts, and are void when a password, or with some kinds of token any user or role, was changed.
///
/// The client can do it too, but only for one of the ways in which etcd says so. And it logs in for each call that waits
/// for a login that fails; each login costs etcd some 0.1 s of work, on purpose.
pub(crate) struct Login {
    credentials: Credentials,
    /// How many logins have ended, well or not.
    ended: AtomicU64,
    /// Whether one ended well.
    has_token: AtomicBool,
    /// Why the last one failed, if it did. Locked during a login.
    last: Mutex<Option<(Outcome, String)>>,
}

/// A point in the row of logins: those that ended after it are news.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before(u64);

impl Login {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Login {
            credentials,
            ended: AtomicU64::new(0),
            has_token: AtomicBool::new(false),
            last: Mutex::new(None),
        }
    }

    pub(crate) fn user(&self) -> &str {
        &self.credentials.user
    }

    /// To be called before the token is used.
    pub(crate) fn before(&self) -> Before {
        Before(self.ended.load(Ordering::Acquire))
    }

    /// Logs in if no login ever succeeded. Whether a token that there is still suffices is etcd's business: it renews
    /// leases for whoever asks.
    pub(crate) async fn ensure(&self, client: &Client) -> Result<(), Failure> {
        if self.has_token.load(Ordering::Acquire) {
            return Ok(());
        }
        self.again(client, self.before()).await
    }

    /// Logs in again, because the token used after `before` is not valid. Those who find that out at the same time share
    /// one login and its result.
    pub(crate) async fn again(&self, client: &Client, Before(before): Before) -> Result<(), Failure> {
        let mut last = self.last.lock().await;
        if self.before().0 != before {
            return match &*last {
                Some((outcome, message)) => Err(Failure::new(*outcome, message.clone())),
                None => Ok(()),
            };
        }
        let Credentials { user, password } = &self.credentials;
        let user = (user.clone(), password.expose().to_owned());
        // All clients of a member share what this one is given.
        let result = client.clone().update_user(Some(user)).await.map_err(Failure::before_the_call);
        *last = result.as_ref().err().map(|failure| (failure.outcome, failure.message.clone()));
        self.ended.fetch_add(1, Ordering::Release);
        if result.is_ok() && self.has_token.swap(true, Ordering::Release) {
            tracing::debug!(user = self.user(), "logged in to etcd again");
        }
        result
    }
}
