//! A TCP connection between a node and its store that fails on command: [`Proxy`].

use std::{
    net::{Ipv4Addr, SocketAddr},
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

/// Time for the server to process a request whose answer will be lost, before the connection is closed.
const DONE: Duration = Duration::from_millis(100);

/// A TCP proxy for one address. Dropping it closes its listener and connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    /// Number of times that the connections of the moment were silenced.
    silences: watch::Sender<u64>,
    /// Number of times that the connections of the moment were closed.
    closures: watch::Sender<u64>,
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

/// Bytes that identify the next request whose answer will be lost.
type Unanswered = watch::Sender<Option<Vec<u8>>>;

/// State of the connections through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Forwards everything.
    Up,
    /// Keeps connections open and accepts new ones, but forwards nothing, like a switch that drops packets or a frozen
    /// peer.
    Hung,
    /// Keeps connections open and forwards requests, but holds answers back.
    AnswersHung,
    /// Closes all connections, and new ones at once.
    Cut,
}

impl Proxy {
    /// Starts a proxy for the address `host:port`, with or without a leading `http://`.
    ///
    /// # Errors
    ///
    /// Returns an error if the proxy cannot listen.
    pub async fn to(address: &str) -> std::io::Result<Self> {
        Proxy::between((Ipv4Addr::LOCALHOST, 0).into(), address).await
    }

    /// Like [`to`](Self::to), at a given address.
    ///
    /// # Errors
    ///
    /// Returns an error if the proxy cannot listen there.
    pub async fn between(listen: SocketAddr, address: &str) -> std::io::Result<Self> {
        let target: Arc<str> = address.trim_start_matches("http://").into();
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let line = watch::Sender::new(Line::Up);
        let (unanswered, counts) = (Unanswered::default(), Arc::<Counts>::default());
        let silences = watch::Sender::new(0);
        let closures = watch::Sender::new(0);
        let (state, silenced, closed) = (line.subscribe(), silences.subscribe(), closures.subscribe());
        let (asked, counted) = (unanswered.clone(), counts.clone());
        let task = tokio::spawn(async move {
            // Dropped with this task, which closes all connections.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { continue };
                        counted.connections.fetch_add(1, Ordering::Relaxed);
                        let (target, state) = (target.clone(), state.clone());
                        let serve = connection(client, target, state, asked.clone(), counted.clone());
                        connections.spawn(until_closed(closed.clone(), until_silenced(silenced.clone(), serve)));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Proxy { address, line, silences, closures, unanswered, counts, task })
    }

    /// Returns the address of the proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address of the proxy, such as `http://127.0.0.1:12345`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops forwarding in both directions without closing connections. New connections are accepted.
    pub fn hang(&self) {
        self.line.send_replace(Line::Hung);
    }

    /// Stops forwarding answers to the node, but still forwards its requests. Connections stay open.
    pub fn hang_answers(&self) {
        self.line.send_replace(Line::AnswersHung);
    }

    /// Stops forwarding on the connections of this moment forever, without closing them, as a firewall does that has
    /// forgotten them. New connections are not affected.
    pub fn silence(&self) {
        self.silences.send_modify(|silences| *silences += 1);
    }

    /// Closes all connections, and new ones at once.
    pub fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }

    /// Closes the connections of this moment. New connections are not affected.
    pub fn close(&self) {
        self.closures.send_modify(|closures| *closures += 1);
    }

    /// Forwards requests for `time`, but loses all answers to them, and then closes the connections of that moment. New
    /// connections work. If the future is dropped, answers are held back until the proxy is [healed](Self::heal).
    pub async fn lose_answers(&self, time: Duration) {
        self.hang_answers();
        sleep(time).await;
        self.close();
        self.heal();
    }

    /// Loses the answer to the next request that contains `part`, which must arrive in one read: the request is
    /// forwarded, and its connection is closed before any answer is. Returns once such a request was received. Dropping
    /// the future cancels this. Only one such request can be pending at a time.
    pub async fn lose_answer_to(&self, part: impl Into<Vec<u8>>) {
        struct GiveUp<'a>(&'a Unanswered);
        impl Drop for GiveUp<'_> {
            fn drop(&mut self) {
                self.0.send_replace(None);
            }
        }
        self.unanswered.send_replace(Some(part.into()));
        let _give_up = GiveUp(&self.unanswered);
        // This proxy holds the sender, so waiting cannot fail.
        let _ = self.unanswered.subscribe().wait_for(Option::is_none).await;
    }

    /// Forwards everything again. Data held back since [`hang`](Self::hang) arrives now.
    pub fn heal(&self) {
        self.line.send_replace(Line::Up);
    }

    /// Returns the number of connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes received from clients.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes sent to clients.
    pub fn received(&self) -> u64 {
        self.counts.received.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs `serve` until the connections of the moment are silenced. Then keeps its sockets open, but does not run it any
/// more.
async fn until_silenced(mut silences: watch::Receiver<u64>, serve: impl Future<Output = ()>) {
    silences.mark_unchanged();
    let mut serve = std::pin::pin!(serve);
    tokio::select! {
        biased;
        Ok(()) = silences.changed() => std::future::pending().await,
        () = &mut serve => {}
    }
}

/// Runs `serve` until the connections of the moment are closed. `serve` is not polled any more after that, so that it
/// cannot forward what it holds back.
async fn until_closed(mut closures: watch::Receiver<u64>, serve: impl Future<Output = ()>) {
    closures.mark_unchanged();
    tokio::select! {
        biased;
        Ok(()) = closures.changed() => {}
        () = serve => {}
    }
}

/// Serves a connection until either side or the state of the proxy closes it.
async fn connection(
    mut client: TcpStream,
    target: Arc<str>,
    line: watch::Receiver<Line>,
    unanswered: Unanswered,
    counts: Arc<Counts>,
) {
    let mut cut = line.clone();
    let serve = async {
        // A new connection waits while the proxy hangs.
        let mut up = line.clone();
        let _ = up.wait_for(|line| *line != Line::Hung).await;
        let Ok(mut server) = TcpStream::connect(&*target).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        // True once a request of this connection was received whose answer must be lost.
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
        biased;
        // The sender is dropped with the proxy.
        _ = cut.wait_for(|line| *line == Line::Cut) => {}
        () = serve => {}
    }
}

/// Returns true if this request matches, and clears the pattern so that no other request does.
fn take_if_held(unanswered: &Unanswered, request: &[u8]) -> bool {
    unanswered.send_if_modified(|asked| {
        let holds = |part: &mut Vec<u8>| request.windows(part.len().max(1)).any(|bytes| bytes == part);
        asked.take_if(holds).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a server that echoes what it receives, and a proxy to it. Also returns what the server received.
    async fn echo() -> (Proxy, watch::Receiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::to(&listener.local_addr().unwrap().to_string()).await.unwrap();
        let (heard, hears) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let heard = Arc::new(heard);
            while let Ok((mut stream, _)) = listener.accept().await {
                let heard = heard.clone();
                tokio::spawn(async move {
                    let mut word = [0; 4];
                    while stream.read_exact(&mut word).await.is_ok() {
                        heard.send_modify(|heard| heard.extend(word));
                        let _ = stream.write_all(&word).await;
                    }
                });
            }
        });
        (proxy, hears)
    }

    /// Sends a word of four letters and returns the answer.
    async fn say(stream: &mut TcpStream, word: &str) -> Option<String> {
        stream.write_all(word.as_bytes()).await.ok()?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.ok()?;
        String::from_utf8(answer.to_vec()).ok()
    }

    #[tokio::test]
    async fn a_request_arrives_even_if_its_reply_is_lost() {
        let (proxy, heard) = echo().await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let conversation = async {
            assert_eq!(say(&mut stream, "read").await.as_deref(), Some("read"), "the pattern does not match");
            assert_eq!(say(&mut stream, "puts").await, None);
            let mut another = TcpStream::connect(proxy.address).await.unwrap();
            assert_eq!(say(&mut another, "puts").await.as_deref(), Some("puts"), "only one answer is lost");
        };
        tokio::join!(proxy.lose_answer_to("put"), conversation);
        assert_eq!(&**heard.borrow(), b"readputsputs");
    }

    #[tokio::test]
    async fn only_the_connections_of_the_moment_go_silent() {
        let (proxy, heard) = echo().await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(say(&mut stream, "read").await.as_deref(), Some("read"));
        proxy.silence();
        let mut another = TcpStream::connect(proxy.address).await.unwrap();
        let silent = tokio::time::timeout(DONE, say(&mut stream, "lost"));
        let (silent, answer) = tokio::join!(silent, say(&mut another, "puts"));
        assert_eq!(answer.as_deref(), Some("puts"));
        assert!(silent.is_err(), "neither answered nor closed");
        assert_eq!(&**heard.borrow(), b"readputs");
    }

    #[tokio::test]
    async fn requests_arrive_while_answers_are_lost_and_new_connections_work_afterwards() {
        let (proxy, heard) = echo().await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(say(&mut stream, "read").await.as_deref(), Some("read"));
        let (answer, ()) = tokio::join!(say(&mut stream, "puts"), proxy.lose_answers(DONE));
        assert_eq!(answer, None);
        let mut another = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(say(&mut another, "next").await.as_deref(), Some("next"));
        assert_eq!(&**heard.borrow(), b"readputsnext");
    }

    #[tokio::test]
    async fn no_reply_is_lost_after_a_loss_was_cancelled() {
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
