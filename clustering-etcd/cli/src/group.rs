use std::{io, process::ExitStatus, sync::Arc, time::Duration};

use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group};
use tokio::process::{Child, Command};

use crate::guardian::Guardian;

/// A child process in a process group of its own, together with all processes that it starts. The group is killed when
/// this is dropped.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    id: Pid,
    ended: bool,
    guardian: Arc<Guardian>,
}

impl Group {
    pub(crate) fn spawn(command: &mut Command, guardian: &Arc<Guardian>) -> io::Result<Self> {
        let (child, id) = guardian.watch_child(|| {
            let child = command.process_group(0).spawn()?;
            let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
            Ok((child, id.ok_or_else(|| io::Error::other("the process ended at once"))?))
        })?;
        Ok(Group { child, id, ended: false, guardian: guardian.clone() })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until the child has ended. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        if !self.ended {
            self.ended = true;
            self.guardian.forget_child(self.id);
        }
        status
    }

    /// Sends the signal to the whole group. Does nothing if the child has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if !self.ended {
            // Fails only if the group has just ended.
            let _ = kill_process_group(self.id, signal);
        }
    }

    /// Ends the group with SIGTERM, and with SIGKILL if the child has not ended after `grace`.
    pub(crate) async fn end(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        // A paused process would not notice SIGTERM.
        self.signal(Signal::CONT);
        if let Ok(status) = tokio::time::timeout(grace, self.wait()).await {
            return status;
        }
        self.signal(Signal::KILL);
        self.wait().await
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if !self.ended {
            self.guardian.forget_child(self.id);
        }
    }
}

/// Pauses this process.
pub(crate) fn pause_this() {
    // A process may always signal itself.
    let _ = kill_process(getpid(), Signal::STOP);
}
