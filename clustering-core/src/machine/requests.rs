//! Requests of the user that are commits: for a new version, and writes of the leader.

use super::{
    election::Election,
    facts::Facts,
    in_flight::InFlight,
    log::{Log, Resync},
    membership::Membership,
    outbox::Outbox,
    output::{Purpose, Reply, RequestError},
    timers::Timers,
    token::{RequestId, Token},
    version_requests::VersionRequests,
};
use crate::{
    event::StopReason,
    record::{RequestRecord, encode},
    store::{Guard, Revision, StoreError, Txn},
};

/// Puts the request key on behalf of the user or of this node, and commits the user's transactions as leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Requests {
    request: InFlight,
    /// True if this node needs a new version, since it missed a version whose view cannot be known.
    needs_version: bool,
    /// Commits of the user as leader that are in flight.
    leader_commits: Vec<(Token, RequestId)>,
}

impl Requests {
    pub(crate) fn fails_to_request(&self, facts: &Facts) -> bool {
        self.request.is_failing(facts)
    }

    pub(crate) fn timers(&self, facts: &Facts, timers: &mut Timers) {
        timers.maybe(self.request.due(facts));
    }

    /// Handles a snapshot of the log. Nodes that missed a version cannot know its view. A new version has a view that
    /// all nodes know.
    pub(crate) fn on_resync(&mut self, facts: &Facts, resync: &Resync) {
        if !resync.first {
            self.needs_version = facts.fold.version().is_some() && facts.fold.newest().is_none();
        }
        if resync.rewound {
            self.request.reset();
        }
    }

    /// Answers granted requests for a version, and puts the request key if a version is needed and not requested yet.
    pub(crate) fn reconcile(
        &mut self,
        facts: &Facts,
        log: &Log,
        version_requests: &mut VersionRequests,
        membership: &Membership,
        election: &Election,
        out: &mut Outbox,
    ) {
        if facts.fold.newest().is_some() {
            self.needs_version = false;
        }
        version_requests.grant(facts, out);
        let is_needed = version_requests.is_open(facts) || self.needs_version && membership.is_member();
        // The leader needs no request: it publishes. A candidate's election publishes too.
        let may_ask = election.leading().is_none() && log.is_synced() && !facts.is_ending();
        if is_needed && may_ask && !is_requested(facts) && self.request.is_free(facts) {
            let txn = request(facts, version_requests);
            self.request.sent(facts, out.commit(Purpose::RequestVersion, txn, facts.now));
        }
    }

    /// Handles the reply to a commit of the request key. Returns false if it is no longer awaited.
    #[must_use]
    pub(crate) fn on_committed(
        &mut self,
        facts: &Facts,
        token: Token,
        result: &Result<Revision, StoreError>,
    ) -> bool {
        self.request.take(facts, token, result)
    }

    /// Commits the user's transaction, guarded by this node's term.
    pub(crate) fn commit_as_leader(
        &mut self,
        facts: &Facts,
        election: &Election,
        id: RequestId,
        txn: Txn,
        out: &mut Outbox,
    ) {
        let keys = facts.keys();
        let mut written = txn.operations().iter().map(|operation| operation.key());
        let refusal = match (written.find(|key| keys.is_reserved(key)), election.active_term(facts.now)) {
            (Some(key), _) => RequestError::Reserved { key: key.clone() },
            (None, None) => RequestError::NotLeader,
            (None, Some(term)) => {
                let guard = Guard::created_at(keys.election_key().clone(), term.revision());
                let token = out.commit(Purpose::LeaderCommit, txn.guard(guard), facts.now);
                return self.leader_commits.push((token, id));
            }
        };
        out.reply(id, Reply::Committed(Err(refusal)));
    }

    /// Handles the reply to a commit of the user. Only the user knows what the result means, and whether to repeat the
    /// commit.
    pub(crate) fn on_leader_committed(
        &mut self,
        token: Token,
        result: Result<Revision, StoreError>,
        out: &mut Outbox,
    ) {
        let place = self.leader_commits.iter().position(|(own, _)| *own == token);
        let Some(place) = place else { return };
        let (_, id) = self.leader_commits.remove(place);
        out.reply(id, Reply::Committed(result.map_err(RequestError::Store)));
    }

    /// Refuses all requests, since the node ends.
    pub(crate) fn refuse_all(&mut self, reason: &StopReason, out: &mut Outbox) {
        for (_, id) in std::mem::take(&mut self.leader_commits) {
            out.reply(id, Reply::Committed(Err(RequestError::Stopped(reason.clone()))));
        }
    }
}

/// True if the request key is newer than the newest version.
fn is_requested(facts: &Facts) -> bool {
    let fold = &facts.fold;
    fold.request().is_some_and(|request| request.modified > fold.version_modified())
}

/// Builds the commit that requests a version. Its guard makes concurrent requests of many nodes result in one version:
/// a request that comes after the version was published is granted by it.
fn request(facts: &Facts, version_requests: &VersionRequests) -> Txn {
    let why = match version_requests.is_open(facts) {
        true => version_requests.reason(facts),
        false => Some("the view of the newest version is not known here".to_owned()),
    };
    let record = RequestRecord { by: Some(facts.author()), why, leader: None };
    let keys = facts.keys();
    Txn::new().guard(Guard::modified_at(keys.version_key().clone(), facts.fold.version_modified())).put(
        keys.request_key().clone(),
        encode(&record),
        None,
    )
}
