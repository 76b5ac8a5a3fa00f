//! Lease renewals.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};

use crate::{
    failure::{Failure, FailureKind},
    members::Clients,
};

/// Maximum number of streams in the pool. A node has only one lease. With more leases than streams, a renewal may cost
/// one more round trip.
const MOST: usize = 16;

/// Pool of renewal streams, one per lease.
///
/// Etcd renews leases over streams, and the client library hides the TTL in the first reply on a stream. Therefore a
/// stream is kept for the next renewal of its lease: the first renewal takes two round trips, all later ones take one.
///
/// A stream is taken out of the pool while it is in use. If the renewal fails or is cancelled, the stream is dropped,
/// so that a late reply cannot be mistaken for that of a later renewal.
#[derive(Default)]
pub(crate) struct Renewals {
    streams: Mutex<VecDeque<RenewalStream>>,
}

struct RenewalStream {
    lease: i64,
    member: usize,
    requests: LeaseKeeper,
    replies: LeaseKeepAliveStream,
}

impl Renewals {
    /// Renews the lease and returns its new TTL in seconds.
    pub(crate) async fn renew(&self, mut clients: Clients, lease: i64) -> Result<u64, Failure> {
        let member = clients.member;
        if let Some(mut stream) = self.take(lease)
            && stream.member == member
        {
            // If the stream has broken since, the reply counts as lost, and the call is made again on a new stream.
            let seconds = stream.renew().await?;
            self.put_back(stream);
            return Ok(seconds);
        }
        // The client library checks that the lease exists in the first reply, but does not return its TTL.
        let (requests, replies) = clients.lease.keep_alive(lease).await?;
        let mut stream = RenewalStream { lease, member, requests, replies };
        let seconds = stream.renew().await?;
        self.put_back(stream);
        Ok(seconds)
    }

    /// Drops the stream of a lease.
    pub(crate) fn forget(&self, lease: i64) {
        drop(self.take(lease));
    }

    fn take(&self, lease: i64) -> Option<RenewalStream> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let index = streams.iter().position(|stream| stream.lease == lease)?;
        streams.remove(index)
    }

    fn put_back(&self, stream: RenewalStream) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        // Two concurrent renewals of one lease have opened two streams.
        streams.retain(|other| other.lease != stream.lease);
        if streams.len() == MOST {
            streams.pop_front();
        }
        streams.push_back(stream);
    }
}

impl RenewalStream {
    async fn renew(&mut self) -> Result<u64, Failure> {
        if self.requests.keep_alive().await.is_err() {
            return Err(Failure::new(FailureKind::ReplyLost, "the renewal stream is closed"));
        }
        match self.replies.message().await? {
            Some(reply) => match u64::try_from(reply.ttl()) {
                Ok(seconds) if seconds > 0 => Ok(seconds),
                _ => Err(Failure::new(FailureKind::LeaseNotFound, "the lease does not exist or has expired")),
            },
            None => Err(Failure::new(FailureKind::ReplyLost, "the server ended the renewal stream")),
        }
    }
}
