use std::{
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
};

use super::random;

/// Ports below the range from which systems assign ports to outgoing connections. An outgoing connection could
/// otherwise take the port of a server that is down for a moment.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// A TCP port on the loopback interface that no other test uses while this value exists.
///
/// The server itself has to listen on the port, and again after it was killed, so this cannot reserve the port by
/// listening on it. Instead it binds the UDP port of the same number, which serves as the lock between tests and which
/// the system releases however the process ends. Other programs can still take the TCP port, so callers must be
/// prepared to retry with another port.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: UdpSocket,
}

impl Port {
    /// Finds a free port and reserves it.
    ///
    /// # Errors
    ///
    /// If many ports that were tried are all in use.
    pub fn reserve() -> io::Result<Self> {
        for _ in 0..1_000 {
            let number = RANGE.start + (random() % u64::from(RANGE.end - RANGE.start)) as u16;
            let address = (Ipv4Addr::LOCALHOST, number);
            if let Ok(lock) = UdpSocket::bind(address)
                && TcpListener::bind(address).is_ok()
            {
                return Ok(Self { number, _lock: lock });
            }
        }
        Err(io::Error::other(format!("no free port on loopback in {RANGE:?}")))
    }

    /// Returns `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.number)
    }

    /// Returns the number of the port.
    pub fn number(&self) -> u16 {
        self.number
    }
}
