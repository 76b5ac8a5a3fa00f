//! Configuration from environment variables.

use std::{ffi::OsString, time::Duration};

use crate::{ConfigError, Credentials, Endpoint, EtcdConfig, Pem, Tls, endpoint::parse_port};

/// Reads the configuration from variables. [`EtcdStore::from_env`](crate::EtcdStore::from_env) documents them and their
/// precedence.
pub(crate) fn config(variable: impl Fn(&str) -> Option<OsString>) -> Result<EtcdConfig, ConfigError> {
    let variables = Variables(variable);
    let (endpoints, endpoints_variable) = variables.endpoints()?;
    let config = EtcdConfig {
        endpoints,
        tls: variables.tls()?,
        credentials: variables.credentials()?,
        ttl: variables.ttl()?,
        member_refresh: match variables.truth("ETCD_FOLLOW_MEMBERS")? {
            Some(false) => Duration::ZERO,
            _ => EtcdConfig::default().member_refresh,
        },
        ..EtcdConfig::default()
    };
    // Errors name the variable instead of the field.
    config.validate().map_err(|error| match error.what() {
        "endpoints" => error.within(endpoints_variable),
        "tls.ca" => error.within("ETCDCTL_CACERT"),
        "tls.identity.certificate" => error.within("ETCDCTL_CERT"),
        "tls.identity.key" => error.within("ETCDCTL_KEY"),
        "credentials" => error.within("ETCDCTL_USER"),
        "ttl" => error.within("ETCD_TTL"),
        _ => error,
    })?;
    Ok(config)
}

struct Variables<F>(F);

impl<F: Fn(&str) -> Option<OsString>> Variables<F> {
    /// Returns the value. An empty variable counts as unset, since templates leave one behind for an unset value.
    fn get(&self, name: &str) -> Result<Option<String>, ConfigError> {
        match (self.0)(name) {
            None => Ok(None),
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => match value.into_string() {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(ConfigError::hidden(name, "it must be UTF-8")),
            },
        }
    }

    /// Parses a boolean in the same way as `etcdctl`.
    fn truth(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        let Some(text) = self.get(name)? else { return Ok(None) };
        match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(ConfigError::new(name, text, "it must be true or false")),
        }
    }

    /// Returns the endpoints, and the variable from which they came.
    fn endpoints(&self) -> Result<(Vec<Endpoint>, &'static str), ConfigError> {
        let (host, port) = (self.get("ETCD_HOST")?, self.get("ETCD_PORT")?);
        if let Some(list) = self.get("ETCD_ENDPOINTS")? {
            return Ok((endpoints("ETCD_ENDPOINTS", &list)?, "ETCD_ENDPOINTS"));
        }
        if host.is_some() || port.is_some() {
            let port = match port {
                None => Endpoint::DEFAULT_PORT,
                Some(text) => parse_port(&text).ok_or_else(|| {
                    ConfigError::new("ETCD_PORT", &text, "a port is a number from 1 to 65535")
                })?,
            };
            let host = host.as_deref().unwrap_or("localhost");
            let endpoint = Endpoint::at(host, port).map_err(|error| error.within("ETCD_HOST"))?;
            return Ok((vec![endpoint], "ETCD_HOST"));
        }
        if let Some(domain) = self.get("ETCDCTL_DISCOVERY_SRV")? {
            let rule = "discovery by DNS is not supported: list the endpoints in ETCD_ENDPOINTS";
            return Err(ConfigError::new("ETCDCTL_DISCOVERY_SRV", domain, rule));
        }
        match self.get("ETCDCTL_ENDPOINTS")? {
            Some(list) => Ok((endpoints("ETCDCTL_ENDPOINTS", &list)?, "ETCDCTL_ENDPOINTS")),
            None => Ok((EtcdConfig::default().endpoints, "ETCD_ENDPOINTS")),
        }
    }

    fn tls(&self) -> Result<Option<Tls>, ConfigError> {
        if self.truth("ETCDCTL_INSECURE_SKIP_TLS_VERIFY")? == Some(true) {
            let rule = "the server's certificate is always verified: set ETCDCTL_CACERT to its CA";
            return Err(ConfigError::new("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", true, rule));
        }
        // `true`, the default of etcdctl, does not forbid TLS there either.
        let is_enabled = self.truth("ETCDCTL_INSECURE_TRANSPORT")? == Some(false);
        let ca = self.get("ETCDCTL_CACERT")?;
        let identity = match (self.get("ETCDCTL_CERT")?, self.get("ETCDCTL_KEY")?) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(certificate), None) => {
                return Err(ConfigError::new(
                    "ETCDCTL_CERT",
                    certificate,
                    "its key must be set in ETCDCTL_KEY",
                ));
            }
            (None, Some(key)) => {
                return Err(ConfigError::new(
                    "ETCDCTL_KEY",
                    key,
                    "its certificate must be set in ETCDCTL_CERT",
                ));
            }
        };
        if !is_enabled && ca.is_none() && identity.is_none() {
            return Ok(None);
        }
        let mut tls = Tls::new();
        if let Some(ca) = ca {
            tls = tls.ca(Pem::file(ca));
        }
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Pem::file(certificate), Pem::file(key));
        }
        Ok(Some(tls))
    }

    fn credentials(&self) -> Result<Option<Credentials>, ConfigError> {
        match (self.get("ETCDCTL_USER")?, self.get("ETCDCTL_PASSWORD")?) {
            (None, None) => Ok(None),
            (Some(user), Some(password)) => Ok(Some(Credentials::new(user, password))),
            (Some(both), None) => match both.split_once(':') {
                Some((user, password)) if !user.is_empty() => Ok(Some(Credentials::new(user, password))),
                _ => {
                    let rule =
                        "it must be user:password, or only the user, with the password in ETCDCTL_PASSWORD";
                    Err(ConfigError::hidden("ETCDCTL_USER", rule))
                }
            },
            (None, Some(_)) => {
                Err(ConfigError::hidden("ETCDCTL_PASSWORD", "the user must be set in ETCDCTL_USER"))
            }
        }
    }

    fn ttl(&self) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.get("ETCD_TTL")? else { return Ok(None) };
        let digits = text.strip_suffix('s').unwrap_or(&text);
        let seconds = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        match seconds {
            Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
            None => Err(ConfigError::new(
                "ETCD_TTL",
                text,
                "it must be a whole number of seconds, such as 15 or 15s",
            )),
        }
    }
}

/// Parses a list of endpoints that are separated by commas.
fn endpoints(name: &str, list: &str) -> Result<Vec<Endpoint>, ConfigError> {
    let wrong = |error: ConfigError| {
        let rule = format!("it must be a list of endpoints separated by commas: {}", error.rule());
        match list.contains('@') {
            // It may contain a password.
            true => ConfigError::hidden(name, rule),
            false => ConfigError::new(name, list, rule),
        }
    };
    list.split(',').map(|text| text.trim().parse().map_err(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(vars: &[(&str, &str)]) -> Result<EtcdConfig, ConfigError> {
        config(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into()))
    }

    #[track_caller]
    fn urls(vars: &[(&str, &str)]) -> Vec<String> {
        from(vars).unwrap().endpoints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_empty_environment_means_localhost() {
        assert_eq!(from(&[]).unwrap(), EtcdConfig::default());
        assert_eq!(from(&[("ETCD_ENDPOINTS", ""), ("ETCD_PORT", "")]).unwrap(), EtcdConfig::default());
    }

    #[test]
    fn variables_have_the_documented_precedence() {
        let all = [
            ("ETCD_ENDPOINTS", "a:1, http://b:2"),
            ("ETCD_HOST", "c"),
            ("ETCD_PORT", "3"),
            ("ETCDCTL_ENDPOINTS", "d:4"),
        ];
        assert_eq!(urls(&all), ["a:1", "http://b:2"]);
        assert_eq!(urls(&all[1..]), ["c:3"]);
        assert_eq!(urls(&all[2..]), ["localhost:3"]);
        assert_eq!(urls(&all[3..]), ["d:4"]);
        assert_eq!(urls(&[("ETCD_HOST", "c"), ("ETCDCTL_ENDPOINTS", "d:4")]), ["c:2379"]);
    }

    #[test]
    fn user_and_password_may_be_in_one_variable_or_two() {
        let of = |vars: &[(&str, &str)]| from(vars).unwrap().credentials;
        assert_eq!(of(&[("ETCDCTL_USER", "me:a:b")]), Some(Credentials::new("me", "a:b")));
        let apart = [("ETCDCTL_USER", "me:too"), ("ETCDCTL_PASSWORD", "pw")];
        assert_eq!(of(&apart), Some(Credentials::new("me:too", "pw")));
    }

    #[test]
    fn an_invalid_value_is_reported_with_its_variable_and_rule() {
        for (vars, says) in [
            (
                [("ETCD_PORT", "99999")],
                "ETCD_PORT of \"99999\" cannot be used: a port is a number from 1 to 65535",
            ),
            ([("ETCD_HOST", "http://c")], "ETCD_HOST of \"http://c\" cannot be used: a host is a name"),
            (
                [("ETCD_ENDPOINTS", "a:1,,b:2")],
                "ETCD_ENDPOINTS of \"a:1,,b:2\" cannot be used: it must be a list",
            ),
            ([("ETCDCTL_ENDPOINTS", "ftp://a:1")], "ETCDCTL_ENDPOINTS of \"ftp://a:1\" cannot be used"),
        ] {
            let error = from(&vars).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
        let both = from(&[("ETCD_ENDPOINTS", "http://a"), ("ETCDCTL_INSECURE_TRANSPORT", "0")]);
        let error = both.unwrap_err().to_string();
        assert!(
            error.starts_with("ETCD_ENDPOINTS of \"http://a:2379\" cannot be used: TLS settings"),
            "{error}"
        );
    }

    #[test]
    fn following_members_can_be_turned_off() {
        let of = |value| from(&[("ETCD_FOLLOW_MEMBERS", value)]).map(|config| config.member_refresh);
        assert_eq!(of("true").unwrap(), EtcdConfig::default().member_refresh);
        assert_eq!(of("").unwrap(), EtcdConfig::default().member_refresh);
        assert_eq!(of("false").unwrap(), Duration::ZERO);
        let error = of("never").unwrap_err().to_string();
        assert!(error.starts_with("ETCD_FOLLOW_MEMBERS of \"never\" cannot be used"), "{error}");
    }

    #[test]
    fn the_ttl_is_in_seconds() {
        let of = |text| from(&[("ETCD_TTL", text)]).map(|config| config.ttl);
        assert_eq!(of("").unwrap(), None);
        for (text, seconds) in [("15", 15), ("15s", 15), ("2", 2), ("86400s", 86_400)] {
            assert_eq!(of(text).unwrap(), Some(Duration::from_secs(seconds)), "{text}");
        }
        for (text, says) in [
            ("1", "ETCD_TTL of 1s cannot be used: the shortest TTL of etcd is 2 s"),
            ("0s", "ETCD_TTL of 0ns cannot be used: the shortest TTL of etcd is 2 s"),
            ("86401", "ETCD_TTL of 86401s cannot be used: it must be at most 1 day"),
            ("15m", "ETCD_TTL of \"15m\" cannot be used: it must be a whole number of seconds"),
            ("s", "ETCD_TTL of \"s\" cannot be used: it must be a whole number"),
            ("-15", "ETCD_TTL of \"-15\" cannot be used: it must be a whole number"),
            ("15.5", "ETCD_TTL of \"15.5\" cannot be used: it must be a whole number"),
            (
                "99999999999999999999",
                "ETCD_TTL of \"99999999999999999999\" cannot be used: it must be a whole",
            ),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }

    #[test]
    fn tls_is_configured_by_the_variables_of_etcdctl() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(["etcd".to_owned()]).unwrap().self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (cert, key) = (file("a.crt", certificate.pem()), file("a.key", key.serialize_pem()));
        let missing = folder.path().join("b.key").to_str().unwrap().to_owned();

        let tls = |vars: &[(&str, &str)]| from(vars).unwrap().tls;
        assert_eq!(tls(&[("ETCDCTL_CACERT", "")]), None);
        assert_eq!(tls(&[("ETCDCTL_CACERT", &cert)]), Some(Tls::new().ca(Pem::file(&cert))));
        assert_eq!(
            tls(&[("ETCDCTL_CACERT", &cert), ("ETCDCTL_CERT", &cert), ("ETCDCTL_KEY", &key)]),
            Some(Tls::new().ca(Pem::file(&cert)).identity(Pem::file(&cert), Pem::file(&key)))
        );
        for (vars, says) in [
            (
                [("ETCDCTL_CERT", cert.as_str()), ("", "")],
                format!("ETCDCTL_CERT of {cert:?} cannot be used: its key must"),
            ),
            (
                [("ETCDCTL_KEY", &key), ("", "")],
                format!("ETCDCTL_KEY of {key:?} cannot be used: its certificate must"),
            ),
            (
                [("ETCDCTL_CACERT", &missing), ("", "")],
                format!("ETCDCTL_CACERT of {missing:?} cannot be used: the file"),
            ),
            (
                [("ETCDCTL_CACERT", &key), ("", "")],
                format!("ETCDCTL_CACERT of {key:?} cannot be used: it contains no"),
            ),
        ] {
            let error = from(&vars).unwrap_err().to_string();
            assert!(error.starts_with(&says), "{error}");
        }
        for (wrong, says) in [
            ((&key, &key), format!("ETCDCTL_CERT of {key:?} cannot be used: it contains no certificate")),
            (
                (&cert, &missing),
                format!("ETCDCTL_KEY of {missing:?} cannot be used: the file cannot be read"),
            ),
        ] {
            let vars =
                [("ETCDCTL_CACERT", cert.as_str()), ("ETCDCTL_CERT", wrong.0), ("ETCDCTL_KEY", wrong.1)];
            let error = from(&vars).unwrap_err().to_string();
            assert!(error.starts_with(&says), "{error}");
        }
    }

    #[test]
    fn unsupported_variables_that_could_do_harm_are_rejected() {
        for (name, value, says) in [
            ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true", "the server's certificate is always verified"),
            ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "yes", "it must be true or false"),
            ("ETCDCTL_INSECURE_TRANSPORT", "no", "it must be true or false"),
            ("ETCDCTL_DISCOVERY_SRV", "example.com", "discovery by DNS is not supported"),
        ] {
            let error = from(&[(name, value)]).unwrap_err();
            assert_eq!(error.what(), name, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
        // Values that change nothing are accepted.
        for vars in [
            [("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "false"), ("ETCD_HOST", "localhost")],
            [("ETCDCTL_INSECURE_TRANSPORT", "true"), ("ETCD_HOST", "localhost")],
            [("ETCDCTL_DISCOVERY_SRV", "example.com"), ("ETCD_HOST", "localhost")],
        ] {
            assert_eq!(from(&vars).unwrap(), EtcdConfig::default());
        }
    }

    #[test]
    fn an_invalid_user_is_reported_without_its_value() {
        for vars in [
            [("ETCDCTL_USER", "hunter2")],
            [("ETCDCTL_USER", ":hunter2")],
            [("ETCDCTL_PASSWORD", "hunter2")],
            [("ETCD_ENDPOINTS", "a,http://me:hunter2@b,")],
        ] {
            let error = from(&vars).unwrap_err().to_string();
            assert!(error.contains(vars[0].0) && !error.contains("hunter2"), "{error}");
        }
    }
}
