use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use clustering_core::{
    Builder, Clustering,
    store::{
        CoordinationStore, ErrorKind, Key, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchStream,
    },
};
use etcd_client::{GetOptions, GetResponse};

use crate::{
    EtcdConfig,
    connection::Connection,
    failure::{Failure, FailureKind},
    key_codec::{KeyCodec, Range, decode_lease, decode_revision, encode_lease},
    lease::Renewals,
    measure,
    operation::Operation,
    watch,
};

/// Number of times that a read is started if its revision is compacted before the last page is read.
const READS: usize = 3;

/// Page size limit for reads of keys. Etcd loads the values even if it does not send them, and values of other services
/// may be large.
const KEYS_PAGE: u32 = 500;

/// The part of each entry that a read returns.
#[derive(Clone, Copy)]
enum Part {
    Entries,
    Keys,
}

/// The coordination store on etcd. Cheap to clone: all clones share their connections.
#[derive(Clone)]
pub struct EtcdStore {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Arc<Connection>,
    renewals: Renewals,
    /// True after the log has mentioned that the configured TTL is not used.
    has_logged_ttl: AtomicBool,
}

impl EtcdStore {
    /// Longest time from the end of a lease's TTL until its keys are deleted, by etcd's own clock and without faults
    /// (contract rule 4). Etcd looks for expired leases twice per second, and revokes up to 1,000 leases per second.
    ///
    /// A newly elected leader of etcd restarts the TTL of every lease, so that it can take up to one TTL longer.
    pub const LEASE_SLACK: Duration = Duration::from_secs(2);

    /// Creates the store for a configuration. No connection is made until the first call, so the store can be created
    /// while etcd is away. To find out whether etcd answers, call [`check`](Self::check).
    ///
    /// Reads the files named by [`EtcdConfig::tls`], which briefly blocks the thread. [`connect`](Self::connect) does
    /// the same without blocking.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the configuration is invalid. The message names the field and the rule.
    pub fn new(config: EtcdConfig) -> Result<Self, StoreError> {
        let connection = Arc::new(Connection::new(config)?);
        measure::describe();
        Ok(EtcdStore {
            shared: Arc::new(Shared {
                connection,
                renewals: Renewals::default(),
                has_logged_ttl: AtomicBool::new(false),
            }),
        })
    }

    /// Creates the store for a configuration, like [`new`](Self::new), but reads certificate files without blocking the
    /// runtime. Like `new`, it does not wait for etcd and does not fail while etcd is away: a node that is started on
    /// the store waits until etcd answers.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the configuration is invalid. The message names the field and the rule.
    pub async fn connect(config: EtcdConfig) -> Result<Self, StoreError> {
        // Loading the system's certificates reads about a hundred files.
        let created = tokio::task::spawn_blocking(|| EtcdStore::new(config)).await;
        created.unwrap_or_else(|error| Err(StoreError::busy(format!("cannot create the store: {error}"))))
    }

    /// Checks with one small read that etcd answers and accepts the user. Use it in a process that should fail instead
    /// of waiting for etcd, or to detect wrong credentials early.
    ///
    /// Returns within [`EtcdConfig::request_timeout`], 2 s by default. Cancel safe.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Unreachable`] if no member can be connected to.
    /// - [`ErrorKind::Refused`] for wrong credentials, and for TLS settings that do not match those of the members.
    /// - [`ErrorKind::Busy`] if etcd can be connected to but does not serve requests: it has no leader, is
    ///   overloaded, or is paused.
    pub async fn check(&self) -> Result<(), StoreError> {
        let key = self.codec().any_key();
        let checked = self.shared.connection.call(Operation::Check, |mut clients| {
            let (key, options) = (key.clone(), GetOptions::new().with_count_only());
            async move {
                match clients.kv.get(key, Some(options)).await.map_err(Failure::from) {
                    // The user exists. Calls that need permissions report those that are missing.
                    Err(failure) if failure.kind == FailureKind::PermissionDenied => Ok(()),
                    reply => reply.map(drop),
                }
            }
        });
        checked.await
    }

    /// Creates the store from environment variables. Like [`connect`](Self::connect), it does not wait for etcd.
    ///
    /// | variable | value |
    /// |---|---|
    /// | `ETCD_ENDPOINTS` | endpoints, separated by commas: `https://etcd-1:2379,etcd-2:2379` |
    /// | `ETCD_HOST`, `ETCD_PORT` | one host (default `localhost`) and its port (default 2379); used if the variable above is unset |
    /// | `ETCDCTL_ENDPOINTS` | endpoints, separated by commas; used if the variables above are unset |
    /// | `ETCDCTL_CACERT` | file with the CA's certificates: [`Tls::ca`](crate::Tls::ca) |
    /// | `ETCDCTL_CERT`, `ETCDCTL_KEY` | files with the client's certificate and key: [`Tls::identity`](crate::Tls::identity) |
    /// | `ETCDCTL_INSECURE_TRANSPORT` | `false` enables TLS even if the three variables above are unset |
    /// | `ETCDCTL_USER` | `user:password`, or only the user, with the password in `ETCDCTL_PASSWORD` |
    /// | `ETCD_TTL` | [`EtcdConfig::ttl`] in seconds: `15` or `15s` |
    /// | `ETCD_FOLLOW_MEMBERS` | `false` disables the search for members that replaced the configured ones; see [`EtcdConfig::member_refresh`] |
    ///
    /// The `ETCDCTL_` variables have the same meaning as for `etcdctl`. An empty variable counts as unset. If no
    /// variable is set, the endpoint is `localhost:2379`, without TLS or credentials. With TLS, endpoints without a
    /// scheme are `https://`.
    ///
    /// The TTL applies to nodes that are created by [`node`](Self::node).
    ///
    /// Two variables of `etcdctl` are rejected, because the store does not support them and ignoring them could do
    /// harm: `ETCDCTL_INSECURE_SKIP_TLS_VERIFY` if it is true, and `ETCDCTL_DISCOVERY_SRV` if neither
    /// `ETCD_ENDPOINTS` nor `ETCD_HOST` is set. Other variables of `etcdctl`, about timeouts and output, are ignored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for an invalid value, such as an endpoint that does not parse, a certificate file that
    /// cannot be read, or a user without a password. The message names the variable, its value and the rule.
    pub async fn from_env() -> Result<Self, StoreError> {
        EtcdStore::connect(EtcdConfig::from_env()?).await
    }

    /// Returns a builder for a node of a cluster in this store. Same as [`Clustering::builder`], except that the
    /// default TTL is that of the configuration ([`EtcdConfig::ttl`] or `ETCD_TTL`), if it has one. Setting
    /// [`ttl`](Builder::ttl) on the builder overrides it.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = clustering_etcd::EtcdStore::from_env().await?;
    /// let cluster = store.node().namespace("telemetry/ingest").uri("http://10.0.0.7:8080").start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn node(&self) -> Builder {
        let builder = Clustering::builder(self.clone());
        match self.config().ttl {
            Some(ttl) => builder.ttl(ttl),
            None => builder,
        }
    }

    fn codec(&self) -> &KeyCodec {
        self.shared.connection.codec()
    }

    /// Returns the configuration.
    pub fn config(&self) -> &EtcdConfig {
        self.shared.connection.config()
    }

    /// Logs, once, that a lease is requested with another TTL than the configured one. Otherwise it would be hard to
    /// find out why the setting has no effect.
    fn compare_ttl(&self, requested: Duration) {
        let Some(configured) = self.config().ttl else { return };
        if requested != configured && !self.shared.has_logged_ttl.swap(true, Ordering::Relaxed) {
            tracing::info!(
                ?requested,
                ?configured,
                "a lease is requested with another TTL than the configured one (ETCD_TTL), which only applies to nodes \
                 created by EtcdStore::node"
            );
        }
    }

    /// Reads all keys with the prefix, page by page, at one revision. Starts again if that revision was compacted
    /// meanwhile.
    async fn read_part(&self, prefix: &str, part: Part) -> Result<Snapshot, StoreError> {
        let range = self.codec().range(prefix);
        for _ in 0..READS {
            if let Some(snapshot) = self.read_once(prefix, &range, part).await? {
                return Ok(snapshot);
            }
        }
        Err(StoreError::busy(format!(
            "read: the revision was compacted {READS} times before the last page of {prefix:?} was read"
        )))
    }

    /// Reads the range, page by page, at one revision. `None` if the revision was compacted meanwhile.
    async fn read_once(
        &self,
        prefix: &str,
        range: &Range,
        part: Part,
    ) -> Result<Option<Snapshot>, StoreError> {
        let mut entries = Vec::new();
        let mut left = range.clone();
        let mut at_revision = None;
        loop {
            let page = self.page(prefix, &left, at_revision, part).await?;
            let Some(GetResponse(page)) = page else { return Ok(None) };
            let at = match at_revision {
                Some(at) => at,
                // The first page is read at the newest revision, which its header contains.
                None => Operation::Read(prefix).revision(page.header.map(|header| header.revision))?,
            };
            at_revision = Some(at);
            let more = page.kvs.last().filter(|_| page.more).map(|last| left.after(&last.key));
            entries.extend(page.kvs.into_iter().filter_map(|kv| self.codec().decode_entry(kv)));
            match more {
                Some(more) => left = more,
                None => return Ok(Some(Snapshot { revision: decode_revision(at), entries })),
            }
        }
    }

    /// Reads one page, at that revision or at the newest one. `None` if the revision is not available.
    async fn page(
        &self,
        prefix: &str,
        range: &Range,
        at: Option<i64>,
        part: Part,
    ) -> Result<Option<GetResponse>, StoreError> {
        let page = self.config().page;
        let options = GetOptions::new().with_range(range.end.clone());
        let options = match part {
            Part::Entries => options.with_limit(i64::from(page)),
            Part::Keys => options.with_limit(i64::from(page.min(KEYS_PAGE))).with_keys_only(),
        };
        let options = at.map_or(options.clone(), |at| options.with_revision(at));
        let read = self.shared.connection.call(Operation::Read(prefix), |mut clients| {
            let (first, options) = (range.first.clone(), options.clone());
            async move {
                match clients.kv.get(first, Some(options)).await.map_err(Failure::from) {
                    Err(failure) if failure.kind == FailureKind::RevisionUnavailable => Ok(None),
                    reply => reply.map(Some),
                }
            }
        });
        read.await
    }
}

#[async_trait]
impl CoordinationStore for EtcdStore {
    /// The TTL is rounded up to whole seconds. Etcd raises short TTLs: to 2 s with its default election timeout.
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        if ttl.is_zero() {
            return Err(StoreError::invalid("the TTL of a lease must be more than zero"));
        }
        self.compare_ttl(ttl);
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        // Etcd rejects a TTL that is too long.
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let grant = self.shared.connection.call(Operation::GrantLease, |mut clients| async move {
            let reply = clients.lease.grant(seconds, None).await?;
            match (decode_lease(reply.id()), u64::try_from(reply.ttl())) {
                (Some(id), Ok(seconds)) if reply.error().is_empty() => {
                    Ok(Lease { id, ttl: Duration::from_secs(seconds) })
                }
                _ => Err(Failure::new(
                    FailureKind::ReplyLost,
                    format!("the reply contains no lease: {}", reply.error()),
                )),
            }
        });
        grant.await
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError> {
        let lease = encode_lease(id);
        let renew = self
            .shared
            .connection
            .call(Operation::RenewLease, |clients| self.shared.renewals.renew(clients, lease));
        renew.await.map(Duration::from_secs).map_err(|error| name_lease(error, id))
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        let lease = encode_lease(id);
        self.shared.renewals.forget(lease);
        let revoke = self.shared.connection.call(Operation::RevokeLease(id), |mut clients| async move {
            clients.lease.revoke(lease).await?;
            Ok(())
        });
        revoke.await.map_err(|error| name_lease(error, id))
    }

    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.read_part(prefix, Part::Entries).await
    }

    /// Etcd does not send the values, so that large values of other services cost little.
    async fn read_keys(&self, prefix: &str) -> Result<Vec<Key>, StoreError> {
        let snapshot = self.read_part(prefix, Part::Keys).await?;
        Ok(snapshot.entries.into_iter().map(|entry| entry.key).collect())
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        watch::watch(&self.shared.connection, prefix, after).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        let operation = Operation::Commit(&txn);
        let request = self.codec().encode_txn(&txn);
        let commit = self.shared.connection.call(operation, |mut clients| {
            let request = request.clone();
            async move { Ok(clients.kv.txn(request).await?) }
        });
        let reply = commit.await?;
        let at = operation.revision(reply.header().map(|header| header.revision()))?;
        match reply.succeeded() {
            true => Ok(decode_revision(at)),
            false => Err(StoreError::guard_failed(decode_revision(at))),
        }
    }
}

/// Adds the lease to an error about it, since etcd's message does not name the lease.
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tracing::{Event, Metadata, Subscriber, span};

    use super::*;

    /// Counts log events about TTLs.
    struct Counter(Arc<AtomicUsize>);

    impl Subscriber for Counter {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.is_event() && metadata.fields().field("configured").is_some()
        }

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn a_configured_ttl_without_effect_is_logged_once() {
        let logged = |configured, requested: u64| {
            let count = Arc::<AtomicUsize>::default();
            let config = EtcdConfig { ttl: configured, ..EtcdConfig::default() };
            let store = EtcdStore::new(config).unwrap();
            tracing::subscriber::with_default(Counter(count.clone()), || {
                for _ in 0..2 {
                    store.compare_ttl(Duration::from_secs(requested));
                }
            });
            count.load(Ordering::Relaxed)
        };
        let seven = Some(Duration::from_secs(7));
        assert_eq!([logged(None, 15), logged(seven, 7), logged(seven, 15)], [0, 0, 1]);
    }

    #[test]
    fn a_node_has_the_configured_ttl_unless_its_builder_overrides_it() {
        let ttl = |config: EtcdConfig, change: fn(Builder) -> Builder| {
            let mut ttl = None;
            let node = EtcdStore::new(config).unwrap().node();
            let _ = change(node).configure(|config| ttl = Some(config.ttl));
            ttl.unwrap()
        };
        let seconds = Duration::from_secs;
        let configured = EtcdConfig { ttl: Some(seconds(7)), ..EtcdConfig::default() };
        assert_eq!(ttl(EtcdConfig::default(), |node| node), clustering_core::Config::default().ttl);
        assert_eq!(ttl(configured.clone(), |node| node), seconds(7));
        assert_eq!(ttl(configured, |node| node.ttl(Duration::from_secs(20))), seconds(20));
    }
}
