//! Changes of a cluster. On etcd, they alternate with changes of a cluster of bare clients.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::{
    arguments::Arguments,
    bare::Bare,
    ours::Ours,
    report::{self, Change, Sample},
    stores::{Server, Store},
};

/// Timeout, longer than any operation here takes.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// TTL of leases that need no renewal while a change is measured, so that both teams do nothing but the change.
pub(crate) const TTL: Duration = Duration::from_secs(600);

/// Pause between changes, so that each counts as a lone change: the library delays the publication of a change that
/// comes within a second of another. The bare client does not, but pauses as long, because a change
/// right after another would profit from warm caches.
const CALM: Duration = Duration::from_millis(1_050);

/// Implementation under test: this library or the bare client.
pub(crate) trait Team {
    type Member: Member;
    const NAME: &str;

    /// Connects, registers a member, and starts to follow the log.
    fn join(&self, name: &str) -> impl Future<Output = Self::Member> + Send;
}

pub(crate) trait Member: Clone + Send + 'static {
    /// Returns the time at which this member saw that a version of `nodes` nodes is stable.
    fn stable_with(self, nodes: usize) -> impl Future<Output = Instant> + Send;

    fn is_leader(&self) -> bool;

    /// Leaves. The other members see the departure before this returns.
    fn leave(self) -> impl Future<Output = ()> + Send;
}

/// A cluster and its members.
pub(crate) struct Cluster<T: Team> {
    team: T,
    members: Vec<T::Member>,
    joined: usize,
    changed: Instant,
}

impl<T: Team> Cluster<T> {
    /// Starts a cluster of `nodes` members and waits until it is stable.
    pub(crate) async fn start(team: T, nodes: usize) -> Self {
        let mut cluster = Cluster { team, members: Vec::new(), joined: 0, changed: Instant::now() };
        let names: Vec<_> = (0..nodes).map(|_| cluster.next_name()).collect();
        // Start one member alone, so that it is the leader in the clusters of both teams.
        if let Some((first, rest)) = names.split_first() {
            cluster.members.push(cluster.team.join(first).await);
            cluster.members.extend(join_all(rest.iter().map(|name| cluster.team.join(name))).await);
        }
        done(&mut watch(&cluster.members, nodes), Instant::now()).await;
        cluster.changed = Instant::now();
        cluster
    }

    fn next_name(&mut self) -> String {
        self.joined += 1;
        format!("n{:05}", self.joined)
    }

    pub(crate) async fn calm_down(&self) {
        tokio::time::sleep_until((self.changed + CALM).into()).await;
    }

    /// Measures the join of one more member.
    pub(crate) async fn join(&mut self) -> Sample {
        self.calm_down().await;
        let (name, nodes) = (self.next_name(), self.members.len() + 1);
        let mut waiting = watch(&self.members, nodes);
        let began = Instant::now();
        let member = self.team.join(&name).await;
        self.members.push(member.clone());
        wait_for(&mut waiting, member, nodes);
        let sample = done(&mut waiting, began).await;
        self.changed = Instant::now();
        sample
    }

    /// Measures the leave of the leader or of the youngest follower.
    pub(crate) async fn leave(&mut self, leader: bool) -> Sample {
        self.calm_down().await;
        let place = self.members.iter().rposition(|member| member.is_leader() == leader).unwrap();
        let leaver = self.members.remove(place);
        let mut waiting = watch(&self.members, self.members.len());
        let began = Instant::now();
        let left = tokio::spawn(leaver.leave());
        let sample = done(&mut waiting, began).await;
        left.await.unwrap();
        self.changed = Instant::now();
        sample
    }

    async fn change(&mut self, change: Change) -> Sample {
        match change {
            Change::Join => self.join().await,
            Change::FollowerLeaves => self.leave(false).await,
            Change::LeaderLeaves => self.leave(true).await,
        }
    }

    pub(crate) async fn stop(self) {
        join_all(self.members.into_iter().map(Member::leave)).await;
    }
}

/// Spawns a task for each member, which returns the time at which it sees a stable version of `nodes` nodes, and true
/// if it leads then.
fn watch<M: Member>(members: &[M], nodes: usize) -> JoinSet<(Instant, bool)> {
    let mut waiting = JoinSet::new();
    for member in members {
        wait_for(&mut waiting, member.clone(), nodes);
    }
    waiting
}

fn wait_for<M: Member>(waiting: &mut JoinSet<(Instant, bool)>, member: M, nodes: usize) {
    waiting.spawn(async move {
        let seen = member.clone().stable_with(nodes).await;
        (seen, member.is_leader())
    });
}

async fn done(waiting: &mut JoinSet<(Instant, bool)>, began: Instant) -> Sample {
    let mut sample = Sample::default();
    while let Some(seen) = waiting.join_next().await {
        let (seen, leads) = seen.unwrap();
        sample.all = sample.all.max(seen - began);
        if leads {
            sample.leader = seen - began;
        }
    }
    sample
}

pub(crate) async fn run(arguments: &Arguments, server: &Server, nodes: usize) {
    let namespace = |team: &str| format!("times/{team}-{nodes}");
    let connect = server.connect.clone();
    let ours = Ours { connect, namespace: namespace("ours"), ttl: TTL, trace: None };
    let mut ours = Cluster::start(ours, nodes - 1).await;
    let mut bare = match (server.store, &server.endpoint) {
        (Store::Etcd, Some(endpoint)) => {
            let endpoints = vec![endpoint.clone()];
            let bare = Bare { endpoints, namespace: namespace("bare"), ttl: TTL, trace: None };
            Some(Cluster::start(bare, nodes - 1).await)
        }
        _ => None,
    };
    let mut samples = report::Samples::default();
    // The first round is a warm-up.
    for round in 0..=arguments.rounds {
        for change in [Change::Join, Change::FollowerLeaves, Change::Join, Change::LeaderLeaves] {
            let (mine, theirs);
            if round % 2 == 0 {
                mine = ours.change(change).await;
                theirs = change_if_any(&mut bare, change).await;
            } else {
                theirs = change_if_any(&mut bare, change).await;
                mine = ours.change(change).await;
            }
            if round > 0 {
                samples.note(change, mine, theirs);
            }
        }
    }
    samples.report(arguments.json, nodes);
    ours.stop().await;
    if let Some(bare) = bare {
        bare.stop().await;
    }
}

async fn change_if_any<T: Team>(cluster: &mut Option<Cluster<T>>, change: Change) -> Option<Sample> {
    match cluster {
        Some(cluster) => Some(cluster.change(change).await),
        None => None,
    }
}
