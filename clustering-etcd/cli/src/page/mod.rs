//! The cluster live in a browser, for `serve` and for `run --page`.

mod absent;
mod feed;
mod http;
mod states;
mod verdict;

use std::{net::SocketAddr, process::ExitCode};

use clap::Args;
use clustering_core::Monitor;

pub(crate) use self::{http::router, states::States};
use crate::{
    connect::Purpose, connections::accept, context::Context, failure::Failure, listen::listen, output, watch,
};

/// Show the cluster live in a browser
///
/// Serves one page, which says in its first sentence whether the cluster is fine, and otherwise which nodes it waits
/// for and why. Below are the stages of the newest version, absent nodes, the slots of an exclusive cluster, all
/// nodes, the last 64 versions and the last events. The page follows the cluster without being reloaded. It is read
/// only, and also follows a cluster that does not exist yet.
///
/// Anyone who can reach the address sees the page, with the names, URIs and metadata of all nodes. Runs until SIGINT
/// or SIGTERM. Exit codes: 0 ended by the user, 2 the store could not be reached at the start, or refused.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Address to serve the page at; a port alone, as in :8088, is on all addresses of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8088")]
    listen: String,
}

impl Serve {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let (listener, address) = listen(&self.listen).await?;
        let states = States::new(context.namespace()?, context.store_name);
        let store = context.store(Purpose::Operator).await?;
        let monitor = context.quick(Monitor::start(store.clone(), &context.namespace()?)).await?;
        let followed = states.clone();
        tokio::spawn(async move { followed.follow(monitor, &store).await });
        output::line(format!("serving at {}", url(address)));
        tokio::select! {
            () = accept(listener, router(states, address)) => {}
            _ = tokio::signal::ctrl_c() => {}
            () = watch::terminated() => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the address of the page for a browser on this machine.
pub(crate) fn url(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("http://localhost:{}/", address.port()),
        false => format!("http://{address}/"),
    }
}
