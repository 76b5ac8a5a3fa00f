use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use clustering_etcd::{Clustering, probes::Probes};
use tokio::net::TcpListener;

use super::serve::serve;
use crate::failure::{Failure, UNKNOWN};

/// What `--listen` serves, and where.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    probes: Probes,
}

impl Listening {
    /// Answers from now on: the program is alive, although its node may have to wait for etcd.
    pub(crate) async fn at(address: &str) -> Result<Self, Failure> {
        let listener = bind(address).await.map_err(|error| cannot(address, &error))?;
        let bound = listener.local_addr().map_err(|error| cannot(address, &error))?;
        let probes = serve(listener)
            .map_err(|error| Failure::new(UNKNOWN, format!("metrics cannot be had: {error}")))?;
        Ok(Listening { address: bound, probes })
    }

    /// From now on answers for that node.
    pub(crate) fn follow(&self, cluster: &Clustering) {
        self.probes.follow(cluster);
    }
}

/// Listens on the address. Without a host, as in `:8081`, it listens on all addresses of this machine.
async fn bind(address: &str) -> io::Result<TcpListener> {
    if !address.starts_with(':') {
        return TcpListener::bind(address).await;
    }
    match TcpListener::bind(format!("[::]{address}")).await {
        // A machine without IPv6.
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind(format!("0.0.0.0{address}")).await
        }
        bound => bound,
    }
}

fn cannot(address: &str, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::AddrInUse => "something else listens there: give another port, or 0 for any that is free",
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address: to listen on all its addresses, give only a port, as in :8081"
        }
        ErrorKind::PermissionDenied => "ports below 1024 need more rights: give a higher one",
        _ => "expected an address of this machine and a port, such as :8081 or 127.0.0.1:8081",
    };
    let text = format!("cannot listen at {address:?}: {error}");
    Failure::new(UNKNOWN, text).hint(format!("{hint}; see --listen or CLUSTERING_LISTEN"))
}
