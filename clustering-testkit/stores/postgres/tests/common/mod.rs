//! PostgreSQL servers for tests.

// Each integration test uses another part.
#![allow(dead_code, reason = "each test file uses another part of this module")]

use std::{
    fs,
    io::{self, ErrorKind as IoErrorKind},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use clustering_postgres::{PostgresConfig, PostgresStore};
use clustering_testkit::process::{Folder, Port, Process};
use rustix::process::{Pid, Signal, kill_process};

/// Folder with `initdb` and `postgres`. By default, the newest one of Debian's packages.
const BIN_VARIABLE: &str = "CLUSTERING_POSTGRES_BIN";

/// Longest time for a server to answer after its start, and to stop. Generous, because a machine that is also compiling is
/// slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// Polling interval for conditions without an event.
const INTERVAL: Duration = Duration::from_millis(10);

/// User and group `nobody`, as which servers run if the tests run as root: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

/// A PostgreSQL server on a free port of the loopback interface, with its data in a temporary folder. It ends when this is
/// dropped, and if the test process ends in any other way.
pub(crate) struct PostgresServer {
    process: Mutex<Option<Arc<Process>>>,
    settings: Vec<String>,
    port: Port,
    bin: PathBuf,
    folder: Folder,
}

/// Copy of a server's data.
pub(crate) struct Backup(Folder);

impl PostgresServer {
    /// Starts a server with the tables of the store.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with these settings, such as `max_connections=10`, and with the tables of the store.
    pub(crate) async fn start_with(settings: &[&str]) -> Self {
        let server = Self::without_tables(settings).await;
        PostgresStore::install(&server.config()).await.unwrap();
        server
    }

    /// Starts a server with these settings.
    pub(crate) async fn without_tables(settings: &[&str]) -> Self {
        let (folder, port, bin) = (Folder::new().unwrap(), Port::reserve().unwrap(), bin());
        own(folder.path());
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let server = PostgresServer { process: Mutex::default(), settings, port, bin, folder };
        let data = server.data();
        let arguments = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D"];
        let created =
            server.command("initdb", &arguments.map(str::to_owned), Some(&data)).wait().await.unwrap();
        assert!(created.success(), "initdb failed: {}", server.log());
        server.run().await;
        server
    }

    /// Copies a file into the server's folder, where only the server can read it, and returns its path.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        own(&path);
        path
    }

    /// Returns the address of the server.
    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    /// Returns a configuration for this server with short intervals and time limits.
    pub(crate) fn config(&self) -> PostgresConfig {
        config_at(&self.address())
    }

    pub(crate) fn store(&self) -> PostgresStore {
        PostgresStore::new(self.config()).unwrap()
    }

    /// Kills the server and all processes of its connections.
    pub(crate) async fn kill(&self) {
        let process = self.process.lock().unwrap().take().expect("the server runs");
        let connections = children(process.pid());
        process.kill().await.unwrap();
        connections.iter().for_each(|pid| signal(*pid, Signal::KILL));
        until("the end of all connections", || connections.iter().all(|pid| !exists(*pid))).await;
    }

    /// Stops the server in order. It ends all connections.
    pub(crate) async fn stop(&self) {
        let process = self.process.lock().unwrap().take().expect("the server runs");
        signal(process.pid(), Signal::INT);
        process.wait().await.unwrap();
    }

    /// Starts the server again, with the same data, and waits until it answers.
    pub(crate) async fn run(&self) {
        let port = self.port.number();
        let mut arguments = vec![
            "-h127.0.0.1".to_owned(),
            format!("-p{port}"),
            "-k".to_owned(),
            String::new(),
            // Leave nothing behind if the server is killed.
            "-cdynamic_shared_memory_type=mmap".to_owned(),
        ];
        arguments.extend(self.settings.iter().map(|setting| format!("-c{setting}")));
        arguments.push("-D".to_owned());
        let process = self.command("postgres", &arguments, Some(&self.data()));
        *self.process.lock().unwrap() = Some(Arc::new(process));
        let since = Instant::now();
        while let Err(error) = self.answers().await {
            assert!(since.elapsed() < PATIENCE, "the server does not answer: {error}; {}", self.log());
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn answers(&self) -> Result<(), tokio_postgres::Error> {
        let config = format!("postgresql://postgres@{}/postgres?connect_timeout=1", self.address());
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await?;
        let driver = tokio::spawn(connection);
        let answer = client.batch_execute("SELECT 1").await;
        driver.abort();
        answer
    }

    /// Freezes the server and all its connections.
    pub(crate) fn pause(&self) {
        let process = self.process.lock().unwrap().clone().expect("the server runs");
        // The server first, so that it makes no new connections.
        process.pause().unwrap();
        children(process.pid()).iter().for_each(|pid| signal(*pid, Signal::STOP));
    }

    pub(crate) fn resume(&self) {
        let process = self.process.lock().unwrap().clone().expect("the server runs");
        children(process.pid()).iter().for_each(|pid| signal(*pid, Signal::CONT));
        process.resume().unwrap();
    }

    /// Copies the data while the server is stopped for a moment.
    pub(crate) async fn backup(&self) -> Backup {
        self.stop().await;
        let backup = Backup(Folder::new().unwrap());
        copy(&self.data(), &backup.0.path().join("data"));
        self.run().await;
        backup
    }

    /// Replaces the data by those of the backup.
    pub(crate) async fn restore(&self, backup: &Backup) {
        self.stop().await;
        fs::remove_dir_all(self.data()).unwrap();
        copy(&backup.0.path().join("data"), &self.data());
        self.run().await;
    }

    /// Executes SQL as the administrator and returns the first column of the first row.
    pub(crate) async fn sql(&self, text: &str) -> String {
        let config = format!("postgresql://postgres@{}/postgres", self.address());
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let answer = client.simple_query(text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        driver.abort();
        let row = answer.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        row.unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn command(&self, program: &str, arguments: &[String], path: Option<&Path>) -> Process {
        let program = self.bin.join(program);
        let mut command = match is_root() {
            true => {
                let user =
                    [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()];
                Process::builder("setpriv").args(user).arg(program)
            }
            false => Process::builder(program),
        };
        command = command.clean_env().env("LC_ALL", "C").args(arguments);
        if let Some(path) = path {
            command = command.arg(path);
        }
        command.log_to(self.folder.path().join("log")).spawn().unwrap()
    }
}

impl Drop for PostgresServer {
    /// Stops the server instead of killing it, since it would leave a segment of shared memory behind.
    fn drop(&mut self) {
        let Some(process) = self.process.lock().unwrap().take() else { return };
        let connections = children(process.pid());
        connections.iter().chain([&process.pid()]).for_each(|pid| signal(*pid, Signal::CONT));
        signal(process.pid(), Signal::QUIT);
        let since = Instant::now();
        while process.ended().is_none() && since.elapsed() < PATIENCE {
            std::thread::sleep(INTERVAL);
        }
    }
}

/// Returns a configuration for the server at this address with short times.
pub(crate) fn config_at(address: &str) -> PostgresConfig {
    let mut config =
        PostgresConfig::parse(&format!("postgresql://postgres@{address}/postgres?sslmode=disable")).unwrap();
    config.check_interval = Duration::from_secs(2);
    config.compaction_grace = Duration::from_millis(500);
    config
}

/// Waits for a condition that has no event.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "timed out waiting for {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn own(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    own(to);
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), &target).unwrap();
                own(&target);
            }
        }
    }
}

/// Returns the processes of the server's connections and its helpers. They are not in its process group.
fn children(parent: u32) -> Vec<u32> {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.filter(|pid| parent_of(*pid).is_ok_and(|found| found == parent)).collect()
}

fn parent_of(pid: u32) -> io::Result<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program, in parentheses, may contain spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let parent = fields.split_whitespace().nth(1).and_then(|parent| parent.parse().ok());
    parent.ok_or_else(|| io::Error::from(IoErrorKind::InvalidData))
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The process may have ended already.
        let _ = kill_process(pid, signal);
    }
}

/// Returns the folder with the programs of PostgreSQL.
fn bin() -> PathBuf {
    if let Some(given) = std::env::var_os(BIN_VARIABLE) {
        return given.into();
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.filter(|version| version.path().join("bin/initdb").exists());
    let newest =
        found.max_by_key(|version| version.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    newest.map(|version| version.path().join("bin")).unwrap_or_else(|| {
        panic!("no PostgreSQL in /usr/lib/postgresql: install Debian's postgresql, or set {BIN_VARIABLE}")
    })
}
