use std::{
    ops::Index,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use etcd_client::MemberAddOptions;
use futures_util::future::{join_all, try_join_all};

use super::{EtcdBuilder, EtcdError, EtcdServer, server::INTERVAL};
use crate::process::random;

/// Longest time to wait for an election.
const PATIENCE: Duration = Duration::from_secs(30);

/// Several [`EtcdServer`]s that form one etcd cluster. Members can be paused, killed and restarted individually,
/// through [`members`](Self::members) or by index (`cluster[0]`).
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<EtcdServer>,
    options: EtcdBuilder,
    binary: PathBuf,
    token: String,
}

impl EtcdCluster {
    /// Starts three members and waits until all of them are healthy.
    ///
    /// [`EtcdServer::builder`] offers options and other numbers of members.
    pub async fn start() -> Result<Self, EtcdError> {
        EtcdServer::builder().start_cluster(3).await
    }

    pub(super) async fn launch(options: &EtcdBuilder, binary: &Path, size: usize) -> Result<Self, EtcdError> {
        let prepare = |number| EtcdServer::prepare(options, binary, format!("etcd-{number}"));
        let mut members = (1..=size).map(prepare).collect::<Result<Vec<_>, _>>()?;
        let initial = members.iter().map(EtcdServer::as_initial_member).collect::<Vec<_>>().join(",");
        let token = format!("{:016x}", random());
        for member in &mut members {
            member.join(initial.clone(), token.clone());
            member.spawn()?;
        }
        let cluster = Self { members, options: options.clone(), binary: binary.to_owned(), token };
        cluster.wait_healthy().await?;
        Ok(cluster)
    }

    /// Returns all members.
    pub fn members(&self) -> &[EtcdServer] {
        &self.members
    }

    /// Adds a voting member, waits until it is healthy, and returns its index among the [`members`](Self::members).
    pub async fn add_member(&mut self) -> Result<usize, EtcdError> {
        let place = self.add(MemberAddOptions::new()).await?;
        self.members[place].wait_healthy().await?;
        Ok(place)
    }

    /// Adds a learner, which replicates the log but does not serve clients, waits until it listens, and returns its
    /// index.
    pub async fn add_learner(&mut self) -> Result<usize, EtcdError> {
        let place = self.add(MemberAddOptions::new().with_is_learner()).await?;
        self.members[place].wait_until_it_listens().await?;
        Ok(place)
    }

    async fn add(&mut self, how: MemberAddOptions) -> Result<usize, EtcdError> {
        let number = self.members.len() + 1;
        let options = self.options.clone().args(["--initial-cluster-state=existing"]);
        let mut member = EtcdServer::prepare(&options, &self.binary, format!("etcd-{number}"))?;
        let all = self.members.iter().filter(|member| member.pid().is_some()).chain([&member]);
        let initial = all.map(EtcdServer::as_initial_member).collect::<Vec<_>>().join(",");
        let peer = member.peer_url();
        let asked = self.running()?;
        let added = asked.client().await?.member_add([peer], Some(how)).await;
        added.map_err(|error| asked.error("adding a member", error))?;
        member.join(initial, self.token.clone());
        member.spawn()?;
        self.members.push(member);
        Ok(self.members.len() - 1)
    }

    /// Removes a member from the cluster and kills it. Its index among the [`members`](Self::members) stays in use.
    pub async fn remove_member(&self, place: usize) -> Result<(), EtcdError> {
        let member = &self.members[place];
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != place);
        let asked = others.map(|(_, member)| member).find(|member| member.pid().is_some());
        let asked = asked.ok_or_else(|| EtcdError::new("removing a member", "it is the last one"))?;
        let status =
            member.client().await?.status().await.map_err(|error| member.error("asking it", error))?;
        let id = status.header().map(|header| header.member_id()).unwrap_or_default();
        // Etcd refuses a removal while other members are not connected yet.
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = asked.client().await?.member_remove(id).await {
            if Instant::now() > deadline {
                return Err(asked.error("removing a member", error));
            }
            tokio::time::sleep(INTERVAL).await;
        }
        member.kill().await
    }

    fn running(&self) -> Result<&EtcdServer, EtcdError> {
        let running = self.members.iter().find(|member| member.pid().is_some());
        running.ok_or_else(|| EtcdError::new("looking for a member", "none runs"))
    }

    /// Returns the client endpoints of all members, in the order of [`members`](Self::members).
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(EtcdServer::endpoint).collect()
    }

    /// Returns the index in [`members`](Self::members) of the current leader, if there is one.
    pub async fn leader(&self) -> Option<usize> {
        let leads = join_all(self.members.iter().map(EtcdServer::leads)).await;
        leads.into_iter().position(|leads| leads)
    }

    /// Waits until a member leads, and returns its index.
    pub async fn wait_for_leader(&self) -> Result<usize, EtcdError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                let logs = self.members.iter().map(|member| format!("{member:?}:\n{}", member.log()));
                let error =
                    EtcdError::new("waiting for a leader", format!("there was none within {PATIENCE:?}"));
                return Err(error.with_log(logs.collect::<Vec<_>>().join("\n")));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Waits until all running members are healthy, that is, have a leader and can commit. A paused member never
    /// becomes healthy.
    pub async fn wait_healthy(&self) -> Result<(), EtcdError> {
        let running = self.members.iter().filter(|member| member.pid().is_some());
        try_join_all(running.map(EtcdServer::wait_healthy)).await.map(drop)
    }

    /// Transfers the leadership to the next member and returns its index.
    pub async fn transfer_leader(&self) -> Result<usize, EtcdError> {
        let from = self.wait_for_leader().await?;
        let to = (from + 1) % self.members.len();
        let (old, new) = (&self.members[from], &self.members[to]);
        let what = format!("transferring the leadership to {new:?}");
        let status = new.client().await?.status().await.map_err(|error| new.error(&what, error))?;
        let id = status.header().map(|header| header.member_id()).unwrap_or_default();
        old.client().await?.move_leader(id).await.map_err(|error| old.error(&what, error))?;
        self.wait_for_leader().await
    }

    /// Kills the leader and returns its index.
    pub async fn kill_leader(&self) -> Result<usize, EtcdError> {
        let leader = self.wait_for_leader().await?;
        self.members[leader].kill().await?;
        Ok(leader)
    }

    /// Kills members until too few are left to commit anything.
    pub async fn lose_quorum(&self) -> Result<(), EtcdError> {
        let running: Vec<_> = self.members.iter().filter(|member| member.pid().is_some()).collect();
        let too_few = self.members.len() / 2;
        try_join_all(running.into_iter().skip(too_few).map(EtcdServer::kill)).await.map(drop)
    }

    /// Starts all members that are down and waits until the cluster is healthy.
    pub async fn recover(&self) -> Result<(), EtcdError> {
        let down = self.members.iter().filter(|member| member.pid().is_none());
        try_join_all(down.map(EtcdServer::restart)).await?;
        self.wait_healthy().await
    }
}

impl Index<usize> for EtcdCluster {
    type Output = EtcdServer;

    fn index(&self, place: usize) -> &EtcdServer {
        &self.members[place]
    }
}
