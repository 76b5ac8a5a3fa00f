use std::{fs, io, sync::Arc};

use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, waitid};
use tokio::signal::unix::{SignalKind, signal};

use crate::group::Guardian;

/// Reaps processes that hooks and the program left behind, if this process is the first of a container: the system makes
/// them its children when their parents end, and without that they stay as zombies until the container has no more processes.
pub(super) fn reap(guardian: Arc<Guardian>) -> io::Result<()> {
    if !getpid().is_init() {
        return Ok(());
    }
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while ended.recv().await.is_some() {
            guardian.while_none_starts(|own| {
                for orphan in zombies().filter(|zombie| !own.contains(zombie)) {
                    // Only what is known by its id, so never a process that somebody waits for.
                    let _ = waitid(WaitId::Pid(orphan), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
                }
            });
        }
    });
    Ok(())
}

/// The children of this process that have ended, and that nobody has waited for.
fn zombies() -> impl Iterator<Item = Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.filter(|id| is_zombie_of(getpid(), *id)).filter_map(Pid::from_raw)
}

fn is_zombie_of(parent: Pid, id: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { return false };
    // Behind the name, which may have anything in it: the state and the parent.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_whitespace();
    fields.next() == Some("Z") && fields.next() == Some(&parent.to_string())
}
