use std::time::Duration;

use super::{InFlight, Machine, Purpose, Timers, history};
use crate::{
    config::{CALM, Config},
    name::NodeName,
    record::{Cause, shorten},
    store::{Guard, Revision, Txn},
    time::Timestamp,
};

/// The most causes that are looked for: a few more than a record names.
const CAUSES: usize = 64;

/// When the leader publishes a new version.
///
/// It does whenever what stands is not what the newest version says: nodes differ, its view is not known, or somebody
/// asked after it was published. A lone change is published at once; when changes come in rows the gap doubles, so that
/// a thousand joins cost a handful of versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Publication {
    pub(crate) publish: InFlight,
    /// Since when there is something to publish.
    dirty_since: Option<Timestamp>,
    /// How many publications came in a row before this one.
    row: u32,
    /// When the newest version was seen.
    last: Option<Timestamp>,
}

impl Publication {
    /// When the newest version was seen.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        self.last
    }

    /// The log has a new version.
    pub(crate) fn published(&mut self, now: Timestamp, config: &Config) {
        // A leader judged that when the change came. The others judge by the log, for the case that they lead next: a
        // deployment that restarts the leaders, too, is still one row.
        if self.dirty_since.is_none() {
            let row = self.row.saturating_add(1);
            let latest = CALM.saturating_add(config.publish_gap.after(row));
            let in_row = self.last.is_some_and(|last| now.since(last) < latest);
            self.row = if in_row { row } else { 0 };
        }
        self.last = Some(now);
        self.dirty_since = None;
    }
}

/// How much a new version is wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// Not at all.
    None,
    /// Together with other changes.
    Soon,
    /// At once.
    Now,
}

impl Machine {
    pub(super) fn publication_timers(&self, timers: &mut Timers) {
        timers.maybe(self.publication.publish.due(self.fold.revision()));
        timers.maybe(self.publication.dirty_since.map(|since| since + self.gap()));
    }

    fn gap(&self) -> Duration {
        match self.publication.row {
            0 => Duration::ZERO,
            row => self.config.publish_gap.after(row),
        }
    }

    fn need(&self) -> Need {
        let seen = self.fold.version_modified();
        if self.fold.newest().is_none() || self.is_outdone() || self.requests.asked_since(seen) {
            Need::Now
        } else if self.fold.has_drifted()
            || self.fold.request().is_some_and(|request| request.modified > seen)
            || self.consistency.lacks_acknowledgement().is_some()
        {
            Need::Soon
        } else {
            Need::None
        }
    }

    /// True if a node has seen a newer version label than the newest version has. This happens after a restore of the
    /// store, if a node that had seen the newer label joins between the leader's last read and its commit.
    fn is_outdone(&self) -> bool {
        self.fold.newest().is_some_and(|newest| Some(newest.version()) < self.newest_seen)
    }

    pub(super) fn reconcile_publication(&mut self, now: Timestamp) {
        let Some(term) = self.active_term(now) else {
            self.publication.dirty_since = None;
            return;
        };
        let need = self.need();
        if need == Need::None {
            self.publication.dirty_since = None;
            return;
        }
        if self.publication.dirty_since.is_none() {
            self.publication.dirty_since = Some(now);
            let calm = self.publication.last.is_none_or(|last| now.since(last) >= CALM);
            self.publication.row = if calm { 0 } else { self.publication.row.saturating_add(1) };
        }
        let since = self.publication.dirty_since.unwrap_or(now);
        let folded = self.fold.revision();
        let due = need == Need::Now || now >= since + self.gap();
        if !due || !self.publication.publish.is_free(now, folded) {
            return;
        }
        let record = self.next_version(now, Some(term), self.causes());
        let keys = self.fold.keyspace();
        let txn = Txn::new()
            .guard(Guard::created_at(keys.election_key().clone(), term.revision()))
            .guard(Guard::modified_at(keys.version_key().clone(), self.fold.version_modified()));
        let txn = history::put_version(txn, keys, record);
        let token = self.commit(Purpose::Publish, txn);
        self.publication.publish.sent(token, now, folded);
    }

    /// What is different from the newest version, as causes of the next.
    pub(super) fn causes(&self) -> Vec<Cause> {
        let seen = self.fold.version_modified();
        let mut causes = Vec::new();
        match self.fold.newest() {
            None if seen > Revision::ZERO => causes.push(Cause::Resync),
            None => {
                causes.extend(self.fold.present().take(CAUSES).map(|node| Cause::Joined(node.name.clone())));
            }
            Some(newest) => {
                let cause = |name: &NodeName| match (newest.get(name), self.fold.node(name)) {
                    (None, _) => Cause::Joined(name.clone()),
                    (Some(_), None) => self.fold.departure(name).cause(name.clone()),
                    (Some(cut), Some(now)) if cut.lease != now.lease => Cause::Returned(name.clone()),
                    (Some(_), Some(_)) => Cause::Changed(name.clone()),
                };
                causes.extend(self.fold.drift().take(CAUSES).map(cause));
            }
        }
        if let Some(request) = self.fold.request()
            && request.modified > seen
        {
            let (by, why) = request
                .record
                .as_ref()
                .map_or((None, None), |record| (record.by.clone(), record.why.clone()));
            let by = shorten(by.unwrap_or_default());
            causes.push(Cause::Asked { by, why: why.map(shorten) });
        }
        causes.extend(self.requests.own_cause(seen, self.identity.as_ref()));
        causes.extend(self.consistency.lacks_acknowledgement().cloned().map(Cause::Unacknowledged));
        causes.extend(self.is_outdone().then_some(Cause::Restored));
        causes
    }
}
