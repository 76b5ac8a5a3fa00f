use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use clustering_core::store::{CoordinationStore, Operation};
use futures_util::future::select_all;

use crate::{faulty::FaultyStore, proxy::Proxy};

/// Time for which answers are lost, in [`Line::lose_answers`].
const LOSS: Duration = Duration::from_millis(100);

/// The network between one handle and the store, which fails on command of the suite.
pub struct Line {
    addresses: Vec<String>,
    proxies: Vec<Proxy>,
    /// Store without a network: its calls fail as connections would.
    calls: Mutex<Option<FaultyStore>>,
}

impl Line {
    /// Creates a line that never fails.
    pub(super) fn straight(addresses: Vec<String>) -> Self {
        Line { addresses, proxies: Vec::new(), calls: Mutex::default() }
    }

    /// Creates a line with a proxy for each address.
    pub(super) async fn through_proxies(addresses: &[String]) -> Self {
        let mut proxies = Vec::new();
        for address in addresses {
            proxies.push(
                Proxy::to(address).await.expect("a proxy listens on a free port of the loopback interface"),
            );
        }
        let address = |proxy: &Proxy| proxy.address().to_string();
        Line { addresses: proxies.iter().map(address).collect(), proxies, calls: Mutex::default() }
    }

    /// Returns the addresses (`host:port`) at which the handle reaches the servers, in the order of
    /// [`Faults::addresses`](super::Faults::addresses).
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Returns a store without a network as it is seen through this line: its calls fail and its watches break as those
    /// of a store behind a broken network do.
    pub fn wrap(&self, store: impl CoordinationStore) -> FaultyStore {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let wrapped = match &*calls {
            Some(calls) => calls.in_front_of(store),
            None => FaultyStore::new(store),
        };
        calls.get_or_insert(wrapped).clone()
    }

    fn each(&self, proxy: impl Fn(&Proxy), calls: impl FnOnce(&FaultyStore)) {
        self.proxies.iter().for_each(proxy);
        if let Some(faulty) = &*self.calls.lock().unwrap_or_else(PoisonError::into_inner) {
            calls(faulty);
        }
    }

    /// Lets nothing pass in either direction, while connections stay open.
    pub(super) fn hang(&self) {
        self.each(Proxy::hang, FaultyStore::hang);
    }

    /// Lets requests pass, but no answers.
    pub(super) fn hang_answers(&self) {
        self.each(Proxy::hang_answers, FaultyStore::hang_replies);
    }

    /// Closes all connections, and closes new connections at once.
    pub(super) fn cut(&self) {
        self.each(Proxy::cut, FaultyStore::cut);
    }

    /// Ends all faults. Data that was held back is delivered now.
    pub(super) fn heal(&self) {
        self.each(Proxy::heal, FaultyStore::heal);
    }

    /// Closes the connections that are open now. New connections work.
    pub(super) async fn close(&self) {
        self.each(Proxy::close, FaultyStore::cut);
        self.heal_calls().await;
    }

    /// Loses the answers to all requests for a moment, and then closes their connections.
    pub(super) async fn lose_answers(&self) {
        self.hang_answers();
        tokio::time::sleep(LOSS).await;
        self.close().await;
        self.heal();
    }

    /// Loses the answer to the next commit that puts a value with these bytes, and closes its connection. Returns
    /// once such a commit was sent, or once it is certain that the next one will be noticed.
    pub(super) async fn lose_answer_to_put(&self, part: &'static [u8]) {
        self.each(
            |_| {},
            |calls| {
                calls.lose_reply_of_next_commit_matching(move |txn| {
                    txn.operations().iter().any(|it| puts(it, part))
                });
            },
        );
        if !self.proxies.is_empty() {
            let lost = self.proxies.iter().map(|proxy| Box::pin(proxy.lose_answer_to(part)));
            select_all(lost).await;
        }
    }

    /// Lets new calls through again after a cut, once all calls that were in flight have failed.
    async fn heal_calls(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.each(|_| {}, FaultyStore::heal);
    }
}

/// True if the operation puts a value with these bytes.
fn puts(operation: &Operation, part: &[u8]) -> bool {
    match operation {
        Operation::Put { value, .. } => value.windows(part.len()).any(|bytes| bytes == part),
        Operation::Delete { .. } => false,
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
