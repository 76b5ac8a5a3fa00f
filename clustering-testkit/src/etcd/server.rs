use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clustering_core::store::Revision;
use etcd_client::{Client, ConnectOptions};

use super::{Etcd, EtcdBuilder, EtcdError, Metrics, binary, http, ports::Port};
use crate::process::{Folder, Process, excerpt, random};

/// How long a server may take to answer after its start, and to end when it is told to. A machine that builds at the
/// same time is slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a healthy server may take for one of the fixture's own calls.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two tries of what there is no event for.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);

/// An etcd for a test: a process on free ports of the loopback interface, with its data in a temporary folder. Both go
/// when this is dropped, and however the test process ends.
///
/// The verbs say `&self`, so that a test can share it. Call them one after the other.
pub struct EtcdServer {
    // Ends before the folder goes.
    process: Mutex<Option<Arc<Process>>>,
    paused: Mutex<bool>,
    user: Mutex<Option<(String, String)>>,
    name: String,
    binary: PathBuf,
    version: String,
    options: EtcdBuilder,
    ports: Ports,
    /// The members of its cluster, for etcd's flag; one is this.
    initial_cluster: String,
    token: String,
    folder: Folder,
}

struct Ports {
    client: Port,
    peer: Port,
    metrics: Port,
    /// With TLS: the fixture's own way in, which needs no certificate.
    plain: Option<Port>,
}

/// By what a server shows that it is so far.
#[derive(Clone, Copy)]
enum Sign {
    Listens,
    /// It answers a GET of this path with success.
    Reply(&'static str),
}

/// The data of a server at one moment: [`EtcdServer::snapshot`].
#[derive(Debug)]
pub struct Snapshot {
    folder: Folder,
}

impl EtcdServer {
    /// Starts a server with nothing in it, and returns when it answers.
    pub async fn start() -> Result<Self, EtcdError> {
        Self::builder().start().await
    }

    /// One that is to run otherwise.
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

    /// A server that has its place, and no process yet.
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
        let (ports, folder) = place().map_err(|error| EtcdError::new("making room for an etcd", error))?;
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

    /// Says with whom it forms a cluster, and the name that no other cluster has.
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
        // Etcd takes its flags from variables too.
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
            // Only a crash of the whole machine would lose anything.
            command = command.arg("--unsafe-no-fsync");
        }
        if let Some(tls) = &self.options.tls {
            command = command.args(tls.args());
        }
        let process = command.args(&self.options.args).spawn();
        let process = process.map_err(|error| self.error("starting it", error))?;
        *lock(&self.process) = Some(Arc::new(process));
        *lock(&self.paused) = false;
        Ok(())
    }

    /// Starts the process again where another was. Members of a cluster count as started when they listen: without the
    /// others they would not answer.
    async fn spawn_again(&self) -> Result<(), EtcdError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // What the log says is judged for this start alone.
            let _ = fs::rename(self.log_path(), self.folder.path().join("log.before"));
            self.spawn()?;
            let started = match self.is_alone() {
                true => self.wait_until_it_answers().await,
                false => self.wait_until_it_listens().await,
            };
            match started {
                // Somebody has the port for a moment.
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

    /// Until it has a leader and serves calls.
    async fn wait_until_it_answers(&self) -> Result<(), EtcdError> {
        // It accepts connections before it serves them: the reply is the event to wait for.
        self.wait_until("starting it", Sign::Reply("/version")).await
    }

    pub(super) async fn wait_until_it_listens(&self) -> Result<(), EtcdError> {
        self.wait_until("starting it", Sign::Listens).await
    }

    /// Waits until the server says that it is healthy: that it has a leader, and commits.
    pub async fn wait_healthy(&self) -> Result<(), EtcdError> {
        self.wait_until("waiting until it is healthy", Sign::Reply("/health")).await
    }

    /// Looks until there is the sign, the process ends, or the time is over.
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
                return Err(self.error(what, format!("it has ended, {status}")));
            }
            match seen {
                Ok(()) => return Ok(()),
                Err(error) if left.is_zero() => {
                    return Err(self.error(what, format!("not within {PATIENCE:?}: {error}")));
                }
                Err(_) => tokio::time::sleep(INTERVAL).await,
            }
        }
    }

    /// Where it serves clients: `http://127.0.0.1:23456`, and with TLS `https://127.0.0.1:23456`. The same for as long
    /// as the fixture lives.
    pub fn endpoint(&self) -> String {
        url(self.scheme(), &self.ports.client)
    }

    /// Where it serves clients at another address, one that it was [told](EtcdBuilder::also_at) of.
    pub fn endpoint_at(&self, address: impl Into<IpAddr>) -> String {
        format!("{}://{}", self.scheme(), SocketAddr::new(address.into(), self.port()))
    }

    fn scheme(&self) -> &'static str {
        if self.options.tls.is_some() { "https" } else { "http" }
    }

    /// The same, as a list.
    pub fn endpoints(&self) -> Vec<String> {
        vec![self.endpoint()]
    }

    /// The port at which it serves clients.
    pub fn port(&self) -> u16 {
        self.ports.client.number()
    }

    /// The name of the member in its cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Etcd's version, such as `3.5.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running("").ok().map(|process| process.pid())
    }

    /// How the log of its last start begins and ends.
    pub fn log(&self) -> String {
        excerpt(&self.log_path())
    }

    /// Its metrics as of now.
    pub async fn metrics(&self) -> Result<Metrics, EtcdError> {
        let what = "reading its metrics";
        let text = http::get(&self.ports.metrics.address(), "/metrics", CALL_TIMEOUT).await;
        let text = text.map_err(|error| self.error(what, error))?;
        Metrics::parse(&text).map_err(|error| self.error(what, error))
    }

    /// Whether it leads its cluster. One that is down or paused does not.
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

    /// A client that knows nothing of the code under test. It needs no certificate, also when the server demands them.
    pub async fn client(&self) -> Result<Client, EtcdError> {
        let mut options = ConnectOptions::new().with_timeout(CALL_TIMEOUT).with_connect_timeout(CALL_TIMEOUT);
        if let Some((name, password)) = lock(&self.user).clone() {
            options = options.with_user(name, password);
        }
        let client = Client::connect([self.plain()], Some(options)).await;
        client.map_err(|error| self.error("connecting to it", error))
    }

    /// The user as whom [`client`](Self::client) and the fixture's own calls log in from now on: for tests that turn
    /// authentication on.
    pub fn log_in(&self, name: impl Into<String>, password: impl Into<String>) {
        *lock(&self.user) = Some((name.into(), password.into()));
    }

    /// Its current revision.
    pub async fn revision(&self) -> Result<Revision, EtcdError> {
        Etcd::revision(self).await
    }

    /// Makes it forget its history up to the current revision, which it returns: a watch from before it ends with
    /// `Compacted`.
    pub async fn compact(&self) -> Result<Revision, EtcdError> {
        Etcd::compact(self).await
    }

    /// Makes it forget its history up to and including that revision. It is no error if it has before.
    pub async fn compact_to(&self, revision: Revision) -> Result<(), EtcdError> {
        Etcd::compact_to(self, revision).await
    }

    /// Stops it in its tracks: connections stay open, nothing answers, no time passes for it.
    pub fn pause(&self) -> Result<(), EtcdError> {
        let what = "pausing it";
        self.running(what)?.pause().map_err(|error| self.error(what, error))?;
        *lock(&self.paused) = true;
        Ok(())
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) -> Result<(), EtcdError> {
        let what = "resuming it";
        self.running(what)?.resume().map_err(|error| self.error(what, error))?;
        *lock(&self.paused) = false;
        Ok(())
    }

    /// Kills it, and returns when it is gone. Its data stays for [`restart`](Self::restart).
    pub async fn kill(&self) -> Result<(), EtcdError> {
        let process = lock(&self.process).take();
        match process {
            None => Ok(()),
            Some(process) => match process.kill().await {
                Ok(_) => Ok(()),
                Err(error) => Err(self.error("killing it", error)),
            },
        }
    }

    /// Tells it to end, and returns when it has. Its data stays for [`restart`](Self::restart).
    pub async fn stop(&self) -> Result<(), EtcdError> {
        let what = "stopping it";
        let process = self.running(what)?;
        process.terminate().map_err(|error| self.error(what, error))?;
        match tokio::time::timeout(PATIENCE, process.wait()).await {
            Ok(Ok(_)) => {
                *lock(&self.process) = None;
                Ok(())
            }
            Ok(Err(error)) => Err(self.error(what, error)),
            Err(_) => Err(self.error(what, format!("it has not ended within {PATIENCE:?}"))),
        }
    }

    /// Starts it again with its data, at the same endpoint, and returns when it answers. If it still runs it is killed
    /// first.
    ///
    /// A member of a [cluster](super::EtcdCluster) may lack the others that it needs to answer: there this returns
    /// when the member listens.
    pub async fn restart(&self) -> Result<(), EtcdError> {
        self.kill().await?;
        self.spawn_again().await
    }

    /// Kills it, deletes its data, and starts it again with nothing in it, at the same endpoint. Revisions begin
    /// anew.
    ///
    /// A member of a [cluster](super::EtcdCluster) cannot be wiped by itself: the others would know it for what it
    /// was.
    pub async fn wipe(&self) -> Result<(), EtcdError> {
        let what = "wiping it";
        if !self.is_alone() {
            return Err(
                self.error(what, "it is a member of a cluster, and the others still know what it had")
            );
        }
        self.kill().await?;
        fs::remove_dir_all(self.data()).map_err(|error| self.error(what, error))?;
        self.spawn_again().await
    }

    /// A copy of its data as it is now, to [`restore`](Self::restore) later. It stands still meanwhile.
    pub async fn snapshot(&self) -> Result<Snapshot, EtcdError> {
        let what = "taking a snapshot of it";
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

    /// Kills it, puts the data back to what it was at the snapshot, and starts it again: like the recovery from a backup
    /// that is older than the last write. Revisions go back.
    pub async fn restore(&self, snapshot: &Snapshot) -> Result<(), EtcdError> {
        self.kill().await?;
        let (from, to) = (snapshot.folder.path().join("data"), self.data());
        let copied = blocking(move || {
            fs::remove_dir_all(&to)?;
            copy(&from, &to)
        })
        .await;
        copied.map_err(|error| self.error("restoring it from a snapshot", error))?;
        self.spawn_again().await
    }

    /// Where it serves the fixture, without TLS.
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
        lock(&self.process).clone().ok_or_else(|| self.error(what, "it does not run: restart it first"))
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
    // Etcd wants its data folder for itself.
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else if target.extension().is_none_or(|extension| extension != "tmp") {
            // Files of that kind are room for a log to come.
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
