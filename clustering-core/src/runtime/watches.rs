use std::task::{Context, Poll};

use futures_util::StreamExt;

use crate::{
    machine::{Input, Token},
    store::{Batch, WatchEnd, WatchStream},
};

/// Largest number of batches that are passed to the machine at once.
const MAX_BATCHES: usize = 128;

/// The open watches of a driver.
#[derive(Default)]
pub(super) struct Watches(Vec<Watch>);

struct Watch {
    token: Token,
    stream: WatchStream,
    /// Why the stream ended, until this has been passed to the machine.
    ended: Option<WatchEnd>,
}

impl Watches {
    pub(super) fn add(&mut self, token: Token, stream: WatchStream) {
        self.0.push(Watch { token, stream, ended: None });
    }

    pub(super) fn remove(&mut self, token: Token) {
        self.0.retain(|watch| watch.token != token);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the next batches or the next end of a watch. Polls the watches in the order in which they were opened:
    /// the log's before that of the acknowledgements.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Input> {
        for index in 0..self.0.len() {
            let watch = &mut self.0[index];
            let token = watch.token;
            if let Poll::Ready(input) = watch.poll_batches(context) {
                return Poll::Ready(input);
            }
            if let Some(end) = watch.ended.take() {
                drop(self.0.remove(index));
                return Poll::Ready(Input::WatchEnded { token, end });
            }
        }
        Poll::Pending
    }
}

impl Watch {
    /// Takes all batches that are ready, so that a node that lags catches up at once. Pending also if the watch has
    /// ended.
    fn poll_batches(&mut self, context: &mut Context<'_>) -> Poll<Input> {
        let token = self.token;
        let Some(first) = self.poll_batch(context) else { return Poll::Pending };
        let Some(second) = self.poll_batch(context) else {
            return Poll::Ready(Input::Batch { token, batch: first });
        };
        let mut batches = vec![first, second];
        while batches.len() < MAX_BATCHES
            && let Some(batch) = self.poll_batch(context)
        {
            batches.push(batch);
        }
        Poll::Ready(Input::Batches { token, batches })
    }

    fn poll_batch(&mut self, context: &mut Context<'_>) -> Option<Batch> {
        if self.ended.is_some() {
            return None;
        }
        let end = match self.stream.poll_next_unpin(context) {
            Poll::Pending => return None,
            Poll::Ready(Some(Ok(batch))) => return Some(batch),
            Poll::Ready(Some(Err(end))) => end,
            Poll::Ready(None) => WatchEnd::Disconnected { reason: "the store ended the stream".to_owned() },
        };
        self.ended = Some(end);
        None
    }
}
