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

/// How many lines of its output a process shows when something fails. A program that does not know its arguments says
/// so first, and then explains itself at length.
const FIRST_LINES: usize = 3;
const LAST_LINES: usize = 20;

/// A command to run as a [`Process`].
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

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Lets it inherit nothing of the environment but `PATH` and `TMPDIR`. Those set after this call stay.
    pub fn clean_env(mut self) -> Self {
        self.command.env_clear();
        for name in ["PATH", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                self.command.env(name, value);
            }
        }
        self
    }

    /// Appends its output to this file. By default it has a temporary one.
    pub fn log_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Gives it an input that [`Process::write`] writes to, and that ends when the [`Process`] is dropped. By default
    /// it is empty.
    pub fn with_input(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// Starts it.
    ///
    /// A program that is not there shows as a process that ends at once with code 127, and a log that says so.
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
        // From here on the child's end is the waiting thread's business, also when a step fails.
        let process = Process::wait_for(child, self.program, kept.clone(), folder, path)?;
        guardian::keep(&kept)?;
        // The shell holds the program back until the guardian knows of it: if this process ends before that, the
        // shell's input ends, and the program never starts.
        let mut stdin = stdin.ok_or_else(|| io::Error::other("the process has no input"))?;
        stdin.write_all(b"\n")?;
        if self.stdin {
            *process.stdin.lock().unwrap_or_else(PoisonError::into_inner) = Some(stdin);
        }
        Ok(process)
    }
}

/// A process for a test, which never outlives it: it is killed when this is dropped, and when the test process ends,
/// by whatever means, `SIGKILL` too.
///
/// It has a process group of its own. All verbs reach the group, so also what the process started.
pub struct Process {
    program: OsString,
    pid: Pid,
    /// None when it has ended: its id may be another's then.
    running: Arc<Mutex<Option<Child>>>,
    ended: watch::Receiver<Option<ExitStatus>>,
    waiting: Option<JoinHandle<()>>,
    stdin: Mutex<Option<ChildStdin>>,
    log: PathBuf,
    _folder: Option<Folder>,
}

impl Process {
    /// A process to be that runs this program, found on the `PATH` unless it is a path.
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
                // Sees the end, and leaves the id taken until nobody can signal it any more.
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

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.ended.borrow()
    }

    /// Waits until it ends, and says how.
    pub async fn wait(&self) -> io::Result<ExitStatus> {
        let mut ended = self.ended.clone();
        let status = ended.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        status.ok_or_else(|| io::Error::other(format!("nobody knows how {self:?} ended")))
    }

    /// Stops it in its tracks (`SIGSTOP`), and returns when it stands still. Its connections stay open, and nothing
    /// answers.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        // Either it has stopped, or it has ended.
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

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end (`SIGTERM`). It may take its time: [`wait`](Self::wait) for it.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        // Paused, it would not notice.
        self.signal(Signal::CONT)
    }

    /// Ends it at once (`SIGKILL`), and returns when it is gone. No error if it has ended before.
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

    /// Writes to its input, if it was given [one](ProcessBuilder::with_input).
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        let stdin = stdin.as_mut().ok_or_else(|| io::Error::other(format!("{self:?} has no input")))?;
        stdin.write_all(bytes)
    }

    /// How its output begins and ends, to show when something fails.
    pub fn log(&self) -> String {
        excerpt(&self.log)
    }

    /// The file with all of its output.
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

/// How a file begins and ends, or why that cannot be read.
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
