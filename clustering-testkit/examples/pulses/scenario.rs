//! The test of the sample service: a cluster of it in a storm of faults by a seed.

use std::{sync::Arc, time::Duration};

use clustering_core::StartError;
use clustering_testkit::cluster::{Failure, Storm, TestCluster, Trouble};

use crate::{
    database::Database,
    service::{Mistake, Service},
};

/// Five instances, twelve meters, forty seconds of faults: no pulse may be counted twice or be lost, whatever happens;
/// who asks an instance for what is its own is answered; and in the end all meters are counted.
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
                    // In production: tokio::spawn. Here it belongs to the process, and stands still with it.
                    process.spawn(service.work());
                    Ok::<_, StartError>(service)
                }
            })
            .await?
    };
    let client = tokio::spawn(client(cluster.clone(), database.clone()));
    // A store that ends leases before their time breaks its contract: what then happens is not for this test.
    let storm = Storm::new(seed).lasting(Duration::from_secs(40)).without([Trouble::Expire]);
    cluster.storm(&storm).await?;
    // No promise was broken, neither of the cluster nor of the service, and it comes to rest.
    cluster.settle().await?;
    client.abort();
    let before = database.pulses();
    cluster.advance(Duration::from_secs(5)).await;
    let after = database.pulses();
    match meters().iter().find(|meter| after.get(*meter) == before.get(*meter)) {
        None => Ok(()),
        Some(meter) => Err(cluster.failure(format!("nobody counts {meter} any more"))),
    }
}

/// Sends requests to where the instances themselves say that they belong, and looks after the counts.
async fn client(cluster: TestCluster<Service>, database: Database) {
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Some(wrong) = database.miscounted().first() {
            cluster.violates(wrong);
        }
        for (name, service) in cluster.services() {
            if let Some(meter) = meters().iter().find(|meter| service.answers_for(meter) == Some(false)) {
                cluster.violates(format!("{name} owns {meter} by the stable version, and does not know it"));
            }
        }
    }
}

fn meters() -> Arc<[String]> {
    (1..=12).map(|n| format!("meter-{n}")).collect()
}
