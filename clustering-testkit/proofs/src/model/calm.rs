//! P8: from any state, the cluster becomes stable if nothing goes wrong any more.

use std::{collections::BTreeMap, time::Duration};

use clustering_core::{View, machine::Phase, store::LeaseId};

use super::{
    Action, Bounds, ClusterModel, action,
    state::{Request, State},
    step::Step,
};

/// Virtual time within which the cluster must become stable.
const WITHIN: Duration = Duration::from_secs(180);

/// Maximum number of steps without any time passing.
const STEPS: usize = 10_000;

/// Lets the cluster come to rest, one action at a time and with all clocks at the same rate. Pending actions happen,
/// dead processes are restarted, leases that are not renewed end after their TTL, and abandoned calls never take
/// effect.
///
/// Returns the resulting state if the cluster has become stable, and a description of the problem if not.
pub(super) fn run(model: &ClusterModel, from: &State) -> Result<State, String> {
    let mut state = State { left: Bounds::nodes(from.left.nodes), ..from.clone() };
    let ttl = model.config().ttl;
    let mut passed = Duration::ZERO;
    let mut ends: BTreeMap<LeaseId, Duration> = BTreeMap::new();
    loop {
        state = drain(model, state, |lease| {
            ends.insert(lease, passed + ttl);
        })?;
        if let Some(breach) = &state.breach {
            return Err(breach.to_string());
        }
        if is_well(&state) {
            return Ok(state);
        }
        let leases: Vec<LeaseId> = state.shared.store.leases().collect();
        ends.retain(|lease, _| leases.contains(lease));
        leases.iter().for_each(|lease| {
            ends.entry(*lease).or_insert(passed + ttl);
        });
        let expiry = ends.values().min().map(|end| end.saturating_sub(passed));
        let wakeups = state.nodes.iter().filter_map(|node| {
            let at = node.machine.as_ref()?.next_wakeup()?;
            Some(at.since(node.now))
        });
        let Some(time) = wakeups.chain(expiry).min().filter(|_| passed < WITHIN) else {
            return Err(format!("after {passed:?} of calm: {}", what_is_wrong(&state)));
        };
        passed += time;
        state = Step::new(model, &state).pass(time);
        // Nodes act before leases expire: a renewal that is due arrives in time.
        state = drain(model, state, |lease| {
            ends.insert(lease, passed + ttl);
        })?;
        let over: Vec<LeaseId> =
            ends.iter().filter(|(_, end)| **end <= passed).map(|(lease, _)| *lease).collect();
        for lease in over {
            ends.remove(&lease);
            state = Step::new(model, &state).take(Action::Expire(lease));
        }
    }
}

/// Performs all pending actions and restarts dead processes.
fn drain(model: &ClusterModel, mut state: State, mut renewed: impl FnMut(LeaseId)) -> Result<State, String> {
    for _ in 0..STEPS {
        let down = state.nodes.iter().position(|node| node.machine.is_none()).map(Action::Start);
        let Some(action) = action::pending(&state).or(down) else { return Ok(state) };
        if let Action::Answer(place, token) = action {
            let call = state.nodes[place].calls.iter().find(|call| call.token == token);
            if let Some(Request::Renew(lease)) = call.map(|call| &call.request) {
                renewed(*lease);
            }
        }
        state = Step::new(model, &state).take(action);
    }
    Err(format!("after {STEPS} steps without any time passing: {}", what_is_wrong(&state)))
}

/// True if all nodes are members of a stable version and know that it is stable.
fn is_well(state: &State) -> bool {
    let era = state.shared.ledger.present();
    let members = |node: &super::state::Node| {
        let status = node.machine.as_ref().map(|machine| machine.status(node.now));
        status.is_some_and(|status| status.phase == Phase::Member && status.consistent)
    };
    are_slots_held(state)
        && era.is_stable()
        && era.newest().is_some_and(|newest| newest.cut.len() == state.nodes.len())
        && state.nodes.iter().all(|node| members(node))
}

/// True if each exclusive node holds the slots that it owns.
fn are_slots_held(state: &State) -> bool {
    state.nodes.iter().all(|node| {
        let Some(machine) = &node.machine else { return false };
        let is_held = |view: &View| view.has_handover() && node.held() == view.slots_of(&node.name);
        let is_exclusive = machine.status(node.now).holdings.is_some();
        !is_exclusive || machine.newest().is_some_and(is_held)
    })
}

fn what_is_wrong(state: &State) -> String {
    let era = state.shared.ledger.present();
    let phase = |node: &std::sync::Arc<super::state::Node>| {
        let machine = node.machine.as_ref();
        let phase = machine
            .map_or_else(|| "down".to_owned(), |machine| format!("{:?}", machine.status(node.now).phase));
        format!("{} {phase}", node.name)
    };
    let nodes: Vec<String> = state.nodes.iter().map(phase).collect();
    let leader = era.reign().map_or_else(|| "there is no leader".to_owned(), ToString::to_string);
    let stable = if era.is_stable() { "stable" } else { "not stable" };
    format!(
        "{leader}; the newest version is {stable}, missing acknowledgements: {:?}; {}",
        era.missing(),
        nodes.join(", ")
    )
}
