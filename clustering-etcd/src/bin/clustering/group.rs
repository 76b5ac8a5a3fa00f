use std::{
    collections::HashSet,
    fmt::Display,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdin, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group};
use tokio::process::{Child, Command};

use crate::connection;

/// Ends the processes that this one started, if this one is killed before it can.
///
/// A program that goes on while its node is long gone would work on keys that others have taken over.
#[derive(Debug)]
pub(crate) struct Guardian {
    input: Mutex<ChildStdin>,
    /// Processes that this process started and waits for.
    own: Mutex<HashSet<Pid>>,
}

impl Guardian {
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", include_str!("guardian.sh"), "clustering-guardian"]);
        // It must not hold the output open, for whoever waits until that ends.
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        for secret in connection::secrets() {
            shell.env_remove(secret);
        }
        let mut shell = shell.spawn()?;
        let input = shell.stdin.take().ok_or_else(|| io::Error::other("the guardian has no input"))?;
        Ok(Arc::new(Guardian { input: Mutex::new(input), own: Mutex::default() }))
    }

    /// Removes that folder in the end, if it is still there.
    pub(crate) fn remove(&self, folder: &Path) {
        self.tell('r', folder.display());
    }

    /// Calls `look` with the processes that this process waits for. No process is started meanwhile.
    pub(crate) fn while_none_starts(&self, look: impl FnOnce(&HashSet<Pid>)) {
        look(&self.own());
    }

    fn own(&self) -> MutexGuard<'_, HashSet<Pid>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, sign: char, what: impl Display) {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is gone looks after nothing.
        let _ = input.write_all(format!("{sign} {what}\n").as_bytes());
    }
}

/// A process with all that it started, in a process group of its own. It is killed if this is dropped.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    id: Pid,
    ended: bool,
    guardian: Arc<Guardian>,
}

impl Group {
    pub(crate) fn spawn(command: &mut Command, guardian: &Arc<Guardian>) -> io::Result<Self> {
        let mut own = guardian.own();
        let child = command.process_group(0).spawn()?;
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let id = id.ok_or_else(|| io::Error::other("the process ended at once"))?;
        own.insert(id);
        drop(own);
        guardian.tell('+', id.as_raw_nonzero());
        Ok(Group { child, id, ended: false, guardian: guardian.clone() })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until it has ended. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        if !self.ended {
            self.ended = true;
            self.forget();
        }
        status
    }

    /// Sends the signal to all of the group.
    pub(crate) fn signal(&self, signal: Signal) {
        if !self.ended {
            // Whoever has ended needs none.
            let _ = kill_process_group(self.id, signal);
        }
    }

    fn forget(&self) {
        self.guardian.tell('-', self.id.as_raw_nonzero());
        self.guardian.own().remove(&self.id);
    }

    /// Asks it to end, waits for so long, and then ends it.
    pub(crate) async fn end(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        // Paused, it would not notice.
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
            self.forget();
        }
    }
}

/// Pauses this process.
pub(crate) fn pause_this() {
    // A process may always signal itself.
    let _ = kill_process(getpid(), Signal::STOP);
}
