use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::broadcast;

use super::meter::missed;
use crate::event::Event;

/// Number of events that are kept for a slow subscriber.
const KEPT: usize = 1024;

/// Subscription to the events of a node, from the moment of subscribing on.
///
/// A slow subscriber never delays the node: if it falls more than 1024 events behind, the oldest are dropped and it
/// receives their number. Dropping this value ends the subscription.
#[derive(Debug)]
pub struct Events {
    receiver: Option<broadcast::Receiver<Arc<Event>>>,
}

/// Reason why there is no event to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EventsError {
    /// The subscriber fell too far behind and missed this number of events. The next call returns the oldest event that
    /// was kept.
    #[error("the subscriber fell too far behind and missed {0} events")]
    Missed(u64),
    /// The node has ended, and all its events have been returned.
    #[error("the node has ended")]
    Ended,
}

impl Events {
    /// Waits for the next event. Cancel safe: no event is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`EventsError::Missed`], after which further events follow; [`EventsError::Ended`], after which none follow.
    pub async fn recv(&mut self) -> Result<Arc<Event>, EventsError> {
        let Some(receiver) = &mut self.receiver else { return Err(EventsError::Ended) };
        receiver.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(missed) => note_missed(missed),
            broadcast::error::RecvError::Closed => EventsError::Ended,
        })
    }

    /// Returns the next event if there is one already.
    ///
    /// # Errors
    ///
    /// The same as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Option<Arc<Event>>, EventsError> {
        let Some(receiver) = &mut self.receiver else { return Err(EventsError::Ended) };
        match receiver.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(broadcast::error::TryRecvError::Empty) => Ok(None),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Err(note_missed(missed)),
            Err(broadcast::error::TryRecvError::Closed) => Err(EventsError::Ended),
        }
    }
}

fn note_missed(events: u64) -> EventsError {
    missed(events);
    EventsError::Missed(events)
}

/// Distributes a node's events to subscribers. Nothing is kept until the first subscription.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Silent,
    Open(broadcast::Sender<Arc<Event>>),
    Ended,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscribe(&self) -> Events {
        let mut state = self.state();
        let receiver = match &*state {
            State::Ended => None,
            State::Open(sender) => Some(sender.subscribe()),
            State::Silent => {
                let (sender, receiver) = broadcast::channel(KEPT);
                *state = State::Open(sender);
                Some(receiver)
            }
        };
        Events { receiver }
    }

    /// Sends to all subscribers. Wakes them after the lock is released, since a waker may call back into the node.
    pub(crate) fn send(&self, event: Event) {
        let sender = match &*self.state() {
            State::Open(sender) => sender.clone(),
            State::Silent | State::Ended => return,
        };
        // An error only means that the subscriber is gone.
        let _ = sender.send(Arc::new(event));
    }

    pub(crate) fn end(&self) {
        // Dropping the sender wakes the subscribers, so drop it after the lock is released.
        let before = std::mem::replace(&mut *self.state(), State::Ended);
        drop(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::Unregistered
    }

    #[tokio::test]
    async fn a_subscriber_that_falls_behind_learns_how_much_it_missed_and_continues() {
        let hub = Hub::default();
        hub.send(event());
        let mut events = hub.subscribe();
        assert_eq!(events.try_recv(), Ok(None));
        for _ in 0..KEPT + 3 {
            hub.send(event());
        }
        assert_eq!(events.recv().await, Err(EventsError::Missed(3)));
        for _ in 0..KEPT {
            assert_eq!(events.recv().await.as_deref(), Ok(&event()));
        }
        hub.send(event());
        hub.end();
        assert!(events.recv().await.is_ok());
        assert_eq!(events.recv().await, Err(EventsError::Ended));
        assert_eq!(events.try_recv(), Err(EventsError::Ended));
        assert_eq!(hub.subscribe().recv().await, Err(EventsError::Ended));
    }
}
