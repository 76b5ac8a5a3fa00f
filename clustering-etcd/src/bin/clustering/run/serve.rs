//! Probes and metrics over HTTP: what `clustering run --listen` serves, and the example `node` too.

use std::time::Duration;

use clustering_etcd::{metrics::SECONDS, probes::Probes};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tokio::net::TcpListener;

/// How often what was measured is added up. Between two scrapes it takes room, and perhaps nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(10);

/// Serves from now on what the node is asked, that has yet to start, and what the process measures from now on.
pub(crate) fn serve(listener: TcpListener) -> Result<Probes, BuildError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("clustering_".to_owned()), SECONDS)?
        .install_recorder()?;
    let rendered = recorder.clone();
    let probes = Probes::new().metrics(move || rendered.render());
    let router: axum::Router = probes.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            recorder.run_upkeep();
        }
    });
    Ok(probes)
}
