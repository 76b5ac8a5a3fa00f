//! The HTTP server of `--probes`.

#[cfg(all(feature = "metrics", feature = "probes"))]
#[path = "../../cli/src/run/serve.rs"]
mod serve;

use std::error::Error;

#[cfg(all(feature = "metrics", feature = "probes"))]
pub(crate) async fn serve(address: &str) -> Result<clustering_core::probes::Probes, Box<dyn Error>> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot serve probes at {address:?}: {error}"))?;
    Ok(serve::serve(listener, axum::Router::new())?)
}

/// Placeholder for builds without probes.
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
