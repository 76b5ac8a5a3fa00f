//! Watches: from etcd's stream of responses to whole revisions, or to the reason why it ended.

use std::{collections::VecDeque, sync::Arc};

use clustering_core::store::{Batch, Change, Revision, WatchEnd, WatchStream};
use etcd_client::{EventType, WatchOptions, proto::PbEvent};
use futures_util::stream;
use tokio::time::{Instant, sleep_until};

use crate::{
    connection::{Clients, Connection},
    failure::{Failure, Outcome},
    wire::{Range, Wire, revision},
};

/// A watch as etcd opened it.
pub(crate) struct Opened {
    stream: etcd_client::WatchStream,
    member: usize,
    /// Where the member stood when it opened the watch. The cluster may be further.
    pub(crate) stands: i64,
    /// The first message, where it ends the watch rather than opens it.
    compacted: Option<i64>,
}

/// Opens a watch of the range from the revision `start` on, which is not 0 (that would mean "from now").
pub(crate) async fn open(mut clients: Clients, range: Range, start: i64) -> Result<Opened, Failure> {
    // While nothing changes etcd gives a sign of life by itself, every 10 minutes unless its operator says otherwise.
    let options = WatchOptions::new().with_range(range.end).with_start_revision(start).with_progress_notify();
    let mut stream = clients.watch.watch(range.first, Some(options)).await?;
    let Some(message) = stream.message().await? else {
        return Err(Failure::new(Outcome::Lost, "the server ended the watch before it began"));
    };
    let compacted = (message.compact_revision() > 0).then(|| message.compact_revision());
    if message.canceled() && compacted.is_none() {
        let why = message.cancel_reason();
        let outcome = match why.contains("permission denied") {
            true => Outcome::ForbiddenOrLoggedOut,
            // The token, where it is told apart.
            false => Outcome::LoggedOut,
        };
        return Err(Failure::new(outcome, words(why)));
    }
    let stands = message.header().map_or(0, |header| header.revision());
    Ok(Opened { stream, member: clients.member, stands, compacted })
}

/// The words of a reason, without the code of the status that etcd prints before them.
fn words(reason: &str) -> &str {
    reason.split_once(" desc = ").map_or(reason, |(_, words)| words)
}

/// A stream that says only that the store was set back to `revision`.
pub(crate) fn rewound(revision: Revision) -> WatchStream {
    Box::pin(stream::iter([Err(WatchEnd::Rewound { revision })]))
}

/// The stream of what the opened watch yields after the revision `after`.
pub(crate) fn stream(opened: Opened, after: i64, wire: Wire, connection: Arc<Connection>) -> WatchStream {
    let order = Order { after, last: after, wire };
    let failures = connection.failures(opened.member);
    let watch = Watch { opened, order, ready: VecDeque::new(), heard: Instant::now(), failures, connection };
    Box::pin(stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        Some(match watch.next().await {
            Ok(batch) => (Ok(batch), Some(watch)),
            Err(end) => (Err(end), None),
        })
    }))
}

struct Watch {
    opened: Opened,
    order: Order,
    /// Batches that came in one response with the one delivered last.
    ready: VecDeque<Batch>,
    /// When the member was last heard of.
    heard: Instant,
    /// Calls that fail at the member.
    failures: tokio::sync::watch::Receiver<u64>,
    connection: Arc<Connection>,
}

impl Watch {
    async fn next(&mut self) -> Result<Batch, WatchEnd> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            if let Some(compacted) = self.opened.compacted {
                return Err(WatchEnd::Compacted { compacted: revision(compacted) });
            }
            let message = self.message().await?;
            if message.canceled() {
                return Err(match message.compact_revision() {
                    0 => disconnected(format!("etcd ended the watch: {}", words(message.cancel_reason()))),
                    compacted => WatchEnd::Compacted { compacted: revision(compacted) },
                });
            }
            self.ready.extend(self.order.batches(message.0.events).map_err(disconnected)?);
        }
    }

    /// The next message, or the end of the watch on an error, the end of the stream, or silence.
    ///
    /// A watch of a quiet cluster costs no request: the pings of HTTP/2 show that the connection stands, and etcd tells
    /// every few minutes that the watch does. Only if a call failed at the member, or that sign did not come, is it
    /// asked for.
    async fn message(&mut self) -> Result<etcd_client::WatchResponse, WatchEnd> {
        let config = self.connection.config();
        let stream = &mut self.opened.stream;
        let answer = tokio::select! {
            biased;
            answer = stream.message() => Some(answer),
            () = doubt(&mut self.failures, self.heard + config.watch_check) => {
                let ask = async {
                    // If the request cannot be sent the stream is over, and says why.
                    let _ = stream.request_progress().await;
                    stream.message().await
                };
                self.connection.bounded(ask).await
            }
        };
        let why = match answer {
            Some(Ok(Some(message))) => {
                self.heard = Instant::now();
                return Ok(message);
            }
            Some(Ok(None)) => "the server ended the stream".to_owned(),
            Some(Err(error)) => Failure::from(error).message,
            None => format!("no sign of life within {:?}", config.request_timeout),
        };
        // Whoever watches again should not meet the same member.
        self.connection.leave(self.opened.member, &why);
        Err(disconnected(why))
    }
}

/// Ends when there is reason to doubt that a silent watch lives.
async fn doubt(failures: &mut tokio::sync::watch::Receiver<u64>, at: Instant) {
    tokio::select! {
        biased;
        Ok(()) = failures.changed() => {}
        () = sleep_until(at) => {}
    }
}

fn disconnected(reason: impl Into<String>) -> WatchEnd {
    WatchEnd::Disconnected { reason: reason.into() }
}

/// Makes whole revisions, each once and in order, of the events that come in.
///
/// Etcd splits what it has to say at the borders of revisions, unless a watch asks for fragments, which these don't. If it
/// ever came otherwise the watch ends, instead of delivering half of a revision.
struct Order {
    /// Events up to here are not wanted.
    after: i64,
    /// The last revision delivered.
    last: i64,
    wire: Wire,
}

impl Order {
    fn batches(&mut self, events: Vec<PbEvent>) -> Result<Vec<Batch>, String> {
        let mut batches: Vec<Batch> = Vec::new();
        let mut open = None;
        for event in events {
            let kv = event.kv.ok_or("an event without a key")?;
            let at = kv.mod_revision;
            if at <= self.after {
                continue;
            }
            if open != Some(at) {
                if at <= self.last {
                    return Err(format!("changes of revision {at} after those of revision {}", self.last));
                }
                self.last = at;
                open = Some(at);
            }
            let change = match EventType::try_from(event.r#type) {
                Ok(EventType::Put) => self.wire.entry(kv).map(Change::Put),
                Ok(EventType::Delete) => self.wire.caller_key(&kv.key).map(Change::Delete),
                Err(_) => return Err(format!("an event of the unknown type {}", event.r#type)),
            };
            // A revision that changed nothing but keys that are left out makes no batch.
            let Some(change) = change else { continue };
            match batches.last_mut() {
                Some(batch) if batch.revision == revision(at) => batch.changes.push(change),
                _ => batches.push(Batch { revision: revision(at), changes: vec![change] }),
            }
        }
        Ok(batches)
    }
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::PbKeyValue;

    use super::*;

    fn event(r#type: EventType, key: &str, at: i64) -> PbEvent {
        let kv = PbKeyValue {
            key: key.into(),
            mod_revision: at,
            create_revision: 2,
            value: "v".into(),
            ..PbKeyValue::default()
        };
        PbEvent { r#type: r#type as i32, kv: Some(kv), prev_kv: None }
    }

    fn put(key: &str, at: i64) -> PbEvent {
        event(EventType::Put, key, at)
    }

    fn order(after: i64) -> Order {
        Order { after, last: after, wire: Wire::new(String::new()) }
    }

    fn shape(batches: &[Batch]) -> Vec<(u64, Vec<&str>)> {
        batches
            .iter()
            .map(|batch| (batch.revision.get(), batch.changes.iter().map(|c| c.key().as_str()).collect()))
            .collect()
    }

    #[test]
    fn a_reason_is_told_in_words() {
        let printed = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        assert_eq!(words(printed), "etcdserver: permission denied");
        assert_eq!(words("etcdserver: no leader"), "etcdserver: no leader");
    }

    #[test]
    fn one_batch_for_each_revision() {
        let events = vec![put("a", 5), event(EventType::Delete, "b", 5), put("a", 7)];
        let batches = order(4).batches(events).unwrap();
        assert_eq!(shape(&batches), [(5, vec!["a", "b"]), (7, vec!["a"])]);
        assert_eq!(batches[0].changes[1], Change::Delete("b".into()));
        let Change::Put(entry) = &batches[1].changes[0] else { panic!("a put") };
        assert_eq!((entry.created.get(), entry.modified.get(), &entry.value[..]), (2, 7, &b"v"[..]));
        assert_eq!(entry.lease, None);
    }

    #[test]
    fn what_lies_before_is_dropped() {
        let mut order = order(5);
        assert_eq!(
            shape(&order.batches(vec![put("a", 4), put("a", 5), put("a", 6)]).unwrap()),
            [(6, vec!["a"])]
        );
        assert!(order.batches(vec![put("a", 5)]).unwrap().is_empty());
    }

    #[test]
    fn half_a_revision_ends_the_watch() {
        let mut order = order(4);
        order.batches(vec![put("a", 5)]).unwrap();
        let error = order.batches(vec![put("b", 5)]).unwrap_err();
        assert_eq!(error, "changes of revision 5 after those of revision 5");
    }

    #[test]
    fn disorder_and_nonsense_end_the_watch() {
        assert!(order(0).batches(vec![put("a", 6), put("a", 5)]).is_err());
        assert!(order(0).batches(vec![PbEvent { r#type: 7, ..put("a", 5) }]).is_err());
        assert!(order(0).batches(vec![PbEvent { r#type: 0, kv: None, prev_kv: None }]).is_err());
    }

    #[test]
    fn keys_that_are_not_utf8_make_no_batch() {
        let mut foreign = put("a", 5);
        foreign.kv.as_mut().unwrap().key = vec![0xff];
        assert!(order(4).batches(vec![foreign]).unwrap().is_empty());
    }
}
