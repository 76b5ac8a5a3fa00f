use std::{fmt, str::FromStr};

use crate::ConfigError;

/// Where a member of the etcd cluster listens: `host`, `host:port` or `http://host:port`. The port is 2379 if none is
/// given; an IPv6 address stands in brackets.
///
/// ```
/// use clustering_etcd::Endpoint;
///
/// let endpoint: Endpoint = "etcd-1.internal".parse()?;
/// assert_eq!(endpoint.to_string(), "http://etcd-1.internal:2379");
/// # Ok::<(), clustering_etcd::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(String);

impl Endpoint {
    /// The port that etcd's clients use unless told otherwise.
    pub const DEFAULT_PORT: u16 = 2379;

    /// The endpoint at that host, a name or an address, and port.
    ///
    /// # Errors
    ///
    /// The host is empty, or holds what neither a name nor an address does.
    pub fn at(host: &str, port: u16) -> Result<Self, ConfigError> {
        const RULE: &str = "a host is a name or an IP address, without scheme and port";
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let is_name = |text: &str| {
            !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        };
        if bare.contains(':') {
            let address: std::net::Ipv6Addr =
                bare.parse().map_err(|_| ConfigError::new("endpoint host", host, RULE))?;
            return Ok(Endpoint(format!("http://[{address}]:{port}")));
        }
        match is_name(host) {
            true => Ok(Endpoint(format!("http://{host}:{port}"))),
            false => Err(ConfigError::new("endpoint host", host, RULE)),
        }
    }

    /// As a URL.
    pub(crate) fn as_url(&self) -> &str {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = |rule: &str| ConfigError::new("endpoint", text, rule);
        if text.starts_with("https://") {
            return Err(wrong("TLS is not supported yet: give the endpoint as http://host:port"));
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        const RULE: &str = "an endpoint is host, host:port or http://host:port, an IPv6 host in brackets";
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
        Endpoint::at(host, port).map_err(|_| wrong(RULE))
    }
}

/// A port that can be connected to: decimal digits, not zero.
pub(crate) fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten().filter(|port| *port != 0)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_write_one() {
        for (text, url) in [
            ("etcd", "http://etcd:2379"),
            ("etcd:12379", "http://etcd:12379"),
            ("http://etcd-1.internal:2379", "http://etcd-1.internal:2379"),
            ("http://10.0.0.7:2379/", "http://10.0.0.7:2379"),
            ("[::1]", "http://[::1]:2379"),
            ("http://[fd00::7]:12379", "http://[fd00::7]:12379"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), url, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_with_the_rule() {
        for (text, rule) in [
            ("", "an endpoint is"),
            ("http://", "an endpoint is"),
            (":2379", "an endpoint is"),
            ("::1", "a port is"),
            ("[::1]2379", "an endpoint is"),
            ("[nonsense]:1", "an endpoint is"),
            ("etcd:0", "a port is"),
            ("etcd:65536", "a port is"),
            ("etcd:+1", "a port is"),
            ("etcd:", "a port is"),
            ("user@etcd:2379", "an endpoint is"),
            ("etcd/path", "an endpoint is"),
            ("ftp://etcd", "a port is"),
            ("a b", "an endpoint is"),
            ("https://etcd:2379", "TLS is not supported yet"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(rule), "{text}: {error}");
            assert!(error.contains(&format!("{text:?}")), "{text}: {error}");
        }
    }

    #[test]
    fn a_bare_ipv6_address_is_a_host() {
        assert_eq!(Endpoint::at("::1", 2379).unwrap().to_string(), "http://[::1]:2379");
        assert!(Endpoint::at("etcd:2379", 2379).is_err());
    }
}
