use std::{
    fmt, fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Signal, geteuid};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{
    processes::{Frozen, children, exists, signal},
    programs,
};
use crate::process::{Folder, Port, Process, excerpt};

/// Time limit for a server to answer after its start, and to stop. It is generous, because a machine that is also
/// compiling is slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// Polling interval for conditions without an event.
const INTERVAL: Duration = Duration::from_millis(10);

/// ID of the user and group `nobody`. If the tests run as root, servers run as `nobody`, because PostgreSQL refuses to
/// run as root.
const NOBODY: u32 = 65_534;

/// A PostgreSQL server for a test, on a free port of the loopback interface, with its data in a temporary folder.
/// Dropping this stops the server and removes the folder, and so does any other end of the test process.
///
/// It accepts the user `postgres` without a password, for the database `postgres`. If the tests run as root, the server
/// runs as `nobody`, who must be able to reach the temporary folder.
///
/// All operations take `&self`, so that tests can share the server. Do not call them concurrently. Their errors contain the
/// beginning and the end of the server's log.
pub struct PostgresServer {
    // Declared first, so that the processes end before their folder is removed.
    process: Mutex<Option<Arc<Process>>>,
    frozen: Mutex<Frozen>,
    settings: Vec<String>,
    port: Port,
    programs: PathBuf,
    folder: Folder,
}

/// Copy of a server's data, made by [`PostgresServer::backup`].
#[derive(Debug)]
pub struct Backup {
    folder: Folder,
}

impl PostgresServer {
    /// Starts a server with an empty database, and waits until it answers.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server with these settings, such as `max_connections=400`.
    pub async fn start_with(settings: &[&str]) -> io::Result<Self> {
        let (folder, port, programs) = (Folder::new()?, Port::reserve()?, programs::find()?);
        own(folder.path())?;
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let server = PostgresServer {
            process: Mutex::default(),
            frozen: Mutex::default(),
            settings,
            port,
            programs,
            folder,
        };
        let arguments = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D"];
        let created = server.spawn("initdb", &arguments.map(str::to_owned))?.wait().await?;
        if !created.success() {
            return Err(server.error(format!("initdb failed: {created}")));
        }
        server.run().await?;
        Ok(server)
    }

    /// Returns the address of the server, as `host:port`. It never changes.
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// Returns the port of the server.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Returns the URL for clients, such as `postgresql://postgres@127.0.0.1:23456/postgres?sslmode=disable`.
    pub fn url(&self) -> String {
        format!("postgresql://postgres@{}/postgres?sslmode=disable", self.address())
    }

    /// Returns the process id if the server is running. The processes of its connections are children of this process.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(|process| process.pid())
    }

    /// Returns the beginning and the end of the log.
    pub fn log(&self) -> String {
        excerpt(&self.log_path())
    }

    /// Kills the server and all processes of its connections.
    pub async fn kill(&self) -> io::Result<()> {
        let Some(process) = self.process().take() else { return Ok(()) };
        let connections = children(process.pid());
        self.frozen().thaw();
        process.kill().await?;
        connections.iter().for_each(|pid| signal(*pid, Signal::KILL));
        let since = Instant::now();
        while connections.iter().any(|pid| exists(*pid)) {
            if since.elapsed() > PATIENCE {
                return Err(self.error("its connections have not ended after it was killed"));
            }
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(())
    }

    /// Shuts the server down in an orderly way, which ends all connections.
    pub async fn stop(&self) -> io::Result<()> {
        let Some(process) = self.process().take() else { return Ok(()) };
        self.end(&process, Signal::INT);
        process.wait().await.map(drop)
    }

    /// Starts the server again, with the same data and at the same address, and waits until it answers. Stops it first if
    /// it is still running.
    pub async fn restart(&self) -> io::Result<()> {
        self.stop().await?;
        self.run().await
    }

    async fn run(&self) -> io::Result<()> {
        let mut arguments = vec![
            "-h127.0.0.1".to_owned(),
            format!("-p{}", self.port()),
            "-k".to_owned(),
            String::new(),
            // Leave no files in /dev/shm if the server is killed.
            "-cdynamic_shared_memory_type=mmap".to_owned(),
        ];
        arguments.extend(self.settings.iter().map(|setting| format!("-c{setting}")));
        arguments.push("-D".to_owned());
        let process = Arc::new(self.spawn("postgres", &arguments)?);
        *self.process() = Some(process.clone());
        let since = Instant::now();
        while let Err(error) = self.connect().await {
            if let Some(status) = process.ended() {
                return Err(self.error(format!("it ended during its start: {status}")));
            }
            if since.elapsed() > PATIENCE {
                return Err(self.error(format!("it does not answer: {error}")));
            }
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(())
    }

    /// Connects as the administrator.
    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) =
            tokio_postgres::connect(&format!("{}&connect_timeout=1", self.url()), NoTls).await?;
        // The task ends with the client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Freezes the server and all its connections with `SIGSTOP`. Connections stay open, but nothing answers on them.
    pub fn pause(&self) -> io::Result<()> {
        let process = self.running()?;
        // The server first, so that it makes no new connections.
        process.pause()?;
        self.frozen().freeze(children(process.pid()))
    }

    /// Resumes the server after [`pause`](Self::pause).
    pub fn resume(&self) -> io::Result<()> {
        let process = self.running()?;
        self.frozen().thaw();
        process.resume()
    }

    fn running(&self) -> io::Result<Arc<Process>> {
        self.process().clone().ok_or_else(|| io::Error::other("the PostgreSQL server is not running"))
    }

    /// Copies the data, for a later [`restore`](Self::restore). This restarts the server.
    pub async fn backup(&self) -> io::Result<Backup> {
        self.stop().await?;
        let backup = Backup { folder: Folder::new()? };
        copy(&self.data(), &backup.folder.path().join("data"))?;
        self.run().await?;
        Ok(backup)
    }

    /// Stops the server, replaces its data with that of the backup, and starts it again.
    pub async fn restore(&self, backup: &Backup) -> io::Result<()> {
        self.stop().await?;
        fs::remove_dir_all(self.data())?;
        copy(&backup.folder.path().join("data"), &self.data())?;
        self.run().await
    }

    /// Executes SQL as the administrator and returns the first column of the first row, or an empty string if there are
    /// no rows.
    pub async fn sql(&self, text: &str) -> io::Result<String> {
        let failed = |error| io::Error::other(format!("{text}: {error:?}"));
        let client = self.connect().await.map_err(failed)?;
        let answer = client.simple_query(text).await.map_err(failed)?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        Ok(row.unwrap_or_default())
    }

    /// Creates a file that only the server can read, such as a key, and returns its path. The file is removed when the
    /// server is dropped.
    pub fn file(&self, name: &str, content: &str) -> io::Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        own(&path)?;
        Ok(path)
    }

    /// Sends the server this signal to end it. Resumes the server first, because a frozen one would not notice the signal.
    fn end(&self, server: &Process, how: Signal) {
        self.frozen().thaw();
        signal(server.pid(), Signal::CONT);
        signal(server.pid(), how);
    }

    fn frozen(&self) -> MutexGuard<'_, Frozen> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Starts a program, with the data folder as its last argument.
    fn spawn(&self, program: &str, arguments: &[String]) -> io::Result<Process> {
        let program = self.programs.join(program);
        let command = match geteuid().is_root() {
            true => {
                let user =
                    [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()];
                Process::builder("setpriv").args(user).arg(program)
            }
            false => Process::builder(program),
        };
        let command = command.clean_env().env("LC_ALL", "C").args(arguments).arg(self.data());
        command.log_to(self.log_path()).spawn()
    }

    fn error(&self, what: impl fmt::Display) -> io::Error {
        io::Error::other(format!(
            "the PostgreSQL server at {}: {what}; its log:\n{}",
            self.address(),
            self.log()
        ))
    }
}

impl fmt::Debug for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer")
            .field("url", &self.url())
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

impl Drop for PostgresServer {
    /// Stops the server instead of killing it, because a killed server leaves a segment of shared memory behind.
    fn drop(&mut self) {
        let Some(process) = self.process().take() else { return };
        self.end(&process, Signal::QUIT);
        let since = Instant::now();
        while process.ended().is_none() && since.elapsed() < PATIENCE {
            std::thread::sleep(INTERVAL);
        }
    }
}

/// Makes the server's user the owner of the file or folder.
fn own(path: &Path) -> io::Result<()> {
    match geteuid().is_root() {
        true => chown(path, Some(NOBODY), Some(NOBODY)),
        false => Ok(()),
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700))?;
    own(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => {
                fs::copy(entry.path(), &target)?;
                own(&target)?;
            }
        }
    }
    Ok(())
}
