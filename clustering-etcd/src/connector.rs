//! How a connection is made: TCP, TLS, and the first words of HTTP/2.
//!
//! The client's library could do it too, but keeps the certificates that it was given for ever, and says of a server that
//! does not accept the client's, or that speaks TLS where plain text was expected, only that a connection broke, after a
//! call was sent on it. So the connector says hello by itself and waits for the reply. Only what has answered as HTTP/2
//! servers do is a connection: whatever goes wrong until then is known to have happened before any call.

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

/// What a client begins HTTP/2 with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The header of the settings that a server begins HTTP/2 with has this length, and the frame's type at that place.
const FRAME_HEADER: usize = 9;
const FRAME_TYPE: (usize, u8) = (3, 4);

/// Why there is no connection. Nothing of a call was sent.
#[derive(Debug, Error)]
pub(crate) enum NoConnection {
    /// TCP, or the name's resolution.
    #[error("{0}")]
    Network(String),
    #[error("{step} took longer than {after:?}")]
    Slow { step: &'static str, after: Duration },
    #[error(
        "lost the connection to a member that is not configured; it will be verified before it is used again"
    )]
    Lost,
    /// The server ended it, and does not answer to the other kind of connection either.
    #[error("the server closed the connection during {0}")]
    Closed(&'static str),
    /// The TLS handshake was over.
    #[error("the server closed the connection after the TLS handshake")]
    ClosedAfterTls { identity: bool },
    #[error("the server speaks TLS")]
    SpeaksTls,
    #[error("the server speaks no TLS")]
    SpeaksPlain,
    #[error("the server speaks no HTTP/2")]
    SpeaksOther,
    /// One of the two does not accept the other.
    #[error("{error}")]
    Tls {
        error: rustls::Error,
        /// Whether the client had a certificate to show.
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

/// Makes the connections to one member.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: Option<(Arc<Security>, ServerName<'static>)>,
    within: Duration,
    /// Set by the first attempt to connect; later attempts fail. `None` allows any number of attempts.
    once: Option<Arc<AtomicBool>>,
}

impl Connector {
    /// `tls` holds the name that the server's certificate must be for.
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
            let Some((security, name)) = &self.tls else {
                step = "the greeting";
                return match greet(stream).await {
                    Err(NoConnection::Closed(_)) if speaks_tls(address, uri).await => {
                        Err(NoConnection::SpeaksTls)
                    }
                    Err(error) => Err(error),
                    Ok(greeted) => Ok(Box::new(greeted) as Connection),
                };
            };
            let config = Arc::clone(security).config().await;
            let identity = config.client_auth_cert_resolver.has_certs();
            step = "the TLS handshake";
            let stream = match TlsConnector::from(config).connect(name.clone(), stream).await {
                Ok(stream) => stream,
                Err(error) => {
                    return Err(match of_io(error, "the TLS handshake", identity) {
                        NoConnection::Closed(_) if speaks_plain(address).await => NoConnection::SpeaksPlain,
                        error => error,
                    });
                }
            };
            step = "the greeting";
            match greet(stream).await {
                Ok(greeted) => Ok(Box::new(greeted) as Connection),
                // With TLS 1.3 this is when the server says what it thinks of the client's certificate.
                Err(NoConnection::Tls { error, .. }) => Err(NoConnection::Tls { error, identity }),
                Err(NoConnection::Closed(_)) => Err(NoConnection::ClosedAfterTls { identity }),
                Err(error) => Err(error),
            }
        };
        let connected = timeout_at(deadline, connect).await;
        connected.unwrap_or(Err(NoConnection::Slow { step, after: self.within }))
    }
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, NoConnection> {
    let failed = |error: io::Error| NoConnection::Network(error.to_string());
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    // Calls are small and wait for each other; nothing is gained by collecting them.
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// True if a server that hung up on plain text answers a TLS handshake, successfully or not.
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

/// True if a server that hung up on TLS answers plain text.
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

/// Begins HTTP/2 and waits until the server does.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Result<Greeted<S>, NoConnection> {
    let failed = |error| of_io(error, "the greeting", false);
    // A server that has closed its end already may have said why: that is read below.
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
        // A TLS alert: its type, and the version's first byte.
        [0x15, 0x03, ..] => Err(NoConnection::SpeaksTls),
        [] => Err(sent.err().map_or(NoConnection::Closed("the greeting"), failed)),
        whole if whole.len() == FRAME_HEADER && whole[FRAME_TYPE.0] == FRAME_TYPE.1 => {
            Ok(Greeted { stream, reply, replayed: 0, swallowed: 0 })
        }
        _ => Err(NoConnection::SpeaksOther),
    }
}

/// What an I/O error after the TCP connection was made means.
fn of_io(error: io::Error, step: &'static str, identity: bool) -> NoConnection {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        // Not even the outermost layer of what came looks like TLS.
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

/// A connection, plain or secured.
pub(crate) type Connection = Box<dyn Stream>;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream on which HTTP/2 has begun, for a user who does not know that: what the server said is read again, and what
/// the user says to begin with is not sent again.
pub(crate) struct Greeted<S> {
    stream: S,
    reply: [u8; FRAME_HEADER],
    replayed: usize,
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
    /// How much of what is to be written has been sent already.
    fn swallow(&mut self, buf: &[u8]) -> io::Result<usize> {
        let left = &PREFACE[self.swallowed..];
        let now = left.len().min(buf.len());
        if left[..now] != buf[..now] {
            return Err(io::Error::other("HTTP/2 did not begin as it must"));
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

    /// A server that reads a little, answers with those bytes, and hangs up; and the error of a connection to it.
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
        connector.connect(uri.parse().unwrap()).await.err().expect("this is no HTTP/2 server")
    }

    /// Starts a server that sends the HTTP/2 greeting and nothing more.
    async fn alive() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut connections = Vec::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                connection.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
                connections.push(connection);
            }
        });
        address
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
    async fn an_address_that_does_not_answer_does_not_keep_from_the_others_of_the_name() {
        let (hole, _taken) = black_hole().await;
        // Its backlog takes connections, and nothing answers on them.
        let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (hole, hung, alive) = (hole.local_addr().unwrap(), hung.local_addr().unwrap(), alive().await);
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
        assert!(matches!(error, Some(NoConnection::Slow { step: "the greeting", .. })), "{error:?}");
    }

    #[tokio::test]
    async fn what_speaks_no_http2_is_known_by_its_first_words() {
        let http1 = answered_with(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        assert!(matches!(http1, NoConnection::SpeaksOther), "{http1:?}");
        let short = answered_with(b"?").await;
        assert!(matches!(short, NoConnection::SpeaksOther), "{short:?}");
        let alert = answered_with(&[0x15, 3, 1, 0, 2, 2, 0x46]).await;
        assert!(matches!(alert, NoConnection::SpeaksTls), "{alert:?}");
        // It says nothing to TLS either.
        let closed = answered_with(b"").await;
        assert!(matches!(closed, NoConnection::Closed("the greeting")), "{closed:?}");
    }

    #[tokio::test]
    async fn nothing_of_the_greeting_is_lost_or_said_twice() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let (client, mut server) = tokio::io::duplex(64);
        let user = async {
            let mut greeted = greet(client).await.unwrap();
            // In pieces, with more behind.
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
            server.write_all(&settings).await.unwrap();
            server.write_all(b"reply").await.unwrap();
            let mut more = [0; 6];
            server.read_exact(&mut more).await.unwrap();
            (read, more)
        };
        let both = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(user, serve) });
        let (heard, (preface, call)) = both.await.expect("neither waits for what was lost");
        assert_eq!(preface, PREFACE);
        assert_eq!(&call, b"a call");
        assert_eq!((&heard[..9], &heard[9..]), (&settings[..], &b"reply"[..]));
    }

    #[tokio::test]
    async fn who_begins_otherwise_is_stopped() {
        let (client, mut server) = tokio::io::duplex(64);
        server.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut greeted = greet(client).await.unwrap();
        assert!(greeted.write_all(b"GET / HTTP/1.1").await.is_err());
    }
}
