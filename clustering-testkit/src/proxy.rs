//! A line between a node and its store that breaks on command: [`Proxy`].

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// How long the other side is given to do what it was asked for before the connection is closed in place of its answer.
const DONE: Duration = Duration::from_millis(100);

/// A TCP proxy to one address. It ends when it is dropped, and its connections with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    unanswered: Unanswered,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// What the next request holds whose answer is to be lost.
type Unanswered = watch::Sender<Option<Vec<u8>>>;

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
        let (unanswered, counts) = (Unanswered::default(), Arc::<Counts>::default());
        let (state, asked, counted) = (line.subscribe(), unanswered.clone(), counts.clone());
        let task = tokio::spawn(async move {
            // Dropped with this task, and so are all connections.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { continue };
                        counted.connections.fetch_add(1, Ordering::Relaxed);
                        let (target, state) = (target.clone(), state.clone());
                        connections.spawn(connection(client, target, state, asked.clone(), counted.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Proxy { address, line, unanswered, counts, task })
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

    /// Loses the answer to the next request that holds these bytes: it arrives, and its connection is closed before anything
    /// comes back. Returns when that is so; given up before, it does nothing more. One at a time.
    pub async fn lose_answer_to(&self, part: impl Into<Vec<u8>>) {
        struct GiveUp<'a>(&'a Unanswered);
        impl Drop for GiveUp<'_> {
            fn drop(&mut self) {
                self.0.send_replace(None);
            }
        }
        self.unanswered.send_replace(Some(part.into()));
        let _give_up = GiveUp(&self.unanswered);
        // The sender is this.
        let _ = self.unanswered.subscribe().wait_for(Option::is_none).await;
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
    unanswered: Unanswered,
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
        // Of a request that it sent the answer is lost.
        let (lose, mut lost) = watch::channel(false);
        let loses = lost.clone();
        let there = async {
            let mut line = line.clone();
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                counts.sent.fetch_add(read as u64, Ordering::Relaxed);
                let _ = line.wait_for(|line| *line != Line::Hung).await;
                if take_if_held(&unanswered, &buffer[..read]) {
                    lose.send_replace(true);
                }
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
                if *loses.borrow() {
                    continue;
                }
                counts.received.fetch_add(read as u64, Ordering::Relaxed);
                if to_client.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
            }
        };
        let loss = async {
            let _ = lost.wait_for(|lost| *lost).await;
            sleep(DONE).await;
        };
        tokio::select! {
            () = there => {}
            () = back => {}
            () = loss => {}
        }
    };
    tokio::select! {
        () = serve => {}
        // The sender is gone with the proxy.
        _ = cut.wait_for(|line| *line == Line::Cut) => {}
    }
}

/// Whether the answer to that request is to be lost: then no other's is.
fn take_if_held(unanswered: &Unanswered, request: &[u8]) -> bool {
    unanswered.send_if_modified(|asked| {
        let holds = |part: &mut Vec<u8>| request.windows(part.len().max(1)).any(|bytes| bytes == part);
        asked.take_if(holds).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says again whatever it hears, what it heard, and a line to it.
    async fn echo() -> (Proxy, watch::Receiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::to(&listener.local_addr().unwrap().to_string()).await.unwrap();
        let (heard, hears) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut word = [0; 4];
                while stream.read_exact(&mut word).await.is_ok() {
                    heard.send_modify(|heard| heard.extend(word));
                    let _ = stream.write_all(&word).await;
                }
            }
        });
        (proxy, hears)
    }

    /// Says a word of four letters, and returns what comes back.
    async fn say(stream: &mut TcpStream, word: &str) -> Option<String> {
        stream.write_all(word.as_bytes()).await.ok()?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.ok()?;
        String::from_utf8(answer.to_vec()).ok()
    }

    #[tokio::test]
    async fn a_request_whose_answer_is_lost_arrives() {
        let (proxy, heard) = echo().await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let conversation = async {
            assert_eq!(say(&mut stream, "read").await.as_deref(), Some("read"), "this one is not meant");
            assert_eq!(say(&mut stream, "puts").await, None);
            let mut another = TcpStream::connect(proxy.address).await.unwrap();
            assert_eq!(say(&mut another, "puts").await.as_deref(), Some("puts"), "once is enough");
        };
        tokio::join!(proxy.lose_answer_to("put"), conversation);
        assert_eq!(&**heard.borrow(), b"readputsputs");
    }

    #[tokio::test]
    async fn who_gives_up_loses_no_answer() {
        let (proxy, _heard) = echo().await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        tokio::select! {
            biased;
            () = proxy.lose_answer_to("put") => {}
            answer = say(&mut stream, "read") => assert_eq!(answer.as_deref(), Some("read")),
        }
        assert_eq!(say(&mut stream, "puts").await.as_deref(), Some("puts"));
    }
}
