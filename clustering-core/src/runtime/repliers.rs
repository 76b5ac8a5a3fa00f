use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use crate::machine::{Reply, RequestError, RequestId};

type Result = std::result::Result<Reply, RequestError>;

/// Number of open requests below which dropped requests are not searched for.
const FEW: usize = 64;

/// Reply channels of open requests, by request.
///
/// A request can stay open for as long as the store is away, even if its caller has dropped the future. Dropped
/// requests are therefore removed whenever the number of requests has doubled since the last removal, which bounds the
/// map by the number of live callers.
#[derive(Debug)]
pub(crate) struct Repliers {
    waiting: BTreeMap<RequestId, oneshot::Sender<Result>>,
    next: u64,
    look_at: usize,
}

impl Repliers {
    pub(crate) fn new() -> Self {
        Repliers { waiting: BTreeMap::new(), next: 0, look_at: FEW }
    }

    /// Registers a request and returns its number.
    pub(crate) fn add(&mut self, reply: oneshot::Sender<Result>) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        self.waiting.insert(id, reply);
        id
    }

    /// Sends the reply to the request, if its caller still waits.
    pub(crate) fn answer(&mut self, id: RequestId, result: Result) {
        if let Some(reply) = self.waiting.remove(&id) {
            // An error only means that the caller no longer waits.
            let _ = reply.send(result);
        }
    }

    /// If a search is due, removes the requests whose callers no longer wait, and returns them.
    pub(crate) fn abandoned(&mut self) -> BTreeSet<RequestId> {
        if self.waiting.len() < self.look_at {
            return BTreeSet::new();
        }
        let gone = self.waiting.iter().filter(|(_, reply)| reply.is_closed()).map(|(id, _)| *id);
        let gone: BTreeSet<_> = gone.collect();
        self.waiting.retain(|id, _| !gone.contains(id));
        self.look_at = FEW.max(self.waiting.len() * 2);
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_requests_do_not_accumulate_and_waiting_ones_are_answered() {
        let mut repliers = Repliers::new();
        let (mut kept, mut abandoned) = (Vec::new(), BTreeSet::new());
        for number in 0..10_000 {
            let (reply, answer) = oneshot::channel();
            let id = repliers.add(reply);
            if number % 100 == 0 {
                kept.push((id, answer));
            }
            abandoned.extend(repliers.abandoned());
            assert!(repliers.waiting.len() <= FEW.max(2 * kept.len() + FEW), "{}", repliers.waiting.len());
        }
        for (id, mut answer) in kept {
            assert!(!abandoned.contains(&id));
            repliers.answer(id, Ok(Reply::Done));
            assert_eq!(answer.try_recv(), Ok(Ok(Reply::Done)));
        }
    }
}
