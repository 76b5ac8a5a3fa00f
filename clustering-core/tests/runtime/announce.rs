//! The `on_stable` callback.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use clustering_core::{Event, Stable};

use crate::common::{Cluster, secs, soon, stable};

#[tokio::test(start_paused = true)]
async fn a_panic_or_an_error_is_reported_and_not_retried() {
    let cluster = Cluster::new();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let node = cluster
        .start_with("a", |builder| {
            builder.on_stable(move |_| {
                let run = counted.fetch_add(1, Ordering::SeqCst);
                async move { if run == 0 { panic!("not yet") } else { Err::<(), _>("no luck") } }
            })
        })
        .await;
    let failed = async || {
        node.log
            .next_of("it failed", |event| match event {
                Event::AnnouncementFailed { version, reason } => Some((*version, reason.clone())),
                _ => None,
            })
            .await
    };
    let first = stable([&node]).await;
    assert_eq!(failed().await, (first, "it panicked: not yet".to_owned()));
    let second = node.cluster_change().await.unwrap();
    assert_eq!(failed().await, (second, "no luck".to_owned()));
    tokio::time::sleep(secs(60)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2, "it is not called again");
    assert_eq!(stable([&node]).await, second, "the version is stable nevertheless");
}

/// Versions become stable while a callback runs: it is told that it is superseded, they wait for it, and only the
/// newest of them is announced.
#[tokio::test(start_paused = true)]
async fn p4_a_slow_call_never_overlaps_with_the_next() {
    let cluster = Cluster::new();
    let runs = Arc::new(Mutex::new(Vec::new()));
    let kept = runs.clone();
    let node = cluster
        .start_with("a", |builder| {
            builder.on_stable(move |stable: Stable| {
                let runs = kept.clone();
                async move {
                    runs.lock().unwrap().push((stable.version(), "begins"));
                    let first = runs.lock().unwrap().len() == 1;
                    if first {
                        stable.superseded().await;
                        assert!(stable.is_superseded());
                        tokio::time::sleep(secs(30)).await;
                    }
                    runs.lock().unwrap().push((stable.version(), "ends"));
                }
            })
        })
        .await;
    let first = stable([&node]).await;
    let mut last = first;
    for _ in 0..3 {
        last = node.cluster_change().await.unwrap();
        assert_eq!(stable([&node]).await, last);
    }
    node.log.next("first", |event| matches!(event, Event::Announcing { .. })).await;
    node.log
        .next("last", |event| matches!(event, Event::Announcing { version, .. } if *version == last))
        .await;
    tokio::time::sleep(secs(1)).await;
    let expected = [(first, "begins"), (first, "ends"), (last, "begins"), (last, "ends")];
    assert_eq!(*runs.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn p4_a_running_call_is_told_when_the_leadership_ends() {
    let cluster = Cluster::new();
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let node = cluster
        .start_with("a", |builder| {
            builder.on_stable(move |stable: Stable| {
                let sender = sender.clone();
                async move {
                    if stable.view().len() == 2 {
                        stable.superseded().await;
                        sender.send(stable.term()).unwrap();
                    }
                }
            })
        })
        .await;
    let other = cluster.start("b").await;
    let version = stable([&node, &other]).await;
    node.log
        .next("it runs", |event| matches!(event, Event::Announcing { version: this, .. } if *this == version))
        .await;
    let term = node.term().unwrap();
    node.line.hang();
    assert_eq!(soon("told", told.recv()).await, Some(term));
    assert!(node.is_member() && !node.is_leader(), "at the leadership deadline, not at the session deadline");
    node.line.heal();
    let version = node.cluster_change().await.unwrap();
    node.log
        .next("it runs", |event| matches!(event, Event::Announcing { version: this, .. } if *this == version))
        .await;
    let (resigned, told_term) = tokio::join!(node.resign(), soon("told", told.recv()));
    resigned.unwrap();
    assert_eq!(told_term, Some(term), "the same term: the outage was short");
    stable([&node, &other]).await;
    assert!(other.is_leader());
}

#[tokio::test(start_paused = true)]
async fn p4_a_stop_tells_a_running_call_and_waits_for_it() {
    let cluster = Cluster::new();
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    let node = cluster
        .start_with("a", |builder| {
            builder.on_stable(move |stable: Stable| {
                let count = count.clone();
                async move {
                    stable.superseded().await;
                    tokio::time::sleep(secs(2)).await;
                    count.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .await;
    node.log.next("it runs", |event| matches!(event, Event::Announcing { .. })).await;
    node.stop().await.unwrap();
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

/// A call that hangs must not prevent all later announcements: it is reported, and aborted if a time limit is set.
#[tokio::test(start_paused = true)]
async fn p10_an_on_stable_that_hangs_is_reported_and_does_not_end_announcements() {
    let cluster = Cluster::new();
    let runs = Arc::new(Mutex::new(Vec::new()));
    let kept = runs.clone();
    let node = cluster
        .start_with("a", |builder| {
            let hangs_first = move |stable: Stable| {
                let mut runs = kept.lock().unwrap();
                runs.push(stable.version());
                let hangs = runs.len() == 1;
                async move {
                    if hangs {
                        std::future::pending::<()>().await;
                    }
                }
            };
            builder.on_stable(hangs_first).configure(|config| config.on_stable_timeout = Some(secs(60)))
        })
        .await;
    let first = stable([&node]).await;
    let second = node.cluster_change().await.unwrap();
    let slow = |event: &Event| matches!(event, Event::AnnouncementSlow { version, .. } if *version == first);
    node.log.next("it is slow", slow).await;
    assert_eq!(*runs.lock().unwrap(), [first], "later announcements wait for the running one");
    let reason = node
        .log
        .next_of("it failed", |event| match event {
            Event::AnnouncementFailed { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await;
    assert_eq!(reason, "it was ended after 60s, the on_stable timeout");
    let announcing = |event: &Event| matches!(event, Event::Announcing { version, .. } if *version == second);
    node.log.next("the next", announcing).await;
    assert_eq!(stable([&node]).await, second);
    assert_eq!(*runs.lock().unwrap(), [first, second]);
}
