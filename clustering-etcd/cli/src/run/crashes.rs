//! Crash detection: other nodes connect to this process, and notice at once when it is gone.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use clap::Args;
use clustering_core::{Builder, CrashDetection};

use super::variable::{Value, boolean, optional};
use crate::failure::Failure;

/// Crash detection. Without it, the other nodes notice a crash when the TTL has passed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Crash detection")]
pub(crate) struct Crashes {
    /// Let other nodes connect to this process over TCP, and connect to theirs: a process that is gone is noticed
    /// within milliseconds. ADDRESS is the address to listen on, such as 0.0.0.0:7946, or :7946 for all addresses;
    /// without it, all addresses and a free port [env: CLUSTERING_DETECT_CRASHES, an address, true or false]
    /// [default: off]
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "CLUSTERING_DETECT_CRASHES",
        hide_env = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = optional(listen)
    )]
    detect_crashes: Option<Value<Listen>>,
    /// Host under which other nodes reach this process, without a port [env: CLUSTERING_ADVERTISE] [default: the host
    /// in --uri]
    #[arg(
        long,
        value_name = "HOST",
        env = "CLUSTERING_ADVERTISE",
        hide_env = true,
        value_parser = optional(host)
    )]
    advertise: Option<Value<String>>,
    /// Take a refused connection to another node as proof that its process is dead, so that the slots that it held move
    /// at once and not after the TTL. Only for networks in which nothing else can refuse a connection
    /// [env: CLUSTERING_TRUST_REFUSED, true or false]
    #[arg(
        long,
        value_name = "BOOL",
        env = "CLUSTERING_TRUST_REFUSED",
        hide_env = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = optional(boolean)
    )]
    trust_refused: Option<Value<bool>>,
}

/// Where to listen for other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listen {
    Off,
    AnyPort,
    At(SocketAddr),
}

fn listen(text: &str) -> Result<Listen, String> {
    match text {
        "false" => return Ok(Listen::Off),
        "true" => return Ok(Listen::AnyPort),
        _ => {}
    }
    let address = match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(all_addresses),
        None => text.parse().ok(),
    };
    address.map(Listen::At).ok_or_else(|| {
        "expected an IP address and a port, such as 0.0.0.0:7946, [::]:7946 or :7946".to_owned()
    })
}

/// Returns the wildcard address of this machine: that of IPv4 if the machine has no IPv6.
fn all_addresses(port: u16) -> SocketAddr {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        Err(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
    }
}

/// Parses a host: a name or an IP address, with or without the brackets of IPv6.
fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let is_address = bare.parse::<std::net::IpAddr>().is_ok();
    let is_name = bare.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && bare == text;
    match is_address || is_name {
        true => Ok(bare.to_owned()),
        false => Err("expected a host name or an IP address without a port, such as 10.0.0.7".to_owned()),
    }
}

impl Crashes {
    /// Checks that the options belong together.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let needs = |option: &str, variable: &str| {
            let text = format!("{option} needs --detect-crashes");
            Err(Failure::unknown(text).hint(format!("see {variable} and CLUSTERING_DETECT_CRASHES")))
        };
        if self.config().is_some() {
            return Ok(());
        }
        match (Value::of(self.advertise.as_ref()), Value::of(self.trust_refused.as_ref())) {
            (Some(_), _) => needs("--advertise", "CLUSTERING_ADVERTISE"),
            (None, Some(true)) => needs("--trust-refused", "CLUSTERING_TRUST_REFUSED"),
            (None, _) => Ok(()),
        }
    }

    /// Adds crash detection to the builder of the node.
    pub(crate) fn describe(&self, builder: Builder) -> Builder {
        let detection = self.config();
        builder.configure(|config| config.crash_detection = detection)
    }

    fn config(&self) -> Option<CrashDetection> {
        let mut detection = CrashDetection::default();
        detection.listen = match Value::of(self.detect_crashes.as_ref())? {
            Listen::Off => return None,
            Listen::AnyPort => None,
            Listen::At(address) => Some(address),
        };
        detection.advertise = Value::of(self.advertise.as_ref());
        detection.trust_refused = Value::of(self.trust_refused.as_ref()).unwrap_or_default();
        Some(detection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_with_and_without_a_host() {
        assert_eq!(listen("true"), Ok(Listen::AnyPort));
        assert_eq!(listen("false"), Ok(Listen::Off));
        for text in ["0.0.0.0:7946", "[::1]:7946", "10.0.0.7:0"] {
            assert_eq!(listen(text), Ok(Listen::At(text.parse().unwrap())));
        }
        let Ok(Listen::At(all)) = listen(":7946") else { panic!() };
        assert!(all.ip().is_unspecified() && all.port() == 7946, "{all}");
        for bad in ["7946", "localhost:7946", ":x", "10.0.0.7", ":70000", "yes"] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_have_no_port() {
        for (text, parsed) in
            [("10.0.0.7", "10.0.0.7"), ("[fd00::7]", "fd00::7"), ("fd00::7", "fd00::7"), ("a-1.b", "a-1.b")]
        {
            assert_eq!(host(text).as_deref(), Ok(parsed));
        }
        for bad in ["10.0.0.7:7946", "a:1", "http://a", "a b", "[a]", "[fd00::7]:1"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
