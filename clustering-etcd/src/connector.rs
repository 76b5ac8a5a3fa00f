//! Makes connections: TCP, TLS, and the HTTP/2 greeting.
//!
//! The client library could connect by itself, but it never reads certificates again. And if the server rejects the
//! client's certificate, or speaks TLS where plain text is expected, the library only reports that the connection broke
//! after a call was sent on it. Therefore this connector sends the HTTP/2 greeting itself, and waits for that of the
//! server. A connection counts as made only after that. Any earlier failure is known to have happened before any call.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;
use tower::Service;

use crate::{addresses, tls::Security};

/// The connection preface: the first bytes of an HTTP/2 client.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length of the header of an HTTP/2 frame.
const FRAME_HEADER: usize = 9;

/// Index of the frame type in that header, and the type of the SETTINGS frame, which is a server's first frame.
const SETTINGS: (usize, u8) = (3, 4);

const GREETING: &str = "the HTTP/2 greeting";
const HANDSHAKE: &str = "the TLS handshake";

/// Failure to make a connection. Nothing of a call was sent.
#[derive(Debug, Error)]
pub(crate) enum NoConnection {
    /// Failure of TCP or of the name resolution.
    #[error("{0}")]
    Network(String),
    #[error("{step} took longer than {after:?}")]
    Slow { step: &'static str, after: Duration },
    #[error(
        "lost the connection to a member that is not configured; it will be verified before it is used again"
    )]
    Lost,
    /// The server closed the connection, and does not answer with the opposite TLS setting either.
    #[error("the server closed the connection during {0}")]
    Closed(&'static str),
    /// The server closed the connection after a successful TLS handshake. `identity` is true if the client presented a
    /// certificate.
    #[error("the server closed the connection after the TLS handshake")]
    ClosedAfterTls { identity: bool },
    #[error("the server speaks TLS")]
    SpeaksTls,
    #[error("the server does not speak TLS")]
    SpeaksPlain,
    #[error("the server does not speak HTTP/2")]
    SpeaksOther,
    /// One side rejected the other, or the handshake failed otherwise.
    #[error("{error}")]
    Tls {
        error: rustls::Error,
        /// True if the client presented a certificate.
        identity: bool,
    },
}

impl NoConnection {
    /// Returns the more informative of the errors of two addresses of one endpoint.
    ///
    /// An address at which nothing listens is the least informative: `localhost` often has one. A mismatch of settings
    /// is reported only if no other address might work later.
    fn choose(self, other: Self) -> Self {
        let rank = |error: &Self| match error {
            NoConnection::Network(_) | NoConnection::Lost => 0,
            NoConnection::SpeaksTls
            | NoConnection::SpeaksPlain
            | NoConnection::SpeaksOther
            | NoConnection::Tls { .. } => 1,
            NoConnection::Slow { .. } | NoConnection::Closed(_) | NoConnection::ClosedAfterTls { .. } => 2,
        };
        if rank(&other) > rank(&self) { other } else { self }
    }
}

/// Makes connections to one member.
#[derive(Clone)]
pub(crate) struct Connector {
    /// The TLS settings, and the name that the server's certificate must be valid for.
    tls: Option<(Arc<Security>, ServerName<'static>)>,
    within: Duration,
    /// Set by the first attempt to connect; later attempts fail. `None` allows any number of attempts.
    once: Option<Arc<AtomicBool>>,
}

impl Connector {
    /// Creates a connector. `within` is the time limit for one connection.
    pub(crate) fn new(
        tls: Option<(Arc<Security>, ServerName<'static>)>,
        within: Duration,
        once: Option<Arc<AtomicBool>>,
    ) -> Self {
        Connector { tls, within, once }
    }

    async fn connect(self, uri: Uri) -> Result<Connection, NoConnection> {
        if self.once.as_ref().is_some_and(|once| once.swap(true, Ordering::Relaxed)) {
            return Err(NoConnection::Lost);
        }
        let deadline = Instant::now() + self.within;
        let step = "resolving the name";
        let slow = |_| NoConnection::Slow { step, after: self.within };
        let addresses = timeout_at(deadline, addresses::resolve(&uri)).await.map_err(slow)?;
        let addresses = addresses.map_err(|error| NoConnection::Network(error.to_string()))?;
        self.connect_any(&addresses, &uri, deadline).await
    }

    /// Connects to the address that first answers as an HTTP/2 server. Accepting the TCP connection is not enough,
    /// since the kernel accepts connections for a process that hangs.
    async fn connect_any(
        &self,
        addresses: &[SocketAddr],
        uri: &Uri,
        deadline: Instant,
    ) -> Result<Connection, NoConnection> {
        let connect = |address| self.connect_to(address, uri, deadline);
        let connected = addresses::connect_any(addresses, self.within, connect, NoConnection::choose).await;
        connected.unwrap_or_else(|| Err(NoConnection::Network("the name has no address".to_owned())))
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
        uri: &Uri,
        deadline: Instant,
    ) -> Result<Connection, NoConnection> {
        let mut step = "connecting";
        let connect = async {
            let stream = tcp(address).await?;
            match &self.tls {
                None => connect_plain(stream, address, uri, &mut step).await,
                Some((security, name)) => connect_tls(stream, address, security, name, &mut step).await,
            }
        };
        let connected = timeout_at(deadline, connect).await;
        connected.unwrap_or(Err(NoConnection::Slow { step, after: self.within }))
    }
}

/// Makes a connection without TLS. Updates `step` for the error message of a timeout.
async fn connect_plain(
    stream: TcpStream,
    address: SocketAddr,
    uri: &Uri,
    step: &mut &'static str,
) -> Result<Connection, NoConnection> {
    *step = GREETING;
    match greet(stream).await {
        Ok(greeted) => Ok(Box::new(greeted)),
        Err(NoConnection::Closed(_)) if speaks_tls(address, uri).await => Err(NoConnection::SpeaksTls),
        Err(error) => Err(error),
    }
}

/// Makes a connection with TLS. Updates `step` for the error message of a timeout.
async fn connect_tls(
    stream: TcpStream,
    address: SocketAddr,
    security: &Arc<Security>,
    name: &ServerName<'static>,
    step: &mut &'static str,
) -> Result<Connection, NoConnection> {
    let config = Arc::clone(security).config().await;
    let identity = config.client_auth_cert_resolver.has_certs();
    *step = HANDSHAKE;
    let stream = match TlsConnector::from(config).connect(name.clone(), stream).await {
        Ok(stream) => stream,
        Err(error) => {
            return Err(match of_io(error, HANDSHAKE, identity) {
                NoConnection::Closed(_) if speaks_plain(address).await => NoConnection::SpeaksPlain,
                error => error,
            });
        }
    };
    *step = GREETING;
    match greet(stream).await {
        Ok(greeted) => Ok(Box::new(greeted)),
        // With TLS 1.3, the server rejects the client's certificate only now.
        Err(NoConnection::Tls { error, .. }) => Err(NoConnection::Tls { error, identity }),
        Err(NoConnection::Closed(_)) => Err(NoConnection::ClosedAfterTls { identity }),
        Err(error) => Err(error),
    }
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, NoConnection> {
    let failed = |error: io::Error| NoConnection::Network(error.to_string());
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    // Calls are small, and often wait for one another, so that delaying packets would only cost time.
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// True if a server that closed a plain-text connection answers a TLS handshake, successfully or not.
async fn speaks_tls(address: SocketAddr, uri: &Uri) -> bool {
    let Ok(stream) = tcp(address).await else { return false };
    let Ok(name) = ServerName::try_from(uri.host().unwrap_or_default().to_owned()) else { return false };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    let Ok(config) = config else { return false };
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(_) => true,
        Err(error) => matches!(of_io(error, "", false), NoConnection::Tls { .. }),
    }
}

/// True if a server that closed a TLS connection answers in plain text.
async fn speaks_plain(address: SocketAddr) -> bool {
    match tcp(address).await {
        Ok(stream) => greet(stream).await.is_ok(),
        Err(_) => false,
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = NoConnection;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NoConnection>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoConnection>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connect = self.clone().connect(uri);
        Box::pin(async move { connect.await.map(TokioIo::new) })
    }
}

/// Sends the HTTP/2 greeting and waits for that of the server.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Result<Greeted<S>, NoConnection> {
    let failed = |error| of_io(error, GREETING, false);
    // If sending fails because the server has closed the connection, it may have sent the reason, which is read below.
    let sent = async {
        stream.write_all(PREFACE).await?;
        stream.flush().await
    };
    let sent: io::Result<()> = sent.await;
    let mut reply = [0; FRAME_HEADER];
    let mut read = 0;
    while read < reply.len() {
        match stream.read(&mut reply[read..]).await {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) => return Err(failed(error)),
        }
    }
    match &reply[..read] {
        // The start of a TLS alert: content type and major version.
        [0x15, 0x03, ..] => Err(NoConnection::SpeaksTls),
        [] => Err(sent.err().map_or(NoConnection::Closed(GREETING), failed)),
        whole if whole.len() == FRAME_HEADER && whole[SETTINGS.0] == SETTINGS.1 => {
            Ok(Greeted { stream, reply, replayed: 0, swallowed: 0 })
        }
        _ => Err(NoConnection::SpeaksOther),
    }
}

/// Classifies an I/O error on an established TCP connection.
fn of_io(error: io::Error, step: &'static str, identity: bool) -> NoConnection {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        // The received bytes are not TLS records.
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            NoConnection::SpeaksPlain
        }
        Some(error) => NoConnection::Tls { error: error.clone(), identity },
        None => match error.kind() {
            UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => NoConnection::Closed(step),
            _ => NoConnection::Network(format!("{step}: {error}")),
        },
    }
}

/// A connection, with or without TLS.
pub(crate) type Connection = Box<dyn Stream>;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream on which both greetings have been sent, for a user that does not know that: returns the server's greeting
/// once more to the reader, and swallows the preface that the user writes first.
pub(crate) struct Greeted<S> {
    stream: S,
    /// Start of the server's greeting, and the number of its bytes that have been read.
    reply: [u8; FRAME_HEADER],
    replayed: usize,
    /// Number of bytes of the preface that the user has written.
    swallowed: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = &this.reply[this.replayed..];
        if left.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let now = left.len().min(buf.remaining());
        buf.put_slice(&left[..now]);
        this.replayed += now;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Greeted<S> {
    /// Returns the number of leading bytes of `buf` that belong to the preface, which has been sent already.
    fn swallow(&mut self, buf: &[u8]) -> io::Result<usize> {
        let left = &PREFACE[self.swallowed..];
        let now = left.len().min(buf.len());
        if left[..now] != buf[..now] {
            return Err(io::Error::other("the HTTP/2 client did not start with the preface"));
        }
        self.swallowed += now;
        Ok(now)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.swallow(buf)? {
            0 => Pin::new(&mut self.stream).poll_write(cx, buf),
            swallowed => Poll::Ready(Ok(swallowed)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
        match self.swallow(first)? {
            0 => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
            swallowed => Poll::Ready(Ok(swallowed)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::test_servers;

    /// Connects to a server that answers with these bytes and closes the connection. Returns the error.
    async fn answered_with(reply: &'static [u8]) -> NoConnection {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let _ = connection.read(&mut [0; 4096]).await;
                let _ = connection.write_all(reply).await;
            }
        });
        let connector = Connector::new(None, Duration::from_secs(5), None);
        connector.connect(uri.parse().unwrap()).await.err().expect("this is not an HTTP/2 server")
    }

    /// Starts a listener whose backlog is full: attempts to connect get no answer, as from an unused address.
    async fn black_hole() -> (tokio::net::TcpListener, Vec<TcpStream>) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut taken = Vec::new();
        let full = |connected| timeout_at(Instant::now() + Duration::from_millis(200), connected);
        while let Ok(connected) = full(TcpStream::connect(address)).await {
            taken.push(connected.unwrap());
        }
        (listener, taken)
    }

    #[tokio::test]
    async fn a_dead_address_of_a_name_does_not_block_its_other_addresses() {
        let (hole, _taken) = black_hole().await;
        let (_hung, hung) = test_servers::silent().await;
        let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (hole, alive) = (hole.local_addr().unwrap(), test_servers::greeting_only().await);
        let connector = Connector::new(None, Duration::from_secs(5), None);
        let uri: Uri = "http://etcd.test:2379".parse().unwrap();
        let connect = |addresses: Vec<SocketAddr>| {
            let (connector, uri) = (connector.clone(), uri.clone());
            async move {
                let began = Instant::now();
                let connected = connector.connect_any(&addresses, &uri, began + connector.within).await;
                connected.map(|_| began.elapsed())
            }
        };
        for addresses in
            [vec![hole, alive], vec![hung, alive], vec![refused, alive], vec![hole, hung, refused, alive]]
        {
            let took = connect(addresses.clone()).await.expect("one of them is alive");
            assert!(took < connector.within / 2, "{took:?} with {addresses:?}");
        }
        let quick = Connector::new(None, Duration::from_millis(500), None);
        let error = quick.connect_any(&[refused, hung], &uri, Instant::now() + quick.within).await.err();
        assert!(matches!(error, Some(NoConnection::Slow { step: GREETING, .. })), "{error:?}");
    }

    #[tokio::test]
    async fn servers_other_than_http2_are_recognised_by_their_first_bytes() {
        let http1 = answered_with(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        assert!(matches!(http1, NoConnection::SpeaksOther), "{http1:?}");
        let short = answered_with(b"?").await;
        assert!(matches!(short, NoConnection::SpeaksOther), "{short:?}");
        let alert = answered_with(&[0x15, 3, 1, 0, 2, 2, 0x46]).await;
        assert!(matches!(alert, NoConnection::SpeaksTls), "{alert:?}");
        // It does not answer a TLS handshake either.
        let closed = answered_with(b"").await;
        assert!(matches!(closed, NoConnection::Closed(GREETING)), "{closed:?}");
    }

    #[tokio::test]
    async fn greetings_are_neither_lost_nor_sent_twice() {
        let (client, mut server) = tokio::io::duplex(64);
        let user = async {
            let mut greeted = greet(client).await.unwrap();
            // In two pieces, followed by a call.
            let (first, second) = PREFACE.split_at(10);
            greeted.write_all(first).await.unwrap();
            greeted.write_all(second).await.unwrap();
            greeted.write_all(b"a call").await.unwrap();
            let mut read = [0; 14];
            greeted.read_exact(&mut read[..4]).await.unwrap();
            greeted.read_exact(&mut read[4..]).await.unwrap();
            read
        };
        let serve = async {
            let mut read = vec![0; PREFACE.len()];
            server.read_exact(&mut read).await.unwrap();
            server.write_all(&test_servers::GREETING).await.unwrap();
            server.write_all(b"reply").await.unwrap();
            let mut more = [0; 6];
            server.read_exact(&mut more).await.unwrap();
            (read, more)
        };
        let both = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(user, serve) });
        let (heard, (preface, call)) = both.await.expect("both sides receive everything");
        assert_eq!(preface, PREFACE);
        assert_eq!(&call, b"a call");
        assert_eq!((&heard[..9], &heard[9..]), (&test_servers::GREETING[..], &b"reply"[..]));
    }

    #[tokio::test]
    async fn a_client_that_does_not_start_with_the_preface_is_stopped() {
        let (client, mut server) = tokio::io::duplex(64);
        server.write_all(&test_servers::GREETING).await.unwrap();
        let mut greeted = greet(client).await.unwrap();
        assert!(greeted.write_all(b"GET / HTTP/1.1").await.is_err());
    }
}
