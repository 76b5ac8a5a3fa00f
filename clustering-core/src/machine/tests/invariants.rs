use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{bench::Bench, render::value};
use crate::{
    event::Event,
    machine::{Input, Intent, Machine, Output, Phase, Purpose, Token},
    node::{Endpoint, ProcessId},
    record::{VersionRecord, decode},
    store::{
        Batch, Change, Entry, Guard, Key, Lease, LeaseId, Operation, Revision, Snapshot, StoreError, Txn,
        WatchEnd,
    },
    version::Version,
};

/// State of the checks that run after every input of every test.
#[derive(Clone, Default)]
pub(super) struct Invariants {
    log_reads: BTreeSet<Token>,
    /// Revision of the node's own acknowledgement, as far as the node knows it.
    own_ready: Revision,
    /// The value of `own_ready` before the last read. The machine ignores a read about a superseded version.
    own_ready_before_read: Revision,
    own_record: Revision,
    /// The acknowledgement in flight.
    acknowledging: Option<Token>,
    /// The read of the node's own acknowledgement in flight.
    reading_own: Option<Token>,
    in_flight: BTreeMap<Purpose, Token>,
    checking: Option<Token>,
    stabilizing: Option<Token>,
    announcing: Option<Token>,
    announced: BTreeSet<(Version, Revision)>,
    newest: Revision,
    stopped: bool,
    /// The processes that the node watches.
    watched: Vec<Endpoint>,
    /// The processes that were reported as gone.
    reported: BTreeSet<ProcessId>,
    /// True after the node learned that it was removed although its process is alive.
    hides_endpoint: bool,
    /// Tokens that have been answered. Further inputs with these tokens must have no effect.
    stale: Vec<Token>,
}

impl Invariants {
    /// True if the token belongs to a read of the log rather than of acknowledgements.
    pub(super) fn reads_log(&self, token: Token) -> bool {
        self.log_reads.contains(&token)
    }

    pub(super) fn check(bench: &mut Bench, before: &Machine, input: &Input, outputs: &[Output]) {
        let mut this = std::mem::take(bench.invariants());
        this.note_input(bench, input);
        for output in outputs {
            assert!(
                !this.stopped || matches!(output, Output::Reply { .. }),
                "an output after the machine has stopped: {output:?}"
            );
            this.note_output(bench, before, output);
        }
        let watches = bench.machine.membership.is_member() && !bench.machine.facts.is_ending();
        assert!(watches || this.watched.is_empty(), "a node that is no member watches {:?}", this.watched);
        this.check_time(bench);
        this.check_stale_tokens(bench);
        check_status(bench);
        *bench.invariants() = this;
    }

    fn note_input(&mut self, bench: &Bench, input: &Input) {
        match input {
            Input::Committed { token, result } => {
                if self.acknowledging.take_if(|own| own == token).is_some()
                    && let Ok(revision) = result
                {
                    self.own_ready = *revision;
                    self.own_ready_before_read = *revision;
                }
                self.in_flight.retain(|_, own| own != token);
                self.stale.push(*token);
            }
            Input::Read { token, result } => {
                let own = bench.machine.identity().map(|own| bench.keys.readiness_key(&own.name));
                if self.reading_own.take_if(|own| own == token).is_some()
                    && let Ok(snapshot) = result
                {
                    self.own_ready_before_read = self.own_ready;
                    let entry = snapshot.entries.iter().find(|entry| Some(&entry.key) == own.as_ref());
                    self.own_ready = entry.map_or(Revision::ZERO, |entry| entry.modified);
                }
                self.stale.push(*token);
            }
            Input::Granted { token, .. } | Input::Renewed { token, .. } | Input::Revoked { token, .. } => {
                self.stale.push(*token);
            }
            Input::HealthReported { token, .. } => {
                self.checking = None;
                self.stale.push(*token);
            }
            Input::WatchEnded { token, .. } => self.stale.push(*token),
            Input::Stabilized { token, .. } => {
                self.stabilizing = None;
                self.stale.push(*token);
            }
            Input::Announced { token, .. } => {
                self.announcing = None;
                self.stale.push(*token);
            }
            Input::ProcessGone { process, .. } => {
                self.reported.insert(*process);
            }
            _ => {}
        }
        let own = bench.machine.identity().map(|own| bench.keys.node_key(&own.name));
        let record = own.and_then(|own| bench.seen.get(&own)).map_or(Revision::ZERO, |own| own.modified);
        if std::mem::replace(&mut self.own_record, record) != record {
            (self.own_ready, self.own_ready_before_read) = (Revision::ZERO, Revision::ZERO);
        }
    }

    fn note_output(&mut self, bench: &Bench, before: &Machine, output: &Output) {
        match output {
            Output::Commit { token, txn, purpose, .. } => {
                let ending = matches!(before.facts.intent, Intent::Stop { .. } | Intent::Stopped { .. });
                // A node commits its departure once it knows whether it has let go of its slots.
                assert!(!ending || *purpose == Purpose::Leave, "a commit while stopping: {purpose}");
                txn.validate().expect("commits of the machine respect the limits");
                if *purpose == Purpose::Leave {
                    self.forget_session();
                }
                let other = self.in_flight.insert(*purpose, *token);
                assert!(
                    other.is_none()
                        || matches!(
                            purpose,
                            Purpose::LeaderCommit | Purpose::OwnerCommit | Purpose::RemoveCrashed
                        ),
                    "two commits at once: {purpose}"
                );
                if *purpose == Purpose::Acknowledge {
                    assert!(self.acknowledging.replace(*token).is_none(), "two acknowledgements at once");
                    // The reply to a read for an older version is ignored.
                    self.reading_own = None;
                }
                check_commit(bench, before, *purpose, txn, [self.own_ready, self.own_ready_before_read]);
                self.check_endpoints(bench, *purpose, txn);
            }
            Output::Read { token, prefix, .. } if prefix == bench.keys.view_prefix() => {
                self.log_reads.insert(*token);
            }
            Output::Read { prefix, .. } if prefix == bench.keys.version_key() => {}
            Output::Read { token, prefix, .. } if prefix != bench.keys.ready_prefix() => {
                assert!(self.acknowledging.is_none(), "reads its acknowledgement while committing one");
                assert!(
                    self.reading_own.replace(*token).is_none(),
                    "two reads of its acknowledgement at once"
                );
            }
            Output::WatchProcesses { endpoints } => {
                assert!(endpoints.is_sorted() && endpoints.len() <= 3, "watches {endpoints:?}");
                let own = bench.machine.identity().and_then(|own| own.endpoint.as_ref());
                assert!(own.is_none_or(|own| !endpoints.contains(own)), "watches itself");
                assert_ne!(*endpoints, self.watched, "watches the same processes");
                self.watched.clone_from(endpoints);
            }
            Output::Event(Event::FalselyRemoved { .. }) => {
                assert!(!self.hides_endpoint, "removed by mistake a second time");
                self.hides_endpoint = true;
            }
            Output::CheckHealth { token } => {
                assert!(self.checking.is_none(), "P11: two health checks at once");
                self.checking = Some(*token);
            }
            Output::Grant { .. } | Output::Renew { .. } => {
                // An exclusive node renews the lease of an ended session until it has let go of its slots.
                let is_letting_go =
                    bench.machine.session.ended().is_some() && bench.machine.facts.config.exclusive.is_some();
                assert!(
                    is_letting_go || bench.machine.health.is_fit(&bench.machine.facts),
                    "P11: {output:?} of one that is not healthy"
                );
            }
            Output::Stabilize { token, view, .. } => {
                assert!(self.stabilizing.is_none(), "P3: two stabilize at once");
                self.stabilizing = Some(*token);
                assert_eq!(view.revision(), self.newest, "P3: only the newest version is stabilized");
            }
            Output::Announce { token, view, .. } => {
                assert!(self.announcing.is_none(), "P4: two on_stable at once");
                self.announcing = Some(*token);
                let version = (view.version(), view.revision());
                assert!(self.announced.insert(version), "P4: on_stable twice for one version");
            }
            Output::Event(Event::VersionPublished { revision, .. }) => {
                assert!(*revision > self.newest, "P2: versions go forward");
                self.newest = *revision;
            }
            // The machine forgets calls in flight when it loses the session, when the leader changes, and on a resync.
            Output::Event(Event::SessionLost { .. } | Event::LeaderChanged { .. }) => self.in_flight.clear(),
            Output::Event(Event::Resynced { rewound, .. }) => {
                self.in_flight.clear();
                self.newest = if *rewound { Revision::ZERO } else { self.newest };
            }
            // A leader also revokes leases of removed sessions.
            Output::Revoke { lease, .. }
                if bench.machine.session.ended().is_some_and(|ended| ended.lease == *lease) =>
            {
                self.forget_session();
            }
            Output::Revoke { lease, .. } => {
                let detection = bench.machine.facts.config.crash_detection.as_ref();
                let trusts = detection.is_some_and(|detection| detection.trust_refused);
                let leads = bench.machine.election.leading().is_some();
                assert!(trusts || leads, "P12: revokes the lease {lease} of another node");
            }
            Output::Stopped { .. } => self.stopped = true,
            _ => {}
        }
    }

    /// Checks that a node removes only nodes whose processes were reported as gone, and that it no longer offers its
    /// endpoint after it was removed by mistake.
    fn check_endpoints(&self, bench: &Bench, purpose: Purpose, txn: &Txn) {
        match purpose {
            Purpose::RemoveCrashed => {
                let key = txn.operations()[0].key();
                let node = bench.machine.present().find(|node| bench.keys.node_key(&node.name) == *key);
                let endpoint = node.and_then(|node| node.endpoint.as_ref()).expect("a node with an endpoint");
                assert!(self.reported.contains(&endpoint.process), "{key} was not reported as gone");
            }
            Purpose::Join | Purpose::TakeOver | Purpose::Rewrite if self.hides_endpoint => {
                let Operation::Put { value, .. } = &txn.operations()[0] else { unreachable!("a record") };
                assert!(
                    !value.windows(10).any(|part| part == b"\"endpoint\""),
                    "P7: offers its endpoint again"
                );
            }
            _ => {}
        }
    }

    fn forget_session(&mut self) {
        self.in_flight.clear();
        (self.acknowledging, self.reading_own) = (None, None);
        (self.own_ready, self.own_ready_before_read) = (Revision::ZERO, Revision::ZERO);
    }

    /// Checks that the machine never asks to be woken immediately, that each wake-up moves the next one forward, and
    /// that a second tick at the same time changes nothing.
    fn check_time(&self, bench: &Bench) {
        let mut again = bench.machine.clone();
        again.handle(bench.now, Input::Tick);
        assert_eq!(again.poll_output(), None, "a second tick at the same time has outputs");
        assert_same(&again, &bench.machine, "a second tick at the same time changes the state");

        let Some(at) = bench.machine.next_wakeup() else { return };
        assert!(at > bench.now, "a busy loop: the next wake-up is at {at:?}, but now is {:?}", bench.now);
        let mut woken = bench.machine.clone();
        woken.handle(at, Input::Tick);
        while woken.poll_output().is_some() {}
        assert!(woken.next_wakeup().is_none_or(|next| next > at), "a busy loop at {at:?}");
        let mut again = woken.clone();
        again.handle(at, Input::Tick);
        assert_eq!(again.poll_output(), None, "a repeated wake-up has outputs");
        assert_same(&again, &woken, "a repeated wake-up changes the state");
    }

    fn check_stale_tokens(&self, bench: &Bench) {
        let last = self.stale.iter().rev().take(2).copied();
        for token in last.chain([Token(0)]) {
            for input in replies_with(token) {
                let mut machine = bench.machine.clone();
                machine.handle(bench.now, input.clone());
                assert_same(
                    &machine,
                    &bench.machine,
                    &format!("a reply with a stale token changed the state: {input:?}"),
                );
            }
        }
    }
}

/// Panics if two states differ, and prints only lines that differ.
fn assert_same(left: &Machine, right: &Machine, what: &str) {
    if left != right {
        let (left, right) = (format!("{left:#?}"), format!("{right:#?}"));
        let lines = left.lines().zip(right.lines()).filter(|(left, right)| left != right);
        let differences: Vec<_> = lines.take(6).collect();
        panic!("{what}: {differences:#?}");
    }
}

/// Returns one input of each kind that answers a call, all with this token.
fn replies_with(token: Token) -> Vec<Input> {
    let revision = Revision::new(1_000_000);
    let lease = LeaseId::new(1_000_000);
    let not_found = || StoreError::lease_not_found(lease);
    let (key, value) = (Key::from("c/view/leader"), bytes::Bytes::new());
    let entry = Entry { key, value, created: revision, modified: revision, lease: None };
    let snapshot = Snapshot { revision, entries: Vec::new() };
    vec![
        Input::Granted { token, result: Ok(Lease { id: lease, ttl: Duration::from_secs(15) }) },
        Input::Granted { token, result: Err(not_found()) },
        Input::Renewed { token, result: Ok(Duration::from_secs(15)) },
        Input::Renewed { token, result: Err(not_found()) },
        Input::Revoked { token, result: Ok(()) },
        Input::Revoked { token, result: Err(StoreError::busy("x")) },
        Input::Read { token, result: Ok(snapshot) },
        Input::Read { token, result: Err(StoreError::busy("x")) },
        Input::WatchOpened { token, result: Ok(()) },
        Input::WatchOpened { token, result: Err(StoreError::busy("x")) },
        Input::Batch { token, batch: Batch::new(revision, [Change::Put(entry)]) },
        Input::WatchEnded { token, end: WatchEnd::Rewound { revision: Revision::ZERO } },
        Input::Committed { token, result: Ok(revision) },
        Input::Committed { token, result: Err(not_found()) },
        Input::Stabilized { token, outcome: crate::outcome::Outcome::Ready },
        Input::Announced { token, result: Err("x".to_owned()) },
        Input::HealthReported { token, result: Ok(()) },
        Input::HealthReported { token, result: Err("x".to_owned()) },
    ]
}

/// Checks that the status is consistent in itself.
fn check_status(bench: &Bench) {
    let status = bench.status();
    if !bench.machine.health.is_fit(&bench.machine.facts) {
        assert_eq!(
            (status.leadership, &status.session),
            (None, &None),
            "P11: an unhealthy node has a session or leads"
        );
    }
    let Some(leadership) = status.leadership else { return };
    let session = status.session.expect("P6: no leadership without a session");
    assert!(leadership.until <= session.until, "P6: leadership ends no later than the session");
    assert_eq!(status.phase, Phase::Member);
    assert_eq!(status.leader.map(|leader| leader.term), Some(leadership.term));
}

/// Checks a commit against the protocol's table of commits: its guards and its writes, given the log that the machine
/// has seen.
fn check_commit(bench: &Bench, before: &Machine, purpose: Purpose, txn: &Txn, own_ready: [Revision; 2]) {
    let keys = &bench.keys;
    let seen = |key: &Key| bench.seen.get(key);
    let created = |key: &Key| Guard::created_at(key.clone(), seen(key).map_or(Revision::ZERO, |e| e.created));
    let modified =
        |key: &Key| Guard::modified_at(key.clone(), seen(key).map_or(Revision::ZERO, |e| e.modified));
    let absent = |key: &Key| {
        assert!(seen(key).is_none(), "{purpose}: {key} exists");
        Guard::absent(key.clone())
    };
    let lease_of = |key: &Key| seen(key).and_then(|entry| entry.lease);
    let held = |machine: &Machine| machine.session.lease();
    let ended = before.session.ended().map(|ended| ended.lease);
    let lease = held(&bench.machine).or(held(before)).or(ended);

    let put = |key: &Key, lease: Option<LeaseId>| (key.clone(), Some(lease));
    let delete = |key: &Key| (key.clone(), None);
    let (leader, version, stable) = (keys.election_key(), keys.version_key(), keys.stable_key());
    let me = bench.machine.identity().map(|own| (keys.node_key(&own.name), keys.readiness_key(&own.name)));
    let me = || me.clone().expect("only nodes commit under a name");
    let leads = || {
        assert_eq!(lease_of(leader), lease, "P5: {purpose} by a node that does not lead");
        created(leader)
    };

    // A version's number is one more than the last version's, and determines its entry in the history.
    let numbered = || {
        let entry = seen(version)?;
        let number = decode::<VersionRecord>(&entry.value).ok()?.number;
        (number > 0).then_some(number)
    };
    let slot = || {
        let number = value::<VersionRecord>(txn, "version").expect("a version").number;
        assert!(
            numbered().is_none_or(|last| number == last.checked_add(1).unwrap_or(1)),
            "{number} after {:?}",
            numbered()
        );
        keys.history_key(number)
    };

    let written_under = |prefix: &str| {
        let prefix = format!("c/{prefix}");
        txn.operations().iter().filter(move |operation| operation.key().starts_with(&prefix))
    };
    // The witness of an exclusive session, and the assignment of slots, are written with other records.
    let witness =
        || -> Vec<_> { written_under("view/holds/").map(|write| put(write.key(), lease)).collect() };
    // A session is registered once, so its witness is new.
    let new_witness = || -> Vec<_> { witness().iter().map(|(key, _)| absent(key)).collect() };
    let assigned = || -> Vec<_> { written_under("view/slots").map(|write| put(write.key(), None)).collect() };
    let (guards, writes) = match purpose {
        Purpose::Join => {
            ([vec![absent(&me().0)], new_witness()].concat(), [vec![put(&me().0, lease)], witness()].concat())
        }
        Purpose::TakeOver => {
            let (own, ready) = me();
            let mut guards = [vec![modified(&own)], new_witness()].concat();
            let mut writes = [vec![put(&own, lease), delete(&ready)], witness()].concat();
            if lease_of(&own).is_some() && lease_of(&own) == lease_of(leader) {
                guards.push(created(leader));
                writes.push(delete(leader));
            }
            (guards, writes)
        }
        Purpose::Rewrite => (vec![modified(&me().0)], vec![put(&me().0, lease), delete(&me().1)]),
        Purpose::RequestVersion => (vec![modified(version)], vec![put(keys.request_key(), None)]),
        Purpose::Elect => (
            vec![absent(leader), modified(&me().0), modified(version)],
            [vec![put(leader, lease), put(version, None), put(&slot(), None)], assigned()].concat(),
        ),
        Purpose::Publish => (
            vec![leads(), modified(version)],
            [vec![put(version, None), put(&slot(), None)], assigned()].concat(),
        ),
        Purpose::Permit => (
            vec![leads(), modified(version), modified(keys.released_key())],
            vec![put(keys.released_key(), None)],
        ),
        Purpose::Reclaim => {
            let key = txn.operations()[0].key().clone();
            assert!(key.starts_with("c/view/holds/"), "P12: {purpose} of {key}");
            let write = match &txn.operations()[0] {
                Operation::Put { .. } => put(&key, None),
                Operation::Delete { .. } => delete(&key),
            };
            (vec![leads(), modified(&key)], vec![write])
        }
        Purpose::Acknowledge => {
            let (own, ready) = me();
            let guard = |revision: &Revision| Guard::modified_at(ready.clone(), *revision);
            let used = own_ready.iter().map(guard).find(|guard| txn.guards().contains(guard));
            let last = used.unwrap_or_else(|| guard(&own_ready[0]));
            (vec![modified(&own), modified(version), last], vec![put(&ready, lease)])
        }
        Purpose::Confirm => (
            vec![leads(), modified(version), modified(stable)],
            [
                vec![put(stable, None)],
                numbered().map(|number| put(&keys.history_key(number), None)).into_iter().collect(),
            ]
            .concat(),
        ),
        Purpose::Evict => {
            let record = txn.operations()[0].key().clone();
            let node = keys.nodes_prefix();
            let ready = Key::from(format!("{}{}", keys.ready_prefix(), &record[node.len()..]));
            // The incarnation in the deleted record may be too long for `gone`.
            let gone = txn.operations().iter().find(|operation| operation.key() == keys.departure_key());
            let mut writes = vec![delete(&record), delete(&ready)];
            writes.extend(gone.map(|_| put(keys.departure_key(), None)));
            (vec![leads(), modified(&record)], writes)
        }
        Purpose::RemoveCrashed => {
            let record = txn.operations()[0].key().clone();
            let node = keys.nodes_prefix();
            assert_ne!(record, me().0, "{purpose} of this very node");
            let ready = Key::from(format!("{}{}", keys.ready_prefix(), &record[node.len()..]));
            let gone = txn.operations().iter().find(|operation| operation.key() == keys.departure_key());
            let mut writes = vec![delete(&record), delete(&ready)];
            writes.extend(gone.map(|_| put(keys.departure_key(), None)));
            if lease_of(leader).is_some() && lease_of(leader) == lease_of(&record) {
                writes.push(delete(leader));
            }
            (vec![modified(&record), created(leader)], writes)
        }
        Purpose::Resign => (vec![leads()], vec![delete(leader)]),
        Purpose::Leave => {
            let (own, ready) = me();
            assert_eq!(lease_of(&own), lease, "P7: {purpose} of a node that is not a member");
            let mut guards = vec![modified(&own)];
            let mut writes = vec![delete(&own), delete(&ready), put(keys.departure_key(), None)];
            let left = written_under("view/holds/").map(|operation| match operation {
                Operation::Put { key, .. } => put(key, lease),
                Operation::Delete { key } => delete(key),
            });
            writes.extend(left);
            if lease_of(leader) == lease {
                guards.push(created(leader));
                writes.push(delete(leader));
            }
            (guards, writes)
        }
        Purpose::OwnerCommit => {
            assert_eq!(
                txn.guards().last(),
                Some(&modified(version)),
                "P12: {purpose} is guarded by the version"
            );
            assert!(txn.operations().iter().all(|operation| !keys.is_reserved(operation.key())));
            return;
        }
        Purpose::LeaderCommit => {
            assert_eq!(txn.guards().last(), Some(&leads()), "P5: a leader commit is guarded by the term");
            assert!(txn.operations().iter().all(|operation| !keys.is_reserved(operation.key())));
            return;
        }
    };
    let written = txn.operations().iter().map(|operation| match operation {
        Operation::Put { key, lease, .. } => (key.clone(), Some(*lease)),
        Operation::Delete { key } => (key.clone(), None),
    });
    let mut written: Vec<_> = written.collect();
    let mut expected = writes;
    written.sort();
    expected.sort();
    assert_eq!(written, expected, "unexpected writes of {purpose}");
    let same = txn.guards().len() == guards.len() && guards.iter().all(|guard| txn.guards().contains(guard));
    assert!(same, "unexpected guards of {purpose}: {:#?}, expected {guards:#?}", txn.guards());
}
