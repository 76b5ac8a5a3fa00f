//! Servers for unit tests that are not etcd.

use std::net::SocketAddr;

use tokio::{io::AsyncWriteExt, net::TcpListener};

/// The greeting with which an HTTP/2 server starts: an empty SETTINGS frame.
pub(crate) const GREETING: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Starts a server that accepts TCP connections, by the backlog of its listener, and sends nothing.
pub(crate) async fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Starts a server that sends the HTTP/2 greeting and nothing more.
pub(crate) async fn greeting_only() -> SocketAddr {
    let (listener, address) = silent().await;
    tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            connection.write_all(&GREETING).await.unwrap();
            connections.push(connection);
        }
    });
    address
}
