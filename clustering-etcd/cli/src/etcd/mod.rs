//! Connects the command to etcd.

mod password;
mod server;

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use clap::Args;
use clustering_cli::{Connect, Failure, Purpose, Server};
use clustering_etcd::{
    EtcdConfig, EtcdStore,
    store::{CoordinationStore, ErrorKind},
};

/// Connection to etcd. The options have the names of etcdctl's, and take precedence over the environment variables.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Etcd {
    /// Addresses of the etcd members, separated by commas
    /// [env: ETCD_ENDPOINTS, or ETCD_HOST and ETCD_PORT, or ETCDCTL_ENDPOINTS] [default: localhost:2379]
    #[arg(long, global = true, value_name = "LIST")]
    endpoints: Option<String>,
    /// User, or user:password. A password that is missing is read from --password-file, ETCDCTL_PASSWORD or the
    /// terminal [env: ETCDCTL_USER]
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// Password. It is visible in the process list of this machine; prefer --password-file [env: ETCDCTL_PASSWORD]
    #[arg(long, global = true, value_name = "TEXT", conflicts_with = "password_file")]
    password: Option<String>,
    /// File with the password in its first line; - for the standard input
    #[arg(long, global = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// File with the CA certificates that verify etcd's certificate [env: ETCDCTL_CACERT]
    #[arg(long, global = true, value_name = "FILE")]
    cacert: Option<OsString>,
    /// File with the client certificate [env: ETCDCTL_CERT]
    #[arg(long, global = true, value_name = "FILE")]
    cert: Option<OsString>,
    /// File with the key of the client certificate [env: ETCDCTL_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    key: Option<OsString>,
    /// Connect without TLS. With false, connect with TLS even if none of the files above is given
    /// [env: ETCDCTL_INSECURE_TRANSPORT]
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    insecure_transport: Option<String>,
    /// Use addresses from etcd's member list while none of the endpoints can be reached [env: ETCD_FOLLOW_MEMBERS]
    /// [default: true]
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    follow_members: Option<String>,
    /// Time limit for connecting to a member [default: 1s]
    #[arg(long, global = true, value_name = "TIME", value_parser = clustering_cli::duration)]
    dial_timeout: Option<Duration>,
    /// The password that was read from the file or the terminal. A command that connects twice reads it once.
    #[arg(skip)]
    read: Arc<OnceLock<Password>>,
}

/// A password, which debug output does not show.
#[derive(Clone)]
struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The options that stand for an environment variable.
const OPTIONS: [(&str, &str); 8] = [
    ("--endpoints", ENDPOINTS),
    ("--user", USER),
    ("--password", PASSWORD),
    ("--cacert", "ETCDCTL_CACERT"),
    ("--cert", "ETCDCTL_CERT"),
    ("--key", "ETCDCTL_KEY"),
    ("--insecure-transport", "ETCDCTL_INSECURE_TRANSPORT"),
    ("--follow-members", "ETCD_FOLLOW_MEMBERS"),
];

const ENDPOINTS: &str = "ETCD_ENDPOINTS";
const USER: &str = "ETCDCTL_USER";
const PASSWORD: &str = "ETCDCTL_PASSWORD";

/// Environment variables by name. They contain the values of options, or the variables of this process.
type Variables = BTreeMap<&'static str, OsString>;

impl Connect for Etcd {
    const STORE: &'static str = "etcd";
    const TTL_VARIABLE: Option<&'static str> = Some("ETCD_TTL");

    async fn connect(&self, purpose: Purpose) -> Result<Arc<dyn CoordinationStore>, Failure> {
        let mut config = self.config()?;
        if purpose == Purpose::Operator {
            config.watch_resume = Duration::from_secs(1);
        }
        Ok(Arc::new(EtcdStore::connect(config).await?))
    }

    fn hint(error: &ErrorKind) -> Option<&'static str> {
        match error {
            ErrorKind::Unreachable => {
                Some("is etcd running, and are these its endpoints? See --endpoints or ETCD_ENDPOINTS")
            }
            ErrorKind::Busy => Some("see `etcdctl endpoint status`, `etcdctl alarm list` and etcd's log"),
            _ => None,
        }
    }

    fn secrets() -> Vec<&'static str> {
        let has_password = |user: OsString| user.to_string_lossy().contains(':');
        let user = env::var_os(USER).is_some_and(has_password).then_some(USER);
        [PASSWORD].into_iter().chain(user).collect()
    }

    fn server(&self, folder: &Path) -> Result<Option<Server>, Failure> {
        let variables = [ENDPOINTS, "ETCD_HOST", "ETCD_PORT", "ETCDCTL_ENDPOINTS"];
        if self.endpoints.is_some() || variables.into_iter().any(is_set) {
            return Ok(None);
        }
        server::prepare(folder).map(Some)
    }
}

impl Etcd {
    fn config(&self) -> Result<EtcdConfig, Failure> {
        let mut given = self.given();
        self.complete_password(&mut given)?;
        let variable = |name: &str| given.get(name).cloned().or_else(|| env::var_os(name));
        let mut config = EtcdConfig::from_variables(variable).map_err(|error| {
            // The user who set an option should not be told about the variable that it stands for.
            let named = |text: String, (option, variable): &(&str, &str)| match given.contains_key(variable) {
                true => text.replace(variable, option),
                false => text,
            };
            Failure::unknown(OPTIONS.iter().fold(error.to_string(), named))
        })?;
        if let Some(dial) = self.dial_timeout {
            config.connect_timeout = dial;
            config.request_timeout = config.request_timeout.max(dial + Duration::from_secs(1));
        }
        // Node records are small, so thousands of them fit into one reply.
        config.page = 10_000;
        Ok(config)
    }

    /// Returns the values of the options, under the names of the variables that they stand for.
    fn given(&self) -> Variables {
        let text = |text: &Option<String>| text.clone().map(OsString::from);
        let values = [
            text(&self.endpoints),
            text(&self.user),
            text(&self.password),
            self.cacert.clone(),
            self.cert.clone(),
            self.key.clone(),
            text(&self.insecure_transport),
            text(&self.follow_members),
        ];
        let pairs = OPTIONS.iter().zip(values);
        pairs.filter_map(|((_, variable), value)| Some((*variable, value?))).collect()
    }

    /// Returns the password that was read before, or reads it.
    fn password(&self, read: impl FnOnce() -> Result<String, Failure>) -> Result<OsString, Failure> {
        let password = match self.read.get() {
            Some(known) => known.clone(),
            None => {
                let password = Password(read()?);
                self.read.get_or_init(|| password).clone()
            }
        };
        Ok(password.0.into())
    }

    /// Adds the password from the file, or from the terminal if there is a user without a password.
    fn complete_password(&self, given: &mut Variables) -> Result<(), Failure> {
        if let Some(file) = &self.password_file {
            given.insert(PASSWORD, self.password(|| password::read(file))?);
        }
        let user = given.get(USER).cloned().or_else(|| env::var_os(USER)).unwrap_or_default();
        let user = user.to_string_lossy();
        if user.contains(':') {
            // The password of `--user` is meant, not that of another user in the environment.
            if self.user.is_some() && !given.contains_key(PASSWORD) {
                given.insert(PASSWORD, OsString::new());
            }
        } else if !user.is_empty() && !given.contains_key(PASSWORD) && !is_set(PASSWORD) {
            given.insert(PASSWORD, self.password(|| password::ask(&user))?);
        }
        Ok(())
    }
}

/// True if the environment variable is set. Empty variables count as unset.
fn is_set(variable: impl AsRef<OsStr>) -> bool {
    env::var_os(variable).is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        etcd: Etcd,
    }

    #[test]
    fn the_options_are_consistent() {
        Line::command().debug_assert();
    }

    /// The second connection of `run --page` must not ask for the password again, or read an input that has ended.
    #[test]
    fn a_password_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2\n").unwrap();
        let file = file.to_str().unwrap();
        let line = Line::try_parse_from(["clustering", "--user", "ops", "--password-file", file]).unwrap();
        let first = line.etcd.clone();
        first.config().unwrap();
        std::fs::remove_file(file).unwrap();
        line.etcd.config().unwrap();
        assert!(!format!("{:?}", line.etcd).contains("hunter2"), "{:?}", line.etcd);
    }

    #[test]
    fn errors_name_the_option_that_was_given() {
        let error = |line: &[&str]| {
            let line = Line::try_parse_from([&["clustering"], line].concat()).unwrap();
            line.etcd.config().unwrap_err().to_string()
        };
        assert!(error(&["--endpoints", "http://"]).starts_with("--endpoints "));
        assert!(error(&["--insecure-transport=maybe"]).starts_with("--insecure-transport "));
    }
}
