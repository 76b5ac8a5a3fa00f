use std::{
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

/// What a test process must not leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// A process, and all of its process group.
    Process(u32),
    /// A folder with all that is in it.
    Folder(String),
    /// A container, by its name.
    #[cfg(feature = "container")]
    Container(String),
}

impl Kept {
    fn line(&self, sign: char) -> io::Result<String> {
        let (kind, what) = match self {
            Self::Process(pid) => ("pid", &pid.to_string()),
            Self::Folder(path) => ("dir", path),
            #[cfg(feature = "container")]
            Self::Container(name) => ("container", name),
        };
        if what.is_empty() || what.contains('\n') {
            return Err(io::Error::other(format!("{what:?} cannot be told to the guardian as one line")));
        }
        Ok(format!("{sign} {kind} {what}\n"))
    }
}

/// Has the guardian of this process look after it: whatever ends this process, `kept` goes too.
///
/// Tell it before there is anything to look after; what never comes to be does no harm.
pub(crate) fn keep(kept: &Kept) -> io::Result<()> {
    tell(&kept.line('+')?)
}

/// The guardian need not look after it any longer.
pub(crate) fn release(kept: &Kept) {
    // A guardian that is gone looks after nothing.
    let _ = kept.line('-').and_then(|line| tell(&line));
}

/// The process id of the guardian, which starts with the first thing to look after. It ends when it has cleaned up.
pub(crate) fn pid() -> io::Result<u32> {
    Ok(guardian()?.pid)
}

/// One shell for each test process, in a process group of its own: the signals that end a test that takes too long go
/// to the test's group.
struct Guardian {
    pid: u32,
    input: Mutex<ChildStdin>,
}

fn guardian() -> io::Result<&'static Guardian> {
    static GUARDIAN: OnceLock<Result<Guardian, String>> = OnceLock::new();
    let started = GUARDIAN.get_or_init(|| {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", include_str!("guardian.sh"), "clustering-testkit-guardian"]);
        // It must not hold the test's output open, for whoever waits until that ends.
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut shell = shell.spawn().map_err(|error| format!("/bin/sh does not start: {error}"))?;
        let input = shell.stdin.take().ok_or("the guardian has no input")?;
        // Nobody waits for it: it ends after this process.
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
