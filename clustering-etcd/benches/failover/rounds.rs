//! Kills, one at a time.

use std::{error::Error, time::Duration};

use clustering_testkit::{etcd::EtcdServer, history::Clock};

use crate::process::{Cluster, Kind};

/// Most kills in a case that waits for the TTL.
pub(crate) const SLOW: usize = 2;

/// Pause between changes, so that each counts as a single change: the library delays the publication of a change that
/// follows another one within a second.
const CALM: Duration = Duration::from_millis(1_050);

/// Role of the killed process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Follower,
}

impl Role {
    pub(crate) const ALL: [Role; 2] = [Role::Leader, Role::Follower];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
        }
    }
}

/// Kills a process of a cluster this many times, each time starting another one afterwards, and returns the times until
/// all others had adapted.
pub(crate) async fn run(
    etcd: &EtcdServer,
    kind: Kind,
    role: Role,
    nodes: usize,
    rounds: usize,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let clock = Clock::boot();
    let mut cluster = Cluster::start(etcd, kind, role.name(), nodes).await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        tokio::time::sleep_until(cluster.changed + CALM).await;
        let leads = role == Role::Leader;
        let place = cluster.nodes().iter().position(|node| node.leads() == leads).ok_or("no such node")?;
        let doomed = cluster.take(place);
        let killed = clock.now();
        doomed.kill()?;
        times.push(cluster.stable().await?.since(killed));
        cluster.add()?;
        cluster.stable().await?;
    }
    Ok(times)
}
