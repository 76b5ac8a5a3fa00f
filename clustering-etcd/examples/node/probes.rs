//! What `--probes` serves.

use std::error::Error;

#[cfg(all(feature = "metrics", feature = "probes"))]
pub(crate) async fn serve(address: &str) -> Result<clustering_core::probes::Probes, Box<dyn Error>> {
    use clustering_core::{metrics::SECONDS, probes::Probes};
    use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("clustering_".to_owned()), SECONDS)?
        .install_recorder()?;
    let probes = Probes::new().metrics(move || {
        recorder.run_upkeep();
        recorder.render()
    });
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot serve probes at {address:?}: {error}"))?;
    let router: axum::Router = probes.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(probes)
}

/// Stands for what is not compiled.
#[cfg(not(all(feature = "metrics", feature = "probes")))]
pub(crate) struct Probes;

#[cfg(not(all(feature = "metrics", feature = "probes")))]
impl Probes {
    pub(crate) fn follow(&self, _: &clustering_core::Clustering) {}
}

#[cfg(not(all(feature = "metrics", feature = "probes")))]
pub(crate) async fn serve(_: &str) -> Result<Probes, Box<dyn Error>> {
    Err("built without probes: cargo run -p clustering-etcd --features metrics,probes --example node".into())
}
