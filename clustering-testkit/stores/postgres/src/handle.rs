use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use clustering_core::store::{
    CoordinationStore, Entry, Guard, Key, Lease, LeaseId, Operation as Change, Revision, Snapshot,
    StoreError, Txn, WatchStream,
};
use tokio_postgres::Row;

use crate::{
    PostgresConfig,
    failure::Operation,
    keeper, random, schema,
    session::Session,
    shared::Shared,
    tls::Tls,
    watch::{self, bounds, column, revision},
};

/// Longest TTL of a lease.
const MAX_TTL: Duration = Duration::from_secs(366 * 24 * 60 * 60);

const COMMIT: Operation = Operation::change("commit");
const GRANT: Operation = Operation::change("grant a lease");
const RENEW: Operation = Operation::change("renew a lease");
const REVOKE: Operation = Operation::change("revoke a lease");
const READ: Operation = Operation::read("read");
const CHECK: Operation = Operation::read("check");
const INSTALL: Operation = Operation::change("install");
const COMPACT: Operation = Operation::change("compact");

/// The coordination store on PostgreSQL. Cheap to clone: all clones share two connections.
///
/// A task of the runtime in which the store was created listens for changes and ends overdue leases, so that runtime
/// must live as long as the store.
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
}

impl PostgresStore {
    /// Longest time from the end of a lease's TTL until its keys are deleted, by the server's clock and without faults
    /// (contract rule 4), provided that a process was connected for the whole TTL. Otherwise it may take another TTL.
    pub const LEASE_SLACK: Duration = Duration::from_secs(2);

    /// Creates the store for a configuration. No connection has to be made, so the store can be created while
    /// PostgreSQL is unavailable. To find out whether it answers, call [`check`](Self::check).
    ///
    /// Reads certificate files, which briefly blocks the thread. [`connect`](Self::connect) does the same without
    /// blocking.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::store::ErrorKind::Invalid) if the configuration is invalid. The message names the field.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn new(config: PostgresConfig) -> Result<Self, StoreError> {
        Ok(PostgresStore { shared: Shared::start(config)? })
    }

    /// Creates the store for a configuration, like [`new`](Self::new), but reads certificate files without blocking
    /// the runtime. It neither waits for PostgreSQL nor fails if PostgreSQL is unavailable.
    ///
    /// # Errors
    ///
    /// Same as [`new`](Self::new).
    pub async fn connect(config: PostgresConfig) -> Result<Self, StoreError> {
        let created = tokio::task::spawn_blocking(|| PostgresStore::new(config)).await;
        created.unwrap_or_else(|error| Err(StoreError::busy(format!("cannot create the store: {error}"))))
    }

    /// Creates the store from the environment variables that `psql` knows. Like [`connect`](Self::connect), it does
    /// not wait for PostgreSQL.
    ///
    /// | variable | value |
    /// |---|---|
    /// | `DATABASE_URL` | `postgresql://user:password@host:port/database?sslmode=require`; what it names takes precedence over the following |
    /// | `PGHOST`, `PGPORT` | hosts and ports, separated by commas (defaults `localhost` and 5432) |
    /// | `PGUSER`, `PGPASSWORD`, `PGDATABASE` | user (default `postgres`), password, and database (default: the user's name) |
    /// | `PGSSLMODE` | `disable`, `prefer`, or `require`, which verifies the certificate as `verify-full` does |
    /// | `PGSSLROOTCERT`, `PGSSLCERT`, `PGSSLKEY` | files: [`PostgresConfig::root_certificates`], [`PostgresConfig::identity`] |
    /// | `CLUSTERING_SCHEMA` | [`PostgresConfig::schema`] |
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::store::ErrorKind::Invalid) with the name of the first invalid variable.
    pub async fn from_env() -> Result<Self, StoreError> {
        Self::connect(PostgresConfig::from_env()?).await
    }

    /// Creates the schema with its tables and functions, or replaces functions of an older release. Does nothing if
    /// they are up to date. The user of the connection becomes their owner.
    ///
    /// Takes at most [`connect_timeout`](PostgresConfig::connect_timeout) and, plus half a second,
    /// [`request_timeout`](PostgresConfig::request_timeout). Cancel safe: the transaction either commits or is rolled back.
    ///
    /// # Errors
    ///
    /// [`Refused`](crate::store::ErrorKind::Refused) if the user may not create them. Otherwise as any call.
    pub async fn install(config: &PostgresConfig) -> Result<(), StoreError> {
        config.validate()?;
        let session = Session::connect(config, Tls::load(config)?, |_| {}).await?;
        session.execute_all(INSTALL, &schema::sql(&config.schema)).await
    }

    /// Returns the SQL that [`install`](Self::install) executes, for those who create tables by other means. Execute
    /// it in one transaction.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::store::ErrorKind::Invalid) if the name is not valid for a [schema](PostgresConfig::schema).
    pub fn install_sql(schema: &str) -> Result<String, StoreError> {
        let config = PostgresConfig { schema: schema.to_owned(), ..PostgresConfig::default() };
        config.validate()?;
        Ok(schema::sql(schema))
    }

    /// Checks with one small read on each connection that PostgreSQL answers, accepts the user and has the tables.
    ///
    /// Takes at most [`connect_timeout`](PostgresConfig::connect_timeout) and
    /// [`request_timeout`](PostgresConfig::request_timeout) for each of the two connections. Cancel safe.
    ///
    /// # Errors
    ///
    /// - [`Unreachable`](crate::store::ErrorKind::Unreachable) if no connection can be made.
    /// - [`Refused`](crate::store::ErrorKind::Refused) for wrong credentials or TLS settings, missing rights, and
    ///   missing tables.
    /// - [`Busy`](crate::store::ErrorKind::Busy) if it has no connections left, or takes too long.
    pub async fn check(&self) -> Result<(), StoreError> {
        let leases = self.shared.leases.session().await?;
        let calls = self.shared.calls.session().await?;
        leases.session.query_row(CHECK, &leases.look, &[]).await?;
        calls.session.query_row(CHECK, &calls.counter, &[]).await.map(drop)
    }

    /// Discards the changes up to and including `revision`, or all if it lies in the future, for all users of the
    /// store. The store also compacts by itself; see [`PostgresConfig::keep_changes`].
    ///
    /// Takes as long as [`PostgresConfig::compaction_grace`]. If it is dropped before, the store finishes the
    /// compaction by itself.
    ///
    /// # Errors
    ///
    /// Same as any call.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let up_to = i64::try_from(revision.get()).unwrap_or(i64::MAX);
        let calls = self.shared.calls.session().await?;
        calls.session.query_row(COMPACT, &calls.begin_compaction, &[&up_to]).await?;
        tokio::time::sleep(self.shared.config.compaction_grace).await;
        let calls = self.shared.calls.session().await?;
        while column(&calls.session.query_row(COMPACT, &calls.finish_compaction, &[]).await?, 0)? {}
        Ok(())
    }

    /// Returns the number of open watches of this store and its clones.
    pub fn open_watches(&self) -> usize {
        Arc::strong_count(&self.shared.open_watches) - 1
    }

    async fn rows(&self, keys_only: bool, prefix: &str) -> Result<Vec<Row>, StoreError> {
        let calls = self.shared.calls.session().await?;
        let (start, end) = bounds(prefix);
        let statement = if keys_only { &calls.read_keys } else { &calls.read };
        calls.session.query(READ, statement, &[&start, &end]).await
    }
}

#[async_trait]
impl CoordinationStore for PostgresStore {
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        if ttl.is_zero() || ttl > MAX_TTL {
            return Err(StoreError::invalid(format!(
                "the TTL of a lease must be above zero and at most {MAX_TTL:?}, but {ttl:?} was requested"
            )));
        }
        let ms = ttl.as_micros().div_ceil(1000) as u64;
        // A counter would repeat its numbers after a restore, so IDs are random.
        let id = (random::number()? >> 1).max(1);
        let leases = self.shared.leases.session().await?;
        leases.session.query_row(GRANT, &leases.grant, &[&(id as i64), &(ms as i64)]).await?;
        Ok(Lease { id: LeaseId::new(id), ttl: Duration::from_millis(ms) })
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError> {
        let leases = self.shared.leases.session().await?;
        let rows = leases.session.query(RENEW, &leases.renew, &[&(id.get() as i64)]).await?;
        let row = rows.first().ok_or_else(|| StoreError::lease_not_found(id))?;
        Ok(Duration::from_millis(column::<i64>(row, 0)? as u64))
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        let calls = self.shared.calls.session().await?;
        let row = calls.session.query_row(REVOKE, &calls.revoke, &[&(id.get() as i64)]).await?;
        match column(&row, 0)? {
            true => Ok(()),
            false => Err(StoreError::lease_not_found(id)),
        }
    }

    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        let rows = self.rows(false, prefix).await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in &rows {
            let Some(key) = key(row)? else { continue };
            entries.push(Entry {
                key,
                value: Bytes::copy_from_slice(column(row, 2)?),
                created: revision(row, 3)?,
                modified: revision(row, 4)?,
                lease: column::<Option<i64>>(row, 5)?.map(|id| LeaseId::new(id as u64)),
            });
        }
        let first = rows.first().ok_or_else(|| StoreError::refused("the table `counter` is empty"))?;
        Ok(Snapshot { revision: revision(first, 0)?, entries })
    }

    async fn read_keys(&self, prefix: &str) -> Result<Vec<Key>, StoreError> {
        let rows = self.rows(true, prefix).await?;
        rows.iter().filter_map(|row| key(row).transpose()).collect()
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        watch::watch(&self.shared, prefix, after).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        let commit = Parameters::of(&txn);
        let calls = self.shared.calls.session().await?;
        let row = calls
            .session
            .query_row(
                COMMIT,
                &calls.commit,
                &[
                    &commit.guard_keys,
                    &commit.guards_modified,
                    &commit.guard_revisions,
                    &commit.put_keys,
                    &commit.put_values,
                    &commit.put_leases,
                    &commit.deletes,
                ],
            )
            .await?;
        let number = column::<i64>(&row, 1)? as u64;
        match column(&row, 0)? {
            "done" => Ok(Revision::new(number)),
            "lease" => Err(StoreError::lease_not_found(LeaseId::new(number))),
            _ => Err(StoreError::guard_failed(Revision::new(number))),
        }
    }
}

/// A transaction as parameters of the function `commit`.
#[derive(Default)]
struct Parameters<'a> {
    guard_keys: Vec<&'a [u8]>,
    guards_modified: Vec<bool>,
    guard_revisions: Vec<i64>,
    put_keys: Vec<&'a [u8]>,
    put_values: Vec<&'a [u8]>,
    put_leases: Vec<Option<i64>>,
    deletes: Vec<&'a [u8]>,
}

impl<'a> Parameters<'a> {
    fn of(txn: &'a Txn) -> Self {
        let mut of = Parameters::default();
        for guard in txn.guards() {
            let (key, is_modified, revision) = match guard {
                Guard::CreatedAt(key, revision) => (key, false, revision),
                Guard::ModifiedAt(key, revision) => (key, true, revision),
            };
            of.guard_keys.push(key.as_bytes());
            of.guards_modified.push(is_modified);
            // No entry has such a large revision, so the guard fails.
            of.guard_revisions.push(i64::try_from(revision.get()).unwrap_or(i64::MAX));
        }
        for operation in txn.operations() {
            match operation {
                Change::Put { key, value, lease } => {
                    of.put_keys.push(key.as_bytes());
                    of.put_values.push(value);
                    of.put_leases.push(lease.map(|lease| lease.get() as i64));
                }
                Change::Delete { key } => of.deletes.push(key.as_bytes()),
            }
        }
        of
    }
}

/// Returns the key in a row, or `None` if the row has none or if it was not written by this store.
fn key(row: &Row) -> Result<Option<Key>, StoreError> {
    let bytes = column::<Option<&[u8]>>(row, 1)?;
    Ok(bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).map(Key::from))
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

const _: () = assert!(keeper::MARGIN.as_millis() < PostgresStore::LEASE_SLACK.as_millis());
