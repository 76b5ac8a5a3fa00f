use std::{ffi::OsString, fmt, path::PathBuf, time::Duration};

use clustering_core::store::StoreError;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::{schema, tls::Tls};

/// Configuration of [`PostgresStore`](crate::PostgresStore). The defaults suit a PostgreSQL in the same data centre.
///
/// ```
/// use clustering_postgres::PostgresConfig;
///
/// let mut config = PostgresConfig::parse("postgresql://ingest:secret@db-1,db-2/services?sslmode=require")?;
/// config.schema = "ingest_cluster".into();
/// config.validate()?;
/// assert!(!format!("{config:?}").contains("secret"));
/// # Ok::<(), clustering_postgres::store::StoreError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// Addresses, user, password and database. If several hosts are given, the one that accepts writes is used. Time
    /// limits and keep-alive settings in it are replaced by those below.
    pub server: tokio_postgres::Config,
    /// File with the certificates of the authorities that may have signed the server's certificate. With `None`, the
    /// default, those of the operating system apply. The parameter `sslmode` of the address selects when connections
    /// use TLS: `disable`, `prefer` (the default, for servers on a trusted network) or `require`. With TLS, the
    /// certificate is always verified, including its name, as libpq does for `verify-full`.
    pub root_certificates: Option<PathBuf>,
    /// Files with the client's certificate and its key, for servers that authenticate clients by them.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Schema of the tables, and name of the notification channel: `clustering` by default. Lower-case letters,
    /// digits and underscores. Each schema is a store of its own.
    pub schema: String,
    /// Time limit for a connection, until it can be used: name resolution, TCP, TLS, authentication and the
    /// preparation of the statements. 2 s by default.
    pub connect_timeout: Duration,
    /// Time limit for a call, in the server and on the way. 2 s by default, which is less than a sixth of the default
    /// lease TTL: after that time the cluster's runtime gives up the call.
    pub request_timeout: Duration,
    /// Interval at which each process looks at the leases. It ends overdue ones, and notices with the same call if its
    /// connection died silently. 5 s by default.
    pub check_interval: Duration,
    /// Time for which a watch that cannot read its changes tries again, until it ends with
    /// [`Disconnected`](crate::store::WatchEnd::Disconnected). 10 s by default, which suffices for a restart of the
    /// server.
    pub watch_resume: Duration,
    /// Time for which changes are kept for watches that lag, and for nodes that read a snapshot before they open a
    /// watch. 10 min by default.
    pub keep_changes: Duration,
    /// Time between the two phases of a compaction, in which open watches can move past the changes that will be
    /// deleted. 1 min by default. It should be more than [`watch_lag`](Self::watch_lag).
    pub compaction_grace: Duration,
}

impl PostgresConfig {
    /// Parses a URL or a list of `key=value` pairs, as `psql` takes them. Of the TLS options, `sslmode`, `sslrootcert`,
    /// `sslcert` and `sslkey` are known.
    ///
    /// # Errors
    ///
    /// [`Invalid`](clustering_core::store::ErrorKind::Invalid) if the text does not parse. The message does not show
    /// it, since it may contain a password.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let (text, files) = split_files(text);
        let server = text.parse().map_err(|error: tokio_postgres::Error| {
            let reason = error_text(&error);
            StoreError::invalid(format!(
                "the address of PostgreSQL cannot be used ({reason}): write it as \
                 postgresql://user:password@host:port/database or as key=value pairs"
            ))
        })?;
        let mut config = PostgresConfig { server, ..Self::default() };
        let [root, certificate, key] = files;
        config.root_certificates = root.map(PathBuf::from);
        config.identity = pair(certificate, key, "sslcert", "sslkey")?;
        Ok(config)
    }

    /// Reads the configuration from environment variables; see
    /// [`PostgresStore::from_env`](crate::PostgresStore::from_env).
    ///
    /// # Errors
    ///
    /// [`Invalid`](clustering_core::store::ErrorKind::Invalid) with the name of the first invalid variable.
    pub fn from_env() -> Result<Self, StoreError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// Reads the configuration from variables that `variable` returns.
    ///
    /// # Errors
    ///
    /// Same as [`from_env`](Self::from_env).
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, StoreError> {
        let get = |name: &str| match variable(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => value
                .into_string()
                .map(Some)
                .map_err(|_| StoreError::invalid(format!("{name} must be UTF-8"))),
        };
        let url = get("DATABASE_URL")?.unwrap_or_default();
        let within = |error: StoreError| StoreError::invalid(format!("DATABASE_URL: {error}"));
        let mut config = Self::parse(&url).map_err(within)?;
        let server = &mut config.server;
        if server.get_hosts().is_empty()
            && let Some(hosts) = get("PGHOST")?
        {
            for host in hosts.split(',') {
                server.host(host.trim());
            }
        }
        if server.get_ports().is_empty()
            && let Some(ports) = get("PGPORT")?
        {
            for port in ports.split(',') {
                let number = port.trim().parse().ok().filter(|port| *port != 0);
                let rule =
                    || StoreError::invalid(format!("PGPORT of {port:?} is not a port from 1 to 65535"));
                server.port(number.ok_or_else(rule)?);
            }
        }
        if server.get_user().is_none()
            && let Some(text) = get("PGUSER")?
        {
            server.user(text);
        }
        if server.get_password().is_none()
            && let Some(text) = get("PGPASSWORD")?
        {
            server.password(text);
        }
        if server.get_dbname().is_none()
            && let Some(text) = get("PGDATABASE")?
        {
            server.dbname(text);
        }
        if !url.contains("sslmode=")
            && let Some(mode) = get("PGSSLMODE")?
        {
            server.ssl_mode(ssl_mode(&mode)?);
        }
        config.root_certificates = config.root_certificates.or(get("PGSSLROOTCERT")?.map(PathBuf::from));
        if config.identity.is_none() {
            config.identity = pair(get("PGSSLCERT")?, get("PGSSLKEY")?, "PGSSLCERT", "PGSSLKEY")?;
        }
        if let Some(schema) = get("CLUSTERING_SCHEMA")? {
            config.schema = schema;
        }
        config.validate()?;
        Ok(config)
    }

    /// Returns the longest time from a change until a watch has delivered it or ended (contract rule 3): the time in
    /// which a dead connection may go unnoticed, plus the time to connect, plus [`watch_resume`](Self::watch_resume).
    ///
    /// Usually a watch lags by a few milliseconds.
    pub fn watch_lag(&self) -> Duration {
        self.check_interval + self.request_timeout + self.connect_timeout + self.watch_resume
    }

    /// Checks all fields, and reads the certificate files.
    ///
    /// # Errors
    ///
    /// [`Invalid`](clustering_core::store::ErrorKind::Invalid) for the first invalid field.
    pub fn validate(&self) -> Result<(), StoreError> {
        if !schema::is_valid(&self.schema) {
            return Err(StoreError::invalid(format!(
                "the schema {:?} cannot be used: it must consist of at most 63 lower-case letters, digits and \
                 underscores, and begin neither with a digit nor with pg_",
                self.schema
            )));
        }
        let second = Duration::from_secs(1);
        for (field, value, least) in [
            ("connect_timeout", self.connect_timeout, Duration::from_millis(10)),
            ("request_timeout", self.request_timeout, Duration::from_millis(10)),
            ("check_interval", self.check_interval, second),
            ("keep_changes", self.keep_changes, second),
        ] {
            if value < least {
                return Err(StoreError::invalid(format!(
                    "{field} is {value:?}, but must be at least {least:?}"
                )));
            }
        }
        Tls::load(self).map(drop)
    }

    /// Returns the settings for a connection.
    pub(crate) fn connection(&self) -> tokio_postgres::Config {
        let mut server = self.server.clone();
        if server.get_hosts().is_empty() && server.get_hostaddrs().is_empty() {
            server.host("localhost");
        }
        if server.get_user().is_none() {
            server.user("postgres");
        }
        if server.get_application_name().is_none() {
            server.application_name("clustering");
        }
        let options = server.get_options().unwrap_or_default();
        let limit = self.request_timeout.as_millis();
        let options = format!(
            "{options} -c statement_timeout={limit} -c default_transaction_isolation=read\\ committed \
             -c default_transaction_read_only=off"
        );
        server.options(options.trim_start());
        server.connect_timeout(self.connect_timeout).tcp_user_timeout(self.request_timeout * 2);
        server.keepalives(true).keepalives_idle(self.check_interval);
        // A replica cannot commit, and may not show the latest commits.
        server.target_session_attrs(TargetSessionAttrs::ReadWrite);
        server
    }

    /// Returns the hosts, for messages.
    pub(crate) fn hosts(&self) -> String {
        let name = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        let hosts: Vec<String> = self.server.get_hosts().iter().map(name).collect();
        if hosts.is_empty() { "localhost".to_owned() } else { hosts.join(",") }
    }
}

/// The database `postgres` of the user `postgres` on `localhost`, without a password.
impl Default for PostgresConfig {
    fn default() -> Self {
        let secs = Duration::from_secs;
        PostgresConfig {
            server: tokio_postgres::Config::new(),
            root_certificates: None,
            identity: None,
            schema: "clustering".to_owned(),
            connect_timeout: secs(2),
            request_timeout: secs(2),
            check_interval: secs(5),
            watch_resume: secs(10),
            keep_changes: secs(600),
            compaction_grace: secs(60),
        }
    }
}

/// Omits the password.
impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("hosts", &self.hosts())
            .field("user", &self.server.get_user())
            .field("database", &self.server.get_dbname())
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// Takes the options with names of files out of a URL or of a list of pairs, because `tokio-postgres` does not know
/// them. Returns the values of `sslrootcert`, `sslcert` and `sslkey`.
fn split_files(text: &str) -> (String, [Option<String>; 3]) {
    const NAMES: [&str; 3] = ["sslrootcert=", "sslcert=", "sslkey="];
    let mut files = [None, None, None];
    let is_url = text.contains("://");
    let (before, options) = match is_url {
        true => text.split_once('?').unwrap_or((text, "")),
        false => ("", text),
    };
    let separator = if is_url { '&' } else { ' ' };
    let others = options.split(separator).filter(|option| {
        let place = NAMES.iter().position(|name| option.starts_with(name));
        if let Some(place) = place {
            files[place] = Some(option[NAMES[place].len()..].to_owned());
        }
        place.is_none()
    });
    // The certificate is verified in any case.
    let others = others.map(|option| match option {
        "sslmode=verify-full" | "sslmode=verify-ca" => "sslmode=require",
        other => other,
    });
    let others: Vec<&str> = others.collect();
    let others = others.join(&separator.to_string());
    let text = match (is_url, others.is_empty()) {
        (true, true) => before.to_owned(),
        (true, false) => format!("{before}?{others}"),
        (false, _) => others,
    };
    (text, files)
}

fn ssl_mode(text: &str) -> Result<SslMode, StoreError> {
    match text {
        "disable" => Ok(SslMode::Disable),
        "allow" | "prefer" => Ok(SslMode::Prefer),
        "require" | "verify-ca" | "verify-full" => Ok(SslMode::Require),
        _ => Err(StoreError::invalid(format!(
            "PGSSLMODE of {text:?} cannot be used: it must be disable, prefer, require or verify-full"
        ))),
    }
}

fn pair(
    certificate: Option<String>,
    key: Option<String>,
    certificate_name: &str,
    key_name: &str,
) -> Result<Option<(PathBuf, PathBuf)>, StoreError> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificate.into(), key.into()))),
        (Some(_), None) => {
            Err(StoreError::invalid(format!("{certificate_name} is set: set its key in {key_name}, too")))
        }
        (None, Some(_)) => Err(StoreError::invalid(format!(
            "{key_name} is set: set its certificate in {certificate_name}, too"
        ))),
    }
}

/// Returns the error's text with that of its source, which contains the reason.
pub(crate) fn error_text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", error_text(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<PostgresConfig, StoreError> {
        PostgresConfig::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn an_empty_environment_means_localhost() {
        let config = from(&[]).unwrap();
        assert_eq!((config.hosts().as_str(), config.schema.as_str()), ("localhost", "clustering"));
        assert_eq!(config.connection().get_user(), Some("postgres"));
    }

    #[test]
    fn the_url_takes_precedence_over_the_variables_of_libpq() {
        let others = [
            ("PGHOST", "b"),
            ("PGPORT", "3"),
            ("PGUSER", "c"),
            ("PGPASSWORD", "d"),
            ("PGDATABASE", "e"),
            ("PGSSLMODE", "require"),
        ];
        let config = from(&others).unwrap().connection();
        assert_eq!(config.get_hosts(), [Host::Tcp("b".to_owned())]);
        assert_eq!((config.get_ports(), config.get_user()), (&[3][..], Some("c")));
        assert_eq!((config.get_password(), config.get_dbname()), (Some(&b"d"[..]), Some("e")));
        assert_eq!(config.get_ssl_mode(), SslMode::Require);
        let url = ("DATABASE_URL", "postgresql://u:p@h:4/db?sslmode=disable");
        let config = from(&[&[url][..], &others].concat()).unwrap().connection();
        assert_eq!(config.get_hosts(), [Host::Tcp("h".to_owned())]);
        assert_eq!((config.get_ports(), config.get_user()), (&[4][..], Some("u")));
        assert_eq!((config.get_password(), config.get_dbname()), (Some(&b"p"[..]), Some("db")));
        assert_eq!(config.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn file_options_are_parsed_from_urls_and_from_key_value_pairs() {
        let url = "postgresql://h/db?sslrootcert=/ca.pem&sslmode=verify-full&sslcert=/c.pem&sslkey=/k.pem";
        let pairs = "host=h dbname=db sslrootcert=/ca.pem sslmode=verify-full sslcert=/c.pem sslkey=/k.pem";
        for text in [url, pairs] {
            let config = PostgresConfig::parse(text).unwrap();
            assert_eq!(config.root_certificates, Some("/ca.pem".into()), "{text}");
            assert_eq!(config.identity, Some(("/c.pem".into(), "/k.pem".into())), "{text}");
            assert_eq!(config.server.get_ssl_mode(), SslMode::Require, "{text}");
            assert_eq!(config.server.get_dbname(), Some("db"), "{text}");
        }
        let error = PostgresConfig::parse("postgresql://h?sslcert=/c.pem").unwrap_err().to_string();
        assert!(error.contains("set its key in sslkey"), "{error}");
    }

    #[test]
    fn invalid_values_are_reported_without_secrets() {
        for (variable, says) in [
            (("PGPORT", "70000"), "PGPORT of \"70000\""),
            (("PGSSLMODE", "maybe"), "PGSSLMODE of \"maybe\""),
            (("CLUSTERING_SCHEMA", "a b"), "the schema \"a b\" cannot be used"),
            (("DATABASE_URL", "postgresql://u:hunter2@h:x/db"), "DATABASE_URL: "),
            (("DATABASE_URL", "host=h password=hunter2 colour=red"), "unknown option `colour`"),
        ] {
            let error = from(&[variable]).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
        }
        let config = PostgresConfig::parse("postgresql://u:hunter2@h/db").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn every_time_limit_is_checked() {
        let refused = |change: fn(&mut PostgresConfig), says: &str| {
            let mut config = PostgresConfig::default();
            config.validate().unwrap();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        refused(|c| c.connect_timeout = Duration::ZERO, "connect_timeout is 0ns");
        refused(|c| c.request_timeout = Duration::ZERO, "request_timeout is 0ns");
        refused(|c| c.check_interval = Duration::ZERO, "check_interval is 0ns");
        refused(|c| c.keep_changes = Duration::ZERO, "keep_changes is 0ns");
        refused(|c| c.root_certificates = Some("/missing.pem".into()), "/missing.pem");
    }
}
