use std::{
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

/// A resource that a test process must not leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// A process with its whole process group.
    Process(u32),
    /// A folder with its contents.
    Folder(String),
    /// A container, identified by its name.
    #[cfg(feature = "container")]
    Container(String),
}

impl Kept {
    fn line(&self, sign: char) -> io::Result<String> {
        let (kind, what) = match self {
            Self::Process(pid) => ("pid", &pid.to_string()),
            Self::Folder(path) => ("dir", path),
            #[cfg(feature = "container")]
            Self::Container(name) => ("run", &removal(name)),
        };
        if what.is_empty() || what.contains('\n') {
            return Err(io::Error::other(format!(
                "{what:?} cannot be sent to the guardian, because it is empty or has several lines"
            )));
        }
        Ok(format!("{sign} {kind} {what}\n"))
    }
}

/// Returns the shell command that removes a container. Retries, because Docker may still be executing its last command.
#[cfg(feature = "container")]
fn removal(name: &str) -> String {
    let remove = format!("docker rm --force --volumes -- {name}");
    let is_left = format!("docker container inspect -- {name}");
    format!("for try in 1 2 3; do {remove}; {is_left} || break; sleep 1; done")
}

/// Registers a resource with the guardian of this process, which removes it when this process ends in any way.
///
/// Register a resource before creating it. If it is never created, this does no harm.
pub(crate) fn keep(kept: &Kept) -> io::Result<()> {
    tell(&kept.line('+')?)
}

/// Unregisters a resource that no longer exists.
pub(crate) fn release(kept: &Kept) {
    // If the guardian is gone, the resource is not registered anyway.
    let _ = kept.line('-').and_then(|line| tell(&line));
}

/// Returns the process id of the guardian, and starts it if necessary. The guardian ends after it has cleaned up.
pub(crate) fn pid() -> io::Result<u32> {
    Ok(guardian()?.pid)
}

/// The shell that cleans up after this test process. It has its own process group, because the signals that end a test
/// after a timeout are sent to the test's group.
struct Guardian {
    pid: u32,
    input: Mutex<ChildStdin>,
}

fn guardian() -> io::Result<&'static Guardian> {
    static GUARDIAN: OnceLock<Result<Guardian, String>> = OnceLock::new();
    let started = GUARDIAN.get_or_init(|| {
        let mut shell = Command::new("/bin/sh");
        // The script is a symbolic link to that of `clustering run`, whose guardian has the same task.
        shell.args(["-c", include_str!("guardian.sh"), "clustering-testkit-guardian"]);
        // The guardian must not hold the test's output open, because a test runner may wait for the output to end.
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut shell = shell.spawn().map_err(|error| format!("cannot start /bin/sh: {error}"))?;
        let input = shell.stdin.take().ok_or("the guardian has no input")?;
        // The guardian is never reaped here, because it ends after this process.
        Ok(Guardian { pid: shell.id(), input: Mutex::new(input) })
    });
    started.as_ref().map_err(|why| io::Error::other(why.clone()))
}

fn tell(line: &str) -> io::Result<()> {
    let mut input = guardian()?.input.lock().unwrap_or_else(PoisonError::into_inner);
    input
        .write_all(line.as_bytes())
        .map_err(|error| io::Error::other(format!("the guardian of this test process is gone: {error}")))
}
