//! P10: every event is reported to `tracing`, and the status matches the event.

use std::sync::{Arc, LazyLock, Mutex};

use clustering_core::{Clustering, Event};
use tracing::{
    Dispatch, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

use crate::common::{Cluster, TTL, secs, stable};

/// A `tracing` subscriber that records level, node and text of the crate's events. It runs in the node's own task.
#[derive(Clone, Default)]
struct Kept {
    told: Arc<Mutex<Vec<(Level, String, String)>>>,
    /// A node, and the stable version in its status at the time of the event `Stable`.
    node: Arc<Mutex<Option<Clustering>>>,
    stable: Arc<Mutex<Vec<(String, String)>>>,
}

impl Kept {
    /// Records this thread's events until the guard is dropped.
    ///
    /// `tracing` caches at the first use of a call site if any subscriber is interested. With a single subscriber, it
    /// asks only the calling thread's subscriber, and the threads of other tests have none. So a second one is always
    /// kept.
    fn listen(&self) -> DefaultGuard {
        static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Kept::default()));
        LazyLock::force(&SECOND);
        tracing::subscriber::set_default(self.clone())
    }
}

#[derive(Default)]
struct Fields {
    node: String,
    message: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "node" {
            self.node = value.to_owned();
        }
    }
}

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "clustering" && *metadata.level() <= Level::DEBUG
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let (Some(version), Some(node)) =
            (fields.message.strip_prefix("stable at "), &*self.node.lock().unwrap())
        {
            // A subscriber may call back into the node that emits the event.
            drop((node.events(), node.nodes(), node.is_leader(), node.leader_node()));
            let stable = node.status().get().stable.unwrap();
            self.stable.lock().unwrap().push((version.to_owned(), stable.to_string()));
        }
        self.told.lock().unwrap().push((*event.metadata().level(), fields.node, fields.message));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn p10_every_event_is_reported_to_tracing() {
    let kept = Kept::default();
    let _guard = kept.listen();
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    nodes[1].line.cut();
    tokio::time::sleep(TTL * 2).await;
    nodes[1].line.heal();
    nodes[1].log.next("back", |event| matches!(event, Event::Rejoined { .. })).await;
    stable(&nodes).await;
    nodes[0].stop().await.unwrap();
    stable(&nodes[1..]).await;
    for node in &nodes {
        let told: Vec<_> = kept.told.lock().unwrap().clone();
        let told: Vec<_> = told.into_iter().filter(|(_, by, _)| *by == *node.name().as_str()).collect();
        let events: Vec<_> = node.log.all().iter().map(ToString::to_string).collect();
        assert_eq!(told.iter().map(|(.., text)| text.clone()).collect::<Vec<_>>(), events);
        let warned =
            |part: &str| told.iter().any(|(level, _, text)| *level == Level::WARN && text.contains(part));
        assert_eq!(warned("session lost"), node.name().as_str() == "n001", "{told:#?}");
    }
    // Nothing repeats in a quiet cluster.
    let before = kept.told.lock().unwrap().len();
    tokio::time::sleep(secs(600)).await;
    assert_eq!(kept.told.lock().unwrap().len(), before);
}

/// A subscriber that receives an event finds the status that matches it.
#[tokio::test(start_paused = true)]
async fn p10_the_status_is_published_before_the_event() {
    let kept = Kept::default();
    let _guard = kept.listen();
    let cluster = Cluster::new();
    let node = cluster.start("a").await;
    stable([&node]).await;
    *kept.node.lock().unwrap() = Some(node.cluster.clone());
    for _ in 0..3 {
        node.cluster_change().await.unwrap();
        stable([&node]).await;
    }
    drop(kept.node.lock().unwrap().take());
    let stable = kept.stable.lock().unwrap().clone();
    assert_eq!(stable.len(), 3);
    assert!(stable.iter().all(|(told, status)| told == status), "{stable:?}");
}
