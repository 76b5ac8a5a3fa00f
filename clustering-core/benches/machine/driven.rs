//! A state machine among many other nodes, which exist only as keys in its log.

use std::{time::Duration, vec::IntoIter};

use clustering_core::{
    Config, Keyspace, Metadata, Namespace, NodeName, NodeUri, Outcome,
    machine::{Identity, Input, Machine, Output, Status, Token},
    slots::{Assignment, Slot, SlotCount},
    store::{Batch, Change, Entry, Key, Lease, LeaseId, Operation, Revision, Snapshot, Txn},
    time::Timestamp,
    version::IdGenerator,
};

use crate::batch;

/// Wall-clock time in milliseconds for generated ULIDs, a moment in 2023.
const WALL: u64 = 1_700_000_000_000;

/// The lease ID of the node itself. The leases of the other nodes have the IDs after it.
const OWN: u64 = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Follower,
    Leader,
}

/// Number of slots of an exclusive cluster: the maximum.
pub(crate) const SLOTS: u16 = 4_096;

/// A running machine, with the state needed to generate valid inputs for it.
#[derive(Clone)]
pub(crate) struct Driven {
    machine: Machine,
    keys: Keyspace,
    now: Timestamp,
    revision: u64,
    others: usize,
    /// Number of slots, if the nodes are exclusive.
    slots: Option<SlotCount>,
    /// The tokens of the watches of the log and of the acknowledgements.
    watches: [Option<Token>; 2],
    /// The pending read of the log, which is answered only by `snapshot`.
    reading: Option<Token>,
    /// The first stabilize, which was answered. Later ones are not.
    stabilizing: Option<Token>,
    label: u128,
    present: bool,
}

impl Driven {
    /// Starts a node and drives it until it waits for its snapshot.
    fn begun(slots: Option<SlotCount>) -> Self {
        let keys = Keyspace::new(Namespace::parse("telemetry/ingest").expect("a namespace"));
        let identity = Identity {
            name: NodeName::parse("ingest-me").expect("a name"),
            uri: NodeUri::parse("http://10.0.0.7:8080").expect("a URI"),
            metadata: Metadata::new(),
            endpoint: None,
        };
        let now = Timestamp::from_nanos(1_000_000_000);
        let mut config = Config::default();
        config.exclusive = slots;
        let mint = IdGenerator::new(WALL, now, 7);
        let mut node = Driven {
            machine: Machine::node(keys.clone(), identity, config, mint),
            keys,
            now,
            revision: 0,
            others: 0,
            slots,
            watches: [None; 2],
            reading: None,
            stabilizing: None,
            label: 1 << 100,
            present: true,
        };
        node.take(Input::Tick);
        node
    }

    /// Returns a node that waits for its snapshot, and a snapshot with `others` other nodes.
    pub(crate) fn about_to_read(others: usize) -> (Self, IntoIter<Input>) {
        let mut node = Driven::begun(None);
        let read = node.snapshot(others, true);
        (node, vec![read].into_iter())
    }

    /// Returns a node that is a member among `others` other nodes and has acknowledged a version.
    pub(crate) fn among(others: usize, role: Role) -> Self {
        let mut node = Driven::begun(None);
        if role == Role::Leader {
            // The first node that registers leads, so this node registers before the others join.
            let read = node.snapshot(0, false);
            node.take(read);
            for number in 0..others {
                let entry = node.record(number);
                let batch = batch(node.revision, Change::Put(entry));
                node.take(Input::Batch { token: node.log(), batch });
            }
            node.others = others;
        } else {
            let read = node.snapshot(others, true);
            node.take(read);
            let (mut with, mut version) = node.version();
            with.take_all(&mut version);
            node = with;
        }
        node.take(Input::Tick);
        node
    }

    /// Returns an exclusive node that is a member among `others` other nodes.
    pub(crate) fn among_exclusive(others: usize) -> Self {
        let mut node = Driven::begun(Some(SlotCount::new(SLOTS).expect("a number of slots")));
        let read = node.snapshot(others, true);
        node.take(read);
        node
    }

    fn snapshot(&mut self, others: usize, led: bool) -> Input {
        self.others = others;
        let mut entries: Vec<Entry> = (0..others).map(|number| self.record(number)).collect();
        if self.slots.is_some() {
            entries.extend((0..others).map(|number| self.holds(number)));
        }
        if led {
            let key = self.keys.election_key().clone();
            let value = r#"{"node":"ingest-00000","incarnation":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}"#;
            entries.push(self.entry(key, value.to_owned(), Some(LeaseId::new(OWN + 1))));
        }
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let token = self.reading.take().expect("the log is read first");
        Input::Read { token, result: Ok(Snapshot { revision: Revision::new(self.revision), entries }) }
    }

    fn entry(&mut self, key: Key, value: String, lease: Option<LeaseId>) -> Entry {
        self.revision += 1;
        let at = Revision::new(self.revision);
        Entry { key, value: value.into(), created: at, modified: at, lease }
    }

    /// Returns the record of the other node with that number, put at the next revision.
    fn record(&mut self, number: usize) -> Entry {
        let name = NodeName::parse(&format!("ingest-{number:05}")).expect("a name");
        let value = format!(
            r#"{{"uri":"http://10.0.{}.{}:8080","incarnation":"01ARZ3NDEKTSV4RRFFQ69G5FAV","metadata":{{"zone":"a"}},"protocol":1}}"#,
            number / 250,
            number % 250,
        );
        let lease = LeaseId::new(OWN + 1 + number as u64);
        self.entry(self.keys.node_key(&name), value, Some(lease))
    }

    /// Returns the key of the session of the other node with that number, which every exclusive node has.
    fn holds(&mut self, number: usize) -> Entry {
        let value = format!(
            r#"{{"node":"ingest-{number:05}","incarnation":"01ARZ3NDEKTSV4RRFFQ69G5FAV","uri":"http://10.0.0.7:8080","ttl_ms":15000,"slots":{SLOTS}}}"#,
        );
        let lease = LeaseId::new(OWN + 1 + number as u64);
        self.entry(self.keys.holds_key(lease), value, Some(lease))
    }

    fn log(&self) -> Token {
        self.watches[0].expect("the log is watched")
    }

    /// Generates `row` events in which other nodes put their records again.
    pub(crate) fn puts(&mut self, row: usize) -> IntoIter<Input> {
        let inputs = (0..row).map(|number| {
            let entry = self.record((number * 7_919) % self.others);
            let batch = batch(self.revision, Change::Put(entry));
            Input::Batch { token: self.log(), batch }
        });
        let inputs: Vec<_> = inputs.collect();
        inputs.into_iter()
    }

    /// Generates `row` events in which other nodes join and leave alternately.
    pub(crate) fn joins_and_leaves(&mut self, row: usize) -> IntoIter<Input> {
        let inputs = (0..row).map(|number| {
            let entry = self.record((number / 2 * 7_919) % self.others);
            self.present = !self.present;
            let change = if self.present { Change::Put(entry) } else { Change::Delete(entry.key) };
            Input::Batch { token: self.log(), batch: batch(self.revision, change) }
        });
        let inputs: Vec<_> = inputs.collect();
        inputs.into_iter()
    }

    /// Generates `row` acknowledgements by other nodes of a version that is not the newest, so that none completes it.
    pub(crate) fn acknowledgements(&mut self, row: usize) -> IntoIter<Input> {
        let token = self.watches[1].expect("a leader watches the acknowledgements");
        let inputs = (0..row).map(|number| {
            let number = (number * 7_919) % self.others;
            let name = NodeName::parse(&format!("ingest-{number:05}")).expect("a name");
            let value = r#"{"version":"01ARZ3NDEKTSV4RRFFQ69G5FAV","outcome":"ready"}"#;
            let lease = LeaseId::new(OWN + 1 + number as u64);
            let entry = self.entry(self.keys.readiness_key(&name), value.to_owned(), Some(lease));
            Input::Batch { token, batch: batch(self.revision, Change::Put(entry)) }
        });
        let inputs: Vec<_> = inputs.collect();
        inputs.into_iter()
    }

    /// Generates a new version of the leader, and returns it with a clone of the node.
    pub(crate) fn version(&mut self) -> (Self, IntoIter<Input>) {
        self.label += 1;
        let label = clustering_core::Version::from_u128(self.label);
        let value = format!(r#"{{"version":"{label}","term":1,"leader":"ingest-00000","cause":[]}}"#);
        let entry = self.entry(self.keys.version_key().clone(), value, None);
        let batch = batch(self.revision, Change::Put(entry));
        (self.clone(), vec![Input::Batch { token: self.log(), batch }].into_iter())
    }

    /// Generates a new version of the leader with an assignment that moves all slots, and returns it with a clone of
    /// the node.
    pub(crate) fn assignment(&mut self) -> (Self, IntoIter<Input>) {
        let me = NodeName::parse("ingest-me").expect("a name");
        let others = (0..self.others).map(|number| format!("ingest-{number:05}"));
        let mut names: Vec<_> = others.map(|name| NodeName::parse(&name).expect("a name")).collect();
        names.push(me);
        let shift = self.revision as usize;
        let owner = |slot: Slot| names.get((usize::from(slot.number()) + shift) % names.len());
        let assignment = Assignment::new(self.slots.expect("the nodes are exclusive"), owner).encode();
        assert!(assignment.len() < 64 * 1024, "the assignment has {} bytes", assignment.len());
        self.label += 1;
        let label = clustering_core::Version::from_u128(self.label);
        let value = format!(r#"{{"version":"{label}","term":1,"leader":"ingest-00000","cause":[]}}"#);
        let version = self.entry(self.keys.version_key().clone(), value, None);
        let key = self.keys.slots_key().clone();
        let slots = Entry { key, value: assignment.into(), ..version };
        let batch = Batch::new(Revision::new(self.revision), [Change::Put(version), Change::Put(slots)]);
        (self.clone(), vec![Input::Batch { token: self.log(), batch }].into_iter())
    }

    /// Handles inputs one after the other, as the runtime does: all outputs of one input are processed before the next.
    pub(crate) fn take_all(&mut self, inputs: &mut IntoIter<Input>) {
        for input in inputs {
            self.take(input);
        }
    }

    /// Handles one input at the next moment, and answers all outputs that follow from it.
    pub(crate) fn take(&mut self, input: Input) {
        self.now = self.now + Duration::from_nanos(500);
        self.machine.handle(self.now, input);
        while let Some(output) = self.machine.poll_output() {
            if let Some(answer) = self.answer(output) {
                self.take(answer);
            }
        }
        divan::black_box(self.machine.next_wakeup());
    }

    pub(crate) fn status(&self) -> Status {
        self.machine.status(self.now)
    }

    /// Answers an output as if the store and the callbacks succeeded.
    fn answer(&mut self, output: Output) -> Option<Input> {
        Some(match output {
            Output::Grant { token, ttl, .. } => {
                Input::Granted { token, result: Ok(Lease { id: LeaseId::new(OWN), ttl }) }
            }
            Output::Renew { token, .. } => Input::Renewed { token, result: Ok(Config::default().ttl) },
            Output::Read { token, prefix, .. } if prefix == *self.keys.view_prefix() => {
                self.reading = Some(token);
                return None;
            }
            Output::Read { token, .. } => {
                let snapshot = Snapshot { revision: Revision::new(self.revision), entries: Vec::new() };
                Input::Read { token, result: Ok(snapshot) }
            }
            Output::Watch { token, prefix, .. } => {
                self.watches[usize::from(prefix != *self.keys.view_prefix())] = Some(token);
                Input::WatchOpened { token, result: Ok(()) }
            }
            Output::Commit { token, txn, .. } => {
                let batch = self.commit(&txn);
                let result = Ok(Revision::new(self.revision));
                if let Some(batch) = batch {
                    self.take(batch);
                }
                Input::Committed { token, result }
            }
            Output::Stabilize { token, .. } if self.stabilizing.is_none() => {
                // Only the first stabilize is answered; the others are not part of the measurement.
                self.stabilizing = Some(token);
                Input::Stabilized { token, outcome: Outcome::Ready }
            }
            _ => return None,
        })
    }

    /// Returns the changes that a transaction makes to the log, as the batch that the watch delivers.
    fn commit(&mut self, txn: &Txn) -> Option<Input> {
        self.revision += 1;
        let at = Revision::new(self.revision);
        let changes: Vec<Change> = txn
            .operations()
            .iter()
            .filter(|operation| operation.key().starts_with(self.keys.view_prefix().as_str()))
            .map(|operation| match operation {
                Operation::Put { key, value, lease } => Change::Put(Entry {
                    key: key.clone(),
                    value: value.clone(),
                    created: at,
                    modified: at,
                    lease: *lease,
                }),
                Operation::Delete { key } => Change::Delete(key.clone()),
            })
            .collect();
        let batch = Batch::new(at, changes);
        (!batch.changes.is_empty()).then(|| Input::Batch { token: self.log(), batch })
    }
}
