use std::{fmt::Display, future::Future, time::Duration};

use clustering_core::{
    Builder, Clustering, Laggards, NodeName, Outcome, Stabilization, Stable, StartError, StopReason,
    store::CoordinationStore,
};
use clustering_testkit::{
    faults::Writer,
    history::{Clock, FileSink, Journal, Observation},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::work::{WorkSpec, Workers};

use super::{NodeSpec, looks::Looks};

/// Runs this process as a node until it receives `SIGTERM`, ends by itself, or cannot start.
///
/// # Panics
///
/// Panics if the store cannot be connected to or the journal cannot be written.
pub fn main<S, F, E>(spec: NodeSpec, connect: impl FnOnce(Vec<String>) -> F)
where
    S: CoordinationStore,
    F: Future<Output = Result<S, E>>,
    E: Display,
{
    // Two threads, so that a busy one does not stop everything else.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("the runtime can be built").block_on(async {
        let mut asked = signal(SignalKind::terminate()).expect("the signal handler can be installed");
        let store = match connect(spec.endpoints.clone()).await {
            Ok(store) => store,
            Err(error) => panic!("cannot connect to the store: {error}"),
        };
        let ended = run(&spec, store, async move {
            asked.recv().await;
        })
        .await;
        println!("{} ended: {ended:?}", spec.life);
    });
}

/// Runs a node until `stop` completes, the node ends by itself, or it cannot start.
///
/// # Errors
///
/// Returns the reason why the node could not start.
///
/// # Panics
///
/// Panics if the journal cannot be written, or outside of a tokio runtime.
pub async fn run(
    spec: &NodeSpec,
    store: impl CoordinationStore,
    stop: impl Future<Output = ()>,
) -> Result<StopReason, StartError> {
    let sink = FileSink::append(&spec.journal)
        .unwrap_or_else(|error| panic!("the journal {} cannot be written: {error}", spec.journal.display()));
    let journal = Journal::new(NodeName::parse(&spec.name)?, &*spec.life, Clock::boot(), sink);
    let store = journal.store(store);
    let store = if spec.record_calls { store.with_calls() } else { store };
    let builder = Clustering::builder(store)
        .namespace(&spec.namespace)
        .name(&spec.name)
        .uri(&spec.uri)
        .ttl(spec.ttl)
        .name_conflict(spec.name_conflict.into())
        .laggards(spec.evict_after.map_or(Laggards::Wait, |after| Laggards::Evict { after }))
        .configure(|config| config.warn_after = spec.warn_after);
    let builder = match spec.checks() {
        None => builder,
        Some(checks) => {
            let spec = spec.clone();
            let check = move || {
                let spec = spec.clone();
                async move { spec.check().await }
            };
            builder.health(check).configure(|config| config.health = Some(checks))
        }
    };
    let builder = match &spec.detects_crashes {
        None => builder,
        Some(detection) => builder.detect_crashes(detection.detection()),
    };
    let builder = match &spec.work {
        None => builder,
        Some(work) => exclusive(builder, work),
    };
    let (takes, refuses) = (spec.stabilize_takes, spec.stabilize_refuses);
    let stabilize = move |stabilization: Stabilization| async move {
        let superseded = take(takes, stabilization.superseded()).await;
        match stabilization.attempt() > refuses && !superseded {
            true => Outcome::Ready,
            false => Outcome::refused("not yet"),
        }
    };
    let takes = spec.on_stable_takes;
    let on_stable = move |stable: Stable| async move {
        take(takes, stable.superseded()).await;
    };
    let builder = journal.attach(builder, stabilize, on_stable);

    tokio::pin!(stop);
    let node = tokio::select! {
        started = builder.start() => started.inspect_err(|error| {
            journal.note(Observation::Note { text: format!("did not start: {error}") });
        })?,
        // Dropping the future undoes a partial start.
        () = &mut stop => {
            journal.note(Observation::Stopped { reason: "asked".to_owned() });
            return Ok(StopReason::Asked);
        }
    };
    let looks = Looks::begin(&journal, &node);
    let writer = || Writer::new(journal.clone(), node.clone(), spec.breach);
    let workers = spec.work.as_ref().map(|work| Workers::begin(work, &spec.life, &node));
    let writes = spec.write_every.map(|every| tokio::spawn(writer().write(every)));
    let ended = tokio::select! {
        ended = node.ended() => ended,
        () = stop => {
            if let Err(error) = node.stop().await {
                journal.note(Observation::Note { text: error.to_string() });
            }
            node.ended().await
        }
    };
    looks.end();
    if let Some(workers) = workers {
        workers.end().await;
    }
    if let Some(writes) = writes {
        writes.abort();
    }
    // Written after the node's last events.
    journal.note(Observation::Note { text: "the process ends".to_owned() });
    Ok(ended.expect("no callback waits for the end").0)
}

fn exclusive(builder: Builder, work: &WorkSpec) -> Builder {
    let builder = builder.exclusive(work.slots);
    match work.release_takes {
        None => builder,
        Some(takes) => builder.release(move |_| tokio::time::sleep(takes)),
    }
}

/// Sleeps for `time` or until superseded. Returns true if superseded.
async fn take(time: Duration, superseded: impl Future<Output = ()>) -> bool {
    if time.is_zero() {
        return false;
    }
    tokio::select! {
        () = tokio::time::sleep(time) => false,
        () = superseded => true,
    }
}
