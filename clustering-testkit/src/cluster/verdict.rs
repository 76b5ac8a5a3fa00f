use std::sync::{PoisonError, atomic::Ordering};

use super::{
    Failure, TestCluster,
    shared::{Seat, Stage},
};
use crate::{
    history::{Entry, Ledger, Moment, Observation, Page, ledger::Content, timeline},
    promises::{Calm, check},
};

/// Maximum number of timeline lines in a failure.
const LINES: usize = 80;

impl<S: Send + Sync + 'static> TestCluster<S> {
    /// Checks everything that has happened so far. Violations that the services [reported](super::Process::violates)
    /// come first, then the promises P1 to P7, P11 and P12 of the cluster, the part of P8 that concerns reports of
    /// blocking nodes, and work [without a valid hold](super::Process::working_on). Returns the store's history.
    ///
    /// # Errors
    ///
    /// Returns the first broken promise, with its timeline.
    pub async fn check(&self) -> Result<Ledger, Failure> {
        self.judge(None).await
    }

    /// [Heals](Self::heal) all faults, waits until the cluster is [stable](Self::wait_stable) and, if it is exclusive,
    /// every slot is held by the node that owns it, and checks everything that [`check`](Self::check) checks, and also
    /// that the cluster has come to rest properly (P7, P8). Returns the store's history.
    ///
    /// # Errors
    ///
    /// Returns the first broken promise, with its timeline, or an error if the cluster does not come to rest.
    pub async fn settle(&self) -> Result<Ledger, Failure> {
        self.heal();
        let stable = self.wait_stable_and_held().await;
        // A promise broken on the way is more informative than the timeout.
        self.judge(None).await?;
        stable?;
        let nodes: Vec<_> = {
            let seats = self.shared.seats();
            let gates = seats.all.iter().filter(|seat| seat.runs()).map(Seat::gate);
            gates.filter_map(|gate| gate.node_name()).collect()
        };
        self.judge(Some(Calm::of(nodes.iter().map(|name| name.as_str())))).await
    }

    /// Returns the timeline of everything that happened: one line per entry of the store's history and of each node's
    /// journal, in order of time.
    pub fn timeline(&self) -> Vec<String> {
        timeline(&self.shared.namespace, &self.shared.follower.pages(), &self.entries())
    }

    /// Reports from outside the processes that the service broke a promise of its own, like
    /// [`Process::violates`](super::Process::violates).
    pub fn violates(&self, what: impl Into<String>) {
        self.shared.verdicts.violated(what.into());
    }

    /// Creates a failure for the test itself, with the state of the nodes and the end of the timeline.
    pub fn failure(&self, what: impl Into<String>) -> Failure {
        self.told(Failure::new(what))
    }

    async fn judge(&self, calm: Option<Calm>) -> Result<Ledger, Failure> {
        if let Some(failure) = self.shared.standstill.found() {
            return Err(failure);
        }
        // This cannot fail: the memory store always answers.
        self.shared.follower.settle().await.map_err(|error| Failure::new(error.to_string()))?;
        self.not_violated()?;
        let journals = self.entries();
        let ledger = check(&self.shared.namespace, &self.shared.follower.pages(), &journals, calm.as_ref())
            .map_err(|violation| self.told(violation.into()))?;
        // Report two processes that work on one key before a process that works without a hold: the overlap is the
        // clearer evidence.
        self.not_without_hold()?;
        self.shared.was_checked.store(true, Ordering::Relaxed);
        Ok(ledger)
    }

    /// Fails if a process has worked on a key without a valid hold.
    pub(super) fn not_without_hold(&self) -> Result<(), Failure> {
        let Some((at, what)) = self.shared.verdicts.first_without_hold() else { return Ok(()) };
        let what = format!(
            "P12 (one holder) is broken\n  expected: a process works on a key only while it holds the key\n  \
             found:    at {at} s, {what}"
        );
        Err(Failure { timeline: self.last_lines(Some(at)), ..self.told(Failure::new(what)) })
    }

    /// Fails if the service has reported a violation, unless a process has worked on a key without a valid hold before:
    /// then the violation may be its consequence.
    pub(super) fn not_violated(&self) -> Result<(), Failure> {
        let verdicts = &self.shared.verdicts;
        let Some((at, violation)) = verdicts.first_violation() else { return Ok(()) };
        if verdicts.first_without_hold().is_some_and(|(earlier, _)| earlier <= at) {
            return Ok(());
        }
        let what = format!("the service reported at {at} s that it broke its own promise: {violation}");
        Err(Failure { timeline: self.last_lines(Some(at)), ..self.told(Failure::new(what)) })
    }

    fn entries(&self) -> Vec<Vec<Entry>> {
        let gates: Vec<_> = self.shared.seats().all.iter().map(|seat| seat.gate().clone()).collect();
        for gate in gates {
            gate.look_at_claims();
            if let Some(journal) = gate.journal() {
                journal.catch_up();
            }
        }
        let journals = self.shared.journals();
        journals.iter().map(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// Adds the state of the nodes to a failure and, if it has no timeline yet, the end of the timeline.
    pub(super) fn told(&self, mut failure: Failure) -> Failure {
        failure.nodes = self.shared.seats().all.iter().map(describe).collect();
        if failure.timeline.is_empty() {
            failure.timeline = self.last_lines(None);
        }
        failure
    }

    /// Returns the last lines of the timeline, up to `until` if given, without uninteresting entries.
    fn last_lines(&self, until: Option<Moment>) -> Vec<String> {
        use Observation::{AskedLeader, Holds, LeaderCommit, LetGo, Renewed};
        let late = |at: Moment| until.is_some_and(|until| at > until);
        let dull = |entry: &Entry| {
            matches!(
                entry.observation,
                Renewed { .. } | AskedLeader { .. } | LeaderCommit { .. } | Holds { .. } | LetGo { .. }
            )
        };
        let mut journals = self.entries();
        journals.iter_mut().for_each(|entries| entries.retain(|entry| !dull(entry) && !late(entry.at)));
        let mut pages = self.shared.follower.pages();
        pages.retain(|page| !is_write(page) && !page.at.is_some_and(late));
        let mut lines = timeline(&self.shared.namespace, &pages, &journals);
        lines.split_off(lines.len().saturating_sub(LINES))
    }
}

/// True if the page has no change of the cluster's own keys, but leader commits and changes of other keys.
fn is_write(page: &Page) -> bool {
    let Content::Batch(batch) = &page.content else { return false };
    !batch.changes.iter().any(|change| change.key().contains("/view/") || change.key().contains("/ready/"))
}

fn describe<S>(seat: &Seat<S>) -> String {
    let mut said = match &seat.stage {
        Stage::Starting => "is starting".to_owned(),
        Stage::Failed(why) => format!("did not start: {why}"),
        Stage::Down => "is down".to_owned(),
        Stage::Up(_) => "is running".to_owned(),
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
            said += ", leader";
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
        if status.holdings.is_some() {
            said += &format!(", holds the slots {}", node.held_slots());
        }
        if let Some(blocked) = &status.blocked {
            said += &format!("; {blocked}");
        }
    }
    format!("{} {said}", seat.name)
}
