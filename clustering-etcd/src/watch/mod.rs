//! Watches: streams of whole revisions that survive the loss of connections, members and leaders of etcd.

mod open;
mod order;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use clustering_core::store::{Batch, Revision, StoreError, WatchEnd, WatchStream};
use etcd_client::WatchResponse;
use futures_util::stream;
use tokio::{
    sync::watch::Receiver,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use self::{
    open::{Opened, Opening, Watched},
    order::Order,
};
use crate::{
    backoff::Backoff,
    connection::Connection,
    failure::Failure,
    key_codec::{decode_revision, encode_revision},
    measure,
};

/// First and longest pause before a lost watch is opened again. They have jitter, so that watches that were lost
/// together are not opened together.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Interval between progress requests while a watch is checked. Some versions of etcd ignore a request while they
/// search for past changes, which takes up to 100 ms.
const REQUEST_EVERY: Duration = Duration::from_millis(500);

/// Number of batches for which memory is kept allocated.
const FEW: usize = 4;

/// Opens a watch of the changes under the prefix after a revision.
///
/// # Errors
///
/// [`StoreError`] if the watch cannot be opened. Later failures end the stream.
pub(crate) async fn watch(
    connection: &Arc<Connection>,
    prefix: &str,
    after: Revision,
) -> Result<WatchStream, StoreError> {
    let after = encode_revision(after);
    let watched = Watched::new(prefix, Arc::clone(connection));
    let opened = match watched.open(after, None).await? {
        Opening::Opened(opened) => opened,
        Opening::Rewound(revision) => {
            return Ok(Box::pin(stream::iter([Err(WatchEnd::Rewound { revision })])));
        }
    };
    let watch = Watch {
        order: Order::after(after, connection.codec().clone()),
        failures: connection.failures(opened.member),
        watched,
        opened,
        heard: Instant::now(),
        ready: VecDeque::new(),
        lost: None,
    };
    Ok(Box::pin(stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        Some(match watch.next().await {
            Ok(batch) => (Ok(batch), Some(watch)),
            Err(end) => (Err(end), None),
        })
    })))
}

struct Watch {
    watched: Watched,
    opened: Box<Opened>,
    order: Order,
    /// Received batches that have not been delivered yet.
    ready: VecDeque<Batch>,
    /// Time of the last message from the member.
    heard: Instant,
    /// Changes when a call fails at the member.
    failures: Receiver<u64>,
    /// Set from the loss of the watch until the next message.
    lost: Option<Lost>,
}

/// State of a watch that was lost.
struct Lost {
    /// Time at which the watch ends if it has not been resumed.
    deadline: Instant,
    backoff: Backoff,
}

impl Watch {
    async fn next(&mut self) -> Result<Batch, WatchEnd> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            // A response contains many batches only if the watch is behind.
            self.ready.shrink_to(FEW);
            if let Some(compacted) = self.opened.compacted {
                return Err(WatchEnd::Compacted { compacted: decode_revision(compacted) });
            }
            match self.message().await {
                Ok(message) if message.canceled() => match message.compact_revision() {
                    0 => {
                        let why = format!("etcd cancelled the watch: {}", open::reason(&message));
                        Box::pin(self.resume(why)).await?;
                    }
                    compacted => return Err(WatchEnd::Compacted { compacted: decode_revision(compacted) }),
                },
                Ok(message) => self.receive(message)?,
                Err(why) => {
                    // Resume at another member.
                    self.watched.connection.leave(self.opened.member, &why);
                    // Boxed, since every watch would otherwise permanently use 16 KiB more.
                    Box::pin(self.resume(why)).await?;
                }
            }
        }
    }

    fn receive(&mut self, WatchResponse(message): WatchResponse) -> Result<(), WatchEnd> {
        if self.lost.take().is_some() {
            let (prefix, after) = (self.watched.prefix(), self.order.last());
            tracing::debug!(prefix, after, "watch resumed");
        }
        let header = message.header.as_ref();
        self.opened.history.advance_to(header.map_or(0, |header| header.raft_term));
        match header {
            // Etcd sends its own progress notifications in order with the events. The reply to a progress request has
            // no watch ID, and before 3.4.25 and 3.5.8 it may overtake events of earlier revisions.
            Some(header) if message.events.is_empty() && message.watch_id >= 0 => {
                self.order.advance_to(header.revision);
            }
            _ => self.ready.extend(self.order.batches(message.events).map_err(disconnected)?),
        }
        Ok(())
    }

    /// Returns the next message, or the reason why there is none: an error, the end of the stream, or silence.
    ///
    /// A quiet watch costs no request: HTTP/2 pings show that the connection is up, and progress notifications show
    /// every few minutes that the watch is alive. The watch requests a progress notification only if a call failed at
    /// the member, if the regular notification is missing, or if the watch has just been resumed.
    async fn message(&mut self) -> Result<WatchResponse, String> {
        let config = self.watched.connection.config();
        let check_at = self.heard + if self.lost.is_some() { REQUEST_EVERY } else { config.watch_check };
        let stream = &mut self.opened.stream;
        let answer = tokio::select! {
            biased;
            answer = stream.message() => Some(answer),
            () = reason_to_check(&mut self.failures, check_at) => {
                let lost = self.lost.as_ref().map(|lost| lost.deadline);
                let silent_at = Instant::now() + config.request_timeout;
                timeout_at(lost.map_or(silent_at, |lost| lost.min(silent_at)), check(stream)).await.ok()
            }
        };
        match answer {
            Some(Ok(Some(message))) => {
                self.heard = Instant::now();
                Ok(message)
            }
            Some(Ok(None)) => Err("the server ended the stream".to_owned()),
            Some(Err(error)) => Err(Failure::from(error).message),
            None => Err(format!("etcd did not answer on the watch within {:?}", config.request_timeout)),
        }
    }

    /// Opens the watch again after the last revision, at a member that answers.
    ///
    /// The time limit runs from the loss of the watch to the next message, so that a watch that is opened and lost over
    /// and over ends too.
    async fn resume(&mut self, mut why: String) -> Result<(), WatchEnd> {
        let within = self.watched.connection.config().watch_resume;
        let (prefix, after) = (self.watched.prefix(), self.order.last());
        let lost = self.lost.get_or_insert_with(|| {
            tracing::debug!(prefix, after, why, "watch lost");
            Lost { deadline: Instant::now() + within, backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE) }
        });
        loop {
            let pause = lost.backoff.pause();
            if Instant::now() + pause >= lost.deadline {
                return Err(disconnected(format!("{why}; could not resume the watch within {within:?}")));
            }
            sleep(pause).await;
            match timeout_at(lost.deadline, self.watched.open(after, Some(self.opened.history))).await {
                Ok(Ok(Opening::Opened(mut opened))) => {
                    opened.history.advance_to(self.opened.history.term);
                    self.failures = self.watched.connection.failures(opened.member);
                    self.opened = opened;
                    self.order.resumed();
                    self.heard = Instant::now();
                    measure::watch_resumed();
                    return Ok(());
                }
                Ok(Ok(Opening::Rewound(revision))) => return Err(WatchEnd::Rewound { revision }),
                Ok(Err(error)) if error.is_transient() => why = error.to_string(),
                // The next call or watch gets this error.
                Ok(Err(error)) => return Err(disconnected(error.to_string())),
                Err(_elapsed) => {}
            }
        }
    }
}

/// Returns when a silent watch should be checked: a call failed at its member, or it is time.
async fn reason_to_check(failures: &mut Receiver<u64>, at: Instant) {
    tokio::select! {
        biased;
        Ok(()) = failures.changed() => {}
        () = sleep_until(at) => {}
    }
}

/// Requests progress notifications until any message arrives, which may be another one.
async fn check(stream: &mut etcd_client::WatchStream) -> Result<Option<WatchResponse>, etcd_client::Error> {
    loop {
        // If the request cannot be sent, the stream has ended and returns the error.
        let _ = stream.request_progress().await;
        tokio::select! {
            biased;
            answer = stream.message() => return answer,
            () = sleep(REQUEST_EVERY) => {}
        }
    }
}

fn disconnected(reason: impl Into<String>) -> WatchEnd {
    WatchEnd::Disconnected { reason: reason.into() }
}
