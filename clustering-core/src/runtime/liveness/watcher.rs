use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, lookup_host},
    runtime::Handle,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{hello::Hello, keep_alive::keep_alive};
use crate::{
    config::Backoff,
    event::Evidence,
    machine::Input,
    node::{Endpoint, ProcessId},
    runtime::spawn::spawn_sockets,
};

/// Time limit for each step of an attempt: resolving the host, connecting, and receiving the hello.
const STEP: Duration = Duration::from_secs(1);

/// Delay between attempts that prove nothing. The first ones follow quickly: a process that ends may close its
/// connections before its listener, which then still accepts.
const RETRY: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(30));

/// Once a connection has lasted for this time, its end is not blamed on a proxy that closes every connection at once.
const LASTING: Duration = Duration::from_secs(1);

/// Watches processes, and reports those that are gone.
///
/// Each process is reported at most once for as long as it is among the watched ones. A process that is left out of
/// [`watch`](Self::watch) and named again later is watched anew.
pub(super) struct Watcher {
    tasks: BTreeMap<Endpoint, AbortOnDropHandle<()>>,
    reports: mpsc::UnboundedReceiver<Input>,
    reporting: mpsc::UnboundedSender<Input>,
}

impl Watcher {
    pub(super) fn new() -> Self {
        let (reporting, reports) = mpsc::unbounded_channel();
        Watcher { tasks: BTreeMap::new(), reports, reporting }
    }

    /// Watches exactly the processes at these endpoints from now on. Connections to processes that are already
    /// watched stay open.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub(super) fn watch(&mut self, endpoints: Vec<Endpoint>) {
        let endpoints: BTreeSet<_> = endpoints.into_iter().collect();
        self.tasks.retain(|endpoint, _| endpoints.contains(endpoint));
        for endpoint in endpoints {
            if !self.tasks.contains_key(&endpoint) {
                let (watched, reporting) = (endpoint.clone(), self.reporting.clone());
                let task = spawn_sockets(&Handle::current(), async move {
                    let evidence = until_gone(&watched).await;
                    // An error only means that the node has ended.
                    let _ = reporting.send(Input::ProcessGone { process: watched.process, evidence });
                });
                self.tasks.insert(endpoint, task);
            }
        }
    }

    /// Waits until a process is gone. Cancel safe.
    pub(super) async fn next_report(&mut self) -> Input {
        match self.reports.recv().await {
            Some(report) => report,
            // Impossible: this struct has a sender.
            None => std::future::pending().await,
        }
    }

    /// Closes all connections, and waits until that is done.
    pub(super) async fn end(&mut self) {
        let tasks = std::mem::take(&mut self.tasks);
        tasks.values().for_each(AbortOnDropHandle::abort);
        for task in tasks.into_values() {
            // An error only means that the task was aborted.
            let _ = task.await;
        }
    }
}

/// Result of an attempt to reach a process.
pub(super) enum Finding {
    /// The expected process answered on this connection.
    Alive(TcpStream),
    /// The process is gone.
    Gone(Evidence),
    /// Nothing.
    Unknown(Reason),
}

/// Reason why an attempt to reach a process was inconclusive.
#[derive(Debug)]
pub(super) enum Reason {
    /// A step was not finished in time, or the network refused it.
    Io(io::Error),
    /// The host has no address.
    NoAddress,
    /// A program answered, but not with a hello.
    NotHello,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Io(error) => error.fmt(f),
            Reason::NoAddress => f.write_str("the host has no address"),
            Reason::NotHello => f.write_str("the program that answers does not speak the protocol"),
        }
    }
}

/// Waits until the process is gone.
async fn until_gone(endpoint: &Endpoint) -> Evidence {
    let mut failures = 0;
    loop {
        match find(endpoint).await {
            Finding::Gone(evidence) => return evidence,
            Finding::Alive(stream) => {
                let since = Instant::now();
                until_broken(stream).await;
                if since.elapsed() >= LASTING {
                    failures = 0;
                }
            }
            Finding::Unknown(reason) => {
                // Only the first failure of a series is logged.
                if failures == 1 {
                    tracing::debug!(
                        target: "clustering",
                        address = endpoint.address,
                        %reason,
                        "cannot watch the process at this address: until this is over, its crash is noticed only \
                         after its TTL"
                    );
                }
            }
        }
        if failures > 0 {
            sleep(RETRY.after(failures)).await;
        }
        failures += 1;
    }
}

/// Connects to the process. A host may have several addresses: the process is alive if it answers at one of them, and
/// gone only if each of them shows that.
async fn find(endpoint: &Endpoint) -> Finding {
    let addresses = match within(lookup_host(&*endpoint.address)).await {
        Ok(addresses) => addresses,
        Err(error) => return Finding::Unknown(Reason::Io(error)),
    };
    find_among(addresses, endpoint.process).await
}

pub(super) async fn find_among(addresses: impl Iterator<Item = SocketAddr>, process: ProcessId) -> Finding {
    let (mut evidence, mut unknown) = (None, None);
    for address in addresses {
        match find_at(address, process).await {
            alive @ Finding::Alive(_) => return alive,
            Finding::Gone(found) => evidence = evidence.max(Some(found)),
            Finding::Unknown(reason) => unknown = Some(reason),
        }
    }
    match (unknown, evidence) {
        (None, Some(evidence)) => Finding::Gone(evidence),
        (reason, _) => Finding::Unknown(reason.unwrap_or(Reason::NoAddress)),
    }
}

async fn find_at(address: SocketAddr, process: ProcessId) -> Finding {
    let mut stream = match within(TcpStream::connect(address)).await {
        Ok(stream) if is_own(&stream) => return Finding::Gone(Evidence::Refused),
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Finding::Gone(Evidence::Refused);
        }
        Err(error) => return Finding::Unknown(Reason::Io(error)),
    };
    keep_alive(&stream);
    let mut line = [0; Hello::LEN];
    if let Err(error) = within(stream.read_exact(&mut line)).await {
        return Finding::Unknown(Reason::Io(error));
    }
    match Hello::parse(&line) {
        Some(found) if found == process => Finding::Alive(stream),
        Some(_) => Finding::Gone(Evidence::Replaced),
        None => Finding::Unknown(Reason::NotHello),
    }
}

/// True if the socket is connected to itself. The kernel does that if nobody listens at a port of this machine and the
/// same port is chosen for the outgoing connection.
pub(super) fn is_own(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

/// Waits until the connection is closed or reset, or until the peer sends something, which no process of this library
/// does.
async fn until_broken(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 1]).await;
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STEP, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
