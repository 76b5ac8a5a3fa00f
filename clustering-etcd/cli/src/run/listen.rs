use std::net::SocketAddr;

use axum::Router;
use clustering_core::{Clustering, probes::Probes};

use super::serve::serve;
use crate::{failure::Failure, listen::listen, page};

/// The HTTP server of `--listen`, and its address.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    probes: Probes,
}

impl Listening {
    /// Starts the server. It also serves the page, if the page's states are given. The process counts as alive, even if
    /// its node has to wait for the store.
    pub(crate) async fn at(address: &str, page: Option<&page::States>) -> Result<Self, Failure> {
        let (listener, address) = listen(address).await?;
        let page = page.map_or_else(Router::new, |states| page::router(states.clone(), address));
        let probes = serve(listener, page)
            .map_err(|error| Failure::unknown(format!("cannot record metrics: {error}")))?;
        Ok(Listening { address, probes })
    }

    /// Serves the probes of this node from now on.
    pub(crate) fn follow(&self, cluster: &Clustering) {
        self.probes.follow(cluster);
    }
}
