use std::time::Duration;

use super::bench::{Bench, endpoint, name, secs};
use crate::{
    event::Evidence,
    machine::{Input, RequestId},
    name::{Incarnation, NodeUri},
    node::{Endpoint, Metadata},
    record::{
        Cause, Departure, DepartureRecord, HoldsRecord, LeaderRecord, NodeRecord, ReadinessOutcome,
        ReadinessPhase, ReadinessRecord, ReleasedRecord, RequestRecord, StableRecord, VersionRecord, decode,
        decode_node, encode,
    },
    slots::{Assignment, SlotCount},
    store::{Guard, LeaseId, Txn},
    version::{Term, Version},
};

/// Requests of the user.
impl Bench {
    pub(super) fn request_version(&mut self, id: u64, why: &str) {
        self.input(Input::RequestVersion { id: RequestId(id), why: Some(why.to_owned()) });
    }

    pub(super) fn abandon(&mut self, ids: &[u64]) {
        self.input(Input::Abandoned { ids: ids.iter().map(|id| RequestId(*id)).collect() });
    }

    pub(super) fn resign(&mut self, id: u64) {
        self.input(Input::Resign { id: RequestId(id) });
    }

    pub(super) fn commit_as_leader(&mut self, id: u64, txn: Txn) {
        self.input(Input::CommitAsLeader { id: RequestId(id), txn });
    }

    pub(super) fn update(&mut self, id: u64, zone: &str) {
        let metadata = Metadata::from([("zone".to_owned(), zone.to_owned())]);
        self.input(Input::Update { id: RequestId(id), metadata });
    }

    pub(super) fn register(&mut self, id: u64) {
        self.input(Input::Register { id: RequestId(id) });
    }

    pub(super) fn unregister(&mut self, id: u64) {
        self.input(Input::Unregister { id: RequestId(id) });
    }

    pub(super) fn stop(&mut self) {
        self.input(Input::Stop { keep: Duration::ZERO });
    }
}

/// Writes of other nodes and clients.
impl Bench {
    /// Runs actions whose changes are not delivered to the machine yet.
    pub(super) fn unseen(&mut self, act: impl FnOnce(&mut Bench)) {
        let before = std::mem::replace(&mut self.hidden, true);
        act(self);
        self.hidden = before;
    }

    pub(super) fn write(&mut self, txn: Txn) {
        self.store.commit(&txn).expect("writes of other clients succeed");
        self.deliver_unless_hidden();
    }

    fn deliver_unless_hidden(&mut self) {
        if !self.hidden {
            self.deliver();
        }
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        self.write(Txn::new().put(format!("c/{key}"), value.to_owned(), None));
    }

    pub(super) fn delete(&mut self, key: &str) {
        self.write(Txn::new().delete(format!("c/{key}")));
    }

    fn record(&mut self, node: &str, seen: Option<Version>) -> bytes::Bytes {
        self.record_with(node, seen, None, Duration::ZERO)
    }

    fn record_with(
        &mut self,
        node: &str,
        seen: Option<Version>,
        endpoint: Option<&Endpoint>,
        grace: Duration,
    ) -> bytes::Bytes {
        encode(&NodeRecord {
            uri: &NodeUri::parse(&format!("http://other-{node}")).unwrap(),
            incarnation: &Incarnation::from(self.other_ids.ulid(self.now).to_string()),
            metadata: &Metadata::new(),
            protocol: 1,
            priority: self.priority,
            restart_grace: Some(grace.as_millis() as u64).filter(|grace| *grace > 0),
            endpoint,
            seen,
        })
    }

    /// Another process registers under this name, with a lease of its own. An existing record is overwritten.
    pub(super) fn joins(&mut self, node: &str) {
        self.joins_having_seen(node, None);
    }

    /// The process with the name `process` registers under the name `node`, with its endpoint.
    pub(super) fn joins_watched(&mut self, node: &str, process: &str) {
        let lease = self.store.grant(self.now, secs(15)).id;
        self.others.insert(node.to_owned(), lease);
        let record = self.record_with(node, None, Some(&endpoint(process)), Duration::ZERO);
        self.write(Txn::new().put(self.keys.node_key(&name(node)), record, lease));
    }

    pub(super) fn joins_having_seen(&mut self, node: &str, seen: Option<Version>) {
        let lease = self.store.grant(self.now, secs(15)).id;
        self.others.insert(node.to_owned(), lease);
        let record = self.record(node, seen);
        self.write(Txn::new().put(self.keys.node_key(&name(node)), record, lease));
    }

    /// Another process registers as an exclusive node of a cluster with that many slots.
    pub(super) fn joins_exclusively(&mut self, node: &str, slots: u16) {
        self.joins_exclusively_with(node, slots, None, Duration::ZERO);
    }

    /// The process of that name registers as an exclusive node of a cluster with four slots, with its endpoint.
    pub(super) fn joins_watched_exclusively(&mut self, node: &str) {
        self.joins_exclusively_with(node, 4, Some(&endpoint(node)), Duration::ZERO);
    }

    /// Like [`joins_exclusively`](Self::joins_exclusively), with a restart grace.
    pub(super) fn joins_with_grace(&mut self, node: &str, slots: u16, grace: Duration) {
        self.joins_exclusively_with(node, slots, None, grace);
    }

    fn joins_exclusively_with(
        &mut self,
        node: &str,
        slots: u16,
        endpoint: Option<&Endpoint>,
        grace: Duration,
    ) {
        let lease = self.store.grant(self.now, secs(15)).id;
        self.others.insert(node.to_owned(), lease);
        let record = self.record_with(node, None, endpoint, grace);
        let witness = self.witness(node, slots);
        self.write(
            Txn::new()
                .put(self.keys.node_key(&name(node)), record, lease)
                .put(self.keys.holds_key(lease), encode(&witness), lease)
                .delete(self.keys.readiness_key(&name(node))),
        );
    }

    pub(super) fn witness(&self, node: &str, slots: u16) -> HoldsRecord {
        HoldsRecord {
            node: name(node),
            incarnation: Incarnation::from("x"),
            uri: format!("http://other-{node}"),
            ttl_ms: 15_000,
            slots,
            left: false,
        }
    }

    /// The other node, which leads, publishes a version and the assignment of the slots.
    pub(super) fn publishes_slots(&mut self, owners: &[&str], clean: bool) {
        let names: Vec<_> = owners.iter().map(|owner| name(owner)).collect();
        let count = SlotCount::new(owners.len() as u16).unwrap();
        let assignment = Assignment::new(count, |slot| names.get(usize::from(slot.number())));
        let term = self.store.get(self.keys.election_key()).map(|entry| Term::new(entry.created));
        let (version, number) = (self.generate_version(), self.next_number());
        let record = VersionRecord { number, term, clean, ..VersionRecord::labelled(version) };
        self.names.version(version);
        self.write(Txn::new().put(self.keys.version_key().clone(), encode(&record), None).put(
            self.keys.slots_key().clone(),
            assignment.encode(),
            None,
        ));
    }

    /// The other node, which leads, records that the slots of the newest version may be acquired.
    pub(super) fn permits(&mut self) {
        let entry = self.store.get(self.keys.election_key()).expect("a leader");
        let record = ReleasedRecord { version: self.newest(), term: Term::new(entry.created) };
        self.write(Txn::new().put(self.keys.released_key().clone(), encode(&record), None));
    }

    /// Another node acknowledges that its lost slots are released.
    pub(super) fn releases(&mut self, node: &str) {
        let record = ReadinessRecord {
            version: self.newest(),
            outcome: ReadinessOutcome::Pending,
            detail: None,
            phase: ReadinessPhase::Released,
        };
        let (key, lease) = (self.keys.readiness_key(&name(node)), self.others[node]);
        self.write(Txn::new().put(key, encode(&record), lease));
    }

    /// The other process with this name rewrites its record, and deletes its acknowledgement with the same commit.
    pub(super) fn rewrites(&mut self, node: &str) {
        let (lease, record) = (self.others[node], self.record(node, None));
        let own = name(node);
        let txn =
            Txn::new().put(self.keys.node_key(&own), record, lease).delete(self.keys.readiness_key(&own));
        self.write(txn);
    }

    /// Another watcher finds the process gone, and removes its node.
    pub(super) fn crashes(&mut self, node: &str) {
        self.departs(node, Departure::Crashed, Duration::ZERO);
    }

    /// A watched process is reported as gone.
    pub(super) fn reports(&mut self, process: &str, evidence: Evidence) {
        self.input(Input::ProcessGone { process: super::bench::process(process), evidence });
    }

    /// The session of the other process ends, and all its keys are deleted.
    pub(super) fn ends(&mut self, node: &str) {
        let lease = self.others.remove(node).expect("a node that joined");
        self.store.revoke(lease).unwrap();
        self.deliver_unless_hidden();
    }

    /// The other process leaves gracefully.
    pub(super) fn leaves(&mut self, node: &str) {
        self.leaves_for(node, Duration::ZERO);
    }

    /// The other process leaves, and its slots are to wait for it for that time.
    pub(super) fn leaves_for(&mut self, node: &str, keep: Duration) {
        self.departs(node, Departure::Left, keep);
        let lease = self.others.remove(node).expect("a node that joined");
        self.store.revoke(lease).unwrap();
        self.deliver_unless_hidden();
    }

    /// Another client evicts the process, and records that.
    pub(super) fn evicts(&mut self, node: &str) {
        self.departs(node, Departure::Evicted, Duration::ZERO);
    }

    pub(super) fn departs(&mut self, node: &str, how: Departure, keep: Duration) {
        let own = name(node);
        let key = self.keys.node_key(&own);
        let entry = self.store.get(&key).expect("a node that joined");
        let node = decode_node(own.clone(), entry).unwrap();
        let txn = Txn::new().delete(key).delete(self.keys.readiness_key(&own));
        self.write(DepartureRecord::add_to(txn, &self.keys, &node, how, keep));
    }

    pub(super) fn generate_version(&mut self) -> Version {
        let last = self.store.get(self.keys.version_key());
        let last = last.and_then(|entry| decode::<VersionRecord>(&entry.value).ok());
        self.other_ids.version(self.now, last.map(|record| record.version))
    }

    fn next_number(&self) -> u64 {
        let last = self.store.get(self.keys.version_key());
        let last = last.and_then(|entry| decode::<VersionRecord>(&entry.value).ok());
        last.map_or(0, |record| record.number) + 1
    }

    /// Another node is elected and publishes a version, in one commit.
    pub(super) fn elects(&mut self, node: &str) {
        let leader = LeaderRecord { node: name(node), incarnation: Incarnation::from("x") };
        let version = self.generate_version();
        let causes = vec![Cause::Elected(name(node))];
        let number = self.next_number();
        let record =
            VersionRecord { number, leader: Some(name(node)), causes, ..VersionRecord::labelled(version) };
        let lease = self.others[node];
        let txn = Txn::new()
            .guard(Guard::absent(self.keys.election_key().clone()))
            .put(self.keys.election_key().clone(), encode(&leader), lease)
            .put(self.keys.version_key().clone(), encode(&record), None);
        self.names.version(version);
        self.write(txn);
    }

    /// The other node, which leads, publishes a version.
    pub(super) fn publishes(&mut self) {
        let term = self.store.get(self.keys.election_key()).map(|entry| Term::new(entry.created));
        let version = self.generate_version();
        let number = self.next_number();
        self.publishes_as(VersionRecord { number, term, ..VersionRecord::labelled(version) });
    }

    pub(super) fn publishes_as(&mut self, record: VersionRecord) {
        self.names.version(record.version);
        self.write(Txn::new().put(self.keys.version_key().clone(), encode(&record), None));
    }

    pub(super) fn newest(&self) -> Version {
        let entry = self.store.get(self.keys.version_key()).expect("a version");
        decode::<VersionRecord>(&entry.value).unwrap().version
    }

    /// Another node acknowledges the newest version.
    pub(super) fn acknowledges(&mut self, node: &str) {
        let version = self.newest();
        self.acknowledges_version(node, version, None);
    }

    /// Another node acknowledges this version as ready or, if a reason is given, as refused.
    pub(super) fn acknowledges_version(&mut self, node: &str, version: Version, refused: Option<&str>) {
        let outcome = if refused.is_some() { ReadinessOutcome::Failed } else { ReadinessOutcome::Ready };
        let record = ReadinessRecord {
            version,
            outcome,
            detail: refused.map(str::to_owned),
            phase: Default::default(),
        };
        let (key, lease) = (self.keys.readiness_key(&name(node)), self.others[node]);
        self.write(Txn::new().put(key, encode(&record), lease));
    }

    /// The other node, which leads, records the newest version as stable.
    pub(super) fn confirms(&mut self) {
        let term = self.store.get(self.keys.election_key()).map(|entry| Term::new(entry.created));
        let record = StableRecord { version: self.newest(), term, nodes: None };
        self.write(Txn::new().put(self.keys.stable_key().clone(), encode(&record), None));
    }

    /// Another client requests a version.
    pub(super) fn requests(&mut self, by: &str) {
        let record = RequestRecord { by: Some(by.to_owned()), why: None, leader: None };
        self.write(Txn::new().put(self.keys.request_key().clone(), encode(&record), None));
    }

    /// Returns the lease that a key is attached to.
    pub(super) fn lease_of(&self, key: &str) -> LeaseId {
        let entry = self.store.get(&format!("c/{key}").into()).expect("the key exists");
        entry.lease.expect("the key has a lease")
    }
}
