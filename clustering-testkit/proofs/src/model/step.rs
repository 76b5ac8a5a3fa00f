use std::{collections::VecDeque, sync::Arc, time::Duration};

use clustering_core::{
    Endpoint, Event, Evidence, NodeUri, Outcome,
    machine::{Identity, Input, Machine, Output, Purpose, RequestId, Token},
    store::{ErrorKind, LeaseId, Revision, StoreError, Txn, WatchEnd},
    version::IdGenerator,
};
use clustering_testkit::history::{Ledger, Member, Moment};

use super::{
    Action, ClusterModel, Reached,
    judge::{self, Breach, By, Kept, Promise},
    state::{Call, Held, Node, Request, Run, Shared, State, Watch, identity},
};
use crate::sim::{Seat, Tamper, checks, render};

/// Transition from one state to the next.
pub(super) struct Step<'a> {
    pub(super) model: &'a ClusterModel,
    pub(super) state: State,
    /// Nodes changed by this step.
    changed: Vec<usize>,
    shared_changed: bool,
    pub(super) inputs: VecDeque<(usize, Input)>,
    /// Log of the step, if requested.
    story: Option<Vec<String>>,
}

fn silence() -> StoreError {
    StoreError::outcome_unknown("silence")
}

impl<'a> Step<'a> {
    pub(super) fn new(model: &'a ClusterModel, before: &State) -> Self {
        let state = State { reached: 0, ..before.clone() };
        let inputs = VecDeque::new();
        Step { model, state, changed: Vec::new(), shared_changed: false, inputs, story: None }
    }

    /// Creates a step that logs its effects.
    pub(super) fn told(model: &'a ClusterModel, before: &State) -> Self {
        Step { story: Some(Vec::new()), ..Step::new(model, before) }
    }

    pub(super) fn take(mut self, action: Action) -> State {
        self.act(action);
        self.finish().0
    }

    pub(super) fn take_and_tell(mut self, action: Action) -> (State, Vec<String>) {
        self.act(action);
        self.finish()
    }

    /// Advances all clocks by the same time.
    pub(super) fn pass(mut self, time: std::time::Duration) -> State {
        for place in 0..self.state.nodes.len() {
            let node = self.node(place);
            node.now = node.now + time;
        }
        for place in 0..self.state.nodes.len() {
            self.feed(place, Input::Tick);
        }
        self.finish().0
    }

    fn finish(mut self) -> (State, Vec<String>) {
        self.judge_holders();
        self.changed.sort_unstable();
        self.changed.dedup();
        for place in std::mem::take(&mut self.changed) {
            Arc::make_mut(&mut self.state.nodes[place]).seal();
        }
        if self.shared_changed {
            Arc::make_mut(&mut self.state.shared).seal();
        }
        (self.state, self.story.unwrap_or_default())
    }

    pub(super) fn node(&mut self, place: usize) -> &mut Node {
        self.changed.push(place);
        Arc::make_mut(&mut self.state.nodes[place])
    }

    fn shared(&mut self) -> &mut Shared {
        self.shared_changed = true;
        Arc::make_mut(&mut self.state.shared)
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(line());
        }
    }

    fn reach(&mut self, reached: Reached) {
        self.state.reached |= reached.bit();
    }

    pub(super) fn judge(&mut self, kept: Kept) {
        if let Err(breach) = kept
            && self.state.breach.is_none()
        {
            self.tell(|| breach.to_string());
            self.state.breach = Some(Arc::new(breach));
        }
    }

    fn act(&mut self, action: Action) {
        if let Some(limited) = action.takes(&self.state) {
            self.state.left.spend(limited);
        }
        match action {
            Action::Start(place) => self.start(place),
            Action::Crash(place) => self.node(place).end(),
            Action::Answer(place, token) => self.answer(place, token),
            Action::TakeEffect(place, token) => {
                let Some(call) = self.call(place, token) else { return };
                let life = self.state.nodes[place].life;
                if let Request::Commit(purpose, txn) = &call.request {
                    let reply = Some(self.commit(By { node: place, life, purpose: *purpose }, txn));
                    self.node(place).calls.push(Call { reply, ..call });
                }
            }
            Action::Reply(place, token) => {
                let Some(call) = self.call(place, token) else { return };
                if let Some(result) = call.reply {
                    self.feed(place, Input::Committed { token, result });
                }
            }
            Action::GiveUp(place, token) => self.give_up(place, token),
            Action::TakeEffectLate(place, orphan) => {
                let (life, request) = self.node(place).orphans.remove(orphan);
                self.reach(Reached::LateEffect);
                self.perform(place, life, &request);
            }
            Action::Deliver(place, watch) => self.deliver(place, watch),
            Action::Break(place, watch) => {
                let end = WatchEnd::Disconnected { reason: "reset".to_owned() };
                self.end_watch(place, watch, end);
            }
            Action::Gap(place, watch) => {
                let compacted = self.state.shared.store.revision();
                self.end_watch(place, watch, WatchEnd::Compacted { compacted });
            }
            Action::Yes(place) => self.stabilized(place, Outcome::Ready),
            Action::No(place) => self.stabilized(place, Outcome::refused("no")),
            Action::Announced(place) => {
                let token = self.node(place).announcing.remove(0).token;
                self.feed(place, Input::Announced { token, result: Ok(()) });
            }
            Action::Wake(place) => {
                let node = &self.state.nodes[place];
                let at = node.machine.as_ref().and_then(Machine::next_wakeup);
                let time = at.unwrap_or_default().since(node.now);
                self.let_pass(place, time);
                self.feed(place, Input::Tick);
            }
            Action::Pause(place) => {
                let ttl = self.model.config().ttl;
                self.let_pass(place, ttl * 2);
            }
            Action::Expire(lease) => self.end_lease(lease),
            Action::Ask(place) => {
                let id = self.request(place);
                self.feed(place, Input::RequestVersion { id, why: None });
            }
            Action::Update(place) => {
                let id = self.request(place);
                let metadata = [("changed".to_owned(), id.0.to_string())].into();
                self.feed(place, Input::Update { id, metadata });
            }
            Action::Resign(place) => {
                let id = self.request(place);
                self.feed(place, Input::Resign { id });
            }
            Action::Write(place) => self.write(place),
            Action::Hold(place) => self.take_holds(place),
            Action::Drop(place, hold) => self.drop_hold(place, hold),
            Action::OwnerWrite(place) => self.write_as_owner(place),
            Action::Stop(place) => self.feed(place, Input::Stop { keep: Duration::ZERO }),
            Action::Evict(place) => self.evict(place),
            Action::Report(place, watched) => self.report(place, watched),
        }
    }

    /// Tells the node that a process that it watches is gone.
    fn report(&mut self, place: usize, watched: usize) {
        let Some(process) = self.state.nodes[place].watched.get(watched).copied() else { return };
        self.feed(place, Input::ProcessGone { process, evidence: Evidence::Refused });
    }

    fn start(&mut self, place: usize) {
        let (keys, config) = (self.model.keys().clone(), self.model.config().clone());
        let node = self.node(place);
        node.life += 1;
        let uri = format!("http://{}/{}", node.name, node.life);
        let identity = Identity {
            name: node.name.clone(),
            uri: NodeUri::parse(&uri).expect("the URI is valid"),
            metadata: Default::default(),
            endpoint: config.crash_detection.is_some().then(|| Endpoint {
                address: format!("{}:1", node.name),
                process: identity(place, node.life),
            }),
        };
        // Each wall clock is another hour behind, so that versions cannot rely on them.
        let wall = 1_700_000_000_000 - place as u64 * 3_600_000;
        let mint = IdGenerator::new(wall, node.now, (place as u128 + 1) << 32 | u128::from(node.life));
        node.machine = Some(Machine::node(keys, identity, config, mint));
        self.feed(place, Input::Tick);
    }

    pub(super) fn request(&mut self, place: usize) -> RequestId {
        let node = self.node(place);
        node.requests += 1;
        RequestId(node.requests)
    }

    fn write(&mut self, place: usize) {
        let id = self.request(place);
        let node = &self.state.nodes[place];
        let Some((term, _)) = node.claim else { return };
        let value = format!(r#"{{"term": {term}, "id": "{}-{}-{}"}}"#, node.name, node.life, id.0);
        let key = self.model.keys().view_prefix().replace("view/", Ledger::LEADER_COMMITS) + "x";
        self.feed(place, Input::CommitAsLeader { id, txn: Txn::new().put(key, value, None) });
    }

    /// Removes and returns a waiting call.
    fn call(&mut self, place: usize, token: Token) -> Option<Call> {
        let node = self.node(place);
        let at = node.calls.iter().position(|call| call.token == token)?;
        Some(node.calls.remove(at))
    }

    fn answer(&mut self, place: usize, token: Token) {
        let Some(call) = self.call(place, token) else { return };
        let life = self.state.nodes[place].life;
        let input = match self.perform(place, life, &call.request) {
            Done::Renewed(result) => {
                if let (Ok(_), Some(held)) = (&result, &mut self.node(place).lease) {
                    held.renewed = call.sent;
                }
                Input::Renewed { token, result }
            }
            Done::Revoked(result) => Input::Revoked { token, result },
            Done::Read(snapshot) => Input::Read { token, result: Ok(snapshot) },
            Done::Committed(result) => Input::Committed { token, result },
        };
        self.feed(place, input);
    }

    fn give_up(&mut self, place: usize, token: Token) {
        let Some(call) = self.call(place, token) else { return };
        let unknown = silence();
        let input = match &call.request {
            Request::Renew(_) => Input::Renewed { token, result: Err(unknown) },
            Request::Revoke(_) => Input::Revoked { token, result: Err(unknown) },
            Request::Read(_) => Input::Read { token, result: Err(unknown) },
            Request::Commit(..) => Input::Committed { token, result: Err(unknown) },
        };
        let node = self.node(place);
        if call.reply.is_none() && call.request.has_effect() {
            node.orphans.push((node.life, call.request));
        }
        self.feed(place, input);
    }

    fn perform(&mut self, place: usize, life: u32, request: &Request) -> Done {
        match request {
            Request::Renew(lease) => Done::Renewed(self.shared().store.renew(Moment::default(), *lease)),
            Request::Revoke(lease) => {
                let before = self.state.shared.store.revision();
                let result = self.shared().store.end(*lease);
                self.committed(before, None);
                Done::Revoked(result)
            }
            Request::Read(prefix) => Done::Read(self.state.shared.store.read(prefix)),
            Request::Commit(purpose, txn) => {
                Done::Committed(self.commit(By { node: place, life, purpose: *purpose }, txn))
            }
        }
    }

    fn commit(&mut self, by: By, txn: &Txn) -> Result<Revision, StoreError> {
        let before = self.state.shared.store.revision();
        let judged = self.judge_commit(by, txn);
        let result = self.shared().store.commit(txn);
        match &result {
            Ok(_) => {
                self.judge(judged);
                if by.purpose == Purpose::RemoveCrashed {
                    self.reach(Reached::Crashed);
                }
                self.committed(before, Some(by));
            }
            Err(error) if matches!(error.kind(), ErrorKind::GuardFailed { .. }) => match by.purpose {
                Purpose::Confirm => self.reach(Reached::ConfirmRefused),
                Purpose::Publish | Purpose::Evict | Purpose::Resign | Purpose::LeaderCommit => {
                    self.reach(Reached::LeaderRefused);
                }
                Purpose::Elect => self.reach(Reached::CandidateRefused),
                Purpose::Acknowledge => self.reach(Reached::AcknowledgementRefused),
                Purpose::OwnerCommit => self.reach(Reached::OwnerRefused),
                _ => {}
            },
            Err(_) => {}
        }
        result
    }

    /// Returns the violation that the commit would be if the store accepted it, judged by the store's state before it.
    fn judge_commit(&self, by: By, txn: &Txn) -> Kept {
        let (shared, keys) = (&self.state.shared, self.model.keys());
        let leader = shared.store.get(keys.election_key());
        let own = |lease| shared.is_owner(lease, by.node, by.life);
        checks::p5_writes::check(by.purpose, leader, own).map_err(|said| Breach::new(Promise::P5, said))?;
        if by.purpose == Purpose::OwnerCommit {
            self.judge_owner_commit((by.node, by.life), txn)?;
        }
        if by.purpose == Purpose::Acknowledge {
            let name = &self.state.nodes[by.node].name;
            checks::p4_acknowledgements::check(&shared.store, keys, name, txn)
                .map_err(|said| Breach::new(Promise::P4, said))?;
        }
        Ok(())
    }

    /// Applies and checks everything that was committed after `before`.
    fn committed(&mut self, before: Revision, by: Option<By>) {
        for place in before.get()..self.state.shared.store.revision().get() {
            let shared = self.shared();
            let batch = shared.store.history()[place as usize].clone();
            shared.turn();
            let unstable = shared.ledger.present().newest().is_some() && !shared.ledger.present().is_stable();
            let Some(commit) = shared.ledger.apply(&batch) else { continue };
            let published =
                shared.ledger.present().newest().is_some_and(|newest| newest.revision == batch.revision);
            self.tell(|| format!("  store: {commit}"));
            if published && unstable {
                self.reach(Reached::SupersededBarrier);
            }
            let kept = judge::commit(&commit, &self.state.shared, by);
            self.judge(kept);
        }
        self.drop_dead_calls();
    }

    /// Drops abandoned calls that cannot take effect any more, since this reduces the number of states.
    fn drop_dead_calls(&mut self) {
        for place in 0..self.state.nodes.len() {
            let store = &self.state.shared.store;
            let alive = |request: &Request| match request {
                Request::Commit(_, txn) => store.may_hold(txn),
                Request::Revoke(lease) => store.leases().any(|alive| alive == *lease),
                _ => true,
            };
            if self.state.nodes[place].orphans.iter().all(|(_, request)| alive(request)) {
                continue;
            }
            let shared = self.state.shared.clone();
            self.node(place).orphans.retain(|(_, request)| match request {
                Request::Commit(_, txn) => shared.store.may_hold(txn),
                Request::Revoke(lease) => shared.store.leases().any(|alive| alive == *lease),
                _ => true,
            });
        }
    }

    /// Lets time pass on the clock of a node, or on all clocks if they are the same.
    fn let_pass(&mut self, place: usize, time: std::time::Duration) {
        let nodes = 0..self.state.nodes.len();
        let is_shared = self.model.config().exclusive.is_some();
        for node in nodes.filter(|node| is_shared || *node == place) {
            let node = self.node(node);
            node.now = node.now + time;
        }
    }

    /// Deletes the node's record and its acknowledgement, as an operator does.
    fn evict(&mut self, place: usize) {
        let (keys, name) = (self.model.keys(), &self.state.nodes[place].name);
        let txn = Txn::new().delete(keys.node_key(name)).delete(keys.readiness_key(name));
        let before = self.state.shared.store.revision();
        // The commit has no guards.
        let _ = self.shared().store.commit(&txn);
        self.committed(before, None);
    }

    fn end_lease(&mut self, lease: LeaseId) {
        // If processes share a clock, a lease ends only after its TTL.
        if self.model.config().exclusive.is_some() {
            let left = self.state.nodes.iter().map(|node| node.left_of(lease)).max();
            self.let_pass(0, left.unwrap_or_default());
        }
        let before = self.state.shared.store.revision();
        // The action exists only for leases that the store holds.
        let _ = self.shared().store.end(lease);
        self.committed(before, None);
    }

    fn deliver(&mut self, place: usize, number: usize) {
        let Some(watch) = self.state.nodes[place].watches.get(number) else { return };
        let Some(batch) = self.state.shared.store.next_after(&watch.prefix, watch.seen) else { return };
        let watch = &mut self.node(place).watches[number];
        watch.seen = batch.revision;
        let token = watch.token;
        self.feed(place, Input::Batch { token, batch });
    }

    fn end_watch(&mut self, place: usize, number: usize, end: WatchEnd) {
        let token = self.node(place).watches.remove(number).token;
        self.feed(place, Input::WatchEnded { token, end });
    }

    fn stabilized(&mut self, place: usize, outcome: Outcome) {
        let token = self.node(place).stabilizing.remove(0).token;
        self.feed(place, Input::Stabilized { token, outcome });
    }

    /// Passes an input to a process, and then all inputs that follow from it immediately.
    pub(super) fn feed(&mut self, place: usize, input: Input) {
        self.inputs.push_back((place, input));
        while let Some((place, input)) = self.inputs.pop_front() {
            let inputs = match self.tamper() {
                None => vec![input],
                Some(mut tamper) => self.seat(place).map_or_else(Vec::new, |seat| tamper.input(&seat, input)),
            };
            for input in inputs {
                self.handle(place, input);
            }
            self.look_at(place);
            self.commit_past(place);
        }
    }

    fn handle(&mut self, place: usize, input: Input) {
        if self.story.is_some() {
            let (line, name) = (render::input(&input), self.state.nodes[place].name.clone());
            self.tell(|| format!("  {name}: {line}"));
        }
        let node = self.node(place);
        let now = node.now;
        let Some(machine) = &mut node.machine else { return };
        machine.handle(now, input);
        let outputs: Vec<Output> = std::iter::from_fn(|| machine.poll_output()).collect();
        for output in outputs {
            let Some(mut tamper) = self.tamper() else {
                self.carry_out(place, output);
                continue;
            };
            let falsified = self.seat(place).map_or_else(Vec::new, |seat| tamper.output(&seat, output));
            falsified.into_iter().for_each(|output| self.carry_out(place, output));
        }
    }

    fn tamper(&self) -> Option<Box<dyn Tamper>> {
        self.model.tamper()
    }

    fn seat(&self, place: usize) -> Option<Seat<'_>> {
        let node = &self.state.nodes[place];
        let machine = node.machine.as_ref()?;
        Some(Seat {
            node: place,
            life: node.life,
            now: node.now,
            wall_ms: 0,
            machine,
            store: &self.state.shared.store,
        })
    }

    fn carry_out(&mut self, place: usize, output: Output) {
        if self.story.is_some()
            && let Some(line) = render::output(&output)
        {
            let name = self.state.nodes[place].name.clone();
            self.tell(|| format!("  {name}: {line}"));
        }
        match output {
            Output::Grant { token, ttl, .. } => self.grant(place, token, ttl),
            Output::Renew { token, lease, .. } => self.send(place, token, Request::Renew(lease)),
            Output::Revoke { token, lease, .. } => self.send(place, token, Request::Revoke(lease)),
            Output::Read { token, prefix, .. } => self.send(place, token, Request::Read(prefix)),
            Output::Commit { token, txn, purpose, .. } => {
                let kept = judge::acts(&self.state.nodes[place], purpose);
                self.judge(kept);
                self.send(place, token, Request::Commit(purpose, txn));
            }
            Output::Watch { token, prefix, after, .. } => {
                self.node(place).watches.push(Watch { token, prefix, seen: after });
                self.inputs.push_back((place, Input::WatchOpened { token, result: Ok(()) }));
            }
            Output::Unwatch { token } => self.node(place).watches.retain(|watch| watch.token != token),
            Output::Stabilize { token, view, .. } => {
                let mut nodes = Member::all(&view);
                if let Some(mut tamper) = self.tamper() {
                    nodes = self.seat(place).and_then(|seat| tamper.given(&seat, &view)).unwrap_or(nodes);
                }
                let kept = judge::given(&view, &nodes, &self.state.shared.ledger);
                self.judge(kept);
                self.node(place).stabilizing.push(Run { token, view, told: false });
            }
            Output::Announce { token, view, term } => {
                // This input may have changed the node's claim to lead.
                self.look_at(place);
                let (node, announced) = (&self.state.nodes[place], &self.state.announced);
                let kept = judge::announced(node, &view, term, announced, &self.state.shared.ledger);
                self.judge(kept);
                self.state.announced.push(view.revision());
                self.state.announced.sort_unstable();
                self.node(place).announcing.push(Run { token, view, told: false });
            }
            Output::Supersede { token } => {
                let node = self.node(place);
                let mut runs = node.stabilizing.iter_mut().chain(&mut node.announcing);
                if let Some(run) = runs.find(|run| run.token == token) {
                    run.told = true;
                }
            }
            Output::Retract { token, slots } => self.retract(place, token, &slots),
            Output::Release { token, .. } => {
                self.inputs.push_back((place, Input::Released { token, outcome: Outcome::Ready }));
            }
            Output::WatchProcesses { endpoints } => {
                self.node(place).watched = endpoints.into_iter().map(|endpoint| endpoint.process).collect();
            }
            Output::Event(event) => self.event(&event),
            Output::Stopped { .. } => {
                let node = self.node(place);
                node.abandon_holds();
                let holds = std::mem::take(&mut node.holds);
                node.end();
                node.holds = holds;
            }
            // Nodes in the model have no health checks.
            Output::CheckHealth { .. } | Output::Abort { .. } | Output::Reply { .. } => {}
        }
    }

    /// Grants a lease immediately. Delaying grants would add nothing, because a lease without keys is invisible to
    /// other nodes.
    fn grant(&mut self, place: usize, token: Token, ttl: std::time::Duration) {
        let life = self.state.nodes[place].life;
        let shared = self.shared();
        let lease = shared.store.grant(Moment::default(), ttl);
        shared.owners.push((place, life));
        let node = self.node(place);
        node.lease = Some(Held { id: lease.id, ttl, renewed: node.now });
        self.inputs.push_back((place, Input::Granted { token, result: Ok(lease) }));
    }

    fn send(&mut self, place: usize, token: Token, request: Request) {
        let node = self.node(place);
        let sent = node.now;
        node.calls.push(Call { token, request, sent, reply: None });
    }

    fn event(&mut self, event: &Event) {
        let reached = match event {
            Event::Superseded { .. } => Reached::SupersededRun,
            Event::Resynced { .. } => Reached::Resync,
            Event::SessionLost { .. } => Reached::SessionLost,
            Event::Rejoined { .. } => Reached::Rejoin,
            Event::FalselyRemoved { .. } => Reached::FalseAlarm,
            Event::NameHeld { .. } => Reached::NameHeld,
            Event::LeadershipSuspended { .. } => Reached::Suspended,
            Event::LeadershipResumed { .. } => Reached::Resumed,
            Event::StabilizeRefused { .. } => Reached::RefusedRun,
            Event::SlotsAcquired { .. } => Reached::Acquired,
            _ => return,
        };
        self.reach(reached);
    }

    /// Checks the machine's current status.
    fn look_at(&mut self, place: usize) {
        let node = &self.state.nodes[place];
        let Some(machine) = &node.machine else { return };
        let mut told = machine.status(node.now).leadership;
        if let (Some(mut tamper), Some(seat)) = (self.tamper(), self.seat(place)) {
            told = tamper.leadership(&seat, told);
        }
        let is_exclusive = self.model.config().exclusive.is_some();
        let claim = told.map(|leadership| (leadership.term, leadership.until));
        let newest = machine.newest().map(clustering_core::View::revision);
        let mut kept = judge::claims(node, told).and_then(|()| judge::runs(node, machine.newest()));
        if let Some(view) = machine.newest().filter(|_| newest != node.newest) {
            kept = kept.and_then(|()| judge::newest(view, node.newest, &self.state.shared.ledger));
        }
        if (claim, newest) != (node.claim, node.newest) {
            let node = self.node(place);
            node.claim = claim;
            // After a gap there is no view for a while, but the next one must not be older than the last.
            node.newest = newest.or(node.newest);
        }
        self.judge(kept);
        if is_exclusive {
            self.follow_holdings(place);
        }
    }

    /// Performs the commits that a tamper makes on the node's behalf.
    fn commit_past(&mut self, place: usize) {
        let Some(mut tamper) = self.tamper() else { return };
        let commits = self.seat(place).map_or_else(Vec::new, |seat| tamper.commits(&seat));
        let life = self.state.nodes[place].life;
        for (purpose, txn) in commits {
            // The tamper does not depend on the result.
            let _ = self.commit(By { node: place, life, purpose }, &txn);
        }
    }
}

/// Result of a call.
enum Done {
    Renewed(Result<std::time::Duration, StoreError>),
    Revoked(Result<(), StoreError>),
    Read(clustering_core::store::Snapshot),
    Committed(Result<Revision, StoreError>),
}
