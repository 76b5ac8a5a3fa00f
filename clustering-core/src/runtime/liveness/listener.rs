use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::{AbortHandle, BoxFuture, abortable},
    stream::FuturesUnordered,
};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until},
};

use super::{hello::Hello, keep_alive::keep_alive};
use crate::{config::Backoff, runtime::StartError};

/// Largest number of connections. A process is watched by three nodes, and by a few more while nodes join or leave.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// Number of bytes that a peer may send before its connection is closed. Watchers send none.
pub(super) const MAX_RECEIVED: usize = 1024;

/// Delay after a connection that could not be accepted, for example because the process has too many open files.
const ACCEPT_RETRY: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));

/// Number of connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// The socket at which other nodes check that a process is alive.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    port: u16,
    presence: Presence,
}

/// Keeps the socket of a [`Listener`] open after the listener has ended. The kernel then accepts connections that
/// nobody answers, which proves nothing to a watcher. A closed port would prove that the process is gone.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    _socket: Arc<std::net::TcpListener>,
}

impl Listener {
    /// Opens the socket: at this address, or at a free port on all interfaces.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with I/O.
    pub(crate) fn open(address: Option<SocketAddr>) -> Result<Self, StartError> {
        let (shown, socket) = match address {
            Some(address) => (address, listen(address)),
            None => {
                let all = |ip: IpAddr| SocketAddr::new(ip, 0);
                // Machines without IPv6 cannot open IPv6 sockets.
                let socket = listen(all(Ipv6Addr::UNSPECIFIED.into()))
                    .or_else(|_| listen(all(Ipv4Addr::UNSPECIFIED.into())));
                (all(Ipv4Addr::UNSPECIFIED.into()), socket)
            }
        };
        socket.and_then(Listener::on).map_err(|error| StartError::Listen {
            address: shown,
            advice: advice(error.kind()),
            reason: error.to_string(),
        })
    }

    fn on(socket: std::net::TcpListener) -> io::Result<Self> {
        let presence = Presence { _socket: Arc::new(socket.try_clone()?) };
        let port = socket.local_addr()?.port();
        Ok(Listener { socket: TcpListener::from_std(socket)?, port, presence })
    }

    pub(super) fn presence(&self) -> Presence {
        self.presence.clone()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Answers every connection with the hello, and keeps it open until the peer closes it. Never returns; the
    /// sockets are closed when the future is dropped.
    pub(super) async fn serve(self, hello: Hello) {
        // Holders of the guard keep the socket open only for as long as they need it.
        drop(self.presence);
        let mut connections = Connections::default();
        let (mut failures, mut not_before) = (0, Instant::now());
        loop {
            let accepted = async {
                if failures > 0 {
                    sleep_until(not_before).await;
                }
                self.socket.accept().await
            };
            let accepted = tokio::select! {
                // Closed connections are removed first, to make room.
                biased;
                () = connections.closed(), if !connections.is_empty() => continue,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    failures = 0;
                    connections.add(stream, peer.ip(), hello);
                }
                Err(error) => {
                    failures += 1;
                    not_before = Instant::now() + ACCEPT_RETRY.after(failures);
                    if failures == 1 {
                        tracing::warn!(
                            target: "clustering",
                            %error,
                            "cannot accept connections for crash detection: until this is over, a crash of this \
                             process is noticed only after its TTL"
                        );
                    }
                }
            }
        }
    }
}

/// Opens a listening socket. At the IPv6 address of all interfaces, it also listens for IPv4.
fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restarted process finds connections of its predecessor that are still being closed. On Windows, the option
    // would let two processes listen at once.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Returns advice for an error that occurred while a socket was opened.
fn advice(error: io::ErrorKind) -> &'static str {
    match error {
        io::ErrorKind::AddrInUse => "choose a port that no other program uses, or port 0 for any free port",
        io::ErrorKind::AddrNotAvailable => {
            "choose an address of this machine, or 0.0.0.0 or [::] for all interfaces"
        }
        io::ErrorKind::PermissionDenied => {
            "choose a port above 1023, or run with the permission to use this one"
        }
        _ => "choose another address, or run without crash detection",
    }
}

/// The open connections to a listener, in one task.
///
/// A new connection always gets an answer: if there are too many, the oldest one of the host with the most
/// connections is closed. A foreign client that opens many connections therefore loses its own, unless it shares a
/// host or network with the watchers. In that case, a watcher that was disconnected connects again.
#[derive(Default)]
struct Connections {
    next: u64,
    /// Sorted by connection number, so that the oldest connection comes first.
    open: BTreeMap<u64, Open>,
    running: FuturesUnordered<BoxFuture<'static, u64>>,
}

struct Open {
    origin: IpAddr,
    close: AbortHandle,
}

impl Connections {
    fn add(&mut self, stream: TcpStream, peer: IpAddr, hello: Hello) {
        let number = self.next;
        self.next += 1;
        let (serving, close) = abortable(serve(stream, hello));
        self.open.insert(number, Open { origin: origin(peer), close });
        self.running.push(Box::pin(async move {
            // An error only means that the connection was closed to make room.
            let _ = serving.await;
            number
        }));
        if self.open.len() > MAX_CONNECTIONS {
            self.make_room();
        }
    }

    /// Closes the oldest connection of the host with the most connections.
    fn make_room(&mut self) {
        let mut counts = BTreeMap::<IpAddr, usize>::new();
        for open in self.open.values() {
            *counts.entry(open.origin).or_default() += 1;
        }
        let most = counts.values().copied().max();
        let victim = self.open.iter().find(|(_, open)| counts.get(&open.origin).copied() == most);
        if let Some((&number, open)) = victim {
            open.close.abort();
            self.open.remove(&number);
        }
    }

    fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Waits until a connection has been closed. Cancel safe.
    async fn closed(&mut self) {
        if let Some(number) = self.running.next().await {
            self.open.remove(&number);
        }
    }
}

/// Returns the host that an address belongs to: for IPv6 the network prefix, since one host may use many addresses in
/// its network.
fn origin(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// Sends the hello, and waits until the peer closes the connection or sends too much.
async fn serve(mut stream: TcpStream, hello: Hello) {
    keep_alive(&stream);
    // The hello fits into the send buffer of a new connection, so a peer that does not read cannot delay this write.
    if stream.write_all(hello.as_bytes()).await.is_err() {
        return;
    }
    let (mut buffer, mut received) = ([0; 64], 0);
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        received += length;
        if received > MAX_RECEIVED {
            return;
        }
    }
}
