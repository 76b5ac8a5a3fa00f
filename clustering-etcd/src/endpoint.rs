use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::ConfigError;

/// Where a member of the etcd cluster listens: `host`, `host:port`, `http://host:port` or `https://host:port`. The port
/// is 2379 if none is given; an IPv6 address stands in brackets.
///
/// One without a scheme goes with the rest of the configuration, as with etcd's own tool: `https` where
/// [`EtcdConfig::tls`](crate::EtcdConfig::tls) is set, else `http`.
///
/// ```
/// use clustering_etcd::Endpoint;
///
/// let endpoint: Endpoint = "https://etcd-1.internal".parse()?;
/// assert_eq!(endpoint.to_string(), "https://etcd-1.internal:2379");
/// # Ok::<(), clustering_etcd::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    scheme: Option<Scheme>,
    /// Without brackets.
    host: String,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// Said of what may hold a password, which must not be shown.
const NO_USER: &str =
    "an endpoint has no user in it: that is in the credentials (ETCDCTL_USER, ETCDCTL_PASSWORD)";

impl Endpoint {
    /// The port that etcd's clients use unless told otherwise.
    pub const DEFAULT_PORT: u16 = 2379;

    /// The endpoint at that host, a name or an address, and port; without a scheme.
    ///
    /// # Errors
    ///
    /// The host is empty, or holds what neither a name nor an address does.
    pub fn at(host: &str, port: u16) -> Result<Self, ConfigError> {
        const RULE: &str = "a host is a name or an IP address, without scheme and port";
        if host.contains('@') {
            return Err(ConfigError::hidden("endpoint host", NO_USER));
        }
        let wrong = || ConfigError::new("endpoint host", host, RULE);
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match bare {
            Some(bare) => bare.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None if host.contains(':') => host.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None => host.to_owned(),
        };
        let is_of_a_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        match !host.is_empty() && host.chars().all(is_of_a_host) {
            true => Ok(Endpoint { scheme: None, host, port }),
            false => Err(ConfigError::new("endpoint host", host, RULE)),
        }
    }

    /// The scheme, if it has one.
    pub(crate) fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// The name or address, an IPv6 one without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The same with that scheme.
    pub(crate) fn with_scheme(&self, scheme: Scheme) -> Self {
        Endpoint { scheme: Some(scheme), ..self.clone() }
    }
}

impl FromStr for Endpoint {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if text.contains('@') {
            return Err(ConfigError::hidden("endpoint", NO_USER));
        }
        let wrong = |rule: &str| ConfigError::new("endpoint", text, rule);
        let (scheme, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (Some(Scheme::Http), rest),
            (_, Some(rest)) => (Some(Scheme::Https), rest),
            (None, None) => (None, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        const RULE: &str =
            "an endpoint is host, host:port, http://host:port or https://host:port, an IPv6 host in brackets";
        if rest.contains("://") {
            return Err(wrong(RULE));
        }
        // The colons of an IPv6 address are not that of the port: it stands behind the bracket.
        let (host, port) = match rest.rfind(']') {
            Some(end) => (&rest[..=end], &rest[end + 1..]),
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => parse_port(port).ok_or_else(|| wrong("a port is a number from 1 to 65535"))?,
            None if port.is_empty() => Endpoint::DEFAULT_PORT,
            None => return Err(wrong(RULE)),
        };
        let endpoint = Endpoint::at(host, port).map_err(|_| wrong(RULE))?;
        Ok(Endpoint { scheme, ..endpoint })
    }
}

/// A port that can be connected to: decimal digits, not zero.
pub(crate) fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten().filter(|port| *port != 0)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.scheme {
            Some(Scheme::Http) => "http://",
            Some(Scheme::Https) => "https://",
            None => "",
        })?;
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_write_one() {
        for (text, url) in [
            ("etcd", "etcd:2379"),
            ("etcd:12379", "etcd:12379"),
            ("http://etcd-1.internal:2379", "http://etcd-1.internal:2379"),
            ("https://etcd-1.internal", "https://etcd-1.internal:2379"),
            ("http://10.0.0.7:2379/", "http://10.0.0.7:2379"),
            ("[::1]", "[::1]:2379"),
            ("https://[fd00::7]:12379", "https://[fd00::7]:12379"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), url, "{text}");
            assert_eq!(url.parse::<Endpoint>().unwrap(), endpoint, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_with_the_rule() {
        for (text, rule) in [
            ("", "an endpoint is"),
            ("http://", "an endpoint is"),
            ("https://", "an endpoint is"),
            (":2379", "an endpoint is"),
            ("::1", "a port is"),
            ("[::1]2379", "an endpoint is"),
            ("[nonsense]:1", "an endpoint is"),
            ("[etcd]:1", "an endpoint is"),
            ("etcd:0", "a port is"),
            ("etcd:65536", "a port is"),
            ("etcd:+1", "a port is"),
            ("etcd:", "a port is"),
            ("etcd/path", "an endpoint is"),
            ("ftp://etcd", "an endpoint is"),
            ("http://https://etcd", "an endpoint is"),
            ("a b", "an endpoint is"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(rule), "{text}: {error}");
            assert!(error.contains(&format!("{text:?}")), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_in_one_is_not_shown() {
        let error = "http://me:hunter2@etcd:2379".parse::<Endpoint>().unwrap_err().to_string();
        assert!(error.contains("ETCDCTL_USER") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_bare_ipv6_address_is_a_host() {
        assert_eq!(Endpoint::at("::1", 2379).unwrap().to_string(), "[::1]:2379");
        assert!(Endpoint::at("etcd:2379", 2379).is_err());
    }
}
