//! Connections between the nodes, by which they notice crashes.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use clustering_proofs::node::DetectionSpec;
use clustering_testkit::{process::Port, proxy::Proxy};
use tokio::sync::Mutex;

/// Address of the proxies, which is not that of the nodes.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The way to the port at which a node answers the others.
pub(crate) enum Gate {
    /// The others connect to the node itself, so they notice when it is killed.
    Direct,
    /// The others connect to a proxy. While it is away they are refused, as if the node had crashed. It hides that the
    /// node is killed.
    Proxied { port: Port, proxy: Mutex<Option<Proxy>> },
}

impl Gate {
    /// Creates the gate of a node. Every other node has a proxy.
    pub(crate) async fn of(number: usize) -> io::Result<Self> {
        if number.is_multiple_of(2) {
            return Ok(Gate::Direct);
        }
        let port = Port::reserve()?;
        let proxy = Mutex::new(Some(proxy(&port).await?));
        Ok(Gate::Proxied { port, proxy })
    }

    /// Returns the settings of the node's crash detection.
    pub(crate) fn detection(&self) -> DetectionSpec {
        match self {
            Gate::Direct => DetectionSpec::at(Ipv4Addr::LOCALHOST),
            Gate::Proxied { port, .. } => {
                let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
                DetectionSpec { listen, advertise: ELSEWHERE, trust_refused: false }
            }
        }
    }

    /// Refuses connections to the node until [`open`](Self::open). Returns false if they cannot be refused.
    pub(crate) async fn close(&self) -> bool {
        match self {
            Gate::Direct => false,
            Gate::Proxied { proxy, .. } => proxy.lock().await.take().is_some(),
        }
    }

    pub(crate) async fn open(&self) -> io::Result<()> {
        if let Gate::Proxied { port, proxy: place } = self {
            let mut place = place.lock().await;
            if place.is_none() {
                *place = Some(proxy(port).await?);
            }
        }
        Ok(())
    }
}

async fn proxy(port: &Port) -> io::Result<Proxy> {
    Proxy::between((ELSEWHERE, port.number()).into(), &port.address()).await
}
