use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::watch;

use super::{
    Folder,
    guardian::{self, Kept},
};

/// Number of lines of output shown in errors. The first lines matter because a program with wrong arguments reports the
/// error first and then prints a long usage text.
const FIRST_LINES: usize = 3;
const LAST_LINES: usize = 20;

/// Builder for a [`Process`].
#[derive(Debug)]
pub struct ProcessBuilder {
    program: OsString,
    command: Command,
    log: Option<PathBuf>,
    stdin: bool,
}

impl ProcessBuilder {
    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Clears the environment except for `PATH` and `TMPDIR`. Variables that are set after this call are kept.
    pub fn clean_env(mut self) -> Self {
        self.command.env_clear();
        for name in ["PATH", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                self.command.env(name, value);
            }
        }
        self
    }

    /// Appends the output to this file. The default is a temporary file.
    pub fn log_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Connects the standard input to [`Process::write`]. The input ends when the [`Process`] is dropped. The default
    /// is an empty input.
    pub fn with_input(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// Starts the process.
    ///
    /// If the program does not exist, the process ends at once with code 127 and a message in the log.
    pub fn spawn(mut self) -> io::Result<Process> {
        let (folder, path) = match self.log {
            Some(path) => (None, path),
            None => {
                let folder = Folder::new()?;
                let path = folder.path().join("log");
                (Some(folder), path)
            }
        };
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        self.command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut child = self.command.spawn()?;
        let kept = Kept::Process(child.id());
        let stdin = child.stdin.take();
        // From here on the waiting thread reaps the child, even if a later step fails.
        let process = Process::wait_for(child, self.program, kept.clone(), folder, path)?;
        guardian::keep(&kept)?;
        // The shell delays the program until the guardian knows about it. If this process ends before that, the shell's
        // input ends and the program never starts.
        let mut stdin = stdin.ok_or_else(|| io::Error::other("the process has no input"))?;
        stdin.write_all(b"\n")?;
        if self.stdin {
            *process.stdin.lock().unwrap_or_else(PoisonError::into_inner) = Some(stdin);
        }
        Ok(process)
    }
}

/// A process for a test that never outlives the test. It is killed when this is dropped, and when the test process ends
/// in any way, including `SIGKILL`.
///
/// The process has its own process group. All operations apply to the group and therefore to its children too.
pub struct Process {
    program: OsString,
    pid: Pid,
    /// The child, or `None` after its end, when the system may reuse its id.
    running: Arc<Mutex<Option<Child>>>,
    ended: watch::Receiver<Option<ExitStatus>>,
    waiting: Option<JoinHandle<()>>,
    stdin: Mutex<Option<ChildStdin>>,
    log: PathBuf,
    _folder: Option<Folder>,
}

impl Process {
    /// Returns a builder for a process that runs this program. The program is searched on the `PATH` unless it is a
    /// path.
    pub fn builder(program: impl AsRef<OsStr>) -> ProcessBuilder {
        let program = program.as_ref().to_owned();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"IFS= read -r go && exec "$@""#, "clustering-testkit-process"]).arg(&program);
        ProcessBuilder { program, command, log: None, stdin: false }
    }

    fn wait_for(
        child: Child,
        program: OsString,
        kept: Kept,
        folder: Option<Folder>,
        log: PathBuf,
    ) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        let running = Arc::new(Mutex::new(Some(child)));
        let (ends, ended) = watch::channel(None);
        let waiting = thread::Builder::new().name("testkit-process".into()).spawn({
            let running = Arc::clone(&running);
            move || {
                // Wait without reaping, so that the id stays taken until no other thread can signal it.
                while let Err(rustix::io::Errno::INTR) =
                    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
                {}
                let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = kill_process_group(pid, Signal::KILL);
                guardian::release(&kept);
                let status = running.take().and_then(|mut child| child.wait().ok());
                ends.send_replace(status);
            }
        });
        let waiting = Some(waiting?);
        Ok(Self { program, pid, running, ended, waiting, stdin: Mutex::new(None), log, _folder: folder })
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Returns the exit status if the process has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.ended.borrow()
    }

    /// Waits until the process ends and returns its exit status.
    pub async fn wait(&self) -> io::Result<ExitStatus> {
        let mut ended = self.ended.clone();
        let status = ended.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        status.ok_or_else(|| io::Error::other(format!("the exit status of {self:?} is unknown")))
    }

    /// Freezes the process with `SIGSTOP`, and returns once it has stopped. Its connections stay open, but nothing
    /// answers on them.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        // Returns when the process has either stopped or ended.
        loop {
            match waitid(
                WaitId::Pid(self.pid),
                WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            ) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Resumes the process after [`pause`](Self::pause).
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks the process to end with `SIGTERM`, without waiting for that. Use [`wait`](Self::wait) to wait for its end.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        // A paused process would not notice the signal. Any other may have ended because of it.
        self.signal_if_running(Signal::CONT).map(drop)
    }

    /// Kills the process with `SIGKILL` and waits until it has ended. Succeeds if it had ended before.
    pub async fn kill(&self) -> io::Result<ExitStatus> {
        self.signal_if_running(Signal::KILL)?;
        self.wait().await
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.signal_if_running(signal)? {
            true => Ok(()),
            false => Err(io::Error::other(format!("{self:?} has ended"))),
        }
    }

    fn signal_if_running(&self, signal: Signal) -> io::Result<bool> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            return Ok(false);
        }
        kill_process_group(self.pid, signal)?;
        Ok(true)
    }

    /// Writes to the standard input, which must have been [connected](ProcessBuilder::with_input).
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        let stdin = stdin.as_mut().ok_or_else(|| io::Error::other(format!("{self:?} has no input")))?;
        stdin.write_all(bytes)
    }

    /// Returns the beginning and the end of the output, for error messages.
    pub fn log(&self) -> String {
        excerpt(&self.log)
    }

    /// Returns the path of the file with the whole output.
    pub fn log_path(&self) -> &Path {
        &self.log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.signal_if_running(Signal::KILL);
        if let Some(waiting) = self.waiting.take() {
            let _ = waiting.join();
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {}", self.program.display(), self.pid())?;
        match self.ended() {
            Some(status) => write!(f, ", {status})"),
            None => f.write_str(")"),
        }
    }
}

/// Returns the beginning and the end of a file, or the error if it cannot be read.
pub(crate) fn excerpt(path: &Path) -> String {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return format!("{}: {error}", path.display()),
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    match lines.len().checked_sub(FIRST_LINES + LAST_LINES) {
        None | Some(0) => lines.join("\n"),
        Some(more) => format!(
            "{}\n... {more} lines ...\n{}",
            lines[..FIRST_LINES].join("\n"),
            lines[lines.len() - LAST_LINES..].join("\n")
        ),
    }
}
