use std::{future, mem, pin::Pin, time::Duration};

use clustering_core::{Builder, Clustering, Events, EventsError, StartError, StopError, StopReason};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{ENDED, log::Log};
use crate::failure::Failure;

/// Time limit for stopping a node that has not joined yet: the library's `stop_timeout` plus one second.
const CANCEL: Duration = Duration::from_secs(6);

/// The node of the program, from its start until it has left.
pub(super) struct Node {
    state: State,
    log: Log,
}

enum State {
    Starting { start: Pin<Box<dyn Future<Output = Result<Clustering, StartError>> + Send>>, events: Events },
    Running(Clustering),
    Leaving(JoinHandle<Result<(), StopError>>),
    Left,
}

/// A step in the life of a [`Node`].
pub(super) enum Step {
    Joined(Clustering),
    /// The node ended although this command did not ask it to.
    Ended(Failure),
    /// The node has left because an operator drained it.
    Drained,
    /// The node has left. The store may still list it until its TTL has passed, if the store was away.
    Left,
}

impl Node {
    pub(super) fn start(builder: Builder, log: Log) -> Self {
        let events = builder.events();
        Node { state: State::Starting { start: Box::pin(builder.start()), events }, log }
    }

    /// Waits for the node's next step. Cancel safe.
    pub(super) async fn next(&mut self) -> Step {
        match &mut self.state {
            State::Starting { start, .. } => match start.await {
                Ok(cluster) => {
                    self.state = State::Running(cluster.clone());
                    Step::Joined(cluster)
                }
                Err(error) => {
                    self.state = State::Left;
                    match &error {
                        StartError::Stopped(reason) => ended(reason, error.to_string()),
                        _ => Step::Ended(Failure::unknown(error.to_string())),
                    }
                }
            },
            State::Running(cluster) => {
                let step = match cluster.ended().await {
                    Ok(why) => ended(&why.0, why.to_string()),
                    Err(error) => Step::Ended(Failure::with_code(ENDED, error.to_string())),
                };
                self.state = State::Left;
                step
            }
            State::Leaving(leaving) => {
                if let Ok(Err(error)) = leaving.await {
                    let reason = error.to_string();
                    self.log.say(&reason, "leave_failed", json!({ "reason": reason }));
                }
                self.state = State::Left;
                Step::Left
            }
            State::Left => future::pending().await,
        }
    }

    /// Starts to leave; [`next`](Self::next) reports when the node has left. The time is limited by `stop_timeout`. The
    /// slots of the node wait for it for the time `keep`.
    pub(super) fn leave(&mut self, keep: Duration) {
        self.state = match mem::replace(&mut self.state, State::Left) {
            State::Starting { start, events } => {
                drop(start);
                State::Leaving(tokio::spawn(cancelled(events)))
            }
            State::Running(cluster) => {
                State::Leaving(tokio::spawn(async move { cluster.stop_for_restart(keep).await }))
            }
            other => other,
        };
    }

    /// Leaves, unless it has already, and waits until it has left.
    pub(super) async fn left(&mut self, keep: Duration) {
        self.leave(keep);
        while !matches!(self.state, State::Left) {
            self.next().await;
        }
    }
}

/// Returns the step of a node that ended by itself.
fn ended(reason: &StopReason, text: String) -> Step {
    match reason {
        StopReason::Drained { .. } => Step::Drained,
        // Other nodes have another number of slots: --exclusive is wrong.
        StopReason::SlotCount { .. } => Step::Ended(Failure::unknown(text)),
        _ => Step::Ended(Failure::with_code(ENDED, text)),
    }
}

/// Waits until a node whose start was cancelled has ended in the background.
async fn cancelled(mut events: Events) -> Result<(), StopError> {
    let ended = async { while !matches!(events.recv().await, Err(EventsError::Ended)) {} };
    let _ = tokio::time::timeout(CANCEL, ended).await;
    Ok(())
}
