//! Serves probes and metrics over HTTP, for `clustering run --listen` and for the example `node`.
//!
//! Everybody who reaches the address may connect, so nothing that clients do can cost the process more than a few
//! descriptors: a connection serves one request, has a bounded life, and makes room for a newer one.

use std::{collections::VecDeque, time::Duration};

use axum::Router;
use clustering_etcd::{metrics::SECONDS, probes::Probes};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Interval of the recorder's upkeep. Between two scrapes, measured durations take memory, and perhaps nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(10);

/// The most connections at a time, far below any limit of descriptors. An answer takes milliseconds.
const CONNECTIONS: usize = 32;

/// The longest life of a connection: its request, and the client's reading of the answer.
const LIFE: Duration = Duration::from_secs(10);

/// The most bytes of a request's line and headers.
const HEAD: usize = 16 * 1024;

/// Pause after a connection that could not be accepted, such as for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves from now on the probes of a node that has yet to start, and the metrics of this process.
pub(crate) fn serve(listener: TcpListener) -> Result<Probes, BuildError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("clustering_".to_owned()), SECONDS)?
        .install_recorder()?;
    let rendered = recorder.clone();
    let probes = Probes::new().metrics(move || rendered.render());
    tokio::spawn(accept(listener, probes.router()));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            recorder.run_upkeep();
        }
    });
    Ok(probes)
}

/// Accepts connections for ever. If too many are open, the oldest is dropped: a client that sends its request at once is
/// answered, however many others send nothing.
async fn accept(listener: TcpListener, router: Router) {
    let mut open: VecDeque<JoinHandle<()>> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
            // Only then its descriptor is free.
            let _ = oldest.await;
        }
        open.push_back(tokio::spawn(answer(stream, router.clone())));
    }
}

/// Answers one request.
async fn answer(stream: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    let http = http.keep_alive(false).max_buf_size(HEAD);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Whether it failed is the client's business.
    let _ = tokio::time::timeout(LIFE, connection).await;
}
