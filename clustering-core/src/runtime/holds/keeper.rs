use std::{collections::BTreeMap, sync::Arc};

use super::table::{Acquisition, Holds, LeaseClock, Slots};
use crate::{
    machine::{Holdings, Input, Token},
    runtime::{clock::Clock, liveness::Presence},
    slots::{Slot, SlotSet},
    store::{LeaseId, Revision},
    time::Timestamp,
};

/// Updates the table of holds from the machine's status, and reports which lost slots are still in use.
///
/// Owned by the driver. Dropping the keeper makes all holds lost, however the driver ended.
#[derive(Debug)]
pub(crate) struct Keeper {
    holds: Arc<Holds>,
    clock: Clock,
    /// Keeps the port of crash detection open while holds are outstanding: a watcher that trusts a refused connection
    /// would give their slots to other nodes.
    presence: Option<Presence>,
    /// The state that the table was built from.
    held: Arc<BTreeMap<Slot, Revision>>,
    current: Option<Arc<LeaseClock>>,
    /// Time until which holds are given out; `None` if none are given out.
    open_until: Option<Timestamp>,
    /// The clocks of leases whose holds are not void.
    leases: BTreeMap<LeaseId, Arc<LeaseClock>>,
    /// Lost acquisitions with outstanding holds.
    outgoing: Vec<Arc<Acquisition>>,
    retractions: BTreeMap<Token, Retraction>,
    /// Acquisitions that were lost or became void since the last [`wake`](Self::wake).
    to_wake: Vec<Arc<Acquisition>>,
    /// True if the table has changed since the last [`wake`](Self::wake).
    has_changed: bool,
}

/// A call that reports which slots are still in use.
#[derive(Debug)]
struct Retraction {
    acquisitions: Vec<Arc<Acquisition>>,
    /// The last report.
    reported: Option<SlotSet>,
}

impl Keeper {
    pub(crate) fn new(holds: Arc<Holds>, clock: Clock) -> Self {
        Keeper {
            holds,
            clock,
            presence: None,
            held: Arc::default(),
            current: None,
            open_until: None,
            leases: BTreeMap::new(),
            outgoing: Vec::new(),
            retractions: BTreeMap::new(),
            to_wake: Vec::new(),
            has_changed: false,
        }
    }

    /// Lets outstanding holds keep the port of crash detection open.
    pub(crate) fn present(mut self, presence: Option<Presence>) -> Self {
        self.presence = presence;
        self
    }

    /// Makes all holds lost. From now on only the holds themselves keep the port open.
    pub(crate) fn leave(&mut self) {
        self.end();
        self.presence = None;
        self.outgoing.clear();
        self.retractions.clear();
    }

    /// Makes the table follow the holdings. Slots that are no longer held are refused from here on, but only
    /// [`wake`](Self::wake) notifies their waiters.
    pub(crate) fn apply(&mut self, holdings: Option<&Holdings>, now: Timestamp) {
        let lease = holdings.and_then(|holdings| self.follow(holdings, now));
        let until = holdings.map(|holdings| holdings.until).filter(|until| lease.is_some() && now < *until);
        let held =
            holdings.filter(|_| until.is_some()).map(|holdings| holdings.held.clone()).unwrap_or_default();
        let has_lapsed = lease.as_ref().is_some_and(|lease| lease.take_lapsed());
        let is_same = same(&self.held, &held) && is_same_clock(&self.current, &lease) && !has_lapsed;
        self.open_until = until.filter(|_| !held.is_empty());
        if !is_same {
            (self.held, self.current) = (held, lease);
            self.rebuild(now);
        }
        self.prune(now);
    }

    /// Returns the clock of the holdings' lease, with its deadlines moved.
    ///
    /// Void holds stay void, because they may have been reported as dropped. If the lease is renewed after that, it
    /// gets a new clock and new acquisitions.
    fn follow(&mut self, holdings: &Holdings, now: Timestamp) -> Option<Arc<LeaseClock>> {
        let lease = holdings.lease?;
        self.leases.retain(|_, clock| now < clock.void());
        let Holdings { until, void, .. } = *holdings;
        let new = || Arc::new(LeaseClock::new(self.clock.clone(), until, void));
        let clock = self.leases.entry(lease).or_insert_with(new);
        clock.set(until, void);
        Some(clock.clone())
    }

    /// Rebuilds the table. Acquisitions that continue are kept; all others are lost.
    fn rebuild(&mut self, now: Timestamp) {
        let before = self.holds.slots();
        let acquisitions =
            self.held.iter().filter_map(|(slot, token)| {
                let lease = self.current.as_ref()?;
                let continues = |acquisition: &&Arc<Acquisition>| {
                    let is_same = acquisition.token == *token && Arc::ptr_eq(&acquisition.lease, lease);
                    is_same && !acquisition.is_marked()
                };
                let kept = before.get(*slot).filter(continues).cloned();
                Some(kept.unwrap_or_else(|| {
                    self.holds.acquire(*slot, *token, lease.clone(), self.presence.clone())
                }))
            });
        let after = Slots::new(acquisitions);
        for acquisition in before.iter() {
            let is_kept = after.get(acquisition.slot).is_some_and(|kept| Arc::ptr_eq(kept, acquisition));
            if !is_kept {
                // Set the mark before reading the count: see `Acquisition::hold`.
                acquisition.lose();
                self.to_wake.push(acquisition.clone());
                if acquisition.is_in_use(now) {
                    self.outgoing.push(acquisition.clone());
                }
            }
        }
        self.holds.replace(after);
        self.has_changed = true;
    }

    /// Removes lost acquisitions that are no longer in use.
    fn prune(&mut self, now: Timestamp) {
        let to_wake = &mut self.to_wake;
        self.outgoing.retain(|acquisition| {
            let is_void = now >= acquisition.lease.void();
            if is_void {
                to_wake.push(acquisition.clone());
            }
            acquisition.is_in_use(now)
        });
    }

    /// Wakes all tasks that wait for a change of the table or the loss of a hold. Wakers may run foreign code, so the
    /// caller must hold no lock.
    pub(crate) fn wake(&mut self) {
        for acquisition in self.to_wake.drain(..) {
            acquisition.wake();
        }
        if std::mem::take(&mut self.has_changed) {
            self.holds.announce();
        }
    }

    /// Starts to report which of the slots are in use by the holds that are outstanding now. Later holds do not count.
    pub(crate) fn retract(&mut self, token: Token, slots: &SlotSet) {
        let is_meant = |acquisition: &&Arc<Acquisition>| slots.contains(acquisition.slot);
        let acquisitions = self.outgoing.iter().filter(is_meant).cloned().collect();
        self.retractions.insert(token, Retraction { acquisitions, reported: None });
    }

    /// Returns the next report that is due.
    pub(crate) fn report(&mut self) -> Option<Input> {
        if self.retractions.is_empty() {
            return None;
        }
        let now = self.clock.now();
        let (token, in_use) = self.retractions.iter_mut().find_map(|(token, retraction)| {
            retraction.acquisitions.retain(|acquisition| acquisition.is_in_use(now));
            let in_use: SlotSet =
                retraction.acquisitions.iter().map(|acquisition| acquisition.slot).collect();
            (retraction.reported.as_ref() != Some(&in_use)).then_some((*token, in_use))
        })?;
        if in_use.is_empty() {
            self.retractions.remove(&token);
        } else if let Some(retraction) = self.retractions.get_mut(&token) {
            retraction.reported = Some(in_use.clone());
        }
        Some(Input::Retracted { token, in_use })
    }

    /// Returns the next time at which the table changes without an input: holds are no longer given out, or become
    /// void.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let voids = self.outgoing.iter().map(|acquisition| acquisition.lease.void());
        voids.chain(self.open_until).min()
    }

    /// Returns the clock of a lease. The clock of an unknown lease is void.
    pub(crate) fn lease(&self, lease: LeaseId) -> Arc<LeaseClock> {
        let void = || Arc::new(LeaseClock::new(self.clock.clone(), Timestamp::ZERO, Timestamp::ZERO));
        self.leases.get(&lease).cloned().unwrap_or_else(void)
    }

    /// Makes all holds lost. They stay valid until their lease may have expired.
    pub(crate) fn end(&mut self) {
        self.apply(None, self.clock.now());
        self.wake();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}

fn same(a: &Arc<BTreeMap<Slot, Revision>>, b: &Arc<BTreeMap<Slot, Revision>>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn is_same_clock(a: &Option<Arc<LeaseClock>>, b: &Option<Arc<LeaseClock>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}
