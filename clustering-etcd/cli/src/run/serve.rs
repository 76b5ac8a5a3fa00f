//! Serves probes and metrics over HTTP, for `clustering run --listen` and for the example `node`.

use std::time::Duration;

use axum::Router;
use clustering_core::{metrics::SECONDS, probes::Probes};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tokio::net::TcpListener;

use crate::connections::accept;

/// Interval of the recorder's upkeep. Recorded durations would otherwise use memory until the next scrape, which may
/// never come.
const UPKEEP: Duration = Duration::from_secs(10);

/// Starts serving the probes of a node that has not started yet, the metrics of this process, and other routes.
pub(crate) fn serve(listener: TcpListener, others: Router) -> Result<Probes, BuildError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("clustering_".to_owned()), SECONDS)?
        .install_recorder()?;
    let rendered = recorder.clone();
    let probes = Probes::new().metrics(move || rendered.render());
    tokio::spawn(accept(listener, probes.router().merge(others)));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            recorder.run_upkeep();
        }
    });
    Ok(probes)
}
