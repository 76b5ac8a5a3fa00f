use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use axum::Router;
use clustering_core::{Clustering, probes::Probes};
use tokio::net::TcpListener;

use super::serve::serve;
use crate::{failure::Failure, page};

/// The HTTP server of `--listen`, and its address.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    probes: Probes,
}

impl Listening {
    /// Starts the server, which has the page if `states` are given. The process counts as alive, even if its node has to
    /// wait for the store.
    pub(crate) async fn at(address: &str, page: Option<&page::States>) -> Result<Self, Failure> {
        let listener = listen(address).await?;
        let bound = listener.local_addr().map_err(|error| cannot(address, &error))?;
        let page = page.map_or_else(Router::new, |states| page::router(states.clone(), bound));
        let probes = serve(listener, page)
            .map_err(|error| Failure::unknown(format!("cannot record metrics: {error}")))?;
        Ok(Listening { address: bound, probes })
    }

    /// Serves the probes of this node from now on.
    pub(crate) fn follow(&self, cluster: &Clustering) {
        self.probes.follow(cluster);
    }
}

/// Listens on the address. The error says why the address cannot be used.
pub(crate) async fn listen(address: &str) -> Result<TcpListener, Failure> {
    bind(address).await.map_err(|error| cannot(address, &error))
}

/// Listens on the address. Without a host, as in `:8081`, it listens on all addresses of this machine.
async fn bind(address: &str) -> io::Result<TcpListener> {
    if !address.starts_with(':') {
        return TcpListener::bind(address).await;
    }
    match TcpListener::bind(format!("[::]{address}")).await {
        // The machine may have no IPv6.
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind(format!("0.0.0.0{address}")).await
        }
        bound => bound,
    }
}

fn cannot(address: &str, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::AddrInUse => "another process listens there: use another port, or 0 for any free one",
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address: use only a port, as in :8081, to listen on all its addresses"
        }
        ErrorKind::PermissionDenied => "ports below 1024 need more privileges: use a higher port",
        _ => "expected an address of this machine and a port, such as :8081 or 127.0.0.1:8081",
    };
    let text = format!("cannot listen at {address:?}: {error}");
    Failure::unknown(text).hint(format!("{hint}; see --listen"))
}
