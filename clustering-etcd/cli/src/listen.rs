//! Listening for HTTP requests.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use tokio::net::TcpListener;

use crate::failure::Failure;

/// Listens on the address, and returns the actual one as well. The error says why the address cannot be used.
pub(crate) async fn listen(address: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let listener = bind(address).await;
    let bound = listener.and_then(|listener| listener.local_addr().map(|bound| (listener, bound)));
    bound.map_err(|error| cannot(address, &error))
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
