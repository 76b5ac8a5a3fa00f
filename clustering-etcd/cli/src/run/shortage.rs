//! Local shortages of resources. These errors of the operating system are temporary, and say nothing about the health
//! of the program.

use std::{future::Future, io, time::Duration};

use rustix::io::Errno;
use serde_json::json;

use super::log::Log;

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Repeats `attempt` while this process lacks file descriptors, memory, processes or ports for it, and logs that once.
///
/// Has no time limit: health checks have a deadline, and other hooks may take as long as they need.
pub(crate) async fn wait_out<T, F>(log: &Log, what: &str, mut attempt: impl FnMut() -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut logged = false;
    loop {
        match attempt().await {
            Err(error) if is_shortage(&error) => {
                if !logged {
                    let text = format!("{what} has to wait: {error}; trying again");
                    log.say(&text, "shortage", json!({ "what": what, "reason": error.to_string() }));
                    logged = true;
                }
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

fn is_shortage(error: &io::Error) -> bool {
    let shortages = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        // A fork over the limit of processes, or a connection when all local ports are taken.
        Errno::AGAIN,
        Errno::ADDRNOTAVAIL,
    ];
    error.raw_os_error().is_some_and(|code| shortages.contains(&Errno::from_raw_os_error(code)))
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready};

    use super::*;

    fn errors(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    #[tokio::test(start_paused = true)]
    async fn a_shortage_is_waited_out_and_any_other_error_is_returned() {
        let log = Log::new("a", false);
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN] {
            let calls = Cell::new(0);
            let attempt = || {
                calls.set(calls.get() + 1);
                ready(if calls.get() < 4 { Err(errors(errno)) } else { Ok(calls.get()) })
            };
            assert_eq!(wait_out(&log, "the hook", attempt).await.unwrap(), 4, "{errno}");
        }
        for errno in [Errno::NOENT, Errno::CONNREFUSED, Errno::ACCESS] {
            let failed = wait_out(&log, "the hook", || ready(Err::<(), _>(errors(errno)))).await;
            assert_eq!(failed.unwrap_err().raw_os_error(), Some(errno.raw_os_error()));
        }
    }
}
