//! Connections of the HTTP servers of `clustering run --listen`, `clustering serve` and the example `node`.
//!
//! Anyone who can reach the address can connect, so clients must not be able to use up more than a few file
//! descriptors. Each connection serves one request, has a limited lifetime, and is closed if too many newer ones
//! arrive. Answers that last, such as streams, are counted separately: they do not take the place of a probe, and a
//! crowd of short connections does not end them.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Maximum number of open connections of each kind, [short and lasting](Lasting), far below any limit of file
/// descriptors. A short answer takes milliseconds.
const CONNECTIONS: usize = 32;

/// Maximum lifetime of a connection, including the time in which the client reads the answer.
const LIFE: Duration = Duration::from_secs(10);

/// Maximum lifetime of a connection whose answer [lasts](Lasting). A browser opens a stream again when it ends.
const LASTING_LIFE: Duration = Duration::from_secs(3_600);

/// Maximum size of a request's line and headers in bytes.
const HEAD: usize = 16 * 1024;

/// Pause after an `accept` that failed, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Extension of each request, with which a handler declares that its answer lasts, such as a stream. The connection
/// then lives longer, and no longer counts as a short one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lasting(Arc<AtomicBool>);

impl Lasting {
    /// Declares that the answer to the request lasts.
    #[allow(dead_code, reason = "the example `node` has no answers that last")]
    pub(crate) fn declare(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_declared(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that was accepted.
struct Open {
    task: JoinHandle<()>,
    lasting: Lasting,
}

/// Accepts connections forever. If too many of a kind are open, the oldest is closed, so that a client that sends its
/// request at once gets an answer even if many others send nothing.
pub(crate) async fn accept(listener: TcpListener, router: Router) {
    let mut open = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        make_room(&mut open).await;
        let lasting = Lasting::default();
        let router = router.clone().layer(Extension(lasting.clone()));
        open.push_back(Open { task: tokio::spawn(answer(stream, router, lasting.clone())), lasting });
    }
}

/// Closes the oldest connections of each kind until there is room for a new one of either kind.
async fn make_room(open: &mut VecDeque<Open>) {
    open.retain(|connection| !connection.task.is_finished());
    for lasting in [false, true] {
        let of_kind = |connection: &Open| connection.lasting.is_declared() == lasting;
        let surplus =
            (open.iter().filter(|connection| of_kind(connection)).count() + 1).saturating_sub(CONNECTIONS);
        for _ in 0..surplus {
            let oldest = open.iter().position(of_kind).and_then(|index| open.remove(index));
            if let Some(oldest) = oldest {
                oldest.task.abort();
                // The file descriptor is only released then.
                let _ = oldest.task.await;
            }
        }
    }
}

/// Answers one request.
async fn answer(stream: TcpStream, router: Router, lasting: Lasting) {
    let mut http = http1::Builder::new();
    let http = http.keep_alive(false).max_buf_size(HEAD);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let life = async {
        tokio::time::sleep(LIFE).await;
        if lasting.is_declared() {
            tokio::time::sleep(LASTING_LIFE).await;
        }
    };
    tokio::select! {
        // If it fails, only the client is affected.
        _ = connection => {}
        () = life => {}
    }
}
