//! Watches: streams of whole revisions that go on over lost connections, members and leaders of etcd.

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
    connection::Connection,
    failure::Failure,
    measure,
    pace::Pace,
    wire::{revision, wire_revision},
};

/// The pauses before a lost watch is opened again. Already the first is not the same for all the watches that were lost
/// together.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often a member that is to give a sign of life is asked for one. Some versions of etcd leave the question without
/// an answer while they look for old changes, which takes them up to 100 ms.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Room for so many batches is kept.
const FEW: usize = 4;

/// Opens a watch of what comes under the prefix after a revision.
///
/// # Errors
///
/// It could not be opened for the first time. What happens later ends the stream.
pub(crate) async fn watch(
    connection: &Arc<Connection>,
    prefix: &str,
    after: Revision,
) -> Result<WatchStream, StoreError> {
    let after = wire_revision(after);
    let watched = Watched::new(prefix, Arc::clone(connection));
    let opened = match watched.open(after, None).await? {
        Opening::Opened(opened) => opened,
        Opening::Rewound(revision) => {
            return Ok(Box::pin(stream::iter([Err(WatchEnd::Rewound { revision })])));
        }
    };
    let watch = Watch {
        order: Order::after(after, connection.wire().clone()),
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
    /// Batches that came in one response with the one delivered last.
    ready: VecDeque<Batch>,
    /// When the member was last heard of.
    heard: Instant,
    /// Calls that fail at the member.
    failures: Receiver<u64>,
    /// Since the watch was lost, until something comes on it again.
    lost: Option<Lost>,
}

struct Lost {
    /// The watch goes on by then, or ends.
    deadline: Instant,
    pace: Pace,
}

impl Watch {
    async fn next(&mut self) -> Result<Batch, WatchEnd> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            // Many come at once when a watch is behind, and hardly ever otherwise.
            self.ready.shrink_to(FEW);
            if let Some(compacted) = self.opened.compacted {
                return Err(WatchEnd::Compacted { compacted: revision(compacted) });
            }
            match self.message().await {
                Ok(message) if message.canceled() => match message.compact_revision() {
                    0 => {
                        let why = format!("etcd ended the watch: {}", open::reason(&message));
                        Box::pin(self.resume(why)).await?;
                    }
                    compacted => return Err(WatchEnd::Compacted { compacted: revision(compacted) }),
                },
                Ok(message) => self.take(message)?,
                Err(why) => {
                    // The watch should not meet the same member again.
                    self.watched.connection.leave(self.opened.member, &why);
                    // On the heap, while it is needed: a watch that runs would hold the room for it all the time, 16 KiB.
                    Box::pin(self.resume(why)).await?;
                }
            }
        }
    }

    fn take(&mut self, WatchResponse(message): WatchResponse) -> Result<(), WatchEnd> {
        if self.lost.take().is_some() {
            let (prefix, after) = (self.watched.prefix(), self.order.last());
            tracing::debug!(prefix, after, "a watch goes on");
        }
        let header = message.header.as_ref();
        self.opened.history.seen_in(header.map_or(0, |header| header.raft_term));
        match header {
            // Etcd's own sign of life comes in its place among the events. That for which it was asked has no watch's
            // number, and may come before events of which it speaks (until 3.4.25 and 3.5.8).
            Some(header) if message.events.is_empty() && message.watch_id >= 0 => {
                self.order.told_up_to(header.revision);
            }
            _ => self.ready.extend(self.order.batches(message.events).map_err(disconnected)?),
        }
        Ok(())
    }

    /// The next message, or why there is none: an error, the end of the stream, or silence.
    ///
    /// A watch of a quiet cluster costs no request: the pings of HTTP/2 show that the connection stands, and etcd tells
    /// every few minutes that the watch does. Only if a call failed at the member, or that sign did not come, or the
    /// watch was lost a moment ago, is it asked for.
    async fn message(&mut self) -> Result<WatchResponse, String> {
        let config = self.watched.connection.config();
        let ask_at = self.heard + if self.lost.is_some() { ASK_EVERY } else { config.watch_check };
        let stream = &mut self.opened.stream;
        let answer = tokio::select! {
            biased;
            answer = stream.message() => Some(answer),
            () = doubt(&mut self.failures, ask_at) => {
                let lost = self.lost.as_ref().map(|lost| lost.deadline);
                let silent_at = Instant::now() + config.request_timeout;
                timeout_at(lost.map_or(silent_at, |lost| lost.min(silent_at)), ask(stream)).await.ok()
            }
        };
        match answer {
            Some(Ok(Some(message))) => {
                self.heard = Instant::now();
                Ok(message)
            }
            Some(Ok(None)) => Err("the server ended the stream".to_owned()),
            Some(Err(error)) => Err(Failure::from(error).message),
            None => Err(format!("no sign of life within {:?}", config.request_timeout)),
        }
    }

    /// Opens the watch again after the last revision, at whichever member answers.
    ///
    /// Time runs from when the watch was lost until something comes on it, so that one that is opened and lost over and
    /// over ends too.
    async fn resume(&mut self, mut why: String) -> Result<(), WatchEnd> {
        let within = self.watched.connection.config().watch_resume;
        let (prefix, after) = (self.watched.prefix(), self.order.last());
        let lost = self.lost.get_or_insert_with(|| {
            tracing::debug!(prefix, after, why, "a watch was lost");
            Lost { deadline: Instant::now() + within, pace: Pace::new(FIRST_PAUSE, LONGEST_PAUSE) }
        });
        loop {
            let pause = lost.pace.pause();
            if Instant::now() + pause >= lost.deadline {
                return Err(disconnected(format!("{why}; no way to go on within {within:?}")));
            }
            sleep(pause).await;
            match timeout_at(lost.deadline, self.watched.open(after, Some(self.opened.history))).await {
                Ok(Ok(Opening::Opened(mut opened))) => {
                    opened.history.seen_in(self.opened.history.term);
                    self.failures = self.watched.connection.failures(opened.member);
                    self.opened = opened;
                    self.order.resumed();
                    self.heard = Instant::now();
                    measure::watch_resumed();
                    return Ok(());
                }
                Ok(Ok(Opening::Rewound(revision))) => return Err(WatchEnd::Rewound { revision }),
                Ok(Err(error)) if error.is_transient() => why = error.to_string(),
                // Whoever watches again hears the same, as an error.
                Ok(Err(error)) => return Err(disconnected(error.to_string())),
                Err(_elapsed) => {}
            }
        }
    }
}

/// Ends when there is reason to doubt that a silent watch lives.
async fn doubt(failures: &mut Receiver<u64>, at: Instant) {
    tokio::select! {
        biased;
        Ok(()) = failures.changed() => {}
        () = sleep_until(at) => {}
    }
}

/// Asks for a sign of life until something comes, which may be something else.
async fn ask(stream: &mut etcd_client::WatchStream) -> Result<Option<WatchResponse>, etcd_client::Error> {
    loop {
        // If the request cannot be sent the stream is over, and says why.
        let _ = stream.request_progress().await;
        tokio::select! {
            biased;
            answer = stream.message() => return answer,
            () = sleep(ASK_EVERY) => {}
        }
    }
}

fn disconnected(reason: impl Into<String>) -> WatchEnd {
    WatchEnd::Disconnected { reason: reason.into() }
}
