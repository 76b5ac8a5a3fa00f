//! A network between processes of a test that breaks on command: [`Network`].

use std::{
    fs, io,
    net::Ipv4Addr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::process::{Process, ProcessBuilder, random};

/// How long the system may take to make a network.
const PATIENCE: Duration = Duration::from_secs(30);

/// The capability to change networks, by its place among the capabilities of a process.
const CAP_NET_ADMIN: u32 = 12;

/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:00:01";

/// The network card, by its name inside.
const CARD: &str = "eth0";

/// A network of its own for processes of a test (a network namespace of Linux), with one wire to the machine's network. Its
/// processes reach at [`host`](Self::host) what listens there, and nothing else. The wire can be cut while everybody at
/// both ends runs on.
///
/// It ends when this is dropped and the last process in it has ended, and however the test process ends.
#[derive(Debug)]
pub struct Network {
    /// Holds it.
    holder: Process,
    /// The wire's end outside.
    wire: String,
    host: Ipv4Addr,
    inside: Ipv4Addr,
}

impl Network {
    /// Why none can be made here, if so: it takes Linux, `unshare`, `nsenter`, `ip`, and the right to use them, which root
    /// has.
    pub fn unavailable() -> Option<String> {
        let status = match fs::read_to_string("/proc/self/status") {
            Ok(status) => status,
            Err(error) => return Some(format!("this is no Linux: /proc/self/status: {error}")),
        };
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let capabilities = capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        if capabilities.is_none_or(|all| all & (1 << CAP_NET_ADMIN) == 0) {
            return Some("this process may not change networks (CAP_NET_ADMIN): run it as root".to_owned());
        }
        // In a network that goes with its one process.
        let all = "ip link add testkit0 type veth peer name testkit1 && nsenter --version";
        run("unshare", ["--net", "sh", "-c", all]).err().map(|error| error.to_string())
    }

    /// Makes one.
    ///
    /// # Errors
    ///
    /// What the system says. See [`unavailable`](Self::unavailable).
    pub async fn new() -> io::Result<Self> {
        let holder = Process::builder("unshare").args(["--net", "sleep", "infinity"]).spawn()?;
        let (host, inside) = free_addresses()?;
        let network = Network { holder, wire: format!("testkit{:08x}", random() as u32), host, inside };
        network.wait_for_its_own().await?;
        let holder = network.holder.pid().to_string();
        // Its end inside is never outside, so it cannot stay behind; and it takes the other along.
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
                return Err(io::Error::other(format!("no network of its own: {}", self.holder.log())));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.pid())
    }

    /// Where the machine is reached from inside.
    pub fn host(&self) -> Ipv4Addr {
        self.host
    }

    /// A process to be in this network.
    pub fn process(&self, program: impl AsRef<std::ffi::OsStr>) -> ProcessBuilder {
        Process::builder("nsenter").arg(format!("--net={}", self.path())).arg(program)
    }

    /// From now on whatever is sent, from either side, gets lost, and nobody is told.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn cut(&self) -> io::Result<()> {
        // Both send to a card that there is not.
        let to = |address: Ipv4Addr, by: &str| {
            let address = address.to_string();
            ["neigh", "replace", &address, "lladdr", NOBODY, "dev", by, "nud", "permanent"].map(str::to_owned)
        };
        self.inside(to(self.host, CARD))?;
        self.outside(to(self.inside, &self.wire))
    }

    /// From now on those inside have no network at all, and are told so when they send.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn unplug(&self) -> io::Result<()> {
        self.inside(["link", "set", CARD, "down"])
    }

    /// Undoes [`cut`](Self::cut) and [`unplug`](Self::unplug). What was sent meanwhile is sent again by those who care.
    ///
    /// # Errors
    ///
    /// What the system says.
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

/// Two neighbours that no card of this machine has, out of the block for tests of network devices.
fn free_addresses() -> io::Result<(Ipv4Addr, Ipv4Addr)> {
    for _ in 0..100 {
        let block = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + ((random() as u32 & 0x7fff) << 2);
        let taken =
            run("ip", ["-4", "-oneline", "addr", "show", "to", &format!("{}/30", Ipv4Addr::from(block))])?;
        if taken.is_empty() {
            return Ok((Ipv4Addr::from(block + 1), Ipv4Addr::from(block + 2)));
        }
    }
    Err(io::Error::other("no free addresses below 198.18.0.0/15"))
}

/// Runs a command to its end, and returns what it prints.
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
