use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::ConfigError;

/// Address of a member of the etcd cluster: `host`, `host:port`, `http://host:port` or `https://host:port`. The default
/// port is 2379. An IPv6 address must be in brackets.
///
/// Without a scheme, it depends on the rest of the configuration, as for `etcdctl`: `https` if
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

/// Rule for endpoints with a user. The endpoint is not shown, since it may contain a password.
const NO_USER: &str =
    "an endpoint must not contain a user: set credentials instead (ETCDCTL_USER, ETCDCTL_PASSWORD)";

impl Endpoint {
    /// Default port of etcd for clients.
    pub const DEFAULT_PORT: u16 = 2379;

    /// Creates an endpoint without a scheme. `host` is a name or an IP address.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the host is empty, or neither a name nor an address.
    pub fn at(host: &str, port: u16) -> Result<Self, ConfigError> {
        const RULE: &str = "a host is a name or an IP address, without a scheme or port";
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
        let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        match !host.is_empty() && host.chars().all(is_valid) {
            true => Ok(Endpoint { scheme: None, host, port }),
            false => Err(ConfigError::new("endpoint host", host, RULE)),
        }
    }

    /// Returns the scheme, if the endpoint has one.
    pub(crate) fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// Returns the name or address. An IPv6 address has no brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the endpoint with this scheme.
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
        const RULE: &str = "an endpoint is host, host:port, http://host:port or https://host:port, with an IPv6 host in brackets";
        if rest.contains("://") {
            return Err(wrong(RULE));
        }
        // The colons inside the brackets belong to an IPv6 address.
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

/// Parses a port: decimal digits, not zero.
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
    fn each_form_of_an_endpoint_is_accepted() {
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
    fn an_invalid_endpoint_is_rejected_with_the_rule() {
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
    fn a_password_in_an_endpoint_is_not_shown() {
        let error = "http://me:hunter2@etcd:2379".parse::<Endpoint>().unwrap_err().to_string();
        assert!(error.contains("ETCDCTL_USER") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_bare_ipv6_address_is_a_host() {
        assert_eq!(Endpoint::at("::1", 2379).unwrap().to_string(), "[::1]:2379");
        assert!(Endpoint::at("etcd:2379", 2379).is_err());
    }
}
