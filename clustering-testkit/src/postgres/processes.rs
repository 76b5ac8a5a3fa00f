use std::{fs, io, path::Path};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Kept, keep, release};

/// Returns the children of a server: its connections and helper processes. They are not in the server's process group.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may contain spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

pub(super) fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The process may have ended already.
        let _ = kill_process(pid, signal);
    }
}

/// The frozen processes of a server. Each has a process group of its own and cannot notice the end of the server, so it
/// must be killed by itself if the test ends now.
#[derive(Default)]
pub(super) struct Frozen(Vec<u32>);

impl Frozen {
    pub(super) fn freeze(&mut self, pids: Vec<u32>) -> io::Result<()> {
        for pid in pids {
            keep(&Kept::Process(pid))?;
            self.0.push(pid);
            signal(pid, Signal::STOP);
        }
        Ok(())
    }

    pub(super) fn thaw(&mut self) {
        for pid in self.0.drain(..) {
            signal(pid, Signal::CONT);
            release(&Kept::Process(pid));
        }
    }
}
