//! P8: from any state, when nothing goes wrong any more, the cluster becomes well.

use std::{collections::BTreeMap, time::Duration};

use clustering_core::{machine::Phase, store::LeaseId};

use super::{
    Action, Bounds, ClusterModel, action,
    state::{Request, State},
    step::Step,
};

/// Within this time all has to be well.
const WITHIN: Duration = Duration::from_secs(180);

/// So many steps may be taken in no time.
const STEPS: usize = 10_000;

/// Lets the cluster come to rest, one thing after the other and with all clocks at the same pace: what waits to happen
/// does, processes that died are started, leases that nobody renews end after their TTL, and calls that nobody waits for
/// are lost for good.
///
/// Returns the state in which all is well, or says why none was reached.
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
        // Nodes first: a renewal that is due arrives in time.
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

/// Lets everything happen that waits to.
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
    Err(format!("after {STEPS} steps in no time: {}", what_is_wrong(&state)))
}

/// Whether all nodes are members, and their version is stable.
fn is_well(state: &State) -> bool {
    let era = state.shared.ledger.present();
    let members = |node: &super::state::Node| {
        let status = node.machine.as_ref().map(|machine| machine.status(node.now));
        status.is_some_and(|status| status.phase == Phase::Member && status.consistent)
    };
    era.is_stable()
        && era.newest().is_some_and(|newest| newest.cut.len() == state.nodes.len())
        && state.nodes.iter().all(|node| members(node))
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
    let leader = era.reign().map_or_else(|| "nobody leads".to_owned(), ToString::to_string);
    let stable = if era.is_stable() { "stable" } else { "not stable" };
    format!("{leader}; the newest version is {stable}, {:?} missing; {}", era.missing(), nodes.join(", "))
}
