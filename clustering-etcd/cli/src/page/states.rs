//! Passes the states of the page from the task that follows the cluster to the readers.

use std::{sync::Arc, time::Duration};

use clustering_core::{Keyspace, Monitor, Namespace, history, store::CoordinationStore};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::feed::{Feed, unknown};
use crate::times::Now;

/// Shortest time between two states. While many nodes join or acknowledge, the page shows every few of these events at
/// once.
const INTERVAL: Duration = Duration::from_millis(200);

/// Time for which a node follows the cluster after the last reader has gone, so that a page that is reloaded keeps its
/// events.
const LINGER: Duration = Duration::from_secs(60);

/// Pause before the next attempt to read the cluster.
const RETRY: Duration = Duration::from_secs(1);

/// Time limit for reading the history. Without it, the timeline starts now.
const HISTORY: Duration = Duration::from_secs(5);

/// The newest state of a cluster as JSON on one line. Every reader gets the newest one, however slow it is. Cheap to
/// clone.
#[derive(Clone)]
pub(crate) struct States {
    namespace: Namespace,
    store_name: &'static str,
    newest: watch::Sender<Arc<str>>,
    /// Notified when a reader subscribes.
    opened: Arc<Notify>,
}

impl States {
    /// Creates the states of a cluster that has not been read yet.
    pub(crate) fn new(namespace: Namespace, store_name: &'static str) -> Self {
        let (newest, _) = watch::channel(unknown(&namespace, store_name, None));
        States { namespace, store_name, newest, opened: Arc::default() }
    }

    /// Returns a receiver that has the newest state at once.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<str>> {
        let mut states = self.newest.subscribe();
        states.mark_changed();
        self.opened.notify_one();
        states
    }

    /// Follows the cluster while someone reads the states. Without readers, the store gets no requests. Retries while
    /// the store is unavailable.
    pub(crate) async fn follow_while_open(self, store: Arc<dyn CoordinationStore>) {
        loop {
            self.wait_for_reader().await;
            tokio::select! {
                () = self.wait_until_closed() => {}
                () = self.follow_store(&store) => {}
            }
            // Reset the state, so that the next reader does not see an old one.
            self.newest.send_replace(unknown(&self.namespace, self.store_name, None));
        }
    }

    async fn wait_for_reader(&self) {
        while self.newest.receiver_count() == 0 {
            self.opened.notified().await;
        }
    }

    /// Waits until there has been no reader for some time.
    async fn wait_until_closed(&self) {
        loop {
            self.newest.closed().await;
            tokio::select! {
                () = sleep(LINGER) => return,
                () = self.opened.notified() => {}
            }
        }
    }

    /// Reads the cluster as soon as the store answers, and follows it. Never returns.
    async fn follow_store(&self, store: &Arc<dyn CoordinationStore>) {
        let monitor = loop {
            match Monitor::start(store.clone(), &self.namespace).await {
                Ok(monitor) => break monitor,
                Err(error) => {
                    let reason = error.to_string();
                    self.newest.send_replace(unknown(&self.namespace, self.store_name, Some(&reason)));
                    sleep(RETRY).await;
                }
            }
        };
        self.follow(monitor, store).await;
    }

    /// Follows the cluster. Never returns.
    pub(super) async fn follow(&self, mut monitor: Monitor, store: &Arc<dyn CoordinationStore>) {
        let keys = Keyspace::new(self.namespace.clone());
        // The history may be missing, and reading it may be forbidden.
        let past = timeout(HISTORY, history(store, &keys)).await;
        let past = past.unwrap_or_else(|_| Ok(Vec::new())).unwrap_or_default();
        let mut feed = Feed::new(self.namespace.clone(), self.store_name, past, Now::read());
        // The time of the next state, if there is one to send.
        let mut due = Some(Instant::now());
        let mut sent = Instant::now();
        loop {
            tokio::select! {
                events = monitor.next() => {
                    feed.note(&events, Now::read());
                    due.get_or_insert(sent + INTERVAL);
                }
                () = sleep_until(due.unwrap_or(sent)), if due.is_some() => {
                    let now = Now::read();
                    feed.show(monitor.report(), now);
                    self.newest.send_replace(feed.json(now));
                    (due, sent) = (None, Instant::now());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clustering_core::store::CoordinationStoreExt;
    use clustering_memory::MemoryStore;
    use serde_json::Value;

    use super::*;

    async fn until(reader: &mut watch::Receiver<Arc<str>>, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            reader.changed().await.unwrap();
            let state: Value = serde_json::from_str(&reader.borrow_and_update()).unwrap();
            if holds(&state) {
                return state;
            }
        }
    }

    /// Starts to follow the namespace `c` of a store with one node.
    async fn followed() -> (MemoryStore, States) {
        let store = MemoryStore::new();
        add_node(&store, "a").await;
        let states = States::new(Namespace::parse("c").unwrap(), "etcd");
        tokio::spawn(states.clone().follow_while_open(Arc::new(store.clone())));
        (store, states)
    }

    async fn add_node(store: &MemoryStore, name: &str) {
        let record = r#"{"uri":"http://h:1","incarnation":"x"}"#;
        store.put(&format!("c/view/nodes/{name}"), record.into(), None).await.unwrap();
    }

    fn newest(states: &States) -> Value {
        serde_json::from_str(&states.newest.borrow()).unwrap()
    }

    fn has(nodes: usize) -> impl Fn(&Value) -> bool {
        move |state| state["report"]["nodes"].as_array().is_some_and(|present| present.len() == nodes)
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_is_followed_only_while_someone_looks() {
        let (store, states) = followed().await;
        sleep(LINGER).await;
        assert_eq!(newest(&states)["is_known"], false, "nobody has looked");

        let mut reader = states.subscribe();
        until(&mut reader, has(1)).await;
        drop(reader);
        // The page is loaded again: it keeps its events.
        sleep(LINGER / 2).await;
        add_node(&store, "b").await;
        let mut reader = states.subscribe();
        let state = until(&mut reader, has(2)).await;
        assert!(state["events"].to_string().contains("b is present"), "{state}");
        sleep(LINGER * 10).await;
        assert_eq!(newest(&states)["is_known"], true, "someone still looks");

        drop(reader);
        sleep(LINGER + INTERVAL).await;
        assert_eq!(newest(&states)["is_known"], false, "an old state would be shown to the next reader");
        add_node(&store, "c").await;
        until(&mut states.subscribe(), has(3)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn many_changes_make_few_states() {
        let (store, states) = followed().await;
        let mut reader = states.subscribe();
        until(&mut reader, has(1)).await;
        let began = Instant::now();
        for number in 0..100 {
            add_node(&store, &format!("node-{number}")).await;
            sleep(Duration::from_millis(10)).await;
        }
        let mut seen = 0;
        let reading = async {
            loop {
                until(&mut reader, |_| true).await;
                seen += 1;
            }
        };
        let _ = timeout(INTERVAL * 2, reading).await;
        assert!(seen <= 2 && has(101)(&newest(&states)), "{seen} states");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
}
