//! Measures a rolling restart under load: failed requests, overlaps, and the time for which no instance worked on a
//! device.

use std::{io::Write, sync::Arc, time::Duration};

use clustering_core::store::CoordinationStore;
use clustering_memory::MemoryStore;
use serde_json::json;
use tokio::time;

use crate::{
    BoxError,
    arguments::{Plan, StoreKind},
    load::{Balancer, Instance, Journal, Load},
    open,
};

/// Time from the signal to an instance until the balancer stops sending requests to it. Balancers learn late that an
/// instance is leaving, so the instance must forward the requests that arrive in the meantime.
const NOTICED_AFTER: Duration = Duration::from_millis(200);

/// Prints the result as a line of JSON. Returns true if no request failed or overlapped with another, and no write was
/// lost.
pub(crate) async fn run(plan: &Plan) -> Result<bool, BoxError> {
    let memory: Arc<dyn CoordinationStore> = Arc::new(MemoryStore::new());
    let store = async || match plan.store {
        StoreKind::Memory => Ok(memory.clone()),
        // Each instance has its own connection, as in a separate process.
        StoreKind::Etcd => open(plan.store).await,
    };
    // Devices of earlier runs may be in the store.
    let devices: Vec<_> = (0..plan.devices).map(|n| format!("{}-{n}", std::process::id())).collect();
    let (journal, balancer) = (Journal::of_process(), Balancer::new());

    let mut instances = Vec::new();
    for number in 0..plan.instances {
        instances.push(Instance::start(&format!("instance-{number}"), store().await?, None).await?);
    }
    for instance in &instances {
        balancer.wait_for(&instance.uri, "stablez").await;
        balancer.add(&instance.uri);
    }
    let load = Load::start(balancer.clone(), devices.clone(), plan.rate);
    time::sleep(plan.pause).await;
    for number in 0..plan.instances {
        let old = instances.remove(0);
        instances.push(restart(old, &format!("instance-{number}"), store().await?, None, &balancer).await?);
        time::sleep(plan.pause).await;
    }
    let tally = load.end().await?;
    let lost_writes = tally.lost_writes(&balancer).await?;
    for error in tally.failed.iter().take(5) {
        eprintln!("failed: {error}");
    }
    for instance in instances {
        instance.stop().await?;
    }

    let verdict = journal.verdict(&devices);
    let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    let result = json!({
        "case": "rolling_restart",
        "store": if plan.store == StoreKind::Etcd { "etcd" } else { "memory" },
        "instances": plan.instances,
        "devices": plan.devices,
        "rate": plan.rate,
        "requests": tally.latencies.len() + tally.failed.len(),
        "failed": tally.failed.len(),
        "overlaps": verdict.overlaps,
        "acknowledged_writes": tally.acknowledged(),
        "lost_writes": lost_writes,
        "moves": verdict.moves,
        "longest_gap_ms": ms(verdict.longest_gap),
        "p50_ms": ms(tally.quantile(0.5)),
        "p99_ms": ms(tally.quantile(0.99)),
        "max_ms": ms(tally.quantile(1.0)),
    });
    writeln!(std::io::stdout(), "{result}")?;
    Ok(tally.failed.is_empty() && verdict.overlaps == 0 && lost_writes == 0)
}

/// Stops an instance and starts another with the same name, as a deployment does.
pub(crate) async fn restart(
    instance: Instance,
    name: &str,
    store: Arc<dyn CoordinationStore>,
    ttl: Option<Duration>,
    balancer: &Balancer,
) -> Result<Instance, BoxError> {
    stop(instance, balancer).await?;
    let next = Instance::start(name, store, ttl).await?;
    balancer.wait_for(&next.uri, "readyz").await;
    balancer.add(&next.uri);
    Ok(next)
}

/// Stops an instance while the balancer still sends requests to it.
pub(crate) async fn stop(instance: Instance, balancer: &Balancer) -> Result<(), BoxError> {
    let uri = instance.uri.clone();
    let noticed = async {
        time::sleep(NOTICED_AFTER).await;
        balancer.remove(&uri);
    };
    tokio::join!(instance.stop(), noticed).0
}
