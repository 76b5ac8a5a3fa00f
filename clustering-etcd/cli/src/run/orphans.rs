use std::{fs, io, sync::Arc};

use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, waitid};
use tokio::signal::unix::{SignalKind, signal};

use crate::guardian::Guardian;

/// Reaps orphaned processes of hooks and the program, if this process is the first of a container (PID 1). The system
/// makes orphans its children. If they were not reaped, they would remain as zombies and use up the container's process
/// limit.
pub(super) fn reap(guardian: Arc<Guardian>) -> io::Result<()> {
    if !getpid().is_init() {
        return Ok(());
    }
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while ended.recv().await.is_some() {
            guardian.with_children(|children| {
                for orphan in zombies().filter(|zombie| !children.contains(zombie)) {
                    // Waits for specific ids only, so it never reaps a process that other code waits for.
                    let _ = waitid(WaitId::Pid(orphan), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
                }
            });
        }
    });
    Ok(())
}

/// Returns the children of this process that have ended and have not been waited for.
fn zombies() -> impl Iterator<Item = Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.filter(|id| is_zombie_of(getpid(), *id)).filter_map(Pid::from_raw)
}

fn is_zombie_of(parent: Pid, id: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { return false };
    // The state and the parent follow the name, which may contain any character.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_whitespace();
    fields.next() == Some("Z") && fields.next() == Some(&parent.to_string())
}
