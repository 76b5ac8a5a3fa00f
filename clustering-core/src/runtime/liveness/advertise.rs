use std::net::{IpAddr, Ipv6Addr};

use crate::{
    config::CrashDetection,
    name::{InvalidInput, NodeUri},
};

/// Longest name of a host in the domain name system.
const MAX_HOST: usize = 253;

/// Advice if the host was taken from the URI.
const ADVICE: &str = "; change the URI, or set `CrashDetection::advertise` (`clustering run --advertise`)";

/// Returns the host that other nodes connect to, an IPv6 address in brackets.
pub(crate) fn advertised_host(detection: &CrashDetection, uri: &NodeUri) -> Result<String, InvalidInput> {
    let (field, host) = match &detection.advertise {
        Some(host) => ("crash_detection.advertise", host.as_str()),
        None => ("uri", uri.host()),
    };
    let advice = if detection.advertise.is_none() { ADVICE } else { "" };
    let given = if detection.advertise.is_none() { uri.as_str() } else { host };
    parse_host(host).map_err(|rule| InvalidInput::new(field, given, format!("{rule}{advice}")))
}

/// Appends a port to a host that [`advertised_host`] returned.
pub(crate) fn with_port(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

/// Parses an IP address, with or without brackets, or the name of a host.
fn parse_host(host: &str) -> Result<String, &'static str> {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bracketed {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    };
    match address {
        Some(address) if address.is_unspecified() => Err(
            "crash detection needs a host that other nodes can connect to, not the address of all interfaces",
        ),
        Some(IpAddr::V4(address)) => Ok(address.to_string()),
        Some(IpAddr::V6(address)) => Ok(format!("[{address}]")),
        None if is_name(host) => Ok(host.to_owned()),
        None => Err("crash detection needs an IP address or the name of a host, without a port"),
    }
}

fn is_name(host: &str) -> bool {
    let is_part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(is_part_of_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_of(uri: &str, advertise: Option<&str>) -> Result<String, InvalidInput> {
        let detection = CrashDetection { advertise: advertise.map(str::to_owned), ..CrashDetection::new() };
        advertised_host(&detection, &NodeUri::parse(uri).unwrap())
    }

    #[test]
    fn the_host_of_the_uri_is_used_unless_another_is_configured() {
        for (uri, advertise, host) in [
            ("http://10.0.0.7:8080/path", None, "10.0.0.7"),
            ("http://[fd00::7]:8080", None, "[fd00::7]"),
            ("http://[FD00:0::7]", None, "[fd00::7]"),
            ("grpc://ingest-1.ingest:8080", None, "ingest-1.ingest"),
            ("http://10.0.0.7:8080", Some("10.0.0.8"), "10.0.0.8"),
            ("http://0.0.0.0:8080", Some("fd00::8"), "[fd00::8]"),
            ("http://a%20b", Some("[fd00::8]"), "[fd00::8]"),
        ] {
            assert_eq!(host_of(uri, advertise).unwrap(), host, "{uri} {advertise:?}");
        }
        assert_eq!(with_port("[fd00::8]", 4000), "[fd00::8]:4000");
    }

    #[test]
    fn hosts_that_nobody_can_connect_to_are_refused() {
        for (uri, advertise, field, rule) in [
            ("http://0.0.0.0:8080", None, "uri", "; change the URI, or set `CrashDetection::adv"),
            ("http://[::]:8080", None, "uri", "all interfaces"),
            ("http://a%20b", None, "uri", "an IP address or the name of a host"),
            ("http://[v1.x]", None, "uri", "an IP address or the name of a host"),
            ("http://host", Some(""), "crash_detection.advertise", "the name of a host"),
            ("http://host", Some("10.0.0.8:4000"), "crash_detection.advertise", "without a port"),
            ("http://host", Some("http://a"), "crash_detection.advertise", "the name of a host"),
            ("http://host", Some("::"), "crash_detection.advertise", "all interfaces"),
            ("http://host", Some("fe80::1%eth0"), "crash_detection.advertise", "an IP address"),
        ] {
            let error = host_of(uri, advertise).unwrap_err();
            assert_eq!(error.field, field, "{error}");
            assert!(error.to_string().contains(rule), "{error}");
        }
        assert!(!host_of("http://host", Some("::")).unwrap_err().rule.contains(ADVICE), "it is already set");
    }
}
