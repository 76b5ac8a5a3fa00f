//! Faults in a node's internal state, imitated at the boundary of its machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clustering_core::{
    Event, NodeName, Outcome, Version, View,
    machine::{Input, Output, Purpose, Token},
    slots::SlotSet,
    store::{Change, Entry, Guard, Key, Revision, StoreError, Txn},
    time::Timestamp,
    version::IdGenerator,
};
use clustering_proofs::sim::{Seat, Tamper};
use serde_json::{Value, json};

use super::tampers::commits;

/// A life of a node, as the node's number and the number of its process.
type Life = (usize, u32);

fn life(seat: &Seat<'_>) -> Life {
    (seat.node, seat.life)
}

/// True if the node leads, according to its own machine.
fn leads(seat: &Seat<'_>) -> bool {
    seat.machine.status(seat.now).leadership.is_some_and(|leadership| seat.now < leadership.until)
}

/// Still shows the view that it acknowledged after its session has ended.
#[derive(Default)]
pub(crate) struct AcknowledgedSurvives(BTreeMap<Life, View>);

impl Tamper for AcknowledgedSurvives {
    fn acknowledged(&mut self, seat: &Seat<'_>, told: Option<View>) -> Option<View> {
        match told {
            Some(view) => self.0.insert(life(seat), view.clone()).map(|_| view.clone()).or(Some(view)),
            None => self.0.get(&life(seat)).cloned(),
        }
    }
}

/// Observations of `ready/` since the node began to follow it.
#[derive(Default)]
struct Seen {
    reads: BTreeSet<Token>,
    watches: BTreeSet<Token>,
    entries: BTreeMap<Key, Entry>,
}

impl Seen {
    fn output(&mut self, output: &Output) {
        match output {
            Output::Read { token, prefix, .. } if prefix.as_str() == "c/ready/" => {
                self.reads.insert(*token);
            }
            Output::Watch { token, prefix, .. } if prefix.as_str() == "c/ready/" => {
                self.watches.insert(*token);
            }
            Output::Unwatch { token } if self.watches.remove(token) => self.entries.clear(),
            _ => {}
        }
    }

    fn batch(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(entry) => drop(self.entries.insert(entry.key.clone(), entry.clone())),
                Change::Delete(key) => drop(self.entries.remove(key)),
            }
        }
    }
}

/// Keeps acknowledgements that a second read of `ready/` no longer shows.
#[derive(Default)]
pub(crate) struct KeepsLostAcknowledgements(BTreeMap<Life, Seen>);

impl Tamper for KeepsLostAcknowledgements {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        self.0.entry(life(seat)).or_default().output(&output);
        vec![output]
    }

    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        let seen = self.0.entry(life(seat)).or_default();
        match input {
            Input::Batch { token, batch } if seen.watches.contains(&token) => {
                seen.batch(&batch.changes);
                vec![Input::Batch { token, batch }]
            }
            Input::Read { token, result: Ok(mut snapshot) } if seen.reads.remove(&token) => {
                for entry in &snapshot.entries {
                    seen.entries.insert(entry.key.clone(), entry.clone());
                }
                snapshot.entries = seen.entries.values().cloned().collect();
                vec![Input::Read { token, result: Ok(snapshot) }]
            }
            other => vec![other],
        }
    }
}

/// Assigns keys by the weights of an older view, as long as the node names are the same.
#[derive(Default)]
pub(crate) struct OldWeights(BTreeMap<Life, View>);

impl Tamper for OldWeights {
    fn owner(&mut self, seat: &Seat<'_>, view: &View, key: &str) -> Option<NodeName> {
        let names = |view: &View| view.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        let kept = self.0.entry(life(seat)).or_insert_with(|| view.clone());
        if names(kept) != names(view) {
            *kept = view.clone();
        }
        kept.find(key).map(|node| node.name.clone())
    }
}

/// Assumes that a version was announced if its revision is not above that of the last announced version.
#[derive(Default)]
pub(crate) struct RemembersAnnouncements {
    announced: BTreeMap<Life, Revision>,
    swallowed: BTreeMap<Life, Token>,
}

impl Tamper for RemembersAnnouncements {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        let last = self.announced.entry(life(seat)).or_default();
        match &output {
            Output::Event(Event::Announcing { .. }) => {
                let newest = seat.machine.newest().map(View::revision);
                if newest.is_some_and(|newest| newest <= *last) { Vec::new() } else { vec![output] }
            }
            Output::Announce { token, view, .. } if view.revision() <= *last => {
                self.swallowed.insert(life(seat), *token);
                Vec::new()
            }
            Output::Announce { view, .. } => {
                *last = view.revision();
                vec![output]
            }
            _ => vec![output],
        }
    }

    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        let swallowed = self.swallowed.remove(&life(seat));
        let ended = swallowed.map(|token| Input::Announced { token, result: Ok(()) });
        ended.into_iter().chain([input]).collect()
    }
}

/// Time for which a leader relies on its old knowledge after its watch of `ready/` has ended.
const READS_FOR: Duration = Duration::from_millis(300);

/// Continues with the acknowledgements that it knows while it should read them again.
#[derive(Default)]
pub(crate) struct ConfirmsWhileReading {
    seen: BTreeMap<Life, Seen>,
    held: BTreeMap<Life, (Timestamp, Input)>,
}

impl Tamper for ConfirmsWhileReading {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        self.seen.entry(life(seat)).or_default().output(&output);
        vec![output]
    }

    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        let over = self.held.get(&life(seat)).is_some_and(|(since, _)| seat.now.since(*since) > READS_FOR);
        let mut inputs = Vec::new();
        if over && let Some((_, held)) = self.held.remove(&life(seat)) {
            inputs.push(held);
        }
        match &input {
            Input::WatchEnded { token, .. }
                if self.seen.entry(life(seat)).or_default().watches.contains(token) =>
            {
                self.held.insert(life(seat), (seat.now, input));
            }
            _ => inputs.push(input),
        }
        inputs
    }
}

/// Takes over the name of a leader without ending its leadership.
pub(crate) struct LeavesTheLead;

impl Tamper for LeavesTheLead {
    fn output(&mut self, _: &Seat<'_>, output: Output) -> Vec<Output> {
        let other = |key: &str| key != "c/view/leader";
        let kept = |txn: &Txn| {
            commits::keep(txn, |guard: &Guard| other(guard.key()), |operation| other(operation.key()))
        };
        commits::change(output, Purpose::TakeOver, kept)
    }
}

/// Generates labels from the wall clock alone.
pub(crate) struct LabelsByWallClock;

impl Tamper for LabelsByWallClock {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        let Output::Commit { purpose: purpose @ (Purpose::Elect | Purpose::Publish), .. } = output else {
            return vec![output];
        };
        let seed = u128::from(seat.now.as_nanos());
        let minted = IdGenerator::new(seat.wall_ms, seat.now, seed).version(seat.now, None);
        commits::change(output, purpose, |txn| {
            commits::rewrite(txn, |key, value| {
                let mut record: Value = serde_json::from_slice(value).ok()?;
                let is_version = key.as_str() == "c/view/version";
                record["version"] = json!(minted.to_string());
                is_version.then(|| record.to_string().into_bytes())
            })
        })
    }
}

/// Does not report a new leader while suspended.
#[derive(Default)]
pub(crate) struct DeafWhileSuspended(BTreeSet<Life>);

impl Tamper for DeafWhileSuspended {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        let Output::Event(event) = &output else { return vec![output] };
        match event {
            Event::LeadershipSuspended { .. } => drop(self.0.insert(life(seat))),
            Event::LeadershipResumed { .. } | Event::SessionLost { .. } => drop(self.0.remove(&life(seat))),
            Event::LeaderChanged { .. } if self.0.remove(&life(seat)) => return Vec::new(),
            _ => {}
        }
        vec![output]
    }
}

/// Names departed nodes as nodes whose acknowledgement was lost.
#[derive(Default)]
pub(crate) struct RemembersDepartedNodes {
    seen: BTreeMap<Life, Seen>,
    lost: BTreeMap<Life, (Revision, BTreeMap<NodeName, Timestamp>)>,
}

impl Tamper for RemembersDepartedNodes {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        self.seen.entry(life(seat)).or_default().output(&output);
        let Some(newest) = seat.machine.newest() else { return vec![output] };
        let lost = self.lost.entry(life(seat)).or_default();
        if lost.0 != newest.revision() {
            *lost = (newest.revision(), BTreeMap::new());
        }
        let overdue = lost.1.iter().find(|(name, since)| {
            seat.now.since(**since) >= Duration::from_secs(1)
                && newest.get(name).is_some()
                && seat.machine.node_named(name).is_none()
        });
        let Some((name, _)) = overdue else { return vec![output] };
        commits::change(output, Purpose::Publish, |txn| {
            commits::rewrite(txn, |key, value| {
                let mut record: Value = serde_json::from_slice(value).ok()?;
                let causes = record.get_mut("cause")?.as_array_mut()?;
                causes.push(json!({ "unacknowledged": name.as_str() }));
                (key.as_str() == "c/view/version").then(|| record.to_string().into_bytes())
            })
        })
    }

    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        let seen = self.seen.entry(life(seat)).or_default();
        if let Input::Batch { token, batch } = &input
            && seen.watches.contains(token)
        {
            for change in &*batch.changes {
                let Some(name) = change.key().strip_prefix("c/ready/") else { continue };
                let Ok(name) = NodeName::parse(name) else { continue };
                if let Change::Delete(_) = change {
                    let lost = self.lost.entry(life(seat)).or_default();
                    lost.1.entry(name).or_insert(seat.now);
                }
            }
        }
        vec![input]
    }
}

/// Never closes a watch that is dropped before it is open.
#[derive(Default)]
pub(crate) struct LeaksOpeningWatches(BTreeSet<(Life, Token)>);

impl Tamper for LeaksOpeningWatches {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        match &output {
            Output::Watch { token, .. } => drop(self.0.insert((life(seat), *token))),
            Output::Unwatch { token } if self.0.remove(&(life(seat), *token)) => return Vec::new(),
            _ => {}
        }
        vec![output]
    }

    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        if let Input::WatchOpened { token, .. } = &input {
            self.0.remove(&(life(seat), *token));
        }
        vec![input]
    }
}

/// Uses a clock that stops while the system is suspended.
pub(crate) struct StopsDuringSuspends;

impl Tamper for StopsDuringSuspends {
    fn counts_suspends(&self) -> bool {
        false
    }
}

/// Returns the version in a version record, stability record or acknowledgement.
fn version(value: &[u8]) -> Option<Version> {
    let record: Value = serde_json::from_slice(value).ok()?;
    record.get("version")?.as_str()?.parse().ok()
}

/// Records a version as stable once more than half of its nodes have acknowledged it.
pub(crate) struct HalfIsEnough;

impl Tamper for HalfIsEnough {
    fn commits(&mut self, seat: &Seat<'_>) -> Vec<(Purpose, Txn)> {
        let (keys, Some(newest)) = (seat.machine.keyspace(), seat.machine.newest()) else {
            return Vec::new();
        };
        if !leads(seat) || seat.machine.status(seat.now).consistent {
            return Vec::new();
        }
        let ready = seat.store.under("c/ready/");
        let ready = ready.iter().filter(|entry| version(&entry.value) == Some(newest.version())).count();
        let Some(leadership) = seat.machine.status(seat.now).leadership.filter(|_| ready * 2 > newest.len())
        else {
            return Vec::new();
        };
        let stable = seat.store.get(keys.stable_key());
        if stable.and_then(|entry| version(&entry.value)) == Some(newest.version()) {
            return Vec::new();
        }
        let term = leadership.term;
        let value = format!(r#"{{"version": "{}", "term": {term}}}"#, newest.version());
        let txn = Txn::new()
            .guard(Guard::created_at(keys.election_key().clone(), term.revision()))
            .guard(Guard::modified_at(keys.version_key().clone(), newest.revision()))
            .put(keys.stable_key().clone(), value, None);
        vec![(Purpose::Confirm, txn)]
    }
}

/// Treats the reply to an earlier renewal as the reply to the next one, so that the machine itself calculates a
/// deadline that is too late and acts on it.
#[derive(Default)]
pub(crate) struct CountsAnEarlierReply {
    kept: BTreeMap<Life, Duration>,
    unanswered: BTreeMap<Life, Token>,
}

impl Tamper for CountsAnEarlierReply {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        match output {
            Output::Renew { token, .. } if self.kept.contains_key(&life(seat)) => {
                self.unanswered.insert(life(seat), token);
                Vec::new()
            }
            other => vec![other],
        }
    }

    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        if let Some(token) = self.unanswered.remove(&life(seat)) {
            let left = self.kept.remove(&life(seat)).expect("a reply was kept");
            return vec![Input::Renewed { token, result: Ok(left) }, input];
        }
        match input {
            Input::Renewed { token, result: Ok(left) } => {
                self.kept.insert(life(seat), left);
                vec![Input::Renewed { token, result: Err(StoreError::busy("later")) }]
            }
            other => vec![other],
        }
    }
}

/// Treats a stabilize as ended once it was told that it is superseded.
#[derive(Default)]
pub(crate) struct DoesNotWait(BTreeMap<Life, Vec<Token>>);

impl Tamper for DoesNotWait {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        if let Output::Supersede { token } = output {
            self.0.entry(life(seat)).or_default().push(token);
        }
        vec![output]
    }

    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        let told = self.0.remove(&life(seat)).unwrap_or_default();
        let ended = |token| Input::Stabilized { token, outcome: Outcome::refused("superseded") };
        told.into_iter().map(ended).chain([input]).collect()
    }
}

/// Counts holds as dropped as soon as they are retracted.
pub(crate) struct ForgetsHolds;

impl Tamper for ForgetsHolds {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        match input {
            Input::Retracted { token, .. } => vec![Input::Retracted { token, in_use: SlotSet::default() }],
            other => vec![other],
        }
    }
}

/// Counts a refused release as done.
pub(crate) struct ReleasesOnce;

impl Tamper for ReleasesOnce {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        match input {
            Input::Released { token, .. } => vec![Input::Released { token, outcome: Outcome::Ready }],
            other => vec![other],
        }
    }
}
