use std::fmt;

use clustering_core::{
    ProcessId,
    machine::{Phase, Token},
    store::LeaseId,
};

use super::{
    Limited,
    state::{Node, Request, State, identity},
};

/// Single step of the model, for one node or between a node and the store. Nodes are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A process starts for the node.
    Start(usize),
    /// The node's process dies.
    Crash(usize),
    /// A call takes effect and its reply arrives.
    Answer(usize, Token),
    /// A call takes effect, but its reply arrives later.
    TakeEffect(usize, Token),
    /// The reply to a call that has taken effect arrives.
    Reply(usize, Token),
    /// The caller gives up on a call without a reply. The call may still take effect.
    GiveUp(usize, Token),
    /// A call takes effect after its caller has given up. The second number is its index among the node's abandoned
    /// calls.
    TakeEffectLate(usize, usize),
    /// A watch delivers the changes of a revision. The second number is its index among the node's watches.
    Deliver(usize, usize),
    /// A watch breaks.
    Break(usize, usize),
    /// A watch ends because changes that it has not delivered were compacted.
    Gap(usize, usize),
    /// The node's oldest running stabilize accepts.
    Yes(usize),
    /// The node's oldest running stabilize refuses.
    No(usize),
    /// The node's oldest running `on_stable` ends.
    Announced(usize),
    /// The process's clock advances to the next wakeup of its machine.
    Wake(usize),
    /// The process's clock advances by two TTLs, and the process receives no input in between.
    Pause(usize),
    /// The store ends a lease.
    Expire(LeaseId),
    /// The node's user requests a version.
    Ask(usize),
    /// The node's user changes its metadata.
    Update(usize),
    /// The node's user makes it resign.
    Resign(usize),
    /// The node's user writes as leader.
    Write(usize),
    /// The node's user takes holds.
    Hold(usize),
    /// The node's user drops a hold. The second number is the index of the hold.
    Drop(usize, usize),
    /// The node's user commits as owner.
    OwnerWrite(usize),
    /// The node's user stops it.
    Stop(usize),
    /// An operator evicts the node.
    Evict(usize),
    /// The node is told that a process that it watches is gone. The second number is the index of that process. The
    /// report may be wrong, unless reports are trusted.
    Report(usize, usize),
}

impl Action {
    /// Returns the kind of limited action that this action counts against, if any.
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
            Action::Hold(_) => Limited::Hold,
            Action::OwnerWrite(_) => Limited::OwnerWrite,
            Action::Stop(_) => Limited::Stop,
            Action::Evict(_) => Limited::Evict,
            Action::Report(..) => Limited::Report,
            _ => return None,
        })
    }
}

/// True if the process that was granted the lease is still running.
fn is_held(state: &State, lease: LeaseId) -> bool {
    let runs = |(place, node): (usize, &std::sync::Arc<Node>)| {
        node.machine.is_some() && state.shared.is_owner(lease, place, node.life)
    };
    state.nodes.iter().enumerate().any(runs)
}

/// Collects all actions that are possible in `state`.
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

/// Returns the first possible action that is unlimited and that continues something in flight. A quiet state has none.
/// Abandoned calls don't count, because they may never take effect.
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
    actions.extend((0..node.holds.len()).map(|hold| Action::Drop(place, hold)));
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
    if state.left.most(Limited::Hold) > 0 && !node.held().is_empty() {
        actions.push(Action::Hold(place));
    }
    if !node.holds.is_empty() {
        actions.push(Action::OwnerWrite(place));
    }
    if state.left.most(Limited::Stop) > 0 && !matches!(machine.status(node.now).phase, Phase::Leaving) {
        actions.push(Action::Stop(place));
    }
    if state.left.most(Limited::Evict) > 0 && state.shared.has_record(&node.name) {
        actions.push(Action::Evict(place));
    }
    if state.left.most(Limited::Report) > 0 {
        let told = (0..node.watched.len()).filter(|watched| may_be_told(state, node.watched[*watched]));
        actions.extend(told.map(|watched| Action::Report(place, watched)));
    }
    actions.extend([Action::Crash(place), Action::Pause(place), Action::Ask(place), Action::Update(place)]);
}

/// True if the node may be told that this process is gone. If reports are trusted, only true ones occur.
fn may_be_told(state: &State, process: ProcessId) -> bool {
    let runs = |(place, node): (usize, &std::sync::Arc<Node>)| {
        // A process whose node has ended may still keep holds.
        (node.machine.is_some() || !node.holds.is_empty()) && identity(place, node.life) == process
    };
    !state.left.trusts || !state.nodes.iter().enumerate().any(runs)
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = |node: &usize| super::name(*node);
        match self {
            Action::Start(n) => write!(f, "{} starts", node(n)),
            Action::Crash(n) => write!(f, "{} dies", node(n)),
            Action::Answer(n, token) => write!(f, "call {token} of {} is answered", node(n)),
            Action::TakeEffect(n, token) => {
                write!(f, "call {token} of {} takes effect, and its reply is in flight", node(n))
            }
            Action::Reply(n, token) => write!(f, "the reply to call {token} of {} arrives", node(n)),
            Action::GiveUp(n, token) => write!(f, "{} gives up on call {token}", node(n)),
            Action::TakeEffectLate(n, _) => write!(f, "a call of {} takes effect late", node(n)),
            Action::Deliver(n, watch) => write!(f, "watch {watch} of {} delivers", node(n)),
            Action::Break(n, watch) => write!(f, "watch {watch} of {} breaks", node(n)),
            Action::Gap(n, watch) => write!(f, "watch {watch} of {} ends in a gap", node(n)),
            Action::Yes(n) => write!(f, "the stabilize of {} accepts", node(n)),
            Action::No(n) => write!(f, "the stabilize of {} refuses", node(n)),
            Action::Announced(n) => write!(f, "on_stable of {} ends", node(n)),
            Action::Wake(n) => write!(f, "time passes for {}", node(n)),
            Action::Pause(n) => write!(f, "{} is paused beyond its session", node(n)),
            Action::Expire(lease) => write!(f, "lease {lease} expires"),
            Action::Ask(n) => write!(f, "the user of {} requests a version", node(n)),
            Action::Update(n) => write!(f, "the user of {} changes its metadata", node(n)),
            Action::Resign(n) => write!(f, "the user of {} makes it resign", node(n)),
            Action::Hold(n) => write!(f, "the user of {} takes holds", node(n)),
            Action::Drop(n, hold) => write!(f, "the user of {} drops hold {hold}", node(n)),
            Action::OwnerWrite(n) => write!(f, "the user of {} commits as owner", node(n)),
            Action::Stop(n) => write!(f, "the user of {} stops it", node(n)),
            Action::Evict(n) => write!(f, "an operator evicts {}", node(n)),
            Action::Write(n) => write!(f, "the user of {} writes as leader", node(n)),
            Action::Report(n, watched) => write!(f, "{} is told that process {watched} is gone", node(n)),
        }
    }
}
