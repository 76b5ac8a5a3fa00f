//! Cost of an idle cluster: connections, traffic and wake-ups, as the kernel counts them.

use std::{collections::BTreeSet, error::Error, fs, path::Path, time::Duration};

use crate::process::{Cluster, TTL};

/// Time after which the threads that were only needed for the start have ended: tokio keeps them for 10 s.
const SETTLE: Duration = TTL;

/// Duration of the measurement.
const MINUTE: Duration = Duration::from_secs(60);

/// State that the kernel shows for an established TCP connection.
const ESTABLISHED: &str = "01";

/// Cost per node and minute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) connections: f64,
    pub(crate) bytes: f64,
    pub(crate) packets: f64,
    pub(crate) wakeups: f64,
}

/// Totals of all nodes so far.
struct Totals {
    bytes: u64,
    packets: u64,
    wakeups: u64,
}

/// Measures a cluster for a minute, and ends it.
pub(crate) async fn measure(cluster: Cluster) -> Result<Cost, Box<dyn Error>> {
    tokio::time::sleep(SETTLE).await;
    let pids: Vec<u32> = cluster.nodes().iter().map(|node| node.pid()).collect();
    let before = Totals::now(&pids)?;
    tokio::time::sleep(MINUTE).await;
    let after = Totals::now(&pids)?;
    let mut connections = 0;
    for pid in &pids {
        connections += connections_of(*pid)?;
    }
    let each = |total: u64| total as f64 / pids.len() as f64;
    Ok(Cost {
        connections: each(connections),
        bytes: each(after.bytes - before.bytes),
        packets: each(after.packets - before.packets),
        wakeups: each(after.wakeups.saturating_sub(before.wakeups)),
    })
}

impl Totals {
    fn now(pids: &[u32]) -> Result<Self, Box<dyn Error>> {
        let (bytes, packets) = loopback()?;
        let mut wakeups = 0;
        for pid in pids {
            wakeups += wakeups_of(*pid)?;
        }
        Ok(Totals { bytes, packets, wakeups })
    }
}

/// Returns the bytes and packets that the loopback interface has carried.
fn loopback() -> Result<(u64, u64), Box<dyn Error>> {
    let devices = fs::read_to_string("/proc/net/dev")?;
    let numbers = devices.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let mut numbers = numbers.ok_or("no loopback interface")?.split_whitespace();
    let mut next = || numbers.next().ok_or("/proc/net/dev: a number is missing");
    Ok((next()?.parse()?, next()?.parse()?))
}

/// Returns the voluntary context switches of all threads of a process.
fn wakeups_of(pid: u32) -> Result<u64, Box<dyn Error>> {
    let mut wakeups = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // The thread may have ended since the directory was listed.
        let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        wakeups += switches.map_or(Ok(0), |switches| switches.trim().parse::<u64>())?;
    }
    Ok(wakeups)
}

/// Returns the number of TCP connections of a process.
fn connections_of(pid: u32) -> Result<u64, Box<dyn Error>> {
    let mut sockets = BTreeSet::new();
    for file in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(file?.path()).unwrap_or_default();
        let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
        sockets.extend(inode.map(str::to_owned));
    }
    let mut connections = 0;
    for table in ["tcp", "tcp6"].map(|table| format!("/proc/{pid}/net/{table}")) {
        // A machine without IPv6 has no table for it.
        let Some(lines) = Path::new(&table).exists().then(|| fs::read_to_string(&table)) else { continue };
        for line in lines?.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_own = fields.get(9).is_some_and(|inode| sockets.contains(*inode));
            connections += u64::from(is_own && fields.get(3) == Some(&ESTABLISHED));
        }
    }
    Ok(connections)
}
