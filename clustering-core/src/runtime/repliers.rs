use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use crate::{
    machine::{Reply, RequestError, RequestId},
    store::Revision,
    version::Version,
};

/// Number of open requests below which dropped requests are not searched for.
const FEW: usize = 64;

/// Reply channels of open requests, by the type of their answers.
///
/// A request can stay open for as long as the store is away, even if its caller has dropped the future. Dropped
/// requests are therefore removed whenever the number of requests has doubled since the last removal, which bounds the
/// maps by the number of live callers.
#[derive(Debug)]
pub(crate) struct Repliers {
    done: Waiting<()>,
    versions: Waiting<Version>,
    commits: Waiting<Revision>,
    next: u64,
    look_at: usize,
}

/// Sender of an answer, or of the reason why there is none.
pub(crate) type Replier<T> = oneshot::Sender<Result<T, RequestError>>;

/// Reply channels of requests with one type of answer.
#[derive(Debug)]
pub(crate) struct Waiting<T>(BTreeMap<RequestId, Replier<T>>);

/// An answer to a request.
pub(crate) trait Answer: Sized + Send + 'static {
    /// Returns the reply channels for this type of answer.
    fn waiting(repliers: &mut Repliers) -> &mut Waiting<Self>;
}

impl Answer for () {
    fn waiting(repliers: &mut Repliers) -> &mut Waiting<Self> {
        &mut repliers.done
    }
}

impl Answer for Version {
    fn waiting(repliers: &mut Repliers) -> &mut Waiting<Self> {
        &mut repliers.versions
    }
}

impl Answer for Revision {
    fn waiting(repliers: &mut Repliers) -> &mut Waiting<Self> {
        &mut repliers.commits
    }
}

impl<T> Waiting<T> {
    fn new() -> Self {
        Waiting(BTreeMap::new())
    }

    /// Sends the answer to the request, if its caller is still waiting.
    fn answer(&mut self, id: RequestId, answer: Result<T, RequestError>) {
        if let Some(replier) = self.0.remove(&id) {
            // An error only means that the caller is no longer waiting.
            let _ = replier.send(answer);
        }
    }

    /// Removes the requests whose callers are no longer waiting, and adds them to `dropped`.
    fn remove_dropped(&mut self, dropped: &mut BTreeSet<RequestId>) {
        self.0.retain(|id, replier| {
            let is_dropped = replier.is_closed();
            if is_dropped {
                dropped.insert(*id);
            }
            !is_dropped
        });
    }
}

impl Repliers {
    pub(crate) fn new() -> Self {
        Repliers {
            done: Waiting::new(),
            versions: Waiting::new(),
            commits: Waiting::new(),
            next: 0,
            look_at: FEW,
        }
    }

    fn len(&self) -> usize {
        self.done.0.len() + self.versions.0.len() + self.commits.0.len()
    }

    /// Registers a request and returns its number.
    pub(crate) fn add<T: Answer>(&mut self, replier: Replier<T>) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        T::waiting(self).0.insert(id, replier);
        id
    }

    /// Sends the reply to the request, if its caller is still waiting.
    pub(crate) fn answer(&mut self, id: RequestId, reply: Reply) {
        match reply {
            Reply::Done(answer) => self.done.answer(id, answer),
            Reply::Version(answer) => self.versions.answer(id, answer),
            Reply::Committed(answer) => self.commits.answer(id, answer),
        }
    }

    /// If a search is due, removes the requests whose callers are no longer waiting, and returns them.
    pub(crate) fn abandoned(&mut self) -> BTreeSet<RequestId> {
        let mut dropped = BTreeSet::new();
        if self.len() >= self.look_at {
            self.done.remove_dropped(&mut dropped);
            self.versions.remove_dropped(&mut dropped);
            self.commits.remove_dropped(&mut dropped);
            self.look_at = FEW.max(self.len() * 2);
        }
        dropped
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
            assert!(repliers.len() <= FEW.max(2 * kept.len() + FEW), "{}", repliers.len());
        }
        for (id, mut answer) in kept {
            assert!(!abandoned.contains(&id));
            repliers.answer(id, Reply::Done(Ok(())));
            assert_eq!(answer.try_recv(), Ok(Ok(())));
        }
    }
}
