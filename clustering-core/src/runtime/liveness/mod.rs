//! Connections between processes, which reveal a crash before the lease ends.
//!
//! With [crash detection](crate::CrashDetection), a process listens on a TCP port, and its record names the port and
//! the identity of the process. The [`Listener`](listener) answers each connection with that identity and keeps the
//! connection open. The [`Watcher`](watcher) connects to the processes that the machine tells it to watch, and waits
//! for the connection to break: the kernel closes the sockets of a process that ends.
//!
//! This module only reports that a process is gone. The machine decides what follows from it.

mod advertise;
mod hello;
mod keep_alive;
mod listener;
#[cfg(test)]
mod tests;
mod watcher;

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

pub(super) use self::{
    advertise::{advertised_host, with_port},
    listener::{Listener, Presence},
};
use self::{hello::Hello, watcher::Watcher};
use super::spawn::spawn_sockets;
use crate::{
    machine::Input,
    node::{Endpoint, ProcessId},
};

/// The listener of a process and its connections to other processes.
pub(super) struct Liveness {
    listener: Option<AbortOnDropHandle<()>>,
    watcher: Watcher,
    presence: Option<Presence>,
}

impl Liveness {
    /// Starts to answer connections with the identity of this process, if it has a listener.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub(super) fn start(own: Option<(Listener, ProcessId)>) -> Self {
        let presence = own.as_ref().map(|(listener, _)| listener.presence());
        let listener = own
            .map(|(listener, process)| spawn_sockets(&Handle::current(), listener.serve(Hello::of(process))));
        Liveness { listener, watcher: Watcher::new(), presence }
    }

    /// Returns a guard that keeps the socket open. Keep it for as long as the process may hold keys.
    pub(super) fn presence(&self) -> Option<Presence> {
        self.presence.clone()
    }

    /// Watches exactly the processes at these endpoints from now on.
    pub(super) fn watch(&mut self, endpoints: Vec<Endpoint>) {
        self.watcher.watch(endpoints);
    }

    /// Waits until a process is gone. Cancel safe.
    pub(super) async fn next_report(&mut self) -> Input {
        self.watcher.next_report().await
    }

    /// Closes all sockets, and waits until that is done.
    pub(super) async fn end(&mut self) {
        self.watcher.end().await;
        if let Some(listener) = self.listener.take() {
            listener.abort();
            // An error only means that the task was aborted.
            let _ = listener.await;
        }
        self.presence = None;
    }
}
