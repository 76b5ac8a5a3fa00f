//! Reports to `tracing`: a span for each version that contains the node's own work, stable field names, and no events
//! at rest.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use clustering_core::{Clustering, Stabilization, trace};
use clustering_memory::MemoryStore;
use tokio::time::sleep;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

type Fields = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq)]
enum Told {
    Opened { span: u64, name: &'static str, parent: Option<u64>, fields: Fields },
    Recorded { span: u64, fields: Fields },
    Closed { span: u64 },
    Event { level: Level, within: Option<u64>, fields: Fields },
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<Told>>>);

struct Read<'a>(&'a mut Fields);

impl Visit for Read<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Capture {
    fn push(&self, told: Told) {
        self.0.lock().unwrap().push(told);
    }

    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() == trace::TARGET {
            let mut fields = Fields::new();
            attributes.record(&mut Read(&mut fields));
            let span = context.span(id).unwrap();
            let parent = span.parent().map(|parent| parent.id().into_u64());
            self.push(Told::Opened { span: id.into_u64(), name: span.name(), parent, fields });
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut fields = Fields::new();
        values.record(&mut Read(&mut fields));
        self.push(Told::Recorded { span: id.into_u64(), fields });
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.push(Told::Closed { span: id.into_u64() });
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Read(&mut fields));
        let within = context.event_span(event).map(|span| span.id().into_u64());
        self.push(Told::Event { level: *event.metadata().level(), within, fields });
    }
}

fn of<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).unwrap_or_else(|| panic!("no {name} in {fields:?}"))
}

#[tokio::test(start_paused = true)]
async fn a_version_is_one_span_that_contains_the_nodes_work_and_nothing_is_reported_at_rest() {
    let capture = Capture::default();
    let subscriber = tracing_subscriber::registry().with(capture.clone());
    let _guard = tracing::subscriber::set_default(subscriber);

    let stabilize = |change: Stabilization| async move {
        tracing::info!(target: "service", "loading");
        sleep(Duration::from_secs(2)).await;
        change.attempt() > 1
    };
    let cluster = Clustering::builder(MemoryStore::new())
        .namespace("ns")
        .name("a")
        .uri("http://a")
        .stabilize(stabilize)
        .start()
        .await
        .unwrap();
    let version = cluster.wait_stable().await.unwrap().to_string();
    sleep(Duration::from_secs(10)).await;
    let told = capture.take();

    let opened = |wanted: &str| -> Vec<_> {
        let those = told.iter().filter_map(|told| match told {
            Told::Opened { span, name, parent, fields } if *name == wanted => Some((*span, *parent, fields)),
            _ => None,
        });
        those.collect()
    };
    let outcome = |of: u64| {
        told.iter().find_map(|told| match told {
            Told::Recorded { span, fields } if *span == of => fields.get(trace::OUTCOME).cloned(),
            _ => None,
        })
    };
    let place = |wanted: &Told| told.iter().position(|told| told == wanted).unwrap();

    let [(span, None, fields)] = opened(trace::VERSION_SPAN)[..] else { panic!("{told:#?}") };
    for (name, value) in [
        (trace::NAMESPACE, "ns"),
        (trace::NODE, "a"),
        (trace::VERSION, &version),
        (trace::NODES, "1"),
        (trace::CAUSES, "a was elected, a joined"),
        (trace::TERM, "2"),
    ] {
        assert_eq!(of(fields, name), value, "{name}");
    }
    assert_eq!(outcome(span).as_deref(), Some("stable"));

    // Two attempts inside the version's span, and the service's own events inside the attempts.
    let tries = opened(trace::STABILIZE_SPAN);
    let said: Vec<_> = tries.iter().map(|(own, ..)| outcome(*own).unwrap()).collect();
    assert_eq!(said, ["refused", "ready"]);
    for (attempt, (own, parent, fields)) in tries.iter().enumerate() {
        assert_eq!(*parent, Some(span));
        assert_eq!(
            (of(fields, trace::ATTEMPT), of(fields, trace::VERSION)),
            ((attempt + 1).to_string().as_str(), &*version)
        );
        let loading = |told: &Told| matches!(told, Told::Event { within, fields, .. } if *within == Some(*own) && fields["message"] == "loading");
        assert_eq!(told.iter().filter(|told| loading(told)).count(), 1);
        assert!(place(&Told::Closed { span: *own }) < place(&Told::Closed { span }));
    }

    // Events that concern the version are in its span, and all events have the stable fields.
    for told in &told {
        let Told::Event { within, fields, .. } = told else { continue };
        if fields["message"] == "loading" || !fields.contains_key(trace::EVENT) {
            continue;
        }
        assert_eq!((of(fields, trace::NAMESPACE), of(fields, trace::NODE)), ("ns", "a"));
        let kind = of(fields, trace::EVENT);
        assert!(clustering_core::Event::KINDS.contains(&kind), "{kind}");
        if ["version_published", "stabilizing", "stabilize_refused", "ready", "stable"].contains(&kind) {
            assert_eq!((of(fields, trace::VERSION), *within), (&*version, Some(span)), "{kind}");
        }
    }
    let announced = opened(trace::ON_STABLE_SPAN);
    assert_eq!((announced.len(), outcome(announced[0].0).as_deref()), (1, Some("ready")));

    // At rest.
    sleep(Duration::from_secs(3600)).await;
    let told = capture.take();
    let loud = |told: &&Told| !matches!(told, Told::Event { level, .. } if *level > Level::INFO);
    assert_eq!(told.iter().filter(loud).collect::<Vec<_>>(), Vec::<&Told>::new());

    // A version that is superseded, and one whose node stops before it is stable.
    cluster.cluster_change().await.unwrap();
    cluster.cluster_change().await.unwrap();
    cluster.stop().await.unwrap();
    let ends = capture.take().into_iter().filter_map(|told| match told {
        Told::Recorded { fields, .. } => fields.get(trace::OUTCOME).cloned(),
        _ => None,
    });
    let ends: Vec<_> = ends.filter(|outcome| outcome != "ready" && outcome != "refused").collect();
    assert_eq!(ends, ["superseded", "left"]);
}
