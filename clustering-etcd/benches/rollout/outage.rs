//! An outage of the store that ends all sessions.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use clustering_testkit::etcd::EtcdServer;

use crate::{
    arguments::Arguments,
    cluster::{Cluster, Settings},
    log::Log,
    report::Outcome,
    restarts::names,
};

pub(crate) const NAME: &str = "outage";

/// TTL of the leases: the shortest that etcd grants.
const TTL: Duration = Duration::from_secs(2);

/// Duration of the outage.
const OUTAGE: Duration = TTL.saturating_mul(3);

/// Stops etcd for three TTLs, starts it again, and waits until all nodes have rejoined.
pub(crate) async fn run(arguments: &Arguments, etcd: &EtcdServer) -> Result<Outcome, Box<dyn Error>> {
    let (nodes, slots) = (arguments.outage_nodes, arguments.slots);
    let names = names("node", nodes)?;
    let settings = Settings {
        namespace: NAME.to_owned(),
        slots,
        ttl: TTL,
        restart_grace: Duration::ZERO,
        publish_gap: None,
    };
    let cluster = Cluster::start(etcd, settings, &names).await?;
    let log = Log::begin(etcd, NAME).await?;
    let (before, incarnations) = (cluster.stabilizes(), cluster.incarnations());
    etcd.stop().await?;
    tokio::time::sleep(OUTAGE).await;
    etcd.restart().await?;
    let answered = Instant::now();
    cluster.rejoined(&incarnations).await?;
    let stable = answered.elapsed();
    let counts = log.counts(&names).await?;
    let stabilizes = cluster.stabilizes() - before;
    cluster.end().await;
    Ok(Outcome {
        case: NAME.to_owned(),
        nodes,
        slots,
        counts,
        stabilizes,
        stable: Some(stable),
        most_elections: None,
        most_moves: 0,
    })
}
