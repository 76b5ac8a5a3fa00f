use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Idle time after which the kernel probes the peer.
const IDLE: Duration = Duration::from_secs(60);

/// Interval between unanswered probes.
const INTERVAL: Duration = Duration::from_secs(10);

/// Enables TCP keep-alive: the kernel then ends the connection if the peer's machine or network is gone, and routers
/// that drop idle connections keep this one. The process itself is not woken for the probes.
pub(super) fn keep_alive(stream: &TcpStream) {
    let probes = TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL);
    // Without probes, only the sockets of vanished peers stay open for longer.
    let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
}
