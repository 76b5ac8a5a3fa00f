//! Members that make the same commits by hand, with as little code as possible: they don't retry and don't survive
//! faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, Event, EventType, GetOptions, KvClient, PutOptions, Txn,
    TxnOp, WatchOptions, WatchStream,
};
use tokio::sync::{mpsc, watch};

use crate::{
    rounds::{LONG, Member, Team},
    trace::{Mark, Trace, What},
};

pub(crate) struct Bare {
    pub(crate) endpoints: Vec<String>,
    pub(crate) namespace: String,
    pub(crate) ttl: Duration,
    pub(crate) trace: Option<Trace>,
}

/// State of a member that others wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    /// Revision of the member's record, or 0 before it has joined.
    member: i64,
    leads: bool,
    /// Current term.
    term: i64,
    /// Number of nodes of the newest version, if it is stable.
    stable: Option<usize>,
}

#[derive(Clone)]
pub(crate) struct BareMember {
    known: watch::Receiver<Known>,
    client: Client,
    /// Keys and name needed to leave.
    farewell: (Keys, String),
    lease: i64,
    task: std::sync::Arc<tokio::task::JoinHandle<()>>,
}

impl Team for Bare {
    type Member = BareMember;
    const NAME: &str = "bare";

    async fn join(&self, name: &str) -> BareMember {
        let client = Client::connect(&self.endpoints, Some(ConnectOptions::new())).await.unwrap();
        let (mut leases, mut kv) = (client.lease_client(), client.kv_client());
        let view = format!("{}/view/", self.namespace);
        let mark = |mark| mark_in(self.trace.as_ref(), name, mark);
        mark(Mark::Sent(What::Read));
        let (lease, snapshot) = tokio::join!(
            leases.grant(self.ttl.as_secs() as i64, None),
            kv.get(view.as_str(), Some(GetOptions::new().with_prefix())),
        );
        mark(Mark::Answered(What::Read));
        let (lease, snapshot) = (lease.unwrap().id(), snapshot.unwrap());
        let mut member = Replica::new(&self.namespace, name, lease, client.kv_client(), self.trace.clone());
        for entry in snapshot.kvs() {
            member.put(entry.key_str().unwrap(), entry.create_revision(), entry.mod_revision());
        }
        let seen = snapshot.header().unwrap().revision();
        mark(Mark::Sent(What::Watch));
        let log = open(&client, &view, seen + 1).await;
        mark(Mark::Answered(What::Watch));
        mark(Mark::Sent(What::Join));
        member.commit_join().await;
        let (sender, mut known) = watch::channel(Known::default());
        let task = tokio::spawn(member.run(client.clone(), log, sender));
        known.wait_for(|known| known.member > 0).await.unwrap();
        let farewell = (Keys::new(&self.namespace), name.to_owned());
        BareMember { known, client, farewell, lease, task: std::sync::Arc::new(task) }
    }
}

impl Member for BareMember {
    async fn stable_with(mut self, nodes: usize) -> Instant {
        let waiting = tokio::time::timeout(LONG, self.known.wait_for(|known| known.stable == Some(nodes)));
        waiting.await.expect("it becomes stable").expect("the member is running");
        Instant::now()
    }

    fn is_leader(&self) -> bool {
        self.known.borrow().leads
    }

    async fn leave(self) {
        let (keys, name) = &self.farewell;
        let known = *self.known.borrow();
        let (node, ready) = (format!("{}{name}", keys.nodes), format!("{}{name}", keys.ready));
        let mut guards = vec![put_at(&node, known.member)];
        let mut writes = vec![
            TxnOp::delete(node, None),
            TxnOp::delete(ready, None),
            TxnOp::put(keys.gone.as_str(), GONE, None),
        ];
        if known.leads {
            guards.push(created_at(&keys.leader, known.term));
            writes.push(TxnOp::delete(keys.leader.as_str(), None));
        }
        let left = self.client.kv_client().txn(Txn::new().when(guards).and_then(writes)).await.unwrap();
        assert!(left.succeeded());
        self.client.lease_client().revoke(self.lease).await.unwrap();
        self.task.abort();
    }
}

async fn open(client: &Client, prefix: &str, from: i64) -> WatchStream {
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    let mut stream = client.watch_client().watch(prefix, Some(options)).await.unwrap();
    stream.message().await.unwrap();
    stream
}

/// A member's replica of the log.
struct Replica {
    name: String,
    keys: Keys,
    lease: i64,
    kv: KvClient,
    trace: Option<Trace>,
    /// Nodes present, with the create and modification revisions of their records.
    present: BTreeMap<String, (i64, i64)>,
    leader: i64,
    leads: bool,
    version: i64,
    /// Nodes of the newest version.
    cut: BTreeSet<String>,
    stable: i64,
    /// Nodes of the newest version that have acknowledged it.
    acknowledged: BTreeSet<String>,
    /// Acknowledgements of versions that the log has not delivered yet, since the two watches are not ordered.
    early: Vec<(String, i64)>,
    /// The version that has been or is being acknowledged.
    last_acknowledged: i64,
    own_acknowledgement: i64,
    acknowledging: bool,
    /// True while a version is being published, and until the log has delivered it.
    publishing: bool,
    confirming: i64,
}

#[derive(Clone)]
struct Keys {
    nodes: String,
    leader: String,
    version: String,
    stable: String,
    gone: String,
    ready: String,
    /// Key of an entry in the history of versions. Each published version also writes one.
    history: String,
}

/// Result of a commit.
enum Done {
    Acknowledged(Option<i64>),
    Elected(Option<i64>),
    Published(Option<i64>),
    Confirmed,
}

impl Keys {
    fn new(namespace: &str) -> Self {
        let key = |rest: &str| format!("{namespace}/{rest}");
        Keys {
            nodes: key("view/nodes/"),
            leader: key("view/leader"),
            version: key("view/version"),
            stable: key("view/stable"),
            gone: key("view/gone"),
            ready: key("ready/"),
            history: key("history/7"),
        }
    }
}

impl Replica {
    fn new(namespace: &str, name: &str, lease: i64, kv: KvClient, trace: Option<Trace>) -> Self {
        Replica {
            name: name.to_owned(),
            keys: Keys::new(namespace),
            lease,
            kv,
            trace,
            present: BTreeMap::new(),
            leader: 0,
            leads: false,
            version: 0,
            cut: BTreeSet::new(),
            stable: 0,
            acknowledged: BTreeSet::new(),
            early: Vec::new(),
            last_acknowledged: 0,
            own_acknowledgement: 0,
            acknowledging: false,
            publishing: false,
            confirming: 0,
        }
    }

    fn put(&mut self, key: &str, created: i64, modified: i64) {
        if let Some(name) = key.strip_prefix(&self.keys.nodes) {
            self.present.insert(name.to_owned(), (created, modified));
        } else if key == self.keys.leader {
            self.leader = created;
        } else if key == self.keys.version {
            self.version = modified;
        } else if key == self.keys.stable {
            self.stable = modified;
        }
    }

    /// Applies the events of one revision.
    fn fold(&mut self, events: &[Event]) {
        let version = self.version;
        for event in events {
            let entry = event.kv().unwrap();
            let key = entry.key_str().unwrap();
            match event.event_type() {
                EventType::Put => self.put(key, entry.create_revision(), entry.mod_revision()),
                EventType::Delete => {
                    if let Some(name) = key.strip_prefix(&self.keys.nodes) {
                        self.present.remove(name);
                    } else if key == self.keys.leader {
                        self.leader = 0;
                    }
                }
            }
        }
        if self.version != version {
            self.publishing = false;
            self.cut = self.present.keys().cloned().collect();
            self.acknowledged.clear();
            for (name, version) in std::mem::take(&mut self.early) {
                self.note(name, version);
            }
        }
    }

    /// Records a node's acknowledgement of a version.
    fn note(&mut self, name: String, version: i64) {
        if version > self.version {
            self.early.push((name, version));
        } else if version == self.version && self.cut.contains(&name) {
            self.acknowledged.insert(name);
        }
    }

    fn known(&self) -> Known {
        Known {
            member: self.present.get(&self.name).map_or(0, |(_, modified)| *modified),
            leads: self.leads,
            term: self.leader,
            stable: (self.version > 0 && self.stable > self.version).then_some(self.cut.len()),
        }
    }

    async fn run(mut self, client: Client, mut log: WatchStream, known: watch::Sender<Known>) {
        let mut ready: Option<WatchStream> = None;
        let (sender, mut done) = mpsc::unbounded_channel();
        self.act(&sender);
        loop {
            let acknowledged = async {
                match &mut ready {
                    Some(ready) => ready.message().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = log.message() => {
                    let Ok(Some(message)) = message else { return };
                    self.mark_seen(message.events());
                    let by_revision = |a: &Event, b: &Event| {
                        a.kv().map(|kv| kv.mod_revision()) == b.kv().map(|kv| kv.mod_revision())
                    };
                    for events in message.events().chunk_by(by_revision) {
                        self.fold(events);
                        self.act(&sender);
                    }
                }
                message = acknowledged => {
                    let Ok(Some(message)) = message else { return };
                    self.mark_seen(message.events());
                    for event in message.events() {
                        let entry = event.kv().unwrap();
                        let name = entry.key_str().unwrap().strip_prefix(&self.keys.ready);
                        // A deletion has no value.
                        let version = entry.value().get(12..38).and_then(|label| std::str::from_utf8(label).ok());
                        if let (Some(name), Some(version)) = (name, version) {
                            self.note(name.to_owned(), version.parse().unwrap());
                        }
                    }
                    self.act(&sender);
                }
                Some(done) = done.recv() => {
                    match done {
                        Done::Acknowledged(revision) => {
                            self.acknowledging = false;
                            self.own_acknowledgement = revision.unwrap_or(self.own_acknowledgement);
                        }
                        Done::Elected(Some(revision)) => {
                            self.leads = true;
                            // Acknowledgements of the version have later revisions.
                            ready = Some(open(&client, &self.keys.ready, revision + 1).await);
                        }
                        Done::Elected(None) | Done::Published(None) => self.publishing = false,
                        Done::Published(Some(_)) | Done::Confirmed => {}
                    }
                    self.act(&sender);
                }
            }
            known.send_if_modified(|known| {
                let next = self.known();
                std::mem::replace(known, next) != next
            });
        }
    }

    /// Sends the commits that the current state calls for.
    fn act(&mut self, done: &mpsc::UnboundedSender<Done>) {
        let Some((created, modified)) = self.present.get(&self.name).copied() else { return };
        let oldest = || self.present.values().all(|(other, _)| *other >= created);
        if self.leader == 0 && !self.publishing && oldest() {
            self.publishing = true;
            let txn = Txn::new()
                .when([
                    absent(&self.keys.leader),
                    put_at(&self.node(), modified),
                    put_at(&self.keys.version, self.version),
                ])
                .and_then([
                    TxnOp::put(
                        self.keys.leader.as_str(),
                        LEADER,
                        Some(PutOptions::new().with_lease(self.lease)),
                    ),
                    TxnOp::put(self.keys.version.as_str(), VERSION, None),
                    TxnOp::put(self.keys.history.as_str(), VERSION, None),
                ]);
            self.commit(What::Publish, txn, done, Done::Elected);
            return;
        }
        let published = self.leads && self.cut.iter().eq(self.present.keys());
        if self.leads && !published && !self.publishing {
            self.publishing = true;
            let txn = Txn::new()
                .when([created_at(&self.keys.leader, self.leader), put_at(&self.keys.version, self.version)])
                .and_then([
                    TxnOp::put(self.keys.version.as_str(), VERSION, None),
                    TxnOp::put(self.keys.history.as_str(), VERSION, None),
                ]);
            self.commit(What::Publish, txn, done, Done::Published);
        }
        if self.cut.contains(&self.name) && self.last_acknowledged != self.version && !self.acknowledging {
            self.acknowledging = true;
            self.last_acknowledged = self.version;
            let own = format!("{}{}", self.keys.ready, self.name);
            let value = format!(r#"{{"version":"{}","outcome":"ready"}}"#, label(self.version));
            let txn = Txn::new()
                .when([
                    put_at(&self.node(), modified),
                    put_at(&self.keys.version, self.version),
                    put_at(&own, self.own_acknowledgement),
                ])
                .and_then([TxnOp::put(own, value, Some(PutOptions::new().with_lease(self.lease)))]);
            self.commit(What::Acknowledge, txn, done, Done::Acknowledged);
        }
        let all = self.leads && published && self.acknowledged.len() == self.cut.len();
        if all && self.stable < self.version && self.confirming != self.version {
            self.confirming = self.version;
            let txn = Txn::new()
                .when([
                    created_at(&self.keys.leader, self.leader),
                    put_at(&self.keys.version, self.version),
                    put_at(&self.keys.stable, self.stable),
                ])
                .and_then([
                    TxnOp::put(self.keys.stable.as_str(), STABLE, None),
                    TxnOp::put(self.keys.history.as_str(), SETTLED, None),
                ]);
            self.commit(What::Confirm, txn, done, |_| Done::Confirmed);
        }
    }

    fn node(&self) -> String {
        format!("{}{}", self.keys.nodes, self.name)
    }

    async fn commit_join(&mut self) {
        let own = self.node();
        let txn = Txn::new().when([absent(&own)]).and_then([TxnOp::put(
            own.as_str(),
            NODE,
            Some(PutOptions::new().with_lease(self.lease)),
        )]);
        assert!(self.kv.txn(txn).await.unwrap().succeeded());
    }

    fn mark_seen(&self, events: &[Event]) {
        for event in events.iter().filter(|event| event.event_type() == EventType::Put) {
            let what = What::of_key(event.kv().unwrap().key_str().unwrap());
            mark_in(self.trace.as_ref(), &self.name, Mark::Seen(what));
        }
    }

    fn commit(
        &self,
        what: What,
        txn: Txn,
        done: &mpsc::UnboundedSender<Done>,
        make: fn(Option<i64>) -> Done,
    ) {
        mark_in(self.trace.as_ref(), &self.name, Mark::Sent(what));
        let (mut kv, done) = (self.kv.clone(), done.clone());
        tokio::spawn(async move {
            if let Ok(reply) = kv.txn(txn).await {
                let revision = reply.header().map(|header| header.revision());
                let _ = done.send(make(revision.filter(|_| reply.succeeded())));
            }
        });
    }
}

fn mark_in(trace: Option<&Trace>, member: &str, mark: Mark) {
    if let Some(trace) = trace {
        trace.mark(member, mark);
    }
}

/// Values as long as those of the library.
const NODE: &str =
    r#"{"uri":"http://10.0.0.7:8080","incarnation":"01ARZ3NDEKTSV4RRFFQ69G5FAV","metadata":{},"protocol":1}"#;
const LEADER: &str = r#"{"node":"n001","incarnation":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}"#;
const VERSION: &str = r#"{"version":"01ARZ3NDEKTSV4RRFFQ69G5FAV","number":7,"term":12,"leader":"n001","cause":[{"joined":"n002"}]}"#;
const SETTLED: &str = r#"{"version":"01ARZ3NDEKTSV4RRFFQ69G5FAV","number":7,"term":12,"leader":"n001","cause":[{"joined":"n002"}],"stable":{"after_ms":7,"last":"n002"}}"#;
const GONE: &str = r#"{"node":"n001","incarnation":"01ARZ3NDEKTSV4RRFFQ69G5FAV","how":"left"}"#;
const STABLE: &str = r#"{"version":"01ARZ3NDEKTSV4RRFFQ69G5FAV","term":12}"#;

/// Returns a version's revision, padded to the length of a version label.
fn label(version: i64) -> String {
    format!("{version:026}")
}

fn absent(key: &str) -> Compare {
    created_at(key, 0)
}

fn created_at(key: &str, revision: i64) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, revision)
}

fn put_at(key: &str, revision: i64) -> Compare {
    Compare::mod_revision(key, CompareOp::Equal, revision)
}
