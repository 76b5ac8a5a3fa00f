use std::collections::{BTreeSet, VecDeque};

use super::{
    Identity, InFlight, Machine, Output, Purpose, Reply, RequestError, RequestId, Timers, Token,
    session::SessionEnd,
};
use crate::{
    config::RETRY,
    event::{LostReason, StopReason, StoreCall},
    record::{Cause, RequestRecord, encode, shorten},
    store::{ErrorKind, Guard, Revision, StoreError, Txn},
    time::Timestamp,
};

/// What the user asks for: new versions, and writes under the term.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Requests {
    pub(crate) ask: InFlight,
    asks: Vec<Ask>,
    fenced: Vec<(Token, RequestId)>,
    /// A version was missed whose view cannot be known: this node needs another.
    gap: bool,
}

/// A wish for a version newer than the one seen when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ask {
    /// The request that waits for the answer; `None` if its caller no longer waits.
    id: Option<RequestId>,
    seen: Revision,
    why: Option<String>,
}

impl Requests {
    /// Whether this node's user waits for a version after `seen`.
    pub(crate) fn asked_since(&self, seen: Revision) -> bool {
        self.asks.iter().any(|ask| ask.seen >= seen)
    }

    /// This node's own wish as a cause.
    pub(crate) fn own_cause(&self, seen: Revision, identity: Option<&Identity>) -> Option<Cause> {
        let ask = self.asks.iter().find(|ask| ask.seen >= seen)?;
        Some(Cause::Asked { by: asker(identity), why: ask.why.clone() })
    }

    /// The log begins, or begins anew: what is asked for is newer than what stands there now.
    pub(crate) fn begin(&mut self, seen: Revision) {
        for ask in &mut self.asks {
            ask.seen = seen;
        }
    }

    /// After a resync: whether the newest version's view could not be kept.
    pub(crate) fn note_gap(&mut self, gap: bool) {
        self.gap = gap;
    }

    /// Drops requests whose callers no longer wait. They are merged into a single one, so that dropped requests do not
    /// accumulate.
    fn abandon(&mut self, ids: &BTreeSet<RequestId>) {
        let mut left: Option<Ask> = None;
        for mut ask in std::mem::take(&mut self.asks) {
            if ask.id.is_some_and(|id| !ids.contains(&id)) {
                self.asks.push(ask);
                continue;
            }
            ask.id = None;
            match &mut left {
                Some(left) => left.seen = left.seen.max(ask.seen),
                None => left = Some(ask),
            }
        }
        self.asks.extend(left);
    }

    /// Refuses what is still open: the node ends.
    pub(crate) fn refuse_all(&mut self, reason: &StopReason, outputs: &mut VecDeque<Output>) {
        let asks = std::mem::take(&mut self.asks).into_iter().filter_map(|ask| ask.id);
        let fenced = std::mem::take(&mut self.fenced).into_iter().map(|(_, id)| id);
        outputs.extend(asks.chain(fenced).map(|id| refused(id, reason)));
    }
}

fn refused(id: RequestId, reason: &StopReason) -> Output {
    Output::Reply { id, result: Err(RequestError::Stopped(reason.clone())) }
}

fn asker(identity: Option<&Identity>) -> String {
    identity.map_or_else(|| "observer".to_owned(), |identity| identity.name.to_string())
}

impl Machine {
    pub(super) fn requests_timers(&self, timers: &mut Timers) {
        timers.maybe(self.requests.ask.due(self.fold.revision()));
    }

    pub(super) fn on_ask(&mut self, id: RequestId, why: Option<String>) {
        let seen = self.fold.version_modified();
        self.requests.asks.push(Ask { id: Some(id), seen, why: why.map(shorten) });
    }

    pub(super) fn on_abandoned(&mut self, ids: &BTreeSet<RequestId>) {
        self.requests.abandon(ids);
        self.membership.abandon(ids);
        self.election.abandon(ids);
    }

    /// Whether a request should stand in the log that does not stand there yet.
    fn wants_to_ask(&self) -> bool {
        let seen = self.fold.version_modified();
        let stands = self.fold.request().is_some_and(|request| request.modified > seen);
        let gap = self.requests.gap && self.membership.is_member();
        let wanted = self.requests.asked_since(seen) || gap;
        // The leader needs no request: it publishes. And a candidate's election publishes too.
        wanted
            && !stands
            && self.election.leading().is_none()
            && self.log.follow.is_synced()
            && !self.is_ending()
    }

    pub(super) fn reconcile_requests(&mut self, now: Timestamp) {
        if self.fold.newest().is_some() {
            self.requests.gap = false;
        }
        self.grant_asks();
        let folded = self.fold.revision();
        if !self.wants_to_ask() || !self.requests.ask.is_free(now, folded) {
            return;
        }
        let seen = self.fold.version_modified();
        let own = self.requests.asks.iter().find(|ask| ask.seen >= seen);
        let why = match own {
            Some(ask) => ask.why.clone(),
            None => Some("the view of the newest version is not known here".to_owned()),
        };
        let record = RequestRecord { by: Some(asker(self.identity.as_ref())), why, leader: None };
        let keys = self.fold.keyspace();
        // The guard makes many who ask at once get one version: whoever comes after it was published has got it.
        let txn = Txn::new().guard(Guard::modified_at(keys.version_key().clone(), seen)).put(
            keys.request_key().clone(),
            encode(&record),
            None,
        );
        let token = self.commit(Purpose::RequestVersion, txn);
        self.requests.ask.sent(token, now, folded);
    }

    fn grant_asks(&mut self) {
        // Whether its view is known is another matter.
        let Some(newest) = self.fold.version() else { return };
        let Some(version) = newest.record.as_ref().map(|record| record.version) else { return };
        let modified = newest.modified;
        let (granted, open) = std::mem::take(&mut self.requests.asks)
            .into_iter()
            .partition::<Vec<_>, _>(|ask| ask.seen < modified);
        self.requests.asks = open;
        for id in granted.into_iter().filter_map(|ask| ask.id) {
            self.outputs.push_back(Output::Reply { id, result: Ok(Reply::Version(version)) });
        }
    }

    pub(super) fn on_fence(&mut self, now: Timestamp, id: RequestId, txn: Txn) {
        let keys = self.fold.keyspace();
        let reserved =
            txn.operations().iter().map(|operation| operation.key()).find(|key| keys.is_reserved(key));
        let refusal = match (reserved, self.active_term(now)) {
            (Some(key), _) => RequestError::Reserved { key: key.clone() },
            (None, None) => RequestError::NotLeader,
            (None, Some(term)) => {
                let guard = Guard::created_at(keys.election_key().clone(), term.revision());
                let token = self.commit(Purpose::LeaderCommit, txn.guard(guard));
                return self.requests.fenced.push((token, id));
            }
        };
        self.outputs.push_back(Output::Reply { id, result: Err(refusal) });
    }

    /// The reply to a fenced write is the user's: what it means and whether to repeat it only they know.
    fn on_fenced(&mut self, token: Token, result: &Result<Revision, StoreError>) {
        let Some(place) = self.requests.fenced.iter().position(|(awaited, _)| *awaited == token) else {
            return;
        };
        let (_, id) = self.requests.fenced.remove(place);
        let result = result.clone().map(Reply::Committed).map_err(RequestError::Store);
        self.outputs.push_back(Output::Reply { id, result });
    }

    /// The store no longer knows the lease under which something was to be written.
    fn on_lease_gone(&mut self, now: Timestamp) {
        self.end_session(now, SessionEnd::Lost(LostReason::LeaseGone));
    }

    pub(super) fn on_committed(
        &mut self,
        now: Timestamp,
        token: Token,
        result: Result<Revision, StoreError>,
    ) {
        if self.on_left(now, token, &result) {
            return;
        }
        let flights = [
            (StoreCall::Join, &mut self.membership.join),
            (StoreCall::Rewrite, &mut self.membership.rewrite),
            (StoreCall::Elect, &mut self.election.campaign),
            (StoreCall::Resign, &mut self.election.resign),
            (StoreCall::Publish, &mut self.publication.publish),
            (StoreCall::Confirm, &mut self.consistency.confirm),
            (StoreCall::Evict, &mut self.consistency.evict),
            (StoreCall::RequestVersion, &mut self.requests.ask),
        ];
        let mut taken = flights
            .into_iter()
            .find_map(|(call, flight)| Some((call, flight.take(token, &result, now, &RETRY)?)));
        if taken.is_none() {
            taken = self.on_acknowledged(now, token, &result).map(|sent| (StoreCall::Acknowledge, sent));
        }
        let Some((call, sent)) = taken else { return self.on_fenced(token, &result) };
        match result {
            Err(error) if error.kind() == ErrorKind::LeaseNotFound => self.on_lease_gone(now),
            Err(error) => {
                self.failing.failed(now, call, &error);
                self.report_refusal(&error);
            }
            Ok(_) => self.session.measured(now.since(sent)),
        }
    }
}
