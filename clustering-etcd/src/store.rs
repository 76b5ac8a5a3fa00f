use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, ErrorKind, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchStream,
};
use etcd_client::{GetOptions, GetResponse};

use crate::{
    EtcdConfig,
    connection::Connection,
    failure::{Call, Failure, Outcome},
    lease::Renewals,
    watch,
    wire::{Range, Wire, caller_lease, revision, wire_lease, wire_revision},
};

/// How many entries one page of a read has: with values of 64 KiB each, 32 MiB.
const PAGE: i64 = 500;

/// How often a read begins again because the history under it was compacted before its last page.
const READS: usize = 3;

/// The coordination store on etcd. Cheap to clone: all clones share their connections.
#[derive(Clone)]
pub struct EtcdStore {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Arc<Connection>,
    wire: Wire,
    renewals: Renewals,
}

impl EtcdStore {
    /// How long after its TTL a lease's keys vanish at the latest, by etcd's own clock and without faults (contract
    /// rule 4): it looks for expired leases twice a second and revokes up to 1,000 of them in a second.
    ///
    /// A new etcd leader counts every lease anew from its election, so then it can take up to one TTL more.
    pub const LEASE_SLACK: Duration = Duration::from_secs(2);

    /// The store for that configuration. Connects when it is first used, so nothing is known of the cluster yet;
    /// [`connect`](Self::connect) makes sure of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`], saying which field breaks which rule.
    pub fn new(config: EtcdConfig) -> Result<Self, StoreError> {
        config.validate()?;
        let wire = Wire::new(config.prefix.clone());
        let connection = Arc::new(Connection::new(config));
        Ok(EtcdStore { shared: Arc::new(Shared { connection, wire, renewals: Renewals::default() }) })
    }

    /// The store for that configuration, after a call that made sure that etcd answers and knows the user.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unreachable`] where no member answers within [`EtcdConfig::request_timeout`],
    /// [`ErrorKind::Refused`] for wrong credentials, [`ErrorKind::Busy`] while the cluster has no leader,
    /// [`ErrorKind::Invalid`] for a configuration that breaks a rule.
    pub async fn connect(config: EtcdConfig) -> Result<Self, StoreError> {
        let store = EtcdStore::new(config)?;
        let connected = store.shared.connection.call(Call::Read, "connect", |mut clients| {
            let key = store.shared.wire.any_key();
            async move {
                match clients
                    .kv
                    .get(key, Some(GetOptions::new().with_count_only()))
                    .await
                    .map_err(Failure::from)
                {
                    // The user is known. What he may do shows when he does it.
                    Err(failure) if failure.outcome == Outcome::Forbidden => Ok(()),
                    Err(failure) => Err(failure),
                    Ok(_) => Ok(()),
                }
            }
        });
        connected.await?;
        Ok(store)
    }

    /// [`connect`](Self::connect) with what the environment says. A variable that is empty counts as unset.
    ///
    /// | variable | holds |
    /// |---|---|
    /// | `ETCD_ENDPOINTS` | a list with commas: `http://etcd-1:2379,etcd-2:2379` |
    /// | `ETCD_HOST`, `ETCD_PORT` | without that: one host, by default `localhost`, and its port, by default 2379 |
    /// | `ETCDCTL_ENDPOINTS` | without those: a list as above, shared with etcd's own tool |
    /// | `ETCDCTL_USER` | `user:password`, or the user with the password in `ETCDCTL_PASSWORD` |
    ///
    /// With none of them set it is `localhost:2379` without credentials.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for a value that cannot be used: the variable, its value and the rule. Those of
    /// [`connect`](Self::connect).
    pub async fn from_env() -> Result<Self, StoreError> {
        EtcdStore::connect(EtcdConfig::from_env()?).await
    }

    /// Its configuration.
    pub fn config(&self) -> &EtcdConfig {
        self.shared.connection.config()
    }

    /// Reads the range, page by page, at one revision. `None` if the revision was compacted on the way.
    async fn read_once(&self, range: &Range) -> Result<Option<Snapshot>, StoreError> {
        let mut entries = Vec::new();
        let mut left = range.clone();
        let mut shown = None;
        loop {
            let page = self.page(&left, shown).await?;
            let Some(GetResponse(page)) = page else { return Ok(None) };
            let at = match shown {
                Some(at) => at,
                // The first page shows the newest revision, and says which that is.
                None => header_revision(page.header.map(|header| header.revision), Call::Read, "read")?,
            };
            shown = Some(at);
            let more = page.kvs.last().filter(|_| page.more).map(|last| left.behind(&last.key));
            entries.extend(page.kvs.into_iter().filter_map(|kv| self.shared.wire.entry(kv)));
            match more {
                Some(more) => left = more,
                None => return Ok(Some(Snapshot { revision: revision(at), entries })),
            }
        }
    }

    /// One page, at that revision or at the newest. `None` if the revision is gone.
    async fn page(&self, range: &Range, at: Option<i64>) -> Result<Option<GetResponse>, StoreError> {
        let options = GetOptions::new().with_range(range.end.clone()).with_limit(PAGE);
        let options = at.map_or(options.clone(), |at| options.with_revision(at));
        let read = self.shared.connection.call(Call::Read, "read", |mut clients| {
            let (first, options) = (range.first.clone(), options.clone());
            async move {
                match clients.kv.get(first, Some(options)).await.map_err(Failure::from) {
                    Err(failure) if failure.outcome == Outcome::RevisionGone => Ok(None),
                    reply => reply.map(Some),
                }
            }
        });
        read.await
    }

    /// The revision at which the cluster, not only the member that answers, stands.
    async fn revision(&self, range: &Range) -> Result<i64, StoreError> {
        let read = self.shared.connection.call(Call::Read, "watch", |mut clients| {
            let (first, end) = (range.first.clone(), range.end.clone());
            let options = GetOptions::new().with_range(end).with_count_only();
            async move { Ok(clients.kv.get(first, Some(options)).await?) }
        });
        header_revision(read.await?.header().map(|header| header.revision()), Call::Read, "watch")
    }
}

/// The revision in a reply's header, without which no server of etcd replies.
fn header_revision(found: Option<i64>, call: Call, what: &str) -> Result<i64, StoreError> {
    found.ok_or_else(|| Failure::new(Outcome::Lost, "the reply has no header").into_error(call, what))
}

#[async_trait]
impl CoordinationStore for EtcdStore {
    /// The TTL is rounded up to whole seconds; etcd itself raises short ones, to 2 s with its default election timeout.
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        if ttl.is_zero() {
            return Err(StoreError::invalid("a lease needs a TTL of more than zero, this one has 0 s"));
        }
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        // What is too long for etcd it refuses itself.
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let grant = self.shared.connection.call(Call::Change, "grant_lease", |mut clients| async move {
            let reply = clients.lease.grant(seconds, None).await?;
            match (caller_lease(reply.id()), u64::try_from(reply.ttl())) {
                (Some(id), Ok(seconds)) if reply.error().is_empty() => {
                    Ok(Lease { id, ttl: Duration::from_secs(seconds) })
                }
                _ => Err(Failure::new(Outcome::Lost, format!("a reply without a lease: {}", reply.error()))),
            }
        });
        grant.await
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError> {
        let lease = wire_lease(id);
        let renew = self
            .shared
            .connection
            .call(Call::Repeatable, "renew_lease", |clients| self.shared.renewals.renew(clients, lease));
        renew.await.map(Duration::from_secs).map_err(|error| name_lease(error, id))
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        let lease = wire_lease(id);
        self.shared.renewals.forget(lease);
        let revoke = self.shared.connection.call(Call::Change, "revoke_lease", |mut clients| async move {
            clients.lease.revoke(lease).await?;
            Ok(())
        });
        revoke.await.map_err(|error| name_lease(error, id))
    }

    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        let range = self.shared.wire.range(prefix);
        for _ in 0..READS {
            if let Some(snapshot) = self.read_once(&range).await? {
                return Ok(snapshot);
            }
        }
        Err(StoreError::busy(format!(
            "read: compacted {READS} times before the last page of {prefix:?} was read"
        )))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        let range = self.shared.wire.range(prefix);
        // One less than etcd can count, so that there is a revision after it.
        let after = wire_revision(after).min(i64::MAX - 1);
        let open = |start| {
            self.shared.connection.call(Call::Read, "watch", {
                let range = &range;
                move |clients| watch::open(clients, range.clone(), start)
            })
        };
        let mut opened = open(after + 1).await?;
        if opened.stands > after.max(1) {
            // There may be changes to catch up with. Etcd ends a watch as compacted only if it begins *before* the
            // revision up to which was compacted, but a deletion of just that revision is gone as well (measured with
            // 3.4.23 and 3.5.1; mended in 3.5.16). Beginning one revision early makes etcd judge rightly. It is not
            // done at once because it makes etcd look for old changes, which takes it up to 100 ms.
            opened = open(after.max(1)).await?;
        }
        if opened.stands < after {
            // The member may only lag behind.
            let stands = self.revision(&range).await?;
            if stands < after {
                return Ok(watch::rewound(revision(stands)));
            }
        }
        let (wire, connection) = (self.shared.wire.clone(), Arc::clone(&self.shared.connection));
        Ok(watch::stream(opened, after, wire, connection))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        // Nobody minds if a mere check of guards is made twice.
        let call = if txn.operations().is_empty() { Call::Read } else { Call::Change };
        let request = self.shared.wire.txn(&txn);
        let commit = self.shared.connection.call(call, "commit", |mut clients| {
            let request = request.clone();
            async move { Ok(clients.kv.txn(request).await?) }
        });
        let reply = commit.await?;
        let at = header_revision(reply.header().map(|header| header.revision()), call, "commit")?;
        match reply.succeeded() {
            true => Ok(revision(at)),
            false => Err(StoreError::guard_failed(revision(at))),
        }
    }
}

/// The error about the lease that was named, instead of etcd's that names none.
fn name_lease(error: StoreError, id: LeaseId) -> StoreError {
    match error.kind() {
        ErrorKind::LeaseNotFound => StoreError::lease_not_found(id),
        _ => error,
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore").field("config", self.config()).finish_non_exhaustive()
    }
}
