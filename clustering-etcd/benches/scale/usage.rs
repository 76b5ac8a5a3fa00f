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
    /// Returns the usage of the process with this pid, or of the current one. Values that the system does not provide
    /// are zero.
    pub(crate) fn of(pid: Option<u32>) -> Self {
        let folder = pid.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
        let status = fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        let stat = fs::read_to_string(format!("{folder}/stat")).unwrap_or_default();
        // The name in parentheses may contain anything. After it come fields 3 and following.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |place: usize| fields.get(place).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
        let millis = (ticks(11) + ticks(12)) * 1000 / TICKS;
        let heap = if pid.is_none() { ALLOCATOR.current_usage() as u64 } else { 0 };
        Usage { memory: kib.unwrap_or(0) * 1024, heap, processor: Duration::from_millis(millis) }
    }
}
