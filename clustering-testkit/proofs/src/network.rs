//! [`Network`], a network for test processes that fails on command.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    io,
    net::Ipv4Addr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clustering_testkit::process::{Process, ProcessBuilder};

/// Longest time to wait for the network namespace.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bit of the capability `CAP_NET_ADMIN` in a process's capability set.
const CAP_NET_ADMIN: u32 = 12;

/// Hardware address that no device has.
const NOBODY: &str = "02:00:00:00:00:01";

/// Name of the network interface inside the namespace.
const CARD: &str = "eth0";

/// A Linux network namespace for processes of a test, connected to the machine's network by one link. Its processes can
/// reach servers on this machine at [`host`](Self::host), and nothing else. The link can be cut while all processes
/// keep running.
///
/// The namespace is removed after this is dropped and the last process in it has ended, and also if the test process
/// ends in any other way.
#[derive(Debug)]
pub struct Network {
    /// Process that keeps the namespace alive.
    holder: Process,
    /// Name of the link's interface outside of the namespace.
    wire: String,
    host: Ipv4Addr,
    inside: Ipv4Addr,
}

impl Network {
    /// Returns the reason if networks cannot be created here. They require Linux, `unshare`, `nsenter`, `ip`, and the
    /// right to use them, which root has.
    pub fn unavailable() -> Option<String> {
        let status = match fs::read_to_string("/proc/self/status") {
            Ok(status) => status,
            Err(error) => return Some(format!("not running on Linux: /proc/self/status: {error}")),
        };
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let capabilities = capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        if capabilities.is_none_or(|all| all & (1 << CAP_NET_ADMIN) == 0) {
            return Some(
                "this process lacks CAP_NET_ADMIN and cannot create networks: run it as root".to_owned(),
            );
        }
        // Try it in a namespace that disappears with this command.
        let all = "ip link add testkit0 type veth peer name testkit1 && nsenter --version";
        run("unshare", ["--net", "sh", "-c", all]).err().map(|error| error.to_string())
    }

    /// Creates a network.
    ///
    /// # Errors
    ///
    /// Returns an error if a command fails. See [`unavailable`](Self::unavailable).
    pub async fn new() -> io::Result<Self> {
        let holder = Process::builder("unshare").args(["--net", "sleep", "infinity"]).spawn()?;
        let (host, inside) = free_addresses()?;
        let network = Network { holder, wire: format!("testkit{:08x}", random()), host, inside };
        network.wait_for_its_own().await?;
        let holder = network.holder.pid().to_string();
        // The inner interface is created inside the namespace and removed with it, and the outer interface is removed
        // with its peer.
        network.outside([
            "link",
            "add",
            &network.wire,
            "type",
            "veth",
            "peer",
            "name",
            CARD,
            "netns",
            &holder,
        ])?;
        network.outside(["addr", "add", &format!("{host}/30"), "dev", &network.wire])?;
        network.outside(["link", "set", &network.wire, "up"])?;
        network.inside(["addr", "add", &format!("{inside}/30"), "dev", CARD])?;
        network.inside(["link", "set", "lo", "up"])?;
        network.inside(["link", "set", CARD, "up"])?;
        Ok(network)
    }

    async fn wait_for_its_own(&self) -> io::Result<()> {
        let own = fs::read_link("/proc/self/ns/net")?;
        let began = Instant::now();
        while fs::read_link(self.path())? == own {
            if self.holder.ended().is_some() || began.elapsed() > PATIENCE {
                return Err(io::Error::other(format!(
                    "the network namespace was not created: {}",
                    self.holder.log()
                )));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.pid())
    }

    /// Returns the machine's address as seen from inside the network.
    pub fn host(&self) -> Ipv4Addr {
        self.host
    }

    /// Returns the address of the processes in this network, as seen from the machine.
    pub fn address(&self) -> Ipv4Addr {
        self.inside
    }

    /// Returns a builder for a process in this network.
    pub fn process(&self, program: impl AsRef<std::ffi::OsStr>) -> ProcessBuilder {
        Process::builder("nsenter").arg(format!("--net={}", self.path())).arg(program)
    }

    /// Drops all packets in both directions, without any error to the senders.
    ///
    /// # Errors
    ///
    /// Returns an error if a command fails.
    pub fn cut(&self) -> io::Result<()> {
        // Both sides now send to a hardware address that does not exist.
        let to = |address: Ipv4Addr, by: &str| {
            let address = address.to_string();
            ["neigh", "replace", &address, "lladdr", NOBODY, "dev", by, "nud", "permanent"].map(str::to_owned)
        };
        self.inside(to(self.host, CARD))?;
        self.outside(to(self.inside, &self.wire))
    }

    /// Takes the interface inside the network down, so that sending fails with an error there.
    ///
    /// # Errors
    ///
    /// Returns an error if a command fails.
    pub fn unplug(&self) -> io::Result<()> {
        self.inside(["link", "set", CARD, "down"])
    }

    /// Undoes [`cut`](Self::cut) and [`unplug`](Self::unplug). TCP then retransmits what was lost.
    ///
    /// # Errors
    ///
    /// Returns an error if a command fails.
    pub fn mend(&self) -> io::Result<()> {
        self.inside(["link", "set", CARD, "up"])?;
        self.inside(["neigh", "flush", "dev", CARD, "nud", "all"])?;
        self.outside(["neigh", "flush", "dev", &self.wire, "nud", "all"])
    }

    fn outside(&self, ip: impl IntoIterator<Item = impl AsRef<str>>) -> io::Result<()> {
        run("ip", ip).map(drop)
    }

    fn inside(&self, ip: impl IntoIterator<Item = impl AsRef<str>>) -> io::Result<()> {
        let mut all = vec![format!("--net={}", self.path()), "ip".to_owned()];
        all.extend(ip.into_iter().map(|argument| argument.as_ref().to_owned()));
        run("nsenter", all).map(drop)
    }
}

/// Returns two adjacent addresses that no interface of this machine has, from the block for network device benchmarks.
fn free_addresses() -> io::Result<(Ipv4Addr, Ipv4Addr)> {
    for _ in 0..100 {
        let block = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + ((random() & 0x7fff) << 2);
        let taken =
            run("ip", ["-4", "-oneline", "addr", "show", "to", &format!("{}/30", Ipv4Addr::from(block))])?;
        if taken.is_empty() {
            return Ok((Ipv4Addr::from(block + 1), Ipv4Addr::from(block + 2)));
        }
    }
    Err(io::Error::other("no free addresses below 198.18.0.0/15"))
}

/// Returns a random number, which keeps tests that run at the same time apart.
fn random() -> u32 {
    RandomState::new().hash_one(std::process::id()) as u32
}

/// Runs a command to completion and returns its standard output.
fn run(program: &str, arguments: impl IntoIterator<Item = impl AsRef<str>>) -> io::Result<String> {
    let arguments: Vec<_> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
    let output = Command::new(program).args(&arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{program} {}: {}", arguments.join(" "), said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
