use std::sync::PoisonError;

use super::{
    Failure, TestCluster,
    shared::{Seat, Stage},
};
use crate::{
    history::{Entry, Ledger, Moment, Observation, Page, ledger::Content, timeline},
    promises::{Calm, check},
};

/// How many lines of the timeline are shown.
const LINES: usize = 80;

impl<S: Send + Sync + 'static> TestCluster<S> {
    /// Judges all that has happened so far: what the services [said against themselves](super::Process::violates), then
    /// the promises P1 to P7 of the cluster, and what P8 says of nodes that block. Returns the store's history.
    ///
    /// # Errors
    ///
    /// The first promise that was broken, with its story.
    pub async fn check(&self) -> Result<Ledger, Failure> {
        self.judge(None).await
    }

    /// [Heals](Self::heal) all, waits until the cluster is [stable](Self::wait_stable), and judges everything: as
    /// [`check`](Self::check), and that all came to rest as it should (P7, P8).
    ///
    /// # Errors
    ///
    /// The first promise that was broken, with its story; or that the cluster does not become stable.
    pub async fn settle(&self) -> Result<Ledger, Failure> {
        self.heal();
        let stable = self.wait_stable().await;
        // What was broken on the way says more than that it did not come to rest.
        self.judge(None).await?;
        stable?;
        let nodes: Vec<_> = {
            let seats = self.shared.seats();
            let gates = seats.all.iter().filter(|seat| seat.runs()).map(Seat::gate);
            gates.filter_map(|gate| gate.node_name()).collect()
        };
        self.judge(Some(Calm::of(nodes.iter().map(|name| name.as_str())))).await
    }

    /// All that happened, as lines in the order of the times: what the store's history says, and what each node saw and
    /// did.
    pub fn timeline(&self) -> Vec<String> {
        timeline(&self.shared.namespace, &self.shared.follower.pages(), &self.entries())
    }

    /// Says that the service broke a promise of its own, as [`Process::violates`](super::Process::violates), from the
    /// outside.
    pub fn violates(&self, what: impl Into<String>) {
        self.shared.verdicts.violated(what.into());
    }

    /// A failure of the test's own, told with how the nodes stand and what happened last.
    pub fn failure(&self, what: impl Into<String>) -> Failure {
        self.told(Failure::new(what))
    }

    async fn judge(&self, calm: Option<Calm>) -> Result<Ledger, Failure> {
        // The memory store always answers.
        self.shared.follower.settle().await.map_err(|error| Failure::new(error.to_string()))?;
        self.not_violated()?;
        let journals = self.entries();
        check(&self.shared.namespace, &self.shared.follower.pages(), &journals, calm.as_ref())
            .map_err(|violation| self.told(violation.into()))
    }

    /// Whether the service has said nothing against itself.
    pub(super) fn not_violated(&self) -> Result<(), Failure> {
        let Some((at, violation)) = self.shared.verdicts.first() else { return Ok(()) };
        let what = format!("the service says that it broke a promise of its own, at {at} s: {violation}");
        Err(Failure { timeline: self.last_lines(Some(at)), ..self.told(Failure::new(what)) })
    }

    fn entries(&self) -> Vec<Vec<Entry>> {
        for journal in self.shared.seats().all.iter().filter_map(|seat| seat.gate().journal()) {
            journal.catch_up();
        }
        let journals = self.shared.journals();
        journals.iter().map(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// The failure with how the nodes stand and, if it has no story of its own, the last that happened.
    pub(super) fn told(&self, mut failure: Failure) -> Failure {
        failure.nodes = self.shared.seats().all.iter().map(describe).collect();
        if failure.timeline.is_empty() {
            failure.timeline = self.last_lines(None);
        }
        failure
    }

    /// What happened last, or until then, without what is dull.
    fn last_lines(&self, until: Option<Moment>) -> Vec<String> {
        use Observation::{AskedLeader, FencedWrite, Renewed};
        let late = |at: Moment| until.is_some_and(|until| at > until);
        let dull = |entry: &Entry| {
            matches!(entry.observation, Renewed { .. } | AskedLeader { .. } | FencedWrite { .. })
        };
        let mut journals = self.entries();
        journals.iter_mut().for_each(|entries| entries.retain(|entry| !dull(entry) && !late(entry.at)));
        let mut pages = self.shared.follower.pages();
        pages.retain(|page| !is_write(page) && !page.at.is_some_and(late));
        let mut lines = timeline(&self.shared.namespace, &pages, &journals);
        lines.split_off(lines.len().saturating_sub(LINES))
    }
}

/// Whether only fenced writes are in it, or what is no key of the cluster.
fn is_write(page: &Page) -> bool {
    let Content::Batch(batch) = &page.content else { return false };
    !batch.changes.iter().any(|change| change.key().contains("/view/") || change.key().contains("/ready/"))
}

fn describe<S>(seat: &Seat<S>) -> String {
    let mut said = match &seat.stage {
        Stage::Starting => "is starting".to_owned(),
        Stage::Failed(why) => format!("did not start: {why}"),
        Stage::Down => "does not run".to_owned(),
        Stage::Up(_) => "runs".to_owned(),
    };
    if seat.runs() && seat.gate().is_paused() {
        said += ", paused";
    }
    if !seat.line.is_connected() {
        said += ", cut off";
    }
    if let Some(node) = seat.node() {
        let status = node.status().get();
        said += &format!(", {:?}", status.phase);
        if node.is_leader() {
            said += ", leads";
        }
        match (&status.newest, status.cluster_version()) {
            (None, _) => said += ", knows no version",
            (Some(newest), ready) => {
                said += &format!(", newest {} of {} nodes", newest.version(), newest.len());
                match ready {
                    Some(ready) if ready == newest.version() => said += ", ready at it",
                    Some(ready) => said += &format!(", ready at {ready}"),
                    None => said += ", ready at none",
                }
                said += if status.consistent { ", stable" } else { ", not stable" };
            }
        }
        if let Some(blocked) = &status.blocked {
            said += &format!("; {blocked}");
        }
    }
    format!("{} {said}", seat.name)
}
