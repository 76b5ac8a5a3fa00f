//! Converts the events of etcd's responses to batches of whole revisions.

use clustering_core::store::{Batch, Change};
use etcd_client::{EventType, proto::PbEvent};

use crate::key_codec::{KeyCodec, decode_revision};

/// Converts events to batches: whole revisions, in order, each of them once.
///
/// Etcd splits its responses only between revisions, unless a watch asks for fragments, which this one does not. If
/// etcd ever sends a part of a revision, the watch ends instead of delivering it.
pub(super) struct Order {
    /// Revision up to which events are skipped.
    after: i64,
    /// Last revision whose events have been received, or of which etcd has said that there are none.
    last: i64,
    codec: KeyCodec,
}

impl Order {
    /// Creates the state of a watch of the changes after a revision.
    pub(super) fn after(after: i64, codec: KeyCodec) -> Self {
        Order { after, last: after, codec }
    }

    /// Returns the revision after which to resume the watch.
    pub(super) fn last(&self) -> i64 {
        self.last
    }

    /// Records that the watch was resumed after [`last`](Self::last). Earlier events have been delivered.
    pub(super) fn resumed(&mut self) {
        self.after = self.last;
    }

    /// Records that the server has no more events up to this revision. Without that, a quiet watch would fall behind
    /// the compaction of other services' changes.
    ///
    /// If such events arrive nevertheless, [`batches`](Self::batches) fails.
    pub(super) fn advance_to(&mut self, revision: i64) {
        self.last = self.last.max(revision);
    }

    /// Converts the events of one response.
    ///
    /// # Errors
    ///
    /// A message if the events are invalid or out of order. The watch must end.
    pub(super) fn batches(&mut self, events: Vec<PbEvent>) -> Result<Vec<Batch>, String> {
        let mut batches: Vec<(i64, Vec<Change>)> = Vec::new();
        let mut open = None;
        for event in events {
            let kv = event.kv.ok_or("etcd sent an event without a key")?;
            let at = kv.mod_revision;
            if at <= self.after {
                continue;
            }
            if open != Some(at) {
                if at <= self.last {
                    return Err(format!(
                        "etcd sent changes of revision {at} after those of revision {}",
                        self.last
                    ));
                }
                self.last = at;
                open = Some(at);
            }
            let change = match EventType::try_from(event.r#type) {
                Ok(EventType::Put) => self.codec.decode_entry(kv).map(Change::Put),
                Ok(EventType::Delete) => self.codec.decode_key(&kv.key).map(Change::Delete),
                Err(_) => return Err(format!("etcd sent an event of the unknown type {}", event.r#type)),
            };
            // A revision that only changed skipped keys makes no batch.
            let Some(change) = change else { continue };
            match batches.last_mut() {
                Some((open, changes)) if *open == at => changes.push(change),
                _ => batches.push((at, vec![change])),
            }
        }
        Ok(batches.into_iter().map(|(at, changes)| Batch::new(decode_revision(at), changes)).collect())
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
        Order::after(after, KeyCodec::new(String::new()))
    }

    fn shape(batches: &[Batch]) -> Vec<(u64, Vec<&str>)> {
        batches
            .iter()
            .map(|batch| (batch.revision.get(), batch.changes.iter().map(|c| c.key().as_str()).collect()))
            .collect()
    }

    #[test]
    fn each_revision_makes_one_batch() {
        let events = vec![put("a", 5), event(EventType::Delete, "b", 5), put("a", 7)];
        let batches = order(4).batches(events).unwrap();
        assert_eq!(shape(&batches), [(5, vec!["a", "b"]), (7, vec!["a"])]);
        assert_eq!(batches[0].changes[1], Change::Delete("b".into()));
        let Change::Put(entry) = &batches[1].changes[0] else { panic!("a put") };
        assert_eq!((entry.created.get(), entry.modified.get(), &entry.value[..]), (2, 7, &b"v"[..]));
        assert_eq!(entry.lease, None);
    }

    #[test]
    fn events_before_the_start_are_skipped() {
        let mut order = order(5);
        assert_eq!(
            shape(&order.batches(vec![put("a", 4), put("a", 5), put("a", 6)]).unwrap()),
            [(6, vec!["a"])]
        );
        assert!(order.batches(vec![put("a", 5)]).unwrap().is_empty());
    }

    #[test]
    fn a_part_of_a_revision_ends_the_watch() {
        let mut order = order(4);
        order.batches(vec![put("a", 5)]).unwrap();
        let error = order.batches(vec![put("b", 5)]).unwrap_err();
        assert_eq!(error, "etcd sent changes of revision 5 after those of revision 5");
    }

    #[test]
    fn events_at_a_revision_that_etcd_had_no_events_for_end_the_watch() {
        let mut order = order(4);
        order.advance_to(9);
        // The revision never goes back.
        order.advance_to(6);
        assert_eq!(order.last(), 9);
        assert!(order.batches(vec![put("a", 7)]).is_err());
        order.resumed();
        assert_eq!(shape(&order.batches(vec![put("a", 9), put("a", 10)]).unwrap()), [(10, vec!["a"])]);
    }

    #[test]
    fn events_that_are_out_of_order_or_invalid_end_the_watch() {
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
