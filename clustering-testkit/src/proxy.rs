//! A line between a node and its store that breaks on command: [`Proxy`].

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A TCP proxy to one address. It ends when it is dropped, and its connections with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// What the line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Forwards.
    Up,
    /// Keeps connections open, takes new ones, and forwards nothing: what a switch does that forgets, or a peer that froze.
    Hung,
    /// Keeps connections open and forwards what nodes send; answers get lost.
    AnswersHung,
    /// Closes connections, and new ones at once.
    Cut,
}

impl Proxy {
    /// One to that address, `host:port`, with a `http://` before it or not.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub async fn to(address: &str) -> std::io::Result<Self> {
        let target: Arc<str> = address.trim_start_matches("http://").into();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let line = watch::Sender::new(Line::Up);
        let counts = Arc::<Counts>::default();
        let (state, counted) = (line.subscribe(), counts.clone());
        let task = tokio::spawn(async move {
            // Dropped with this task, and so are all connections.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { continue };
                        counted.connections.fetch_add(1, Ordering::Relaxed);
                        connections.spawn(connection(client, target.clone(), state.clone(), counted.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Proxy { address, line, counts, task })
    }

    /// Where it listens: `http://127.0.0.1:12345`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on nothing is forwarded, and nobody is told: connections stay open, and new ones are taken.
    pub fn hang(&self) {
        self.line.send_replace(Line::Hung);
    }

    /// From now on the store hears the node, and the node does not hear the store. Connections stay open.
    pub fn hang_answers(&self) {
        self.line.send_replace(Line::AnswersHung);
    }

    /// From now on connections are closed, and new ones at once.
    pub fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }

    /// Forwards again. What was held back since [`hang`](Self::hang) arrives now, late.
    pub fn heal(&self) {
        self.line.send_replace(Line::Up);
    }

    /// How many connections were taken.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// How many bytes came from clients.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// How many bytes went to clients.
    pub fn received(&self) -> u64 {
        self.counts.received.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a connection until either side or the line closes it.
async fn connection(
    mut client: TcpStream,
    target: Arc<str>,
    line: watch::Receiver<Line>,
    counts: Arc<Counts>,
) {
    let mut cut = line.clone();
    let serve = async {
        // A connection that comes while the line hangs waits for it.
        let mut up = line.clone();
        let _ = up.wait_for(|line| *line != Line::Hung).await;
        let Ok(mut server) = TcpStream::connect(&*target).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let there = async {
            let mut line = line.clone();
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                counts.sent.fetch_add(read as u64, Ordering::Relaxed);
                let _ = line.wait_for(|line| *line != Line::Hung).await;
                if to_server.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
            }
        };
        let back = async {
            let mut line = line.clone();
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                let _ = line.wait_for(|line| !matches!(line, Line::Hung | Line::AnswersHung)).await;
                counts.received.fetch_add(read as u64, Ordering::Relaxed);
                if to_client.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = there => {}
            () = back => {}
        }
    };
    tokio::select! {
        () = serve => {}
        // The sender is gone with the proxy.
        _ = cut.wait_for(|line| *line == Line::Cut) => {}
    }
}
