//! Publishing versions (P2, P9).

use std::time::Duration;

use super::{
    consistency::Consistency,
    election::Election,
    facts::Facts,
    formation,
    in_flight::InFlight,
    log::{Log, Resync},
    outbox::Outbox,
    output::Purpose,
    timers::Timers,
    token::Token,
    versions::{self, VersionInputs},
};
use crate::{
    config::{CALM, JOINS_WAIT},
    fold::Changed,
    store::{Guard, Revision, StoreError, Txn},
    time::Timestamp,
    version::{Term, Version},
};

/// Time for which the removals of crashed nodes are collected before they are published.
const CRASHES_GATHER: Duration = Duration::from_millis(20);

/// Publishes a new version on the leader, whenever the log differs from the newest version: other nodes are present,
/// the version's view is not known, or another version was requested after it.
///
/// A lone change is published at once, and a crash after a short delay, since more crashes may follow. During a
/// series of changes, the gap between publications doubles, so that a thousand joins cost a handful of versions.
/// While slots are being handed over, joins wait for the hand-over to finish, for a limited time: otherwise nodes
/// that keep joining would keep slots unheld forever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Publication {
    publish: InFlight,
    /// Time at which the first unpublished change was seen.
    dirty_since: Option<Timestamp>,
    /// Number of publications so far in the current series of changes.
    row: u32,
    /// True if slots are being handed over and only joins wait for publication.
    waits_for_handover: bool,
}

/// The urgency of a new version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    None,
    /// Publish when the hand-over has ended, or at a time limit.
    AfterHandover,
    /// Publish together with other changes.
    Soon,
    Now,
}

impl Publication {
    pub(crate) fn fails_to_publish(&self, facts: &Facts) -> bool {
        self.publish.is_failing(facts)
    }

    pub(crate) fn timers(&self, facts: &Facts, timers: &mut Timers) {
        timers.maybe(self.publish.due(facts));
        timers.maybe(self.dirty_since.map(|since| since + self.gap(facts)));
        timers.maybe(self.dirty_since.filter(|_| self.waits_for_handover).map(|since| since + JOINS_WAIT));
    }

    /// Returns the time for which changes are collected before they are published.
    fn gap(&self, facts: &Facts) -> Duration {
        let gap = match self.row {
            0 => Duration::ZERO,
            row => facts.config.publish_gap.after(row),
        };
        // A crash is often one of several: those of the nodes on one machine, or of the leader and others. The second
        // gap is short too, since the leader may have been the first. Later ones are not, so that a node that keeps
        // crashing does not cause a version each time.
        match self.row {
            0 | 1 if facts.fold.has_crashed() => CRASHES_GATHER.min(facts.config.publish_gap.first),
            _ => gap,
        }
    }

    /// Handles a snapshot of the log.
    pub(crate) fn on_resync(&mut self, resync: &Resync) {
        if resync.rewound {
            self.publish.reset();
        }
    }

    /// Handles a change of the log.
    pub(crate) fn on_change(&mut self, facts: &Facts, log: &Log, change: &Changed) {
        if !matches!(change, Changed::Version) {
            return;
        }
        // The leader determined the length of the series when the change came. Other nodes determine it from the log,
        // in case they lead next: a deployment that also restarts the leaders is still one series.
        if self.dirty_since.is_none() {
            let row = self.row.saturating_add(1);
            let latest = CALM.saturating_add(facts.config.publish_gap.after(row));
            let in_row = log.version_interval().is_some_and(|interval| interval < latest);
            self.row = if in_row { row } else { 0 };
        }
        self.dirty_since = None;
    }

    /// Publishes a version if that is due and this node may act as leader. Returns the version, if it does.
    #[must_use]
    pub(crate) fn reconcile(
        &mut self,
        facts: &Facts,
        inputs: &VersionInputs<'_>,
        election: &Election,
        consistency: &Consistency,
        out: &mut Outbox,
    ) -> Option<Version> {
        let need = need(facts, inputs, consistency);
        let Some(term) = election.active_term(facts.now).filter(|_| need != Need::None) else {
            self.dirty_since = None;
            return None;
        };
        let since = self.dirty_since.unwrap_or_else(|| {
            let is_calm = |last| facts.now.since(last) >= CALM;
            self.row =
                if inputs.log.version_at().is_none_or(is_calm) { 0 } else { self.row.saturating_add(1) };
            facts.now
        });
        self.dirty_since = Some(since);
        self.waits_for_handover = need == Need::AfterHandover;
        let pause = if self.waits_for_handover { JOINS_WAIT } else { self.gap(facts) };
        let is_due = need == Need::Now || facts.now >= since + pause;
        if !is_due || !self.publish.is_free(facts) {
            return None;
        }
        let (version, txn) = new_version(facts, inputs, consistency, term, out);
        self.publish.sent(facts, out.commit(Purpose::Publish, txn, facts.now));
        Some(version)
    }

    /// Handles the reply to a commit. Returns false if it is no longer awaited.
    #[must_use]
    pub(crate) fn on_committed(
        &mut self,
        facts: &Facts,
        token: Token,
        result: &Result<Revision, StoreError>,
    ) -> bool {
        self.publish.take(facts, token, result)
    }
}

fn need(facts: &Facts, inputs: &VersionInputs<'_>, consistency: &Consistency) -> Need {
    let VersionInputs { log, version_requests, assigning, .. } = inputs;
    let fold = &facts.fold;
    if fold.newest().is_none() || log.is_outdone(facts) || version_requests.is_open(facts) {
        Need::Now
    } else if fold.request().is_some_and(|request| request.modified > fold.version_modified())
        || consistency.unacknowledged().is_some()
        || assigning.is_outdated()
        || formation::is_outdated(facts)
    {
        Need::Soon
    } else if !fold.has_drifted() {
        Need::None
    } else if consistency.hands_over(facts) && has_only_arrivals(facts) {
        Need::AfterHandover
    } else {
        Need::Soon
    }
}

/// True if nodes joined or came back since the newest version, and none departed or changed.
fn has_only_arrivals(facts: &Facts) -> bool {
    let Some(newest) = facts.fold.newest() else { return false };
    facts.fold.drift().all(|name| match (newest.get(name), facts.fold.node(name)) {
        (None, Some(_)) => true,
        (Some(cut), Some(now)) => cut.lease != now.lease,
        (_, None) => false,
    })
}

/// Builds the commit that publishes a version under that term.
fn new_version(
    facts: &Facts,
    inputs: &VersionInputs<'_>,
    consistency: &Consistency,
    term: Term,
    out: &mut Outbox,
) -> (Version, Txn) {
    let causes = versions::causes(facts, inputs, consistency.unacknowledged());
    let record = versions::next_version(facts, inputs, Some(term), causes, out);
    let keys = facts.keys();
    let txn = Txn::new()
        .guard(Guard::created_at(keys.election_key().clone(), term.revision()))
        .guard(Guard::modified_at(keys.version_key().clone(), facts.fold.version_modified()));
    (record.version, versions::put_version(txn, facts, record))
}
