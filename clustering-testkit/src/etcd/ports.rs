use std::{
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
};

use crate::process::random;

/// Below the ports that systems hand out by themselves, to outgoing connections for one: those would take the port of
/// a server that is down for a moment.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// A TCP port on loopback that no other test has while this lives.
///
/// The server has to listen there itself, and again after it was killed, so this cannot hold the port by listening.
/// It holds the UDP port of the same number, which the system frees however this process ends: that is the lock
/// between tests. Programs that are no tests can still come first, so whoever starts a server must be ready to try
/// another port.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    _lock: UdpSocket,
}

impl Port {
    pub(super) fn reserve() -> io::Result<Self> {
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

    /// `127.0.0.1:port`
    pub(super) fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.number)
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }
}
