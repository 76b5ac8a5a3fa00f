use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use clustering_core::store::{
    Batch, Change, Entry, ErrorKind, LeaseId, Log, Page, Revision, Signal, StoreError, WatchEnd, WatchStream,
    ended, feed, prefix_range,
};
use futures_util::{StreamExt, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_postgres::Row;
use tokio_util::task::AbortOnDropHandle;

use crate::{failure::Operation, random::spread, shared::Shared};

/// Number of batches that wait for a slow reader. Beyond that, its changes stay in the database.
const BUFFER: usize = 16;

/// Interval at which an idle watch reads a page. This advances it to the store's revision, so that a compaction does
/// not end it.
const IDLE: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

const PAGE: Operation = Operation::read("watch");

/// End of a range of all keys: no UTF-8 text contains this byte.
const END: [u8; 1] = [0xff];

/// Returns the bounds of the keys with this prefix.
pub(crate) fn bounds(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let (start, end) = prefix_range(prefix);
    (start, end.unwrap_or(END.to_vec()))
}

/// Opens a watch. It reads its pages in a task of its own, and so moves past compactions even while nobody polls it.
pub(crate) async fn watch(
    shared: &Arc<Shared>,
    prefix: &str,
    after: Revision,
) -> Result<WatchStream, StoreError> {
    // Subscribe before the first page is read, so that no change after it is missed.
    let signal = shared.signals.subscribe(prefix);
    let calls = shared.calls.session().await?;
    let row = calls.session.query_row(PAGE, &calls.counter, &[]).await?;
    let (revision, compacting) = (revision(&row, 0)?, self::revision(&row, 1)?);
    if let Err(end) = WatchEnd::check(after, compacting, revision) {
        return Ok(ended(end));
    }
    Ok(in_task(open(shared, prefix, after, signal)))
}

fn open(shared: &Arc<Shared>, prefix: &str, after: Revision, signal: Signal) -> WatchStream {
    let log = Changes { bounds: bounds(prefix), shared: shared.clone(), _open: shared.open_watches.clone() };
    feed(log, prefix, after, signal)
}

fn in_task(mut watch: WatchStream) -> WatchStream {
    let (sender, receiver) = mpsc::channel(BUFFER);
    let task = tokio::spawn(async move {
        while let Some(item) = watch.next().await {
            if sender.send(item).await.is_err() {
                return;
            }
        }
    });
    // The task ends when the stream is dropped.
    let reader = Some((receiver, AbortOnDropHandle::new(task)));
    Box::pin(stream::unfold(reader, |reader| async move {
        let mut reader = reader?;
        match reader.0.recv().await {
            Some(Ok(batch)) => Some((Ok(batch), Some(reader))),
            Some(Err(end)) => Some((Err(end), None)),
            None => {
                let reason = "the runtime in which the watch was opened has ended".to_owned();
                Some((Err(WatchEnd::Disconnected { reason }), None))
            }
        }
    }))
}

/// The table `log`, as one watch reads it.
struct Changes {
    bounds: (Vec<u8>, Vec<u8>),
    shared: Arc<Shared>,
    /// Counts the open watches.
    _open: Arc<()>,
}

impl Log for Changes {
    async fn page(&mut self, _prefix: &str, after: Revision, limit: usize) -> Result<Page, WatchEnd> {
        let give_up = Instant::now() + self.shared.config.watch_resume;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.read(after, limit).await {
                Ok(rows) => return page(&rows, after, limit),
                Err(error) => error,
            };
            let next = Instant::now() + spread(pause);
            if !error.is_transient() || next >= give_up {
                return Err(WatchEnd::Disconnected { reason: error.to_string() });
            }
            sleep_until(next).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl Changes {
    async fn read(&self, after: Revision, limit: usize) -> Result<Vec<Row>, StoreError> {
        let calls = self.shared.calls.session().await?;
        let (start, end) = &self.bounds;
        let (after, limit) = (after.get() as i64, limit as i64);
        calls.session.query(PAGE, &calls.page, &[start, end, &after, &limit]).await
    }
}

fn page(rows: &[Row], after: Revision, limit: usize) -> Result<Page, WatchEnd> {
    let broken = |error: StoreError| WatchEnd::Disconnected { reason: error.to_string() };
    let first = rows.first().ok_or_else(|| broken(StoreError::refused("the table `counter` is empty")))?;
    let (revision, compacted) =
        (revision(first, 0).map_err(broken)?, self::revision(first, 1).map_err(broken)?);
    WatchEnd::check(after, compacted, revision)?;
    // Revisions are counted in the rows, because a revision that changed only other prefixes makes no batch.
    let revisions = revisions(rows).map_err(broken)?;
    let batches = batches(rows).map_err(broken)?;
    // The page was limited to whole revisions, so the log may contain later ones.
    let more = revisions.len() >= limit;
    let reached = revisions.last().copied().filter(|_| more).unwrap_or(revision);
    Ok(Page { batches, reached, more, again: Some(Instant::now() + spread(IDLE)) })
}

/// Returns the revisions of the changes in the rows.
fn revisions(rows: &[Row]) -> Result<Vec<Revision>, StoreError> {
    let mut revisions = Vec::new();
    for row in rows {
        revisions.extend(column::<Option<i64>>(row, 2)?.map(|number| Revision::new(number as u64)));
    }
    revisions.dedup();
    Ok(revisions)
}

fn batches(rows: &[Row]) -> Result<Vec<Batch>, StoreError> {
    let mut batches: Vec<(Revision, Vec<Change>)> = Vec::new();
    for row in rows {
        let Some(number) = column::<Option<i64>>(row, 2)? else { continue };
        let at = Revision::new(number as u64);
        // Keys that are not UTF-8 were not written by this store.
        let Ok(key) = std::str::from_utf8(column(row, 3)?) else { continue };
        let change = match column::<Option<&[u8]>>(row, 4)? {
            None => Change::Delete(key.into()),
            Some(value) => Change::Put(Entry {
                key: key.into(),
                value: Bytes::copy_from_slice(value),
                created: revision(row, 5)?,
                modified: at,
                lease: column::<Option<i64>>(row, 6)?.map(|id| LeaseId::new(id as u64)),
            }),
        };
        match batches.last_mut().filter(|(last, _)| *last == at) {
            Some((_, changes)) => changes.push(change),
            None => batches.push((at, vec![change])),
        }
    }
    Ok(batches.into_iter().map(|(at, changes)| Batch::new(at, changes)).collect())
}

/// Returns a column of a row. Fails if somebody has changed the tables.
pub(crate) fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    index: usize,
) -> Result<T, StoreError> {
    row.try_get(index).map_err(|error| {
        let text = format!("the tables of the store do not have the expected columns ({error})");
        StoreError::new(ErrorKind::Refused, format!("{text}: create them again with PostgresStore::install"))
    })
}

pub(crate) fn revision(row: &Row, index: usize) -> Result<Revision, StoreError> {
    Ok(Revision::new(column::<i64>(row, index)? as u64))
}
