//! What a process takes of its machine.

use std::{fs, time::Duration};

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Clock ticks of a second, as Linux counts processor time for users.
const TICKS: u64 = 100;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Memory that the system counts as the process's own, in bytes: also what was freed and is kept for later.
    pub(crate) memory: u64,
    /// Memory allocated and not freed, in bytes; only known of this process.
    pub(crate) heap: u64,
    /// Processor time, of the whole process.
    pub(crate) processor: Duration,
}

impl Usage {
    /// Of that process, or of this one; zero where the system does not tell.
    pub(crate) fn of(pid: Option<u32>) -> Self {
        let folder = pid.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
        let status = fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        let stat = fs::read_to_string(format!("{folder}/stat")).unwrap_or_default();
        // After the name, which may hold anything, in brackets: field 3 and on.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |place: usize| fields.get(place).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
        let millis = (ticks(11) + ticks(12)) * 1000 / TICKS;
        let heap = if pid.is_none() { ALLOCATOR.current_usage() as u64 } else { 0 };
        Usage { memory: kib.unwrap_or(0) * 1024, heap, processor: Duration::from_millis(millis) }
    }
}
