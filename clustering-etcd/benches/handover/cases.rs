//! The measured changes.

use std::error::Error;

use clustering_testkit::etcd::EtcdServer;

use crate::{
    arguments::Arguments,
    cluster::{Cluster, Kind, Sample},
    report,
};

/// The most rounds of crashes. Each takes some seconds, until the lease of the crashed node has ended.
const CRASHES: usize = 3;

/// An exclusive cluster and a cluster that is not exclusive, which are changed in turn.
struct Pair<'a> {
    exclusive: Cluster<'a>,
    plain: Cluster<'a>,
}

/// Samples of both clusters.
#[derive(Default)]
struct Samples {
    exclusive: Vec<Sample>,
    plain: Vec<Sample>,
}

impl Samples {
    fn note(&mut self, (exclusive, plain): (Sample, Sample)) {
        self.exclusive.push(exclusive);
        self.plain.push(plain);
    }
}

type Both = Result<(Sample, Sample), Box<dyn Error>>;

impl<'a> Pair<'a> {
    async fn start(etcd: &'a EtcdServer, nodes: usize, slots: u16, releases: bool) -> Self {
        let namespace = |what: &str| format!("{what}-{nodes}-{slots}-{releases}");
        let kind = Kind { slots: Some(slots), releases };
        let exclusive = Cluster::start(etcd, kind, namespace("exclusive"), nodes).await;
        let kind = Kind { slots: None, releases: false };
        let plain = Cluster::start(etcd, kind, namespace("plain"), nodes).await;
        Pair { exclusive, plain }
    }

    async fn join(&mut self) -> Both {
        Ok((self.exclusive.join().await?, self.plain.join().await?))
    }

    /// Stops a node that holds slots, if possible a follower, and a node of the other cluster in the same role,
    /// because stopping a leader costs an election.
    async fn stop_one(&mut self) -> Both {
        let leads = self.exclusive.must_stop_leader();
        Ok((self.exclusive.stop_one(leads).await?, self.plain.stop_one(leads).await?))
    }

    async fn crash(&mut self) -> Both {
        Ok((self.exclusive.crash().await?, self.plain.crash().await?))
    }

    async fn stop(self) {
        self.exclusive.stop().await;
        self.plain.stop().await;
    }
}

/// Measures all cases for a view of this size after the change.
pub(crate) async fn run(
    arguments: &Arguments,
    etcd: &EtcdServer,
    nodes: usize,
    slots: u16,
) -> Result<(), Box<dyn Error>> {
    let print = |case: &str, samples: &Samples| {
        report::print(arguments.json, case, nodes, slots, &samples.exclusive, &samples.plain);
    };
    let (mut joins, mut stops, mut releases, mut crashes) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    let mut pair = Pair::start(etcd, nodes - 1, slots, false).await;
    for round in 0..=arguments.rounds {
        let joined = pair.join().await?;
        pair.join().await?;
        let stopped = pair.stop_one().await?;
        pair.stop_one().await?;
        // The first round is a warm-up.
        if round > 0 {
            joins.note(joined);
            stops.note(stopped);
        }
    }
    pair.join().await?;
    for _ in 0..arguments.rounds.min(CRASHES) {
        crashes.note(pair.crash().await?);
    }
    pair.stop().await;
    let mut pair = Pair::start(etcd, nodes, slots, true).await;
    for round in 0..=arguments.rounds {
        pair.join().await?;
        let stopped = pair.stop_one().await?;
        if round > 0 {
            releases.note(stopped);
        }
    }
    pair.stop().await;
    print("join", &joins);
    print("stop", &stops);
    print("stop with release", &releases);
    print("crash", &crashes);
    Ok(())
}
