//! Serves probes and metrics over HTTP, for `clustering run --listen` and for the example `node`.
//!
//! Anyone who can reach the address can connect, so clients must not be able to use up more than a few file
//! descriptors. Each connection serves one request, has a limited lifetime, and is closed if too many newer ones
//! arrive.

use std::{collections::VecDeque, time::Duration};

use axum::Router;
use clustering_core::{metrics::SECONDS, probes::Probes};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Interval of the recorder's upkeep. Recorded durations would otherwise use memory until the next scrape, which may
/// never come.
const UPKEEP: Duration = Duration::from_secs(10);

/// Maximum number of open connections, far below any limit of file descriptors. An answer takes milliseconds.
const CONNECTIONS: usize = 32;

/// Maximum lifetime of a connection for probes and metrics, including the time in which the client reads the answer.
const LIFE: Duration = Duration::from_secs(10);

/// Maximum size of a request's line and headers in bytes.
const HEAD: usize = 16 * 1024;

/// Pause after an `accept` that failed, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Starts serving the probes of a node that has not started yet, and the metrics of this process.
pub(crate) fn serve(listener: TcpListener) -> Result<Probes, BuildError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("clustering_".to_owned()), SECONDS)?
        .install_recorder()?;
    let rendered = recorder.clone();
    let probes = Probes::new().metrics(move || rendered.render());
    tokio::spawn(accept(listener, probes.router(), LIFE));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            recorder.run_upkeep();
        }
    });
    Ok(probes)
}

/// Accepts connections forever, each for at most the time `life`. If too many are open, the oldest is closed, so that a client that sends its request at
/// once gets an answer even if many others send nothing.
pub(crate) async fn accept(listener: TcpListener, router: Router, life: Duration) {
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
            // The file descriptor is only released then.
            let _ = oldest.await;
        }
        open.push_back(tokio::spawn(answer(stream, router.clone(), life)));
    }
}

/// Answers one request.
async fn answer(stream: TcpStream, router: Router, life: Duration) {
    let mut http = http1::Builder::new();
    let http = http.keep_alive(false).max_buf_size(HEAD);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // If it fails, only the client is affected.
    let _ = tokio::time::timeout(life, connection).await;
}
