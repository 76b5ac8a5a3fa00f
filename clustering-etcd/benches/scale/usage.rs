//! Resource usage of a process.

use std::{fs, time::Duration};

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Clock ticks per second of the CPU times that Linux reports to user space.
const TICKS: u64 = 100;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Resident memory in bytes, including freed memory that the allocator keeps.
    pub(crate) memory: u64,
    /// Allocated memory in bytes. Known only for this process.
    pub(crate) heap: u64,
    /// CPU time of the whole process.
    pub(crate) processor: Duration,
}

impl Usage {
    /// Returns the usage of this process. Values that the system does not provide are zero.
    pub(crate) fn own() -> Self {
        let memory = kib("/proc/self/status", "VmRSS:") * 1024;
        Usage {
            memory,
            heap: ALLOCATOR.current_usage() as u64,
            processor: processor("self", &[UTIME, STIME]),
        }
    }

    /// Returns the usage of a server: of the process with this id and of its children, which in PostgreSQL serve the
    /// connections. Shared memory is counted once.
    pub(crate) fn of_server(pid: u32) -> Self {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().into_string().ok());
        let parent = pid.to_string();
        let children: Vec<_> = pids.filter(|pid| stat(pid).get(PARENT) == Some(&parent)).collect();
        let memory = |pid: &String| kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:") * 1024;
        let memory = children.iter().chain([&parent]).map(memory).sum();
        let running: Duration = children.iter().map(|child| processor(child, &[UTIME, STIME])).sum();
        // Includes the children that have ended.
        let processor = processor(&parent, &[UTIME, STIME, CUTIME, CSTIME]) + running;
        Usage { memory, heap: 0, processor }
    }
}

/// Indices into the fields that [`stat`] returns.
const PARENT: usize = 1;
const UTIME: usize = 11;
const STIME: usize = 12;
const CUTIME: usize = 13;
const CSTIME: usize = 14;

/// Returns the fields of `/proc/PID/stat` after the program's name, which may itself contain spaces and parentheses.
fn stat(pid: &str) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().map(str::to_owned).collect()
}

/// Returns the sum of the CPU times in these fields of `/proc/PID/stat`.
fn processor(pid: &str, times: &[usize]) -> Duration {
    let stat = stat(pid);
    let ticks = times.iter().filter_map(|time| stat.get(*time)?.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// Returns the value, in KiB, of the line that starts with this name; zero if there is none.
fn kib(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value =
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    value.unwrap_or(0)
}
