use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use clustering_core::{
    Event, Version,
    runtime::{Events, EventsError},
};
use tokio::sync::watch;

use super::soon;

/// All events of a node since its start, recorded by a task of their own.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    events: watch::Receiver<Vec<Arc<Event>>>,
    cursor: Arc<AtomicUsize>,
    ended: watch::Receiver<bool>,
}

impl Log {
    pub(crate) fn of(mut events: Events) -> Self {
        let (sender, receiver) = watch::channel(Vec::new());
        let (end, ended) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) => sender.send_modify(|kept| kept.push(event)),
                    Err(EventsError::Missed(count)) => panic!("{count} events were missed"),
                    Err(EventsError::Ended) => break,
                }
            }
            end.send_replace(true);
            // A test that waits for a missing event runs into its timeout, and reports what it waited for.
            std::future::pending::<()>().await;
        });
        Log { events: receiver, cursor: Arc::default(), ended }
    }

    /// Returns a log that records nothing.
    pub(crate) fn none() -> Self {
        Log { events: watch::channel(Vec::new()).1, cursor: Arc::default(), ended: watch::channel(true).1 }
    }

    /// Waits for the next matching event after the one that was returned last.
    pub(crate) async fn next(&self, what: &str, is: impl Fn(&Event) -> bool) -> Event {
        self.next_of(what, |event| is(event).then(|| event.clone())).await
    }

    /// Waits for the next event for which `pick` returns a value, and returns that value.
    pub(crate) async fn next_of<T: Debug>(&self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let mut events = self.events.clone();
        let find = async {
            loop {
                {
                    let events = events.borrow_and_update();
                    let from = self.cursor.load(Ordering::Relaxed);
                    let found =
                        events.iter().enumerate().skip(from).find_map(|(at, event)| Some((at, pick(event)?)));
                    if let Some((at, picked)) = found {
                        self.cursor.store(at + 1, Ordering::Relaxed);
                        return picked;
                    }
                }
                events.changed().await.unwrap();
            }
        };
        tokio::time::timeout(super::LONG, find).await.unwrap_or_else(|_| {
            let skipped: Vec<_> = self.all().iter().map(ToString::to_string).collect();
            panic!("no event: {what}; there were {skipped:#?}")
        })
    }

    /// Returns all events so far.
    pub(crate) fn all(&self) -> Vec<Arc<Event>> {
        self.events.borrow().clone()
    }

    /// Waits for the end of the node and returns all its events.
    pub(crate) async fn ended(&self) -> Vec<Arc<Event>> {
        soon("the end of the events", self.ended.clone().wait_for(|ended| *ended)).await.unwrap();
        self.all()
    }

    pub(crate) fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.events.borrow().iter().filter(|event| is(event)).count()
    }

    /// Returns the published versions, in the order in which this node saw them.
    pub(crate) fn versions(&self) -> Vec<Version> {
        let version = |event: &Arc<Event>| match **event {
            Event::VersionPublished { version, .. } => Some(version),
            _ => None,
        };
        self.events.borrow().iter().filter_map(version).collect()
    }
}
