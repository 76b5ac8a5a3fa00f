use std::{collections::BTreeMap, sync::Arc};

use clustering_core::{
    NodeName,
    store::{CoordinationStore as _, Txn},
};
use clustering_testkit::{
    node::{Conflict, NodeSpec},
    proxy::Proxy,
};
use futures_util::future::select_all;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    plan::{Fault, Kind, Target},
    world::{Failed, NAMESPACE, World, has_ended},
};

/// How often what was done, and how many faults met nobody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Struck {
    pub(crate) faults: BTreeMap<Kind, u64>,
    pub(crate) missed: u64,
}

/// Whether a fault met somebody.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    Somebody,
    Nobody,
}

/// Lets all faults of the plan happen, each at its time. Returns when all are over.
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
            Kind::KillMember
            | Kind::PauseMember
            | Kind::MoveEtcdLeader
            | Kind::LoseQuorum
            | Kind::Compact => self.etcd().await,
            _ => self.by_hand().await,
        }
    }

    /// The fault lasts, but not longer than the storm.
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
        // Something else happens to it.
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

    /// Another instance under the node's name.
    async fn twin(&self, number: usize) -> Result<(), Failed> {
        let policies = [Conflict::Wait, Conflict::TakeOver, Conflict::Fail];
        let name_conflict = policies[(self.fault.choice % 3) as usize];
        let spec = NodeSpec { name_conflict, ..self.world.spec(number) };
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

    /// About half of the nodes are killed or leave within a moment, and come back within another.
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
        // One thing at a time also here. What happens to the node itself may come on top.
        let (name, lines) = (World::name(number), self.world.lines(number));
        let (act, does): (fn(&Proxy), &str) = match self.fault.kind {
            Kind::Cut => (Proxy::cut, "are cut"),
            Kind::Hang => (Proxy::hang, "hang"),
            _ => (Proxy::hang_answers, "bring no answers"),
        };
        self.world.tell(format!("the connections of {name} {does} for {:?}", self.fault.lasts));
        lines.iter().for_each(act);
        self.last().await;
        lines.iter().for_each(Proxy::heal);
        self.world.tell(format!("the connections of {name} are well"));
        Ok(Met::Somebody)
    }

    /// The next step that a leader takes is done, and it does not hear so.
    async fn answer(&self) -> Met {
        let Some(number) = self.world.leader() else { return Met::Nobody };
        // What stands in the commit, and in no read.
        let lines = self.world.lines(number).iter().map(|line| Box::pin(line.lose_answer_to("\"count\":")));
        tokio::select! {
            _ = select_all(lines) => {
                self.world.tell(format!("an answer to {} is lost", World::name(number)));
                Met::Somebody
            }
            () = self.last() => Met::Nobody,
        }
    }

    async fn etcd(&self) -> Result<Met, Failed> {
        let Ok(_turn) = self.world.etcd_turn.try_lock() else { return Ok(Met::Nobody) };
        let etcd = &self.world.etcd;
        let leader = etcd.leader().await;
        let all = etcd.members().len();
        let any = (self.fault.choice % all as u64) as usize;
        // Every other time the one that leads.
        let member = leader.filter(|_| self.fault.choice & 16 == 0).unwrap_or(any);
        let pauses = self.fault.choice & 32 == 0;
        match self.fault.kind {
            Kind::KillMember => {
                self.world.tell(format!("etcd member {member} is killed"));
                etcd[member].kill().await?;
                self.last().await;
                etcd[member].restart().await?;
                etcd.wait_healthy().await?;
            }
            Kind::PauseMember => {
                self.world.tell(format!("etcd member {member} is paused for {:?}", self.fault.lasts));
                etcd[member].pause()?;
                self.last().await;
                etcd[member].resume()?;
                etcd.wait_healthy().await?;
            }
            Kind::LoseQuorum => {
                self.world.tell(format!("etcd loses its majority for {:?}", self.fault.lasts));
                let lost: Vec<_> = etcd.members().iter().take(all / 2 + 1).collect();
                for member in &lost {
                    if pauses { member.pause()? } else { member.kill().await? }
                }
                self.last().await;
                if pauses {
                    lost.iter().try_for_each(|member| member.resume())?;
                }
                etcd.recover().await?;
            }
            Kind::MoveEtcdLeader if all > 1 => {
                let to = etcd.transfer_leader().await?;
                self.world.tell(format!("etcd member {to} leads now"));
            }
            Kind::MoveEtcdLeader => return Ok(Met::Nobody),
            _ => {
                // What the follower has not seen it would miss, and with it the judges.
                let revision = self.world.follower.ledger().present().revision();
                etcd[any].compact_to(revision).await?;
                self.world.tell(format!("etcd forgets its history up to {revision}"));
            }
        }
        self.world.tell("etcd is well");
        Ok(Met::Somebody)
    }

    async fn by_hand(&self) -> Result<Met, Failed> {
        // Not while etcd is not well: what hands do is not repeated.
        let Ok(_turn) = self.world.etcd_turn.try_lock() else { return Ok(Met::Nobody) };
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
            // With its acknowledgement: that is how it is to be done.
            Kind::DeleteNode => (format!("delete {name}"), Txn::new().delete(node).delete(ready)),
            Kind::DeleteReady => (format!("delete the acknowledgement of {name}"), Txn::new().delete(ready)),
            Kind::DeleteVersion => ("delete the version".to_owned(), Txn::new().delete(key("view/version"))),
            Kind::DeleteStable => {
                ("delete the stable version".to_owned(), Txn::new().delete(key("view/stable")))
            }
            _ => (
                "ask for a version".to_owned(),
                Txn::new().put(key("view/request"), r#"{"by": "hand"}"#, None),
            ),
        };
        self.world.by_hand(what, txn).await;
        Ok(Met::Somebody)
    }
}
