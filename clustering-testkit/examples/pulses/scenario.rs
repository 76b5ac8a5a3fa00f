//! The test of the sample service: a cluster in a storm of random faults.

use std::{sync::Arc, time::Duration};

use clustering_core::StartError;
use clustering_testkit::cluster::{Failure, Storm, TestCluster, Trouble};

use crate::{
    database::Database,
    service::{Mistake, Service},
};

/// Runs five instances with twelve meters in forty seconds of faults: stops, rolling restarts, crashes, cut-offs, and
/// pauses that are longer than the TTL. No two instances may work on a meter at the same time, and no instance may work
/// on a meter without a hold. No pulse may be counted twice or lost, an instance must answer requests for the meters
/// that it owns, and in the end all meters must be counted.
pub(crate) async fn every_pulse_counts(seed: u64, mistake: Option<Mistake>) -> Result<(), Failure> {
    let database = Database::default();
    let cluster = {
        let database = database.clone();
        TestCluster::builder()
            .seed(seed)
            .start(5, move |process| {
                let database = database.clone();
                async move {
                    let service =
                        Service::start(process.store(), process.name(), database, meters(), mistake).await?;
                    // In production, this is tokio::spawn. Here the task belongs to the process and is paused with it.
                    process.spawn(service.work());
                    Ok::<_, StartError>(service)
                }
            })
            .await?
    };
    let client = tokio::spawn(client(cluster.clone(), database.clone()));
    // A store that ends leases early breaks its contract. This test does not cover that.
    let storm = Storm::new(seed).lasting(Duration::from_secs(40)).without([Trouble::Expire]);
    cluster.storm(&storm).await?;
    // Neither the cluster nor the service broke a promise, and the cluster comes to rest.
    cluster.settle().await?;
    client.abort();
    let before = database.pulses();
    cluster.advance(Duration::from_secs(5)).await;
    let after = database.pulses();
    match meters().iter().find(|meter| after.get(*meter) == before.get(*meter)) {
        None => Ok(()),
        Some(meter) => Err(cluster.failure(format!("no instance counts {meter} anymore"))),
    }
}

/// Sends requests to the instances that, by their own view, own the meters, and checks the counts.
async fn client(cluster: TestCluster<Service>, database: Database) {
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Some(wrong) = database.miscounted().first() {
            cluster.violates(wrong);
        }
        // A paused instance answers no requests.
        let answering = cluster.partakers();
        for (name, service) in cluster.services() {
            if answering.contains(&name)
                && let Some(meter) = meters().iter().find(|meter| service.answers_for(meter) == Some(false))
            {
                cluster.violates(format!(
                    "{name} owns {meter} by the stable version, but does not answer for it"
                ));
            }
        }
    }
}

fn meters() -> Arc<[String]> {
    (1..=12).map(|n| format!("meter-{n}")).collect()
}
