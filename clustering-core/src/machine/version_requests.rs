//! Requests of this process for a new version.

use std::collections::BTreeSet;

use super::{
    facts::Facts,
    outbox::Outbox,
    output::{Reply, RequestError},
    token::RequestId,
};
use crate::{
    event::StopReason,
    record::{Cause, shorten},
    store::Revision,
};

/// Requests for a new version that are not granted yet.
///
/// The leader publishes a version for them, and other nodes put the request key. Either way a request is granted once
/// the log has a newer version than the request had seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct VersionRequests(Vec<VersionRequest>);

/// A request for a version newer than the one seen when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct VersionRequest {
    /// The request to answer; `None` if its caller is no longer waiting.
    id: Option<RequestId>,
    /// Revision of the version that was the newest when the request was made.
    seen: Revision,
    why: Option<String>,
}

impl VersionRequests {
    /// Adds a request.
    pub(crate) fn add(&mut self, facts: &Facts, id: RequestId, why: Option<String>) {
        self.0.push(VersionRequest {
            id: Some(id),
            seen: facts.fold.version_modified(),
            why: why.map(shorten),
        });
    }

    /// True if a version newer than the current one is requested.
    pub(crate) fn is_open(&self, facts: &Facts) -> bool {
        self.first_open(facts).is_some()
    }

    /// Returns the reason of the first request for a version newer than the current one.
    pub(crate) fn reason(&self, facts: &Facts) -> Option<String> {
        self.first_open(facts)?.why.clone()
    }

    /// Returns the request as a cause of the next version.
    pub(crate) fn cause(&self, facts: &Facts) -> Option<Cause> {
        let request = self.first_open(facts)?;
        Some(Cause::Asked { by: facts.author(), why: request.why.clone() })
    }

    fn first_open(&self, facts: &Facts) -> Option<&VersionRequest> {
        let seen = facts.fold.version_modified();
        self.0.iter().find(|request| request.seen >= seen)
    }

    /// The log was read for the first time, or was replaced. Requests are for a newer version than is stored now.
    pub(crate) fn restart(&mut self, facts: &Facts) {
        for request in &mut self.0 {
            request.seen = facts.fold.version_modified();
        }
    }

    /// Answers requests for which a newer version was published, whether or not its view is known.
    pub(crate) fn grant(&mut self, facts: &Facts, out: &mut Outbox) {
        let Some(newest) = facts.fold.version() else { return };
        let Some(version) = newest.record.as_ref().map(|record| record.version) else { return };
        self.0.retain(|request| {
            let is_open = request.seen >= newest.modified;
            if let Some(id) = request.id.filter(|_| !is_open) {
                out.reply(id, Reply::Version(Ok(version)));
            }
            is_open
        });
    }

    /// Drops requests whose callers are no longer waiting. They are merged into a single one, so that dropped requests
    /// do not accumulate.
    pub(crate) fn abandon(&mut self, ids: &BTreeSet<RequestId>) {
        let mut left: Option<VersionRequest> = None;
        for mut request in std::mem::take(&mut self.0) {
            if request.id.is_some_and(|id| !ids.contains(&id)) {
                self.0.push(request);
                continue;
            }
            request.id = None;
            match &mut left {
                Some(left) => left.seen = left.seen.max(request.seen),
                None => left = Some(request),
            }
        }
        self.0.extend(left);
    }

    /// Refuses all requests, since the node ends.
    pub(crate) fn refuse_all(&mut self, reason: &StopReason, out: &mut Outbox) {
        for id in std::mem::take(&mut self.0).into_iter().filter_map(|request| request.id) {
            out.reply(id, Reply::Version(Err(RequestError::Stopped(reason.clone()))));
        }
    }
}
