//! Renewals.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};

use crate::{
    failure::{Failure, Outcome},
    members::Clients,
};

/// Etcd renews over a stream, and the client hides the TTL of the first answer on it. So a stream is kept from one
/// renewal of a lease to the next: the first renewal takes two round trips, all later ones take one.
///
/// A stream is out of the pool while it is in use, so one whose renewal failed or was dropped is gone with it, and no
/// late answer can be taken for that of a later renewal.
#[derive(Default)]
pub(crate) struct Renewals {
    kept: Mutex<VecDeque<Kept>>,
}

/// How many streams are kept. A node has one lease; whoever has more pays a round trip for the oldest.
const KEPT: usize = 16;

struct Kept {
    lease: i64,
    member: usize,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl Renewals {
    /// Renews the lease and returns the seconds that it has now.
    pub(crate) async fn renew(&self, mut clients: Clients, lease: i64) -> Result<u64, Failure> {
        let member = clients.member;
        if let Some(mut kept) = self.take(lease)
            && kept.member == member
        {
            // If the stream broke, perhaps long ago, the reply counts as lost and the call is made again on a new one.
            let seconds = kept.renew().await?;
            self.put_back(kept);
            return Ok(seconds);
        }
        // The first answer on a stream says only whether the lease lives.
        let (keeper, answers) = clients.lease.keep_alive(lease).await?;
        let mut kept = Kept { lease, member, keeper, answers };
        let seconds = kept.renew().await?;
        self.put_back(kept);
        Ok(seconds)
    }

    /// Drops what is kept for a lease.
    pub(crate) fn forget(&self, lease: i64) {
        drop(self.take(lease));
    }

    fn take(&self, lease: i64) -> Option<Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|kept| kept.lease == lease)?;
        kept.remove(place)
    }

    fn put_back(&self, stream: Kept) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Two renewals of one lease at the same time have made two.
        kept.retain(|other| other.lease != stream.lease);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(stream);
    }
}

impl Kept {
    async fn renew(&mut self) -> Result<u64, Failure> {
        if self.keeper.keep_alive().await.is_err() {
            return Err(Failure::new(Outcome::Lost, "the stream of renewals is closed"));
        }
        match self.answers.message().await? {
            Some(answer) => match u64::try_from(answer.ttl()) {
                Ok(seconds) if seconds > 0 => Ok(seconds),
                _ => Err(Failure::new(Outcome::LeaseNotFound, "the lease is unknown or has ended")),
            },
            None => Err(Failure::new(Outcome::Lost, "the server ended the stream of renewals")),
        }
    }
}
