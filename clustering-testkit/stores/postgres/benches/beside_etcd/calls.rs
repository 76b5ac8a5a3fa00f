//! Single calls, without a cluster.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clustering_core::store::{CoordinationStore, Revision, StoreError, Txn};
use futures_util::future::join_all;

use crate::{
    report::Report,
    stores::{Connect, Server},
};

/// Duration of each measurement.
const SPAN: Duration = Duration::from_secs(2);

/// Number of clients that commit at once.
const CLIENTS: usize = 8;

/// Value of a put.
const VALUE: &[u8] = b"sixteen bytes...";

const TTL: Duration = Duration::from_secs(60);

type Handle = Arc<dyn CoordinationStore>;

pub(crate) async fn run(servers: &[Server; 2], report: &mut Report) {
    let (mut commits, mut reads, mut renewals) =
        (<[Vec<Duration>; 2]>::default(), <[Vec<Duration>; 2]>::default(), <[Vec<Duration>; 2]>::default());
    let mut rates = [[0.0; 2]; 2];
    for (place, server) in servers.iter().enumerate() {
        let handle = (server.connect)();
        for entry in 0..20 {
            let txn = Txn::new().put(format!("read/{entry}"), VALUE, None);
            handle.commit(txn).await.unwrap();
        }
        let lease = handle.grant_lease(TTL).await.unwrap();
        commits[place] = repeat(|| put(&handle, 0)).await;
        reads[place] = repeat(|| handle.read("read/")).await;
        renewals[place] = repeat(|| handle.renew_lease(lease.id)).await;
        handle.revoke_lease(lease.id).await.unwrap();
        rates[0][place] = commits[place].len() as f64 / SPAN.as_secs_f64();
        rates[1][place] = at_once(&server.connect).await;
    }
    report.times("commit", 0, commits);
    report.times("read", 0, reads);
    report.times("renewal", 0, renewals);
    report.rates("commits of 1 client", rates[0]);
    report.rates(&format!("commits of {CLIENTS} clients"), rates[1]);
}

/// Puts the key of this client.
async fn put(store: &Handle, client: usize) -> Result<Revision, StoreError> {
    store.commit(Txn::new().put(format!("commit/{client}"), VALUE, None)).await
}

/// Repeats a call for the span, and returns its times.
async fn repeat<T, F: Future<Output = Result<T, StoreError>>>(call: impl Fn() -> F) -> Vec<Duration> {
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < SPAN {
        let sent = Instant::now();
        call().await.unwrap();
        times.push(sent.elapsed());
    }
    times
}

/// Returns the commits per second of all clients together.
async fn at_once(connect: &Connect) -> f64 {
    let clients = (0..CLIENTS).map(|client| {
        let store = connect();
        tokio::spawn(async move {
            // Connects.
            put(&store, client).await.unwrap();
            repeat(|| put(&store, client)).await.len()
        })
    });
    let counts = join_all(clients).await.into_iter().map(Result::unwrap);
    counts.sum::<usize>() as f64 / SPAN.as_secs_f64()
}
