use std::{collections::BTreeMap, sync::Arc};

use clustering_core::{NodeName, store::Txn};
use clustering_proofs::node::{Conflict, NodeSpec};
use clustering_testkit::proxy::Proxy;
use futures_util::future::select_all;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    gate::Gate,
    plan::{Fault, Kind, Target},
    world::{Failed, NAMESPACE, World, has_ended},
};

/// Number of injected faults per kind, and of faults that had no target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Struck {
    pub(crate) faults: BTreeMap<Kind, u64>,
    pub(crate) missed: u64,
}

/// Result of injecting a fault: it had a target, or not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    Somebody,
    Nobody,
}

/// Injects all faults of the plan, each at its time. Returns when all have ended.
pub(crate) async fn storm(world: &Arc<World>, plan: Vec<Fault>) -> Result<Struck, Failed> {
    let began = Instant::now();
    let end = began + world.settings.time;
    let mut running = JoinSet::new();
    let mut struck = Struck::default();
    for fault in plan {
        sleep_until(began + fault.at).await;
        let world = world.clone();
        running.spawn(async move { (fault.kind, Strike { world, fault, end }.strike().await) });
        while let Some(ended) = running.try_join_next() {
            struck.note(ended?)?;
        }
    }
    sleep_until(end).await;
    while let Some(ended) = running.join_next().await {
        struck.note(ended?)?;
    }
    Ok(struck)
}

impl Struck {
    fn note(&mut self, (kind, met): (Kind, Result<Met, Failed>)) -> Result<(), Failed> {
        match met.map_err(|error| format!("{}: {error}", kind.name()))? {
            Met::Somebody => *self.faults.entry(kind).or_default() += 1,
            Met::Nobody => self.missed += 1,
        }
        Ok(())
    }
}

struct Strike {
    world: Arc<World>,
    fault: Fault,
    end: Instant,
}

impl Strike {
    async fn strike(self) -> Result<Met, Failed> {
        match self.fault.kind {
            Kind::Kill | Kind::Pause | Kind::Leave | Kind::Twin => self.node().await,
            Kind::Burst => self.burst().await,
            Kind::Cut | Kind::Hang | Kind::HangAnswers => self.line().await,
            Kind::LoseAnswer => Ok(self.answer().await),
            Kind::Refuse => self.gate().await,
            Kind::KillMember
            | Kind::PauseMember
            | Kind::MoveStoreLeader
            | Kind::LoseQuorum
            | Kind::Compact => self.servers().await,
            _ => self.by_hand().await,
        }
    }

    /// Waits for the duration of the fault, but no longer than until the end of the storm.
    async fn last(&self) {
        sleep_until((Instant::now() + self.fault.lasts).min(self.end)).await;
    }

    fn number(&self) -> Option<usize> {
        match self.fault.target {
            Target::Node(number) => Some(number),
            Target::Leader => self.world.leader(),
        }
    }

    async fn node(&self) -> Result<Met, Failed> {
        let Some(number) = self.number() else { return Ok(Met::Nobody) };
        // Another fault is in progress on this node.
        let Ok(mut seat) = self.world.seats[number].try_lock() else { return Ok(Met::Nobody) };
        if has_ended(&seat.node) {
            self.world.sit_again(number, &mut seat)?;
            return Ok(Met::Nobody);
        }
        let life = seat.node.spec().life.clone();
        let tell = |what: &str| self.world.tell(format!("{life} {what}"));
        match self.fault.kind {
            Kind::Kill => {
                tell("is killed");
                seat.node.kill().await;
                self.last().await;
            }
            Kind::Pause => {
                tell(&format!("is paused for {:?}", self.fault.lasts));
                seat.node.pause();
                self.last().await;
                seat.node.resume();
            }
            Kind::Leave => {
                self.world.leave(&seat.node).await?;
                self.last().await;
            }
            _ => self.twin(number).await?,
        }
        self.world.sit_again(number, &mut seat)?;
        Ok(Met::Somebody)
    }

    /// Starts a second instance under the node's name.
    async fn twin(&self, number: usize) -> Result<(), Failed> {
        let policies = [Conflict::Wait, Conflict::TakeOver, Conflict::Fail];
        let name_conflict = policies[(self.fault.choice % 3) as usize];
        let spec = self.world.spec(number);
        // The port of the first instance is in use.
        let detects_crashes = spec.detects_crashes.as_ref().map(|_| Gate::Direct.detection());
        let spec = NodeSpec { name_conflict, detects_crashes, ..spec };
        self.world.tell(format!("{} is started beside the other, {name_conflict:?}", spec.life));
        let twin = self.world.spawn(spec)?;
        self.last().await;
        if has_ended(&twin) {
            return Ok(());
        }
        if self.fault.choice & 8 == 0 {
            self.world.tell(format!("{} is killed", twin.spec().life));
            twin.kill().await;
            Ok(())
        } else {
            self.world.leave(&twin).await
        }
    }

    /// Kills about half of the nodes or tells them to leave, all within a short time, and then restarts them.
    async fn burst(&self) -> Result<Met, Failed> {
        let mut seats = Vec::new();
        for (number, seat) in self.world.seats.iter().enumerate() {
            if self.fault.choice >> number & 1 == 1
                && let Ok(seat) = seat.try_lock()
            {
                seats.push((number, seat));
            }
        }
        if seats.is_empty() {
            return Ok(Met::Nobody);
        }
        for (number, seat) in &seats {
            if has_ended(&seat.node) {
                continue;
            }
            if self.fault.choice >> (number + 32) & 1 == 1 {
                self.world.tell(format!("{} is killed", seat.node.spec().life));
                seat.node.kill().await;
            } else {
                self.world.leave(&seat.node).await?;
            }
        }
        self.last().await;
        for (number, seat) in &mut seats {
            self.world.sit_again(*number, seat)?;
        }
        Ok(Met::Somebody)
    }

    async fn line(&self) -> Result<Met, Failed> {
        let Some(number) = self.number() else { return Ok(Met::Nobody) };
        // Faults of the node's process may overlap with faults of its connections.
        let (name, lines) = (World::name(number), self.world.lines(number));
        let (act, does): (fn(&Proxy), &str) = match self.fault.kind {
            Kind::Cut => (Proxy::cut, "are cut"),
            Kind::Hang => (Proxy::hang, "hang"),
            _ => (Proxy::hang_answers, "deliver no answers"),
        };
        self.world.tell(format!("the connections of {name} {does} for {:?}", self.fault.lasts));
        lines.iter().for_each(act);
        self.last().await;
        lines.iter().for_each(Proxy::heal);
        self.world.tell(format!("the connections of {name} work again"));
        Ok(Met::Somebody)
    }

    /// Refuses the connections of the other nodes, so that they take the node for crashed.
    async fn gate(&self) -> Result<Met, Failed> {
        let Some(number) = self.number() else { return Ok(Met::Nobody) };
        let Some(gate) = self.world.gates.get(number) else { return Ok(Met::Nobody) };
        if !gate.close().await {
            return Ok(Met::Nobody);
        }
        let name = World::name(number);
        self.world.tell(format!("{name} refuses the other nodes for {:?}", self.fault.lasts));
        self.last().await;
        gate.open().await?;
        self.world.tell(format!("{name} can be connected to again"));
        Ok(Met::Somebody)
    }

    /// Loses the reply to the next step of the leader, or to its next increment of a key, which takes effect.
    async fn answer(&self) -> Met {
        let Some(number) = self.world.leader() else { return Met::Nobody };
        // This text occurs only in those commits, not in any read.
        let lines = self.world.lines(number).iter().map(|line| Box::pin(line.lose_answer_to("\"count\":")));
        tokio::select! {
            _ = select_all(lines) => {
                self.world.tell(format!("an answer to {} is lost", World::name(number)));
                Met::Somebody
            }
            () = self.last() => Met::Nobody,
        }
    }

    async fn servers(&self) -> Result<Met, Failed> {
        let Ok(_turn) = self.world.servers_turn.try_lock() else { return Ok(Met::Nobody) };
        let servers = &self.world.servers;
        let leader = servers.leader().await;
        let any = (self.fault.choice % servers.addresses().len() as u64) as usize;
        // Choose the leader among the members every other time.
        let member = leader.filter(|_| self.fault.choice & 16 == 0).unwrap_or(any);
        match self.fault.kind {
            Kind::KillMember => {
                self.world.tell(format!("member {member} of the store is killed"));
                servers.kill(member).await?;
                self.last().await;
            }
            Kind::PauseMember => {
                self.world.tell(format!("member {member} of the store is paused for {:?}", self.fault.lasts));
                servers.pause(member)?;
                self.last().await;
                servers.resume(member)?;
            }
            Kind::LoseQuorum => {
                let Some(members) = servers.quorum_loss() else { return Ok(Met::Nobody) };
                self.quorum(members).await?;
            }
            Kind::MoveStoreLeader => {
                let Some(to) = servers.move_leader().await? else { return Ok(Met::Nobody) };
                self.world.tell(format!("member {to} of the store leads now"));
            }
            _ => {
                // Compact only revisions that the follower has seen: the checks need the whole history.
                let revision = self.world.follower.ledger().present().revision();
                servers.compact(any, revision).await?;
                self.world.tell(format!("the store compacts its history up to {revision}"));
            }
        }
        servers.recover().await?;
        self.world.tell("the store is healthy");
        Ok(Met::Somebody)
    }

    /// Pauses or kills the first members, without which the store does not work.
    async fn quorum(&self, members: usize) -> Result<(), Failed> {
        let servers = &self.world.servers;
        let pauses = self.fault.choice & 32 == 0;
        self.world.tell(format!("the store loses its quorum for {:?}", self.fault.lasts));
        for member in 0..members {
            if pauses { servers.pause(member)? } else { servers.kill(member).await? }
        }
        self.last().await;
        if pauses {
            (0..members).try_for_each(|member| servers.resume(member))?;
        }
        Ok(())
    }

    async fn by_hand(&self) -> Result<Met, Failed> {
        // Only while the servers are healthy, because manual writes are not retried.
        let Ok(_turn) = self.world.servers_turn.try_lock() else { return Ok(Met::Nobody) };
        let Some(number) = self.number() else { return Ok(Met::Nobody) };
        let name = World::name(number);
        let key = |rest: &str| format!("{NAMESPACE}/{rest}");
        let (node, ready) = (key(&format!("view/nodes/{name}")), key(&format!("ready/{name}")));
        let (what, txn) = match self.fault.kind {
            Kind::RevokeLease => {
                let parsed = NodeName::parse(&name)?;
                let lease = self.world.follower.ledger().present().lease_of(&parsed).flatten();
                let Some(lease) = lease else { return Ok(Met::Nobody) };
                let done = self.world.store.revoke_lease(lease).await;
                self.world.tell(format!("the lease of {name} is revoked by hand: {done:?}"));
                return Ok(Met::Somebody);
            }
            Kind::DeleteLeader => {
                ("delete the leader's key".to_owned(), Txn::new().delete(key("view/leader")))
            }
            // Delete the acknowledgement too, as required for removing a node by hand.
            Kind::DeleteNode => (format!("delete {name}"), Txn::new().delete(node).delete(ready)),
            Kind::DeleteReady => (format!("delete the acknowledgement of {name}"), Txn::new().delete(ready)),
            Kind::DeleteVersion => ("delete the version".to_owned(), Txn::new().delete(key("view/version"))),
            Kind::DeleteStable => {
                ("delete the stable version".to_owned(), Txn::new().delete(key("view/stable")))
            }
            _ => (
                "request a version".to_owned(),
                Txn::new().put(key("view/request"), r#"{"by": "hand"}"#, None),
            ),
        };
        self.world.by_hand(what, txn).await;
        Ok(Met::Somebody)
    }
}
