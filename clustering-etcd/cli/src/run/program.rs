use std::{future, io, process::ExitStatus, time::Duration};

use rustix::process::{Signal, getpid};

use crate::group::{Group, pause_this};

/// The program, which may not have started yet.
#[derive(Default)]
pub(super) struct Program(Option<Group>);

impl Program {
    pub(super) fn is_started(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn started(&mut self, group: Group) {
        self.0 = Some(group);
    }

    /// Waits until the program has ended. Cancel safe.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.0 {
            Some(group) => group.wait().await,
            None => future::pending().await,
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = &self.0 {
            group.signal(signal);
        }
    }

    /// Pauses the program and then this process, as a shell expects from a job that it pauses. If the program kept
    /// running, it would outlive its node's session. The signal that continues this process is passed on like other
    /// signals.
    ///
    /// As the first process of a container, this process cannot be paused from within. In that case neither is paused.
    pub(super) fn pause_with_this(&self) {
        if getpid().is_init() {
            return;
        }
        self.signal(Signal::STOP);
        pause_this();
    }

    /// Ends the program with SIGTERM, and after `grace` with SIGKILL.
    pub(super) async fn end(&mut self, grace: Duration) {
        if let Some(group) = &mut self.0 {
            let _ = group.end(grace).await;
        }
    }
}
