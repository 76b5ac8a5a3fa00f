use std::{
    collections::HashSet,
    fmt::Display,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::process::Pid;

/// A shell that outlives this process, and kills the processes that this one started if it is killed itself.
///
/// Otherwise a program would keep working on keys that other nodes have taken over.
#[derive(Debug)]
pub(crate) struct Guardian {
    input: Mutex<ChildStdin>,
    /// Processes that this process started and will wait for.
    children: Mutex<HashSet<Pid>>,
}

impl Guardian {
    /// Starts the shell, without the environment variables in `secrets`.
    pub(crate) fn start(secrets: &[&str]) -> io::Result<Arc<Self>> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", include_str!("guardian.sh"), "clustering-guardian"]);
        // The shell must not keep the output open: readers may wait for its end.
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        for secret in secrets {
            shell.env_remove(secret);
        }
        let mut shell = shell.spawn()?;
        let input = shell.stdin.take().ok_or_else(|| io::Error::other("the guardian has no input"))?;
        Ok(Arc::new(Guardian { input: Mutex::new(input), children: Mutex::default() }))
    }

    /// Registers a folder that is removed once this process has ended.
    pub(crate) fn watch_folder(&self, folder: &Path) {
        self.tell('+', "dir", folder.display());
    }

    /// Calls `spawn`, and registers the process that it starts together with the process's group.
    pub(crate) fn watch_child<T>(
        &self,
        spawn: impl FnOnce() -> io::Result<(T, Pid)>,
    ) -> io::Result<(T, Pid)> {
        let mut children = self.children();
        let (child, id) = spawn()?;
        children.insert(id);
        drop(children);
        self.tell('+', "pid", id.as_raw_nonzero());
        Ok((child, id))
    }

    /// Removes a process that has ended.
    pub(crate) fn forget_child(&self, id: Pid) {
        self.tell('-', "pid", id.as_raw_nonzero());
        self.children().remove(&id);
    }

    /// Calls `look` with the registered processes. No process is started meanwhile.
    pub(crate) fn with_children(&self, look: impl FnOnce(&HashSet<Pid>)) {
        look(&self.children());
    }

    fn children(&self) -> MutexGuard<'_, HashSet<Pid>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, sign: char, kind: &str, what: impl Display) {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        // If someone has killed the guardian, the commands still work.
        let _ = input.write_all(format!("{sign} {kind} {what}\n").as_bytes());
    }
}
