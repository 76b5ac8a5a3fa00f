use std::fmt;

use clustering_core::{machine::Token, store::LeaseId};

use super::{
    Limited,
    state::{Node, Request, State},
};

/// One step: something happens to one node or between it and the store. Nodes are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A process is started for the node.
    Start(usize),
    /// It dies.
    Crash(usize),
    /// A call takes effect, and the reply is there.
    Answer(usize, Token),
    /// A call takes effect, and the reply is still to come.
    TakeEffect(usize, Token),
    /// A reply comes.
    Reply(usize, Token),
    /// Whoever called hears nothing, and gives up on the call. It may still take effect.
    GiveUp(usize, Token),
    /// A call takes effect for which nobody waits, by its place among them.
    TakeEffectLate(usize, usize),
    /// A watch delivers the changes of a revision, by its place among the node's watches.
    Deliver(usize, usize),
    /// A watch breaks.
    Break(usize, usize),
    /// A watch ends, since what it owes was compacted away.
    Gap(usize, usize),
    /// The stabilize that was begun first says yes.
    Yes(usize),
    /// It says no.
    No(usize),
    /// `on_stable` ends.
    Announced(usize),
    /// The clock moves on to when the machine wants to be woken.
    Wake(usize),
    /// The clock moves on by two TTLs, and nothing is brought to the process meanwhile.
    Pause(usize),
    /// The store ends a lease.
    Expire(LeaseId),
    /// The user asks for a version.
    Ask(usize),
    /// The user changes the metadata.
    Update(usize),
    /// The user makes the node give up the lead.
    Resign(usize),
    /// The user writes as leader.
    Write(usize),
}

impl Action {
    /// What of the bounds it takes.
    pub(super) fn takes(self, state: &State) -> Option<Limited> {
        Some(match self {
            Action::Crash(_) => Limited::Crash,
            Action::TakeEffect(..) => Limited::Delay,
            Action::GiveUp(..) => Limited::Loss,
            Action::Break(..) => Limited::Break,
            Action::Gap(..) => Limited::Gap,
            Action::No(_) => Limited::Refusal,
            Action::Wake(_) => Limited::Wake,
            Action::Pause(_) => Limited::Pause,
            Action::Expire(lease) if is_held(state, lease) => Limited::Expiry,
            Action::Ask(_) => Limited::Ask,
            Action::Update(_) => Limited::Update,
            Action::Resign(_) => Limited::Resign,
            Action::Write(_) => Limited::Write,
            _ => return None,
        })
    }
}

/// Whether the process to which the lease was granted still runs.
fn is_held(state: &State, lease: LeaseId) -> bool {
    let runs = |(place, node): (usize, &std::sync::Arc<Node>)| {
        node.machine.is_some() && state.shared.is_owner(lease, place, node.life)
    };
    state.nodes.iter().enumerate().any(runs)
}

/// All that may happen in that state.
pub(super) fn all(state: &State, actions: &mut Vec<Action>) {
    if state.breach.is_some() {
        return;
    }
    let first = actions.len();
    for (place, node) in state.nodes.iter().enumerate() {
        of_node(state, place, node, actions);
    }
    let with_keys = |lease: &LeaseId| state.shared.store.holds_keys(*lease);
    actions.extend(state.shared.store.leases().filter(with_keys).map(Action::Expire));
    let mut place = 0;
    actions.retain(|action| {
        place += 1;
        place <= first || action.takes(state).is_none_or(|limited| state.left.most(limited) > 0)
    });
}

/// The first of them that takes nothing of the bounds and goes on with what somebody waits for: in a quiet state there is
/// none. (Calls that nobody waits for may never take effect.)
pub(super) fn pending(state: &State) -> Option<Action> {
    let mut actions = Vec::new();
    all(state, &mut actions);
    let goes_on = |action: &Action| {
        let idle = matches!(action, Action::Start(_) | Action::Expire(_) | Action::TakeEffectLate(..));
        !idle && action.takes(state).is_none()
    };
    actions.into_iter().find(goes_on)
}

fn of_node(state: &State, place: usize, node: &Node, actions: &mut Vec<Action>) {
    actions.extend((0..node.orphans.len()).map(|orphan| Action::TakeEffectLate(place, orphan)));
    let Some(machine) = &node.machine else {
        return actions.push(Action::Start(place));
    };
    for call in &node.calls {
        let token = call.token;
        match (&call.reply, &call.request) {
            (Some(_), _) => actions.push(Action::Reply(place, token)),
            (None, Request::Commit(..)) => {
                actions.extend([Action::Answer(place, token), Action::TakeEffect(place, token)]);
            }
            (None, _) => actions.push(Action::Answer(place, token)),
        }
        actions.push(Action::GiveUp(place, token));
    }
    for (number, watch) in node.watches.iter().enumerate() {
        if state.shared.store.next_after(&watch.prefix, watch.seen).is_some() {
            actions.push(Action::Deliver(place, number));
        }
        actions.extend([Action::Break(place, number), Action::Gap(place, number)]);
    }
    if !node.stabilizing.is_empty() {
        actions.extend([Action::Yes(place), Action::No(place)]);
    }
    if !node.announcing.is_empty() {
        actions.push(Action::Announced(place));
    }
    if machine.next_wakeup().is_some() {
        actions.push(Action::Wake(place));
    }
    if node.claim.is_some_and(|(_, until)| node.now < until) {
        actions.extend([Action::Resign(place), Action::Write(place)]);
    }
    actions.extend([Action::Crash(place), Action::Pause(place), Action::Ask(place), Action::Update(place)]);
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = |node: &usize| super::name(*node);
        match self {
            Action::Start(n) => write!(f, "{} is started", node(n)),
            Action::Crash(n) => write!(f, "{} dies", node(n)),
            Action::Answer(n, token) => write!(f, "call {token} of {} is answered", node(n)),
            Action::TakeEffect(n, token) => {
                write!(f, "call {token} of {} takes effect, and its reply is on its way", node(n))
            }
            Action::Reply(n, token) => write!(f, "the reply to call {token} of {} comes", node(n)),
            Action::GiveUp(n, token) => write!(f, "{} hears nothing of call {token}", node(n)),
            Action::TakeEffectLate(n, _) => write!(f, "a call of {} takes effect late", node(n)),
            Action::Deliver(n, watch) => write!(f, "watch {watch} of {} delivers", node(n)),
            Action::Break(n, watch) => write!(f, "watch {watch} of {} breaks", node(n)),
            Action::Gap(n, watch) => write!(f, "watch {watch} of {} ends in a gap", node(n)),
            Action::Yes(n) => write!(f, "the stabilize of {} says yes", node(n)),
            Action::No(n) => write!(f, "the stabilize of {} says no", node(n)),
            Action::Announced(n) => write!(f, "on_stable of {} ends", node(n)),
            Action::Wake(n) => write!(f, "time passes for {}", node(n)),
            Action::Pause(n) => write!(f, "{} is paused for long", node(n)),
            Action::Expire(lease) => write!(f, "lease {lease} expires"),
            Action::Ask(n) => write!(f, "the user of {} asks for a version", node(n)),
            Action::Update(n) => write!(f, "the user of {} changes its metadata", node(n)),
            Action::Resign(n) => write!(f, "the user of {} makes it resign", node(n)),
            Action::Write(n) => write!(f, "the user of {} writes as leader", node(n)),
        }
    }
}
