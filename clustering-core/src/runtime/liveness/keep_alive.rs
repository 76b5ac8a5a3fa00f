use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Time without traffic until the kernel probes whether the peer still exists.
const IDLE: Duration = Duration::from_secs(60);

/// Time between probes that are not answered.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets the kernel end the connection if the peer's machine or network is gone, and keep the connection in the tables of
/// routers that drop idle ones. The process itself is not woken for the probes.
pub(super) fn keep_alive(stream: &TcpStream) {
    let probes = TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL);
    // Without probes, only the sockets of vanished peers stay open for longer.
    let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
}
