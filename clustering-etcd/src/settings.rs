use std::{fmt, time::Duration};

use clustering_core::{Namespace, store::StoreError};
use thiserror::Error;

use crate::{Endpoint, Secret, Tls, endpoint::Scheme};

/// How to reach etcd. The defaults fit a cluster in the same data centre; each field says how it relates to the others.
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
    /// The members to talk to, at least one. The store talks to one of them, picked by chance, and goes on to the next
    /// when it fails. All must belong to the same etcd cluster.
    pub endpoints: Vec<Endpoint>,
    /// TLS. `None`, the default, for none, unless the endpoints say `https://`: that alone means [`Tls::default`]. With
    /// settings, endpoints without a scheme are `https`. It is for all endpoints or for none.
    pub tls: Option<Tls>,
    /// User and password. `None`, the default, for an etcd without users, or one that knows its users by the client
    /// certificate. Without [`tls`](Self::tls) the password can be read by whoever sees the network.
    pub credentials: Option<Credentials>,
    /// How long the leases of nodes live without a renewal, for nodes that are made by
    /// [`EtcdStore::node`](crate::EtcdStore::node); see [`Config::ttl`](crate::Config::ttl). The store itself has no use
    /// for it. `None`, the default, leaves it to the cluster: 15 s. From 2 s, etcd's shortest, to 1 day.
    pub ttl: Option<Duration>,
    /// Stands before every key in etcd and is never seen by the callers, so that several uses share one etcd. Empty by
    /// default; at most 512 bytes. Like a [namespace](clustering_core::Namespace::RESERVED), it must not have a segment
    /// `view`, `ready` or `history`: its keys could otherwise lie among the keys of a cluster that uses no prefix.
    pub prefix: String,
    /// Time limit for making a connection, until the server has answered on it: name resolution, TCP, TLS, and the
    /// HTTP/2 greeting. If the name has several addresses, the limit covers all of them together: later addresses are
    /// tried while earlier ones have not answered, and the last one has at least half of the time. 1 s by default. It
    /// must be less than [`request_timeout`](Self::request_timeout), which leaves time to try another member, and tells
    /// an unreachable member from a silent one.
    pub connect_timeout: Duration,
    /// How long a call may take, tries at other members included. 2 s by default: less than a sixth of the lease TTL,
    /// after which the cluster's runtime would give up the call by itself. A [page](Self::page) of a long read counts as a call.
    pub request_timeout: Duration,
    /// How often a connection is pinged, also while nothing else is sent. 6 s by default; more than 5 s, because etcd
    /// closes connections that are pinged more often (its `--grpc-keepalive-min-time`).
    pub keep_alive_interval: Duration,
    /// How long the answer to a ping may take until the connection counts as lost. 3 s by default.
    pub keep_alive_timeout: Duration,
    /// How long a watch may be silent on a connection that stands until its member is asked for a sign of life, which it
    /// has [`request_timeout`](Self::request_timeout) to give. 11 min by default, since etcd gives one by itself every 10
    /// (its `--experimental-watch-progress-notify-interval`); at least 1 s. It is asked at once when a call fails at the
    /// same member.
    pub watch_check: Duration,
    /// For how long a watch that lost its member tries to go on, at that member or another, until it ends with
    /// [`Disconnected`](crate::store::WatchEnd::Disconnected). 10 s by default, enough for a restart of etcd or an election;
    /// zero to end at once. It tries with growing pauses of up to 1 s.
    pub watch_resume: Duration,
    /// Interval at which etcd's member list is read, so that the store finds members that replaced the configured ones.
    /// 1 min by default, with jitter; at least 1 s. Zero turns it off.
    ///
    /// A learned member is used only while no configured member can be connected to, and only after it has confirmed,
    /// before any credentials are sent, that it belongs to the same cluster. With TLS its certificate must also be
    /// valid for the advertised host or [`Tls::server_name`]. With credentials but without TLS no members are learned,
    /// since the password could go to the wrong server. Turn it off where all traffic to etcd has to use the configured
    /// endpoints, such as a proxy that meters or limits it.
    pub member_refresh: Duration,
    /// How many entries a read asks for at a time, each page being a call of its own. 500 by default: with
    /// the largest values, of 64 KiB, 32 MiB. At least 1.
    pub page: u32,
}

/// Who the store is to etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The name of the user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

impl Credentials {
    /// A user and the password.
    pub fn new(user: impl Into<String>, password: impl Into<Secret>) -> Self {
        Credentials { user: user.into(), password: password.into() }
    }
}

/// A setting that cannot be used: which, its value, the rule.
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

    /// One whose value is nobody's business.
    pub(crate) fn hidden(what: impl Into<String>, rule: impl Into<String>) -> Self {
        ConfigError { what: what.into(), value: "(hidden)".into(), rule: rule.into() }
    }

    /// The field of [`EtcdConfig`] or the environment variable.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The rule that it breaks.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// The same about a variable or field that holds it.
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
    /// The defaults, for those endpoints.
    ///
    /// # Errors
    ///
    /// The first endpoint that is none.
    pub fn new<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self, ConfigError> {
        let endpoints =
            endpoints.into_iter().map(|text| text.as_ref().parse()).collect::<Result<Vec<_>, _>>()?;
        let config = EtcdConfig { endpoints, ..EtcdConfig::default() };
        config.validate()?;
        Ok(config)
    }

    /// What the environment says, see [`EtcdStore::from_env`](crate::EtcdStore::from_env).
    ///
    /// # Errors
    ///
    /// The first variable that cannot be used: its name, its value (a password excepted) and the rule.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// As [`from_env`](Self::from_env), with variables from elsewhere: for a tool whose flags win over the environment.
    ///
    /// # Errors
    ///
    /// As of [`from_env`](Self::from_env).
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self, ConfigError> {
        crate::env::config(variable)
    }

    /// How long after a change a watch has delivered it or ended at the latest (contract rule 3): with these settings,
    /// how long it goes unnoticed that a connection, or the member behind it, is dead, and then
    /// [`watch_resume`](Self::watch_resume).
    ///
    /// An ordinary watch lags by a few milliseconds, and one whose connection or member broke by a fraction of a second
    /// more, if another member or the same one answers. That a member went silent is noticed sooner, within twice
    /// [`request_timeout`](Self::request_timeout) of the next call that it leaves unanswered. A member that answers all
    /// but a watch, which would be a fault of etcd's own, is found out after [`watch_check`](Self::watch_check).
    pub fn watch_lag(&self) -> Duration {
        self.keep_alive_interval + self.keep_alive_timeout + self.watch_resume
    }

    /// Refuses settings that cannot work. Reads the files that [`tls`](Self::tls) names.
    ///
    /// # Errors
    ///
    /// The first field that breaks a rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_fields()?;
        let Some(tls) = self.effective_tls() else { return Ok(()) };
        for endpoint in &self.endpoints {
            tls.name_of(endpoint.host())?;
        }
        tls.load().map(drop)
    }

    /// The TLS settings that are given or, with `https://` endpoints, meant.
    pub(crate) fn effective_tls(&self) -> Option<Tls> {
        let meant = self.endpoints.iter().any(|endpoint| endpoint.scheme() == Some(Scheme::Https));
        self.tls.clone().or_else(|| meant.then(Tls::default))
    }

    /// The rules that need no look at files.
    pub(crate) fn validate_fields(&self) -> Result<(), ConfigError> {
        let check = |holds: bool, field: &str, value: Duration, rule: &str| match holds {
            true => Ok(()),
            false => Err(ConfigError::new(field, value, rule)),
        };
        if self.endpoints.is_empty() {
            return Err(ConfigError::new("endpoints", &self.endpoints, "at least one is needed"));
        }
        let of = |scheme| self.endpoints.iter().find(|endpoint| endpoint.scheme() == Some(scheme));
        if let Some(plain) = of(Scheme::Http) {
            let rule = match (of(Scheme::Https), &self.tls) {
                (Some(secured), _) => Some(format!(
                    "{secured} is with TLS and this one without, and what is a secret for one would be none for the \
                     other: all are http:// or all https://"
                )),
                (None, Some(_)) => {
                    Some("TLS settings are given: write https://, or leave them out".to_owned())
                }
                (None, None) => None,
            };
            if let Some(rule) = rule {
                return Err(ConfigError::new("endpoints", plain.to_string(), rule));
            }
        }
        if self.prefix.len() > 512 {
            return Err(ConfigError::new("prefix", &self.prefix, "it may have at most 512 bytes"));
        }
        if self.prefix.split('/').any(|segment| Namespace::RESERVED.contains(&segment)) {
            let rule =
                "no part of it may be `view`, `ready` or `history`: a cluster keeps its own keys under these";
            return Err(ConfigError::new("prefix", &self.prefix, rule));
        }
        if let Some(ttl) = self.ttl {
            check(ttl >= Duration::from_secs(2), "ttl", ttl, "etcd's leases live for 2 s at least")?;
            let mut cluster = clustering_core::Config::default();
            cluster.ttl = ttl;
            cluster.validate().map_err(|error| ConfigError::new("ttl", ttl, error.rule))?;
        }
        if let Some(credentials) = &self.credentials
            && credentials.user.is_empty()
        {
            return Err(ConfigError::new("credentials", credentials, "the user needs a name"));
        }
        if self.page == 0 {
            return Err(ConfigError::new("page", self.page, "it must be at least 1"));
        }
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
            "it must be more than connect_timeout, or a member that is away looks like one that is silent",
        )?;
        check(
            self.keep_alive_interval > Duration::from_secs(5),
            "keep_alive_interval",
            self.keep_alive_interval,
            "it must be more than 5 s: etcd closes connections that are pinged more often",
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
            "it must be at least 1 s: each check is a message for each watch",
        )?;
        check(
            self.member_refresh.is_zero() || self.member_refresh >= Duration::from_secs(1),
            "member_refresh",
            self.member_refresh,
            "it must be at least 1 s, or zero to turn it off",
        )
    }
}

/// `localhost:2379`, without authentication.
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
        // The store finds it too, before it connects.
        let store = crate::EtcdStore::new(config).unwrap_err();
        assert!(store.to_string().contains(says), "{store}");
    }

    #[test]
    fn each_rule_is_checked() {
        refused(|c| c.endpoints.clear(), "endpoints of [] cannot be used: at least one");
        refused(
            |c| c.endpoints = endpoints(&["https://a", "http://b"]),
            "endpoints of \"http://b:2379\" cannot be used: https://a:2379 is with TLS",
        );
        refused(
            |c| (c.endpoints, c.tls) = (endpoints(&["a", "http://b"]), Some(Tls::new())),
            "endpoints of \"http://b:2379\" cannot be used: TLS settings are given",
        );
        refused(
            |c| (c.endpoints, c.tls) = (endpoints(&["a"]), Some(Tls::new().server_name("not a name"))),
            "tls.server_name of \"not a name\" cannot be used",
        );
        refused(
            |c| (c.endpoints, c.tls) = (endpoints(&["-.-"]), Some(Tls::new())),
            "endpoints of \"-.-\" cannot be used: a certificate can only be for a DNS name or an IP address",
        );
        refused(|c| c.tls = Some(Tls::new().ca(Pem::file("/no/such/file"))), "the file cannot be read");
        refused(|c| c.prefix = "p".repeat(513), "at most 512 bytes");
        for prefix in ["view/", "a/ready/b/", "telemetry/history/"] {
            refused(|c| c.prefix = prefix.into(), "no part of it may be `view`, `ready` or `history`");
        }
        refused(|c| c.ttl = Some(Duration::from_millis(1999)), "ttl of 1.999s cannot be used: etcd's leases");
        refused(
            |c| c.ttl = Some(Duration::from_secs(86_401)),
            "ttl of 86401s cannot be used: it must be at most 1 day",
        );
        refused(|c| c.credentials = Some(Credentials::new("", "x")), "the user needs a name");
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
    fn tls_is_for_all_endpoints() {
        let secured = |list: &[&str], tls: Option<Tls>| {
            let config = EtcdConfig { endpoints: endpoints(list), tls, ..EtcdConfig::default() };
            config.effective_tls().is_some()
        };
        assert!(!secured(&["a", "http://b"], None));
        assert!(secured(&["a", "https://b"], None));
        assert!(secured(&["a", "b"], Some(Tls::new())));
    }

    #[test]
    fn the_default_is_localhost() {
        assert_eq!(EtcdConfig::default(), EtcdConfig::new(["localhost:2379"]).unwrap());
    }

    #[test]
    fn a_password_shows_nowhere() {
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
