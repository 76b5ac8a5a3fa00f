//! `serve`: shows a cluster live in a browser.

mod feed;
mod http;

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use clap::Args;

use crate::{connect::Purpose, context::Context, failure::Failure, output, run, watch};

/// Maximum lifetime of a connection. The browser opens the stream of states again when it ends.
const LIFE: Duration = Duration::from_secs(3_600);

/// Show the cluster live in a browser
///
/// Serves one page: the nodes and their state, the leader, the life of the newest version and what it waits for, the
/// slots of an exclusive cluster, and the last 64 versions. The page follows the cluster without being reloaded. It is
/// read only, and also follows a cluster that does not exist yet.
///
/// Whoever can reach the address sees the page, with the names, URIs and metadata of all nodes. Runs until SIGINT or
/// SIGTERM. Exit codes: 0 ended by the user, 2 the store could not be reached at the start, or refused.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Address to serve the page at; a port alone, as in :8088, is on all addresses of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8088")]
    listen: String,
}

impl Serve {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let listener = run::listen(&self.listen).await?;
        let address = listener.local_addr().map_err(|error| Failure::unknown(error.to_string()))?;
        let router = router(context, address).await?;
        output::line(format!("serving at http://{}/", shown(address)));
        tokio::select! {
            () = run::accept(listener, router, LIFE) => {}
            _ = tokio::signal::ctrl_c() => {}
            () = watch::terminated() => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Follows the cluster, and returns the routes of the page for a server at that address.
async fn router(context: &Context, address: SocketAddr) -> Result<axum::Router, Failure> {
    let operator = context.operator().await?;
    let monitor = context.quick(operator.monitor()).await?;
    // Without a history, or the permission to read it, the timeline starts now.
    let store = context.store(Purpose::Operator).await?;
    let past = context.quick(clustering_core::history(&store, operator.keyspace())).await;
    let namespace = operator.keyspace().namespace().clone();
    let states = feed::start(namespace, context.store_name, monitor, past.unwrap_or_default());
    Ok(http::router(states, address))
}

/// Formats the address for a browser on this machine.
fn shown(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("localhost:{}", address.port()),
        false => address.to_string(),
    }
}
