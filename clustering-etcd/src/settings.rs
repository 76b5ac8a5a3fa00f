use std::{fmt, time::Duration};

use clustering_core::{Namespace, store::StoreError};
use thiserror::Error;

use crate::{Endpoint, Secret, Tls, endpoint::Scheme};

/// Configuration of [`EtcdStore`](crate::EtcdStore). The defaults suit an etcd in the same data centre.
///
/// ```
/// use clustering_etcd::EtcdConfig;
///
/// let mut config = EtcdConfig::new(["etcd-1:2379", "etcd-2:2379", "etcd-3:2379"])?;
/// config.prefix = "staging/".into();
/// config.validate()?;
/// # Ok::<(), clustering_etcd::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EtcdConfig {
    /// Members of one etcd cluster, at least one. The store starts with a random one, and switches to the next one
    /// when it fails.
    pub endpoints: Vec<Endpoint>,
    /// TLS settings, for all endpoints. With settings, endpoints without a scheme use `https`. With `None`, the
    /// default, connections use TLS with [`Tls::default`] if the endpoints are `https://`, and no TLS otherwise.
    pub tls: Option<Tls>,
    /// User and password. `None`, the default, is for an etcd without users, or one that authenticates users by the
    /// client certificate. Without [`tls`](Self::tls), anyone on the network can read the password.
    pub credentials: Option<Credentials>,
    /// Lease TTL of nodes that are created by [`EtcdStore::node`](crate::EtcdStore::node); see
    /// [`Config::ttl`](crate::Config::ttl). The store itself does not use it. From 2 s, etcd's minimum, to 1 day. With
    /// `None`, the default, nodes use their own default of 15 s.
    pub ttl: Option<Duration>,
    /// Prefix of every key in etcd, so that several users can share one etcd. Callers do not see it. Empty by
    /// default; at most 512 bytes. Like a [namespace](clustering_core::Namespace::RESERVED), it must not have a
    /// segment `view`, `ready` or `history`, since its keys could otherwise be among those of a cluster that uses no
    /// prefix.
    pub prefix: String,
    /// Time limit for making a connection, until the server has answered on it: name resolution, TCP, TLS, and the
    /// HTTP/2 greeting. If the name has several addresses, the limit covers all of them together: later addresses are
    /// tried while earlier ones have not answered, and the last one has at least half of the time. 1 s by default. It
    /// must be less than [`request_timeout`](Self::request_timeout), which leaves time to try another member, and
    /// distinguishes an unreachable member from a silent one.
    pub connect_timeout: Duration,
    /// Time limit for a call, including attempts at other members. Each [page](Self::page) of a long read is a call
    /// of its own. 2 s by default, which is less than a sixth of the default lease TTL: after that time the cluster's
    /// runtime gives up the call.
    pub request_timeout: Duration,
    /// Interval of HTTP/2 pings on each connection, idle or not. 6 s by default. It must be more than 5 s, because etcd
    /// closes connections that are pinged more often (its `--grpc-keepalive-min-time`).
    pub keep_alive_interval: Duration,
    /// Time limit for the reply to a ping, after which the connection counts as lost. 3 s by default.
    pub keep_alive_timeout: Duration,
    /// Time without messages after which a watch requests a progress notification, although its connection is up. The
    /// member has [`request_timeout`](Self::request_timeout) to reply. 11 min by default, because etcd sends a
    /// notification every 10 min by itself (its `--experimental-watch-progress-notify-interval`); at least 1 s. If a
    /// call fails at the same member, the watch requests a notification at once.
    pub watch_check: Duration,
    /// Time for which a lost watch tries to resume, at any member, until it ends with
    /// [`Disconnected`](crate::store::WatchEnd::Disconnected). 10 s by default, which suffices for a restart of etcd
    /// or an election. The pauses between attempts grow up to 1 s. Zero ends a lost watch at once.
    pub watch_resume: Duration,
    /// Interval at which etcd's member list is read, so that the store finds members that replaced the configured ones.
    /// 1 min by default, with jitter; at least 1 s. Zero turns it off.
    ///
    /// A learned member is used only while no configured member can be connected to, and only after it has confirmed,
    /// before any credentials are sent, that it belongs to the same cluster. With TLS, its certificate must also be
    /// valid for the advertised host or [`Tls::server_name`]. With credentials but without TLS, no members are learned,
    /// since the password could go to the wrong server. Turn it off where all traffic to etcd has to use the configured
    /// endpoints, such as a proxy that meters or limits it.
    pub member_refresh: Duration,
    /// Number of entries per request of a read, at least 1. 500 by default, which is up to 32 MiB with the largest
    /// values of 64 KiB.
    pub page: u32,
}

/// Credentials used to authenticate with etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Name of the user.
    pub user: String,
    /// Password of the user.
    pub password: Secret,
}

impl Credentials {
    /// Creates credentials from a user and a password.
    pub fn new(user: impl Into<String>, password: impl Into<Secret>) -> Self {
        Credentials { user: user.into(), password: password.into() }
    }
}

/// An invalid setting: its name, its value, and the rule that it breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what} of {value} cannot be used: {rule}")]
pub struct ConfigError {
    what: String,
    value: String,
    rule: String,
}

impl ConfigError {
    pub(crate) fn new(what: impl Into<String>, value: impl fmt::Debug, rule: impl Into<String>) -> Self {
        ConfigError { what: what.into(), value: format!("{value:?}"), rule: rule.into() }
    }

    /// Creates an error that does not show the value.
    pub(crate) fn hidden(what: impl Into<String>, rule: impl Into<String>) -> Self {
        ConfigError { what: what.into(), value: "(hidden)".into(), rule: rule.into() }
    }

    /// Returns the name of the environment variable, or of the field of [`EtcdConfig`].
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Returns the rule that the value breaks.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Replaces the name by that of the variable or field from which the value came.
    pub(crate) fn within(mut self, what: impl Into<String>) -> Self {
        self.what = what.into();
        self
    }
}

impl From<ConfigError> for StoreError {
    fn from(error: ConfigError) -> Self {
        StoreError::invalid(error.to_string()).with_source(error)
    }
}

impl EtcdConfig {
    /// Creates a configuration with these endpoints and defaults for all other fields.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] about the first endpoint that does not parse, or if TLS is meant but cannot be used.
    pub fn new<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self, ConfigError> {
        let endpoints =
            endpoints.into_iter().map(|text| text.as_ref().parse()).collect::<Result<Vec<_>, _>>()?;
        let config = EtcdConfig { endpoints, ..EtcdConfig::default() };
        config.validate()?;
        Ok(config)
    }

    /// Reads the configuration from environment variables; see [`EtcdStore::from_env`](crate::EtcdStore::from_env).
    ///
    /// # Errors
    ///
    /// [`ConfigError`] about the first invalid variable. It does not show passwords.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// Reads the configuration from variables that `variable` returns, for example for a tool whose flags override the
    /// environment.
    ///
    /// # Errors
    ///
    /// Same as [`from_env`](Self::from_env).
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self, ConfigError> {
        crate::env::config(variable)
    }

    /// Returns the longest time from a change until a watch has delivered it or ended (contract rule 3): the time in
    /// which a dead connection may go unnoticed, plus [`watch_resume`](Self::watch_resume).
    ///
    /// Usually a watch lags by a few milliseconds, and by a fraction of a second more after its connection broke. A
    /// silent member is detected sooner if a call is made there: within twice
    /// [`request_timeout`](Self::request_timeout). A bug of etcd that only affects a watch would be detected after
    /// [`watch_check`](Self::watch_check).
    pub fn watch_lag(&self) -> Duration {
        self.keep_alive_interval + self.keep_alive_timeout + self.watch_resume
    }

    /// Checks all fields, and reads the files named by [`tls`](Self::tls).
    ///
    /// # Errors
    ///
    /// [`ConfigError`] about the first invalid field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_fields()?;
        let Some(tls) = self.effective_tls() else { return Ok(()) };
        for endpoint in &self.endpoints {
            tls.name_of(endpoint.host())?;
        }
        tls.load().map(drop)
    }

    /// Returns the TLS settings to use: the configured ones, or the defaults if an endpoint is `https://`.
    pub(crate) fn effective_tls(&self) -> Option<Tls> {
        let is_https = self.endpoints.iter().any(|endpoint| endpoint.scheme() == Some(Scheme::Https));
        self.tls.clone().or_else(|| is_https.then(Tls::default))
    }

    /// Checks all fields without reading files.
    pub(crate) fn validate_fields(&self) -> Result<(), ConfigError> {
        self.validate_endpoints()?;
        self.validate_prefix()?;
        self.validate_ttl()?;
        if let Some(credentials) = &self.credentials
            && credentials.user.is_empty()
        {
            return Err(ConfigError::new("credentials", credentials, "the user must not be empty"));
        }
        if self.page == 0 {
            return Err(ConfigError::new("page", self.page, "it must be at least 1"));
        }
        self.validate_times()
    }

    fn validate_endpoints(&self) -> Result<(), ConfigError> {
        if self.endpoints.is_empty() {
            let rule = "at least one endpoint is required";
            return Err(ConfigError::new("endpoints", &self.endpoints, rule));
        }
        let of = |scheme| self.endpoints.iter().find(|endpoint| endpoint.scheme() == Some(scheme));
        let Some(plain) = of(Scheme::Http) else { return Ok(()) };
        let rule = match (of(Scheme::Https), &self.tls) {
            (Some(secured), _) => format!(
                "{secured} uses TLS and this one does not, so secrets could be sent in plain text: use either http:// \
                 or https:// for all endpoints"
            ),
            (None, Some(_)) => "TLS settings are set: write https://, or remove them".to_owned(),
            (None, None) => return Ok(()),
        };
        Err(ConfigError::new("endpoints", plain.to_string(), rule))
    }

    fn validate_prefix(&self) -> Result<(), ConfigError> {
        let rule = if self.prefix.len() > 512 {
            "it may have at most 512 bytes"
        } else if self.prefix.split('/').any(|segment| Namespace::RESERVED.contains(&segment)) {
            "it must not contain the segments `view`, `ready` or `history`, which are reserved for the keys of clusters"
        } else {
            return Ok(());
        };
        Err(ConfigError::new("prefix", &self.prefix, rule))
    }

    fn validate_ttl(&self) -> Result<(), ConfigError> {
        let Some(ttl) = self.ttl else { return Ok(()) };
        check(ttl >= Duration::from_secs(2), "ttl", ttl, "the shortest TTL of etcd is 2 s")?;
        let mut cluster = clustering_core::Config::default();
        cluster.ttl = ttl;
        cluster.validate().map_err(|error| ConfigError::new("ttl", ttl, error.rule))
    }

    fn validate_times(&self) -> Result<(), ConfigError> {
        check(
            !self.connect_timeout.is_zero(),
            "connect_timeout",
            self.connect_timeout,
            "it must be more than zero",
        )?;
        check(
            self.request_timeout > self.connect_timeout,
            "request_timeout",
            self.request_timeout,
            "it must be more than connect_timeout, so that an unreachable member differs from a silent one",
        )?;
        check(
            self.keep_alive_interval > Duration::from_secs(5),
            "keep_alive_interval",
            self.keep_alive_interval,
            "it must be more than 5 s, since etcd closes connections that are pinged more often",
        )?;
        check(
            !self.keep_alive_timeout.is_zero(),
            "keep_alive_timeout",
            self.keep_alive_timeout,
            "it must be more than zero",
        )?;
        check(
            self.watch_check >= Duration::from_secs(1),
            "watch_check",
            self.watch_check,
            "it must be at least 1 s, since each check sends a message for each watch",
        )?;
        check(
            self.member_refresh.is_zero() || self.member_refresh >= Duration::from_secs(1),
            "member_refresh",
            self.member_refresh,
            "it must be at least 1 s, or zero to turn it off",
        )
    }
}

fn check(is_valid: bool, field: &str, value: Duration, rule: &str) -> Result<(), ConfigError> {
    match is_valid {
        true => Ok(()),
        false => Err(ConfigError::new(field, value, rule)),
    }
}

/// The endpoint `localhost:2379`, without TLS or credentials.
impl Default for EtcdConfig {
    fn default() -> Self {
        let secs = Duration::from_secs;
        EtcdConfig {
            endpoints: Endpoint::at("localhost", Endpoint::DEFAULT_PORT).into_iter().collect(),
            tls: None,
            credentials: None,
            ttl: None,
            prefix: String::new(),
            connect_timeout: secs(1),
            request_timeout: secs(2),
            keep_alive_interval: secs(6),
            keep_alive_timeout: secs(3),
            watch_check: secs(11 * 60),
            watch_resume: secs(10),
            member_refresh: secs(60),
            page: 500,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pem;

    fn endpoints(list: &[&str]) -> Vec<Endpoint> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut EtcdConfig), says: &str) {
        let mut config = EtcdConfig::default();
        config.validate().unwrap();
        change(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        // Creating a store performs the same checks.
        let store = crate::EtcdStore::new(config).unwrap_err();
        assert!(store.to_string().contains(says), "{store}");
    }

    #[test]
    fn each_invalid_field_is_rejected() {
        refused(|c| c.endpoints.clear(), "endpoints of [] cannot be used: at least one endpoint");
        refused(
            |c| c.endpoints = endpoints(&["https://a", "http://b"]),
            "endpoints of \"http://b:2379\" cannot be used: https://a:2379 uses TLS",
        );
        refused(
            |c| (c.endpoints, c.tls) = (endpoints(&["a", "http://b"]), Some(Tls::new())),
            "endpoints of \"http://b:2379\" cannot be used: TLS settings are set",
        );
        refused(
            |c| (c.endpoints, c.tls) = (endpoints(&["a"]), Some(Tls::new().server_name("not a name"))),
            "tls.server_name of \"not a name\" cannot be used",
        );
        refused(
            |c| (c.endpoints, c.tls) = (endpoints(&["-.-"]), Some(Tls::new())),
            "endpoints of \"-.-\" cannot be used: it must be a DNS name or an IP address",
        );
        refused(|c| c.tls = Some(Tls::new().ca(Pem::file("/no/such/file"))), "the file cannot be read");
        refused(|c| c.prefix = "p".repeat(513), "at most 512 bytes");
        for prefix in ["view/", "a/ready/b/", "telemetry/history/"] {
            refused(
                |c| c.prefix = prefix.into(),
                "must not contain the segments `view`, `ready` or `history`",
            );
        }
        refused(
            |c| c.ttl = Some(Duration::from_millis(1999)),
            "ttl of 1.999s cannot be used: the shortest TTL of etcd",
        );
        refused(
            |c| c.ttl = Some(Duration::from_secs(86_401)),
            "ttl of 86401s cannot be used: it must be at most 1 day",
        );
        refused(|c| c.credentials = Some(Credentials::new("", "x")), "the user must not be empty");
        refused(|c| c.connect_timeout = Duration::ZERO, "connect_timeout of 0ns");
        refused(
            |c| c.connect_timeout = c.request_timeout,
            "request_timeout of 2s cannot be used: it must be more",
        );
        refused(|c| c.keep_alive_interval = Duration::from_secs(5), "keep_alive_interval of 5s");
        refused(|c| c.keep_alive_timeout = Duration::ZERO, "keep_alive_timeout of 0ns");
        refused(|c| c.watch_check = Duration::from_millis(999), "watch_check of 999ms");
        refused(|c| c.member_refresh = Duration::from_millis(999), "member_refresh of 999ms");
        refused(|c| c.page = 0, "page of 0");
    }

    #[test]
    fn tls_applies_to_all_endpoints() {
        let secured = |list: &[&str], tls: Option<Tls>| {
            let config = EtcdConfig { endpoints: endpoints(list), tls, ..EtcdConfig::default() };
            config.effective_tls().is_some()
        };
        assert!(!secured(&["a", "http://b"], None));
        assert!(secured(&["a", "https://b"], None));
        assert!(secured(&["a", "b"], Some(Tls::new())));
    }

    #[test]
    fn the_default_endpoint_is_localhost() {
        assert_eq!(EtcdConfig::default(), EtcdConfig::new(["localhost:2379"]).unwrap());
    }

    #[test]
    fn no_output_shows_the_password() {
        let credentials = Some(Credentials::new("", "hunter2"));
        let config = EtcdConfig { credentials, ..EtcdConfig::default() };
        let error = config.validate().unwrap_err();
        for shown in [format!("{config:?}"), format!("{error:?}"), error.to_string()] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let shown = format!("{:?} {:?}", StoreError::from(error.clone()), error);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
