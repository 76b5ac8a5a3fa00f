//! The task that every process runs on the store: it listens for changes, ends overdue leases, and compacts.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use clustering_core::store::StoreError;
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep_until},
};

use crate::{
    failure::Operation,
    random::spread,
    shared::Shared,
    statements::{Calls, Leases},
    watch::column,
};

/// Extra lifetime of each lease beyond its TTL: the largest tolerated disagreement between the clocks of the server
/// and of a process.
pub(crate) const MARGIN: Duration = Duration::from_millis(500);

/// Largest random delay before a process ends an overdue lease, so that one process ends it and the others find it
/// ended.
const STAGGER: Duration = Duration::from_millis(200);

/// Pause after a failed attempt, and while an overdue lease must not be ended yet.
const RETRY: Duration = Duration::from_millis(500);

/// Interval of compactions.
const COMPACTION: Duration = Duration::from_secs(60);

const LOOK: Operation = Operation::read("look at leases");
const SWEEP: Operation = Operation::change("end leases");
const COMPACT: Operation = Operation::change("compact");

/// Runs until the store is gone. Receives the TTLs of leases that any process granted.
pub(crate) async fn keep(shared: Weak<Shared>, mut grants: UnboundedReceiver<Duration>) {
    let now = Instant::now();
    let mut keeper =
        Keeper { session: Weak::new(), anchor: None, next: now, compaction: now + spread(COMPACTION) };
    loop {
        let Some(strong) = shared.upgrade() else { return };
        keeper.visit(&strong).await;
        drop(strong);
        keeper.wait(&mut grants).await;
    }
}

struct Keeper {
    /// The connection that was used for notifications at the last visit.
    session: Weak<Leases>,
    anchor: Option<Anchor>,
    /// Time of the next visit.
    next: Instant,
    compaction: Instant,
}

/// A moment, as read from the server's clock and from this process's clock. The server read its clock between the two
/// times.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    server: i64,
    sent: Instant,
    received: Instant,
}

impl Anchor {
    /// True if the server's clock was set between two moments: the two clocks then advanced by different amounts.
    fn disagrees(&self, later: &Anchor) -> bool {
        let margin = MARGIN.as_micros() as i64;
        let advanced = later.server - self.server;
        let micros = |time: Duration| time.as_micros() as i64;
        let most = micros(later.received.duration_since(self.sent)) + margin;
        let least = micros(later.sent.duration_since(self.received)) - margin;
        advanced > most || advanced < least
    }
}

impl Keeper {
    async fn visit(&mut self, shared: &Arc<Shared>) {
        if let Err(error) = self.try_visit(shared).await {
            tracing::debug!(%error, "cannot check the leases for expiry, will retry");
            // Another caller may still hold a closed connection, whose end must not cut the pause short.
            self.session = Weak::new();
            self.next = Instant::now() + spread(RETRY);
        }
    }

    async fn try_visit(&mut self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        let leases = shared.leases.session().await?;
        if !std::ptr::eq(self.session.as_ptr(), Arc::as_ptr(&leases)) {
            self.session = Arc::downgrade(&leases);
            // Notifications may have been lost before this connection listened.
            shared.signals.raise_all();
        }
        let (now, earliest) = look(&leases).await?;
        let anchor = *self.anchor.insert(match self.anchor {
            Some(anchor) if !anchor.disagrees(&now) => anchor,
            Some(_) => {
                tracing::info!(
                    "the clock of PostgreSQL was set or has drifted: leases may end up to one TTL later"
                );
                now
            }
            None => now,
        });
        let check = now.received + spread(shared.config.check_interval);
        self.next = match earliest.map(|at| until(now.server, at)) {
            None => check,
            Some(Some(time)) => check.min(now.received + time + spread(STAGGER)),
            Some(None) => match sweep(&*shared.calls.session().await?, &anchor).await? {
                // The lease was renewed or ended in the meantime, or its TTL counts from the anchor.
                0 => Instant::now() + spread(RETRY),
                // More leases may be overdue.
                _ => Instant::now(),
            },
        };
        self.compact(shared).await
    }

    async fn compact(&mut self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        if Instant::now() < self.compaction {
            return Ok(());
        }
        self.compaction = Instant::now() + spread(COMPACTION);
        let calls = shared.calls.session().await?;
        let [keep, grace] =
            [shared.config.keep_changes, shared.config.compaction_grace].map(|time| time.as_millis() as i64);
        let row = calls.session.query_row(COMPACT, &calls.compact_old, &[&keep, &grace]).await?;
        if column(&row, 0)? {
            self.compaction = Instant::now();
            self.next = Instant::now();
        }
        Ok(())
    }

    /// Waits until the next visit: earlier if a lease was granted that may expire before, or if the connection has
    /// ended.
    async fn wait(&mut self, grants: &mut UnboundedReceiver<Duration>) {
        let session = self.session.upgrade();
        let closed = async {
            match &session {
                Some(leases) => leases.session.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(closed);
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.next) => return,
                Some(ttl) = grants.recv() => {
                    self.next = self.next.min(Instant::now() + ttl + MARGIN + spread(STAGGER));
                }
                () = &mut closed => {
                    self.next = self.next.min(Instant::now());
                    return;
                }
            }
        }
    }
}

/// Returns the present moment, and the earliest time by the server's clock at which a lease is overdue.
async fn look(leases: &Leases) -> Result<(Anchor, Option<i64>), StoreError> {
    let sent = Instant::now();
    let row = leases.session.query_row(LOOK, &leases.look, &[]).await?;
    let anchor = Anchor { server: column(&row, 0)?, sent, received: Instant::now() };
    Ok((anchor, column(&row, 1)?))
}

/// Returns the time until a lease may be ended, or `None` if it may be now.
fn until(now: i64, expires: i64) -> Option<Duration> {
    let due = expires + MARGIN.as_micros() as i64;
    u64::try_from(due - now).ok().filter(|time| *time > 0).map(Duration::from_micros)
}

/// Ends the overdue leases and returns their number.
async fn sweep(calls: &Calls, anchor: &Anchor) -> Result<i32, StoreError> {
    let elapsed = anchor.received.elapsed().as_micros() as i64;
    let margin = MARGIN.as_millis() as i64;
    let row = calls.session.query_row(SWEEP, &calls.sweep, &[&anchor.server, &elapsed, &margin]).await?;
    column(&row, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_is_noticed_and_a_slow_call_is_not() {
        let start = Instant::now();
        let at = |server_ms: i64, sent: Duration, received: Duration| Anchor {
            server: server_ms * 1000,
            sent: start + sent,
            received: start + received,
        };
        let anchor = at(5_000, Duration::ZERO, SECOND / 10);
        assert!(!anchor.disagrees(&at(15_000, SECOND * 10, SECOND * 10)));
        assert!(!anchor.disagrees(&at(18_000, SECOND * 10, SECOND * 13)), "the answer took 3 s");
        assert!(!anchor.disagrees(&at(15_000, SECOND * 10, SECOND * 13)), "so did this one");
        assert!(anchor.disagrees(&at(15_600, SECOND * 10, SECOND * 10)), "set forward");
        assert!(anchor.disagrees(&at(14_300, SECOND * 10, SECOND * 10)), "set back");
    }

    #[test]
    fn a_lease_may_be_ended_after_the_margin() {
        assert_eq!(until(1_000_000, 1_000_000), Some(MARGIN));
        assert_eq!(until(1_500_000, 1_000_000), None);
        assert_eq!(until(9_000_000, 1_000_000), None);
    }
}
