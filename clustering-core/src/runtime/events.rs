use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::broadcast;

use super::meter::missed;
use crate::event::Event;

/// How many events a subscriber may be behind before it misses the oldest.
const KEPT: usize = 1024;

/// The events of a node, from the moment of the subscription on.
///
/// A subscriber never holds the node up: one that is more than 1024 events behind misses the oldest, and is told how
/// many. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Events {
    receiver: Option<broadcast::Receiver<Arc<Event>>>,
}

/// Why there is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EventsError {
    /// This subscriber was too far behind: that many events are lost to it. The next call yields the oldest one kept.
    #[error("{0} events were missed: this subscriber was too far behind")]
    Missed(u64),
    /// The node has ended, and all its events were yielded.
    #[error("the node has ended")]
    Ended,
}

impl Events {
    /// The next event.
    ///
    /// Cancel safe: no event is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`EventsError::Missed`], after which it goes on; [`EventsError::Ended`], after which nothing comes.
    pub async fn recv(&mut self) -> Result<Arc<Event>, EventsError> {
        let Some(receiver) = &mut self.receiver else { return Err(EventsError::Ended) };
        receiver.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(missed) => note_missed(missed),
            broadcast::error::RecvError::Closed => EventsError::Ended,
        })
    }

    /// The next event if there is one already.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
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

/// Where a node's events go out. Nothing is kept until somebody subscribes.
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
    async fn who_is_too_far_behind_is_told_and_goes_on() {
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
