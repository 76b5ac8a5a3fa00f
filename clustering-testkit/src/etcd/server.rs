use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clustering_core::store::Revision;
use etcd_client::{Client, ConnectOptions};

use super::{Etcd, EtcdBuilder, EtcdError, Metrics, binary, http};
use crate::process::{Folder, Port, Process, excerpt, random};

/// Longest time for a server to answer after its start, and to shut down. Generous, because a machine that is also
/// compiling is slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Longest time that a healthy server may take for one of the fixture's own calls.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Polling interval for conditions without an event.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);

/// An etcd for a test: a process on free ports of the loopback interface, with its data in a temporary folder. Process
/// and folder are removed when this is dropped, and also if the test process ends in any other way.
///
/// All operations take `&self`, so that tests can share the server. Do not call them concurrently.
pub struct EtcdServer {
    // Declared first, so that the process ends before its folder is removed.
    process: Mutex<Option<Arc<Process>>>,
    paused: Mutex<bool>,
    user: Mutex<Option<(String, String)>>,
    name: String,
    binary: PathBuf,
    version: String,
    options: EtcdBuilder,
    ports: Ports,
    /// Members of the server's cluster, as the value of etcd's flag. A single server lists only itself.
    initial_cluster: String,
    token: String,
    folder: Folder,
}

struct Ports {
    client: Port,
    peer: Port,
    metrics: Port,
    /// Additional port without TLS on a server with TLS, for the fixture's own calls, which have no certificate.
    plain: Option<Port>,
}

/// Condition that shows that a server is ready.
#[derive(Clone, Copy)]
enum Sign {
    Listens,
    /// The server answers a GET of this path with success.
    Reply(&'static str),
}

/// Copy of a server's data, made by [`EtcdServer::snapshot`].
#[derive(Debug)]
pub struct Snapshot {
    folder: Folder,
}

impl EtcdServer {
    /// Starts a server without data and waits until it answers.
    pub async fn start() -> Result<Self, EtcdError> {
        Self::builder().start().await
    }

    /// Returns a builder for a server with other options.
    pub fn builder() -> EtcdBuilder {
        EtcdBuilder::default()
    }

    pub(super) async fn launch(options: &EtcdBuilder, binary: &Path) -> Result<Self, EtcdError> {
        let mut server = Self::prepare(options, binary, "etcd".into())?;
        server.join(server.as_initial_member(), format!("{:016x}", random()));
        server.spawn()?;
        server.wait_until_it_answers().await?;
        Ok(server)
    }

    /// Reserves the ports and the folder of a server, without starting its process.
    pub(super) fn prepare(options: &EtcdBuilder, binary: &Path, name: String) -> Result<Self, EtcdError> {
        let version = binary::version(binary)?;
        let place = || {
            let ports = Ports {
                client: Port::reserve()?,
                peer: Port::reserve()?,
                metrics: Port::reserve()?,
                plain: options.tls.is_some().then(Port::reserve).transpose()?,
            };
            io::Result::Ok((ports, Folder::new()?))
        };
        let (ports, folder) =
            place().map_err(|error| EtcdError::new("reserving ports and a folder for etcd", error))?;
        Ok(Self {
            process: Mutex::default(),
            paused: Mutex::default(),
            user: Mutex::default(),
            name,
            binary: binary.to_owned(),
            version,
            options: options.clone(),
            ports,
            initial_cluster: String::new(),
            token: String::new(),
            folder,
        })
    }

    pub(super) fn as_initial_member(&self) -> String {
        format!("{}={}", self.name, url("http", &self.ports.peer))
    }

    pub(super) fn peer_url(&self) -> String {
        url("http", &self.ports.peer)
    }

    /// Sets the members of the server's cluster, and a token that is unique to that cluster.
    pub(super) fn join(&mut self, initial_cluster: String, token: String) {
        self.initial_cluster = initial_cluster;
        self.token = token;
    }

    pub(super) fn spawn(&self) -> Result<(), EtcdError> {
        let client = self.endpoint();
        let peer = url("http", &self.ports.peer);
        let mut listen = vec![client.clone()];
        listen.extend(self.options.also_at.iter().map(|address| self.endpoint_at(*address)));
        listen.extend(self.ports.plain.as_ref().map(|plain| url("http", plain)));
        let listen = listen.join(",");
        // Clear the environment, because etcd reads all of its flags from there too.
        let mut command = Process::builder(&self.binary).clean_env().log_to(self.log_path());
        command = command.arg("--data-dir").arg(self.data());
        command = command.args(
            [
                ("--name", self.name.as_str()),
                ("--listen-client-urls", &listen),
                ("--advertise-client-urls", &client),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &self.initial_cluster),
                ("--initial-cluster-token", &self.token),
                ("--listen-metrics-urls", &url("http", &self.ports.metrics)),
                ("--logger", "zap"),
                ("--log-level", "info"),
            ]
            .into_iter()
            .flat_map(|(flag, value)| [flag, value]),
        );
        if binary::is_at_least(&self.version, 3, 5) {
            // Data is lost only if the whole machine crashes.
            command = command.arg("--unsafe-no-fsync");
        }
        if let Some(tls) = &self.options.tls {
            command = command.args(tls.args());
        }
        let process = command.args(&self.options.args).spawn();
        let process = process.map_err(|error| self.error("starting", error))?;
        *lock(&self.process) = Some(Arc::new(process));
        *lock(&self.paused) = false;
        Ok(())
    }

    /// Starts the process again. A member of a cluster counts as started when it listens, because it does not answer
    /// without the other members.
    async fn spawn_again(&self) -> Result<(), EtcdError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Errors are judged by the log of this start only.
            let _ = fs::rename(self.log_path(), self.folder.path().join("log.before"));
            self.spawn()?;
            let started = match self.is_alone() {
                true => self.wait_until_it_answers().await,
                false => self.wait_until_it_listens().await,
            };
            match started {
                // Another program uses the port for a moment.
                Err(error) if error.is_port_taken() && Instant::now() < deadline => {
                    tokio::time::sleep(INTERVAL).await;
                }
                done => return done,
            }
        }
    }

    fn is_alone(&self) -> bool {
        !self.initial_cluster.contains(',')
    }

    /// Waits until the server has a leader and serves calls.
    async fn wait_until_it_answers(&self) -> Result<(), EtcdError> {
        // The server accepts connections before it serves them, so wait for a reply.
        self.wait_until("starting", Sign::Reply("/version")).await
    }

    pub(super) async fn wait_until_it_listens(&self) -> Result<(), EtcdError> {
        self.wait_until("starting", Sign::Listens).await
    }

    /// Waits until the server reports that it is healthy, that is, has a leader and can commit.
    pub async fn wait_healthy(&self) -> Result<(), EtcdError> {
        self.wait_until("waiting until healthy", Sign::Reply("/health")).await
    }

    /// Polls until the condition holds, the process ends or the time is up.
    async fn wait_until(&self, what: &str, sign: Sign) -> Result<(), EtcdError> {
        let deadline = Instant::now() + PATIENCE;
        let process = self.running(what)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let seen = match sign {
                Sign::Listens => TcpStream::connect(self.plain()).map(drop),
                Sign::Reply(path) => http::get(&self.plain(), path, left.max(INTERVAL)).await.map(drop),
            };
            if let Some(status) = process.ended() {
                return Err(self.error(what, format!("the process has ended, {status}")));
            }
            match seen {
                Ok(()) => return Ok(()),
                Err(error) if left.is_zero() => {
                    return Err(self.error(what, format!("not done within {PATIENCE:?}: {error}")));
                }
                Err(_) => tokio::time::sleep(INTERVAL).await,
            }
        }
    }

    /// Returns the client endpoint, such as `http://127.0.0.1:23456`, or `https://127.0.0.1:23456` with TLS. It never
    /// changes.
    pub fn endpoint(&self) -> String {
        url(self.scheme(), &self.ports.client)
    }

    /// Returns the client endpoint at another address, which was added with [`also_at`](EtcdBuilder::also_at).
    pub fn endpoint_at(&self, address: impl Into<IpAddr>) -> String {
        format!("{}://{}", self.scheme(), SocketAddr::new(address.into(), self.port()))
    }

    fn scheme(&self) -> &'static str {
        if self.options.tls.is_some() { "https" } else { "http" }
    }

    /// Returns [`endpoint`](Self::endpoint) as a list.
    pub fn endpoints(&self) -> Vec<String> {
        vec![self.endpoint()]
    }

    /// Returns the client port.
    pub fn port(&self) -> u16 {
        self.ports.client.number()
    }

    /// Returns the name of the member in its cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns etcd's version, such as `3.5.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the process id if the server is running.
    pub fn pid(&self) -> Option<u32> {
        self.running("").ok().map(|process| process.pid())
    }

    /// Returns the beginning and the end of the log since the last start.
    pub fn log(&self) -> String {
        excerpt(&self.log_path())
    }

    /// Reads the server's current metrics.
    pub async fn metrics(&self) -> Result<Metrics, EtcdError> {
        let what = "reading the metrics";
        let text = http::get(&self.ports.metrics.address(), "/metrics", CALL_TIMEOUT).await;
        let text = text.map_err(|error| self.error(what, error))?;
        Metrics::parse(&text).map_err(|error| self.error(what, error))
    }

    /// Returns true if the member leads its cluster. A member that is down or paused does not.
    pub(super) async fn leads(&self) -> bool {
        let Ok(text) = http::get(&self.ports.metrics.address(), "/metrics", Duration::from_millis(500)).await
        else {
            return false;
        };
        let is = |metrics: &Metrics, name| metrics.get(name, &[]) == Some(1.0);
        Metrics::parse(&text).is_ok_and(|metrics| {
            is(&metrics, "etcd_server_is_leader") && is(&metrics, "etcd_server_has_leader")
        })
    }

    /// Connects an `etcd-client` that is independent of the code under test. It needs no certificate, even if the
    /// server requires one of clients.
    pub async fn client(&self) -> Result<Client, EtcdError> {
        let mut options = ConnectOptions::new().with_timeout(CALL_TIMEOUT).with_connect_timeout(CALL_TIMEOUT);
        if let Some((name, password)) = lock(&self.user).clone() {
            options = options.with_user(name, password);
        }
        let client = Client::connect([self.plain()], Some(options)).await;
        client.map_err(|error| self.error("connecting", error))
    }

    /// Sets the user for later calls of [`client`](Self::client) and the fixture's own calls, for tests that enable
    /// authentication.
    pub fn log_in(&self, name: impl Into<String>, password: impl Into<String>) {
        *lock(&self.user) = Some((name.into(), password.into()));
    }

    /// Returns the current revision.
    pub async fn revision(&self) -> Result<Revision, EtcdError> {
        Etcd::revision(self).await
    }

    /// Compacts the history up to the current revision and returns that revision. A watch from an earlier revision ends
    /// with `Compacted`.
    pub async fn compact(&self) -> Result<Revision, EtcdError> {
        Etcd::compact(self).await
    }

    /// Compacts the history up to and including a revision. Succeeds if it was compacted before.
    pub async fn compact_to(&self, revision: Revision) -> Result<(), EtcdError> {
        Etcd::compact_to(self, revision).await
    }

    /// Freezes the server: connections stay open, but there are no replies, and no time passes for the server.
    pub fn pause(&self) -> Result<(), EtcdError> {
        let what = "pausing";
        self.running(what)?.pause().map_err(|error| self.error(what, error))?;
        *lock(&self.paused) = true;
        Ok(())
    }

    /// Resumes the server after [`pause`](Self::pause).
    pub fn resume(&self) -> Result<(), EtcdError> {
        let what = "resuming";
        self.running(what)?.resume().map_err(|error| self.error(what, error))?;
        *lock(&self.paused) = false;
        Ok(())
    }

    /// Kills the server and waits until it has ended. Its data is kept for [`restart`](Self::restart).
    pub async fn kill(&self) -> Result<(), EtcdError> {
        let process = lock(&self.process).take();
        match process {
            None => Ok(()),
            Some(process) => match process.kill().await {
                Ok(_) => Ok(()),
                Err(error) => Err(self.error("killing", error)),
            },
        }
    }

    /// Shuts the server down and waits until it has ended. Its data is kept for [`restart`](Self::restart).
    pub async fn stop(&self) -> Result<(), EtcdError> {
        let what = "stopping";
        let process = self.running(what)?;
        process.terminate().map_err(|error| self.error(what, error))?;
        match tokio::time::timeout(PATIENCE, process.wait()).await {
            Ok(Ok(_)) => {
                *lock(&self.process) = None;
                Ok(())
            }
            Ok(Err(error)) => Err(self.error(what, error)),
            Err(_) => Err(self.error(what, format!("the process has not ended within {PATIENCE:?}"))),
        }
    }

    /// Starts the server again with its data, at the same endpoint, and waits until it answers. Kills it first if it is
    /// still running.
    ///
    /// A member of a [cluster](super::EtcdCluster) cannot answer without a quorum of the others, so in that case this
    /// only waits until the member listens.
    pub async fn restart(&self) -> Result<(), EtcdError> {
        self.kill().await?;
        self.spawn_again().await
    }

    /// Kills the server, deletes its data and starts it again at the same endpoint. Revisions start over.
    ///
    /// A member of a [cluster](super::EtcdCluster) cannot be wiped, because the other members still know its former
    /// state.
    pub async fn wipe(&self) -> Result<(), EtcdError> {
        let what = "wiping";
        if !self.is_alone() {
            return Err(self.error(
                what,
                "it is a member of a cluster, and the other members still know its former state",
            ));
        }
        self.kill().await?;
        fs::remove_dir_all(self.data()).map_err(|error| self.error(what, error))?;
        self.spawn_again().await
    }

    /// Copies the server's current data, for a later [`restore`](Self::restore). The server is paused while this
    /// copies.
    pub async fn snapshot(&self) -> Result<Snapshot, EtcdError> {
        let what = "taking a snapshot";
        let halt = self.pid().is_some() && !*lock(&self.paused);
        if halt {
            self.pause()?;
        }
        let from = self.data();
        let copied = blocking(move || {
            let folder = Folder::new()?;
            copy(&from, &folder.path().join("data"))?;
            Ok(Snapshot { folder })
        })
        .await;
        if halt {
            self.resume()?;
        }
        copied.map_err(|error| self.error(what, error))
    }

    /// Kills the server, restores its data from the snapshot and starts it again. This simulates recovery from a backup
    /// that is older than the last write: revisions become smaller.
    pub async fn restore(&self, snapshot: &Snapshot) -> Result<(), EtcdError> {
        self.kill().await?;
        let (from, to) = (snapshot.folder.path().join("data"), self.data());
        let copied = blocking(move || {
            fs::remove_dir_all(&to)?;
            copy(&from, &to)
        })
        .await;
        copied.map_err(|error| self.error("restoring a snapshot", error))?;
        self.spawn_again().await
    }

    /// Returns the address without TLS that the fixture itself uses.
    fn plain(&self) -> String {
        self.ports.plain.as_ref().unwrap_or(&self.ports.client).address()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn running(&self, what: &str) -> Result<Arc<Process>, EtcdError> {
        lock(&self.process)
            .clone()
            .ok_or_else(|| self.error(what, "the server is not running: restart it first"))
    }

    pub(super) fn error(&self, what: impl fmt::Display, why: impl fmt::Display) -> EtcdError {
        EtcdError::new(format!("{self:?}, {what}"), why).with_log(self.log())
    }
}

impl fmt::Debug for EtcdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd {} ({} at {})", self.version, self.name, self.endpoint())
    }
}

fn url(scheme: &str, port: &Port) -> String {
    format!("{scheme}://{}", port.address())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    // Etcd requires restrictive permissions on its data folder.
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else if target.extension().is_none_or(|extension| extension != "tmp") {
            // Such files only preallocate space for the log.
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
