//! From the events of etcd's responses to whole revisions.

use clustering_core::store::{Batch, Change};
use etcd_client::{EventType, proto::PbEvent};

use crate::wire::{Wire, revision};

/// Makes whole revisions, each once and in order, of the events that come in.
///
/// Etcd splits what it has to say at the borders of revisions, unless a watch asks for fragments, which these don't. If it
/// ever came otherwise the watch ends, instead of delivering half of a revision.
pub(super) struct Order {
    /// Events up to here are not wanted.
    after: i64,
    /// The last revision whose events have come, or were said to have come.
    last: i64,
    wire: Wire,
}

impl Order {
    /// For a watch of what comes after a revision.
    pub(super) fn after(after: i64, wire: Wire) -> Self {
        Order { after, last: after, wire }
    }

    /// The revision after which the watch goes on if it is opened again.
    pub(super) fn last(&self) -> i64 {
        self.last
    }

    /// The watch was opened again after [`last`](Self::last). What lies before was delivered.
    pub(super) fn resumed(&mut self) {
        self.after = self.last;
    }

    /// The server says that there are no more events up to this revision. Without that a watch of what seldom changes
    /// would fall behind the compaction of what others write.
    ///
    /// Should such events come all the same, [`batches`](Self::batches) does not let them pass for others.
    pub(super) fn told_up_to(&mut self, revision: i64) {
        self.last = self.last.max(revision);
    }

    pub(super) fn batches(&mut self, events: Vec<PbEvent>) -> Result<Vec<Batch>, String> {
        let mut batches: Vec<(i64, Vec<Change>)> = Vec::new();
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
                Some((open, changes)) if *open == at => changes.push(change),
                _ => batches.push((at, vec![change])),
            }
        }
        Ok(batches.into_iter().map(|(at, changes)| Batch::new(revision(at), changes)).collect())
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
        Order::after(after, Wire::new(String::new()))
    }

    fn shape(batches: &[Batch]) -> Vec<(u64, Vec<&str>)> {
        batches
            .iter()
            .map(|batch| (batch.revision.get(), batch.changes.iter().map(|c| c.key().as_str()).collect()))
            .collect()
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
    fn what_was_said_to_be_over_is_not_taken_for_new() {
        let mut order = order(4);
        order.told_up_to(9);
        // It may only go forward.
        order.told_up_to(6);
        assert_eq!(order.last(), 9);
        assert!(order.batches(vec![put("a", 7)]).is_err());
        order.resumed();
        assert_eq!(shape(&order.batches(vec![put("a", 9), put("a", 10)]).unwrap()), [(10, vec!["a"])]);
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
