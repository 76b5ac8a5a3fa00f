use clustering_core::store::StoreError;
use tokio_postgres::Statement;

use crate::session::Session;

/// A connection for commits, reads and the pages of watches.
pub(crate) struct Calls {
    pub(crate) session: Session,
    pub(crate) commit: Statement,
    pub(crate) read: Statement,
    pub(crate) read_keys: Statement,
    pub(crate) counter: Statement,
    pub(crate) page: Statement,
    pub(crate) revoke: Statement,
    pub(crate) sweep: Statement,
    pub(crate) compact_old: Statement,
    pub(crate) begin_compaction: Statement,
    pub(crate) finish_compaction: Statement,
}

impl Calls {
    pub(crate) async fn prepare(session: Session, schema: &str) -> Result<Self, StoreError> {
        let one = async |text: &str| session.prepare(&in_schema(text, schema)).await;
        let (commit, read, read_keys, counter, page) = tokio::try_join!(
            one(r#"SELECT * FROM "clustering".commit($1, $2, $3, $4, $5, $6, $7)"#),
            // One statement sees one snapshot. The join returns the row of the counter even if no entry matches.
            one(
                r#"SELECT c.revision, e.key, e.value, e.created, e.modified, e.lease FROM "clustering".counter c
                LEFT JOIN "clustering".entry e ON e.key >= $1 AND e.key < $2 ORDER BY e.key"#
            ),
            one(r#"SELECT c.revision, e.key FROM "clustering".counter c
                LEFT JOIN "clustering".entry e ON e.key >= $1 AND e.key < $2 ORDER BY e.key"#),
            one(r#"SELECT revision, compacting FROM "clustering".counter"#),
            // Reads whole revisions and the arguments of `WatchEnd::check` in one snapshot.
            one(r#"SELECT c.revision, c.compacted, l.revision, l.key, l.value, l.created, l.lease
                FROM "clustering".counter c LEFT JOIN "clustering".log l ON l.revision IN (
                    SELECT DISTINCT revision FROM "clustering".log
                    WHERE revision > $3 AND key >= $1 AND key < $2 ORDER BY revision LIMIT $4
                ) AND l.key >= $1 AND l.key < $2 ORDER BY l.revision"#),
        )?;
        let (revoke, sweep, compact_old, begin_compaction, finish_compaction) = tokio::try_join!(
            one(r#"SELECT "clustering".revoke_lease($1)"#),
            one(r#"SELECT "clustering".sweep(to_timestamp($1::bigint / 1000000.0::numeric), $2, $3)"#),
            one(r#"SELECT "clustering".compact_old($1, $2)"#),
            one(r#"SELECT "clustering".begin_compaction($1)"#),
            one(r#"SELECT "clustering".finish_compaction()"#),
        )?;
        Ok(Calls {
            session,
            commit,
            read,
            read_keys,
            counter,
            page,
            revoke,
            sweep,
            compact_old,
            begin_compaction,
            finish_compaction,
        })
    }
}

/// A connection for renewals and notifications. Nothing on it waits for the lock of the counter or follows a large
/// answer, so that renewals are not delayed.
pub(crate) struct Leases {
    pub(crate) session: Session,
    pub(crate) grant: Statement,
    pub(crate) renew: Statement,
    pub(crate) look: Statement,
}

impl Leases {
    pub(crate) async fn prepare(session: Session, schema: &str) -> Result<Self, StoreError> {
        let one = async |text: &str| session.prepare(&in_schema(text, schema)).await;
        let (grant, renew, look) = tokio::try_join!(
            one(r#"SELECT "clustering".grant_lease($1, $2)"#),
            one(r#"UPDATE "clustering".lease SET expires = clock_timestamp() + ttl WHERE id = $1
                RETURNING (extract(epoch FROM ttl) * 1000)::bigint"#),
            one(r#"SELECT "clustering".micros(clock_timestamp()), "clustering".micros(min(expires))
                FROM "clustering".lease"#),
        )?;
        Ok(Leases { session, grant, renew, look })
    }
}

fn in_schema(text: &str, schema: &str) -> String {
    text.replace("\"clustering\"", &format!("\"{schema}\""))
}
