use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    callbacks,
    clock::Clock,
    error::InCallback,
    events::Hub,
    own::Own,
    repliers::{Answer, Repliers},
    status::{Known, Publisher},
};
use crate::{
    keyspace::Keyspace,
    machine::{Input, Machine, RequestError, RequestId, Status},
    store::CoordinationStore,
};

/// State shared by the driver and its handles.
///
/// The machine's lock is never held across an await, nor while foreign code runs: no callback, closure, waker, recorder
/// or subscriber.
pub(crate) struct Shared {
    machine: Mutex<Machine>,
    pub(crate) keyspace: Keyspace,
    pub(crate) store: Arc<dyn CoordinationStore>,
    /// The node's published status. The driver owns the publisher, so watches close when the node has ended.
    pub(crate) known: Known,
    pub(crate) hub: Arc<Hub>,
    /// Cancelled once the driver and all tasks that it started have ended.
    pub(crate) ended: CancellationToken,
}

impl Shared {
    pub(crate) fn new(
        machine: Machine,
        store: Arc<dyn CoordinationStore>,
        clock: Clock,
        hub: Arc<Hub>,
    ) -> (Self, Publisher) {
        let (known, publisher) = Known::new(machine.status(clock.now()), clock, Own::of(&machine));
        let shared = Shared {
            keyspace: machine.keyspace().clone(),
            machine: Mutex::new(machine),
            store,
            known,
            hub,
            ended: CancellationToken::new(),
        };
        (shared, publisher)
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the address of this state, which identifies the node in this process.
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Returns an error inside the node's own callbacks, which must not wait for the node.
    pub(crate) fn may_wait(&self) -> Result<(), InCallback> {
        if callbacks::is_within(self.address()) { Err(InCallback) } else { Ok(()) }
    }

    /// Returns the machine's current status.
    pub(crate) fn status_now(&self) -> Status {
        self.machine().status(self.known.clock.now())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("keyspace", &self.keyspace).finish_non_exhaustive()
    }
}

/// A command from a handle to the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Request(MakeRequest),
    Stop {
        /// Time for which the slots of the node wait for it.
        keep: Duration,
    },
}

/// Registers the reply channel of a request, and creates its input with the number that the request was given.
pub(crate) struct MakeRequest(pub(crate) Box<dyn FnOnce(&mut Repliers) -> Input + Send>);

impl fmt::Debug for MakeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MakeRequest")
    }
}

/// Keeps a driver running. When the last handle is dropped, the node leaves, provided that the runtime keeps running.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    /// Sends a request to the machine and waits for the reply. Dropping the future does not cancel the request.
    pub(crate) async fn request<T: Answer>(
        &self,
        make: impl FnOnce(RequestId) -> Input + Send + 'static,
    ) -> Result<T, RequestError> {
        let answer = self.send(make)?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Sends a request that may take effect only after the node's callbacks have returned. Waits for the reply, except
    /// inside one of these callbacks.
    pub(crate) async fn request_outside(
        &self,
        make: impl FnOnce(RequestId) -> Input + Send + 'static,
    ) -> Result<(), RequestError> {
        if self.shared.may_wait().is_ok() {
            return self.request(make).await;
        }
        self.send::<()>(make)?;
        Err(RequestError::InCallback)
    }

    /// Sends a request to the machine. Returns the channel for the reply.
    fn send<T: Answer>(
        &self,
        make: impl FnOnce(RequestId) -> Input + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, RequestError>>, RequestError> {
        let (replier, answer) = oneshot::channel();
        let make = move |repliers: &mut Repliers| make(repliers.add(replier));
        let command = Command::Request(MakeRequest(Box::new(make)));
        self.commands.send(command).map_err(|_| self.gone())?;
        Ok(answer)
    }

    fn gone(&self) -> RequestError {
        RequestError::Stopped(self.shared.known.stop_reason())
    }

    /// Tells the node to leave and to end. Its slots wait for it for the time `keep`.
    pub(crate) fn begin_stop(&self, keep: Duration) {
        // An error only means that the driver has already ended.
        let _ = self.commands.send(Command::Stop { keep });
    }

    /// Ends the node, and waits until all its tasks have ended.
    pub(crate) async fn stop(&self) {
        self.begin_stop(Duration::ZERO);
        self.shared.ended.cancelled().await;
    }
}
