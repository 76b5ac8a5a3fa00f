//! The settings that the environment holds.

use std::{ffi::OsString, time::Duration};

use crate::{ConfigError, Credentials, Endpoint, EtcdConfig, Pem, Tls, endpoint::parse_port};

/// The configuration that those variables make; the precedence stands in the docs of
/// [`EtcdStore::from_env`](crate::EtcdStore::from_env).
pub(crate) fn config(variable: impl Fn(&str) -> Option<OsString>) -> Result<EtcdConfig, ConfigError> {
    let variables = Variables(variable);
    let (endpoints, named) = variables.endpoints()?;
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
    // Who set variables knows nothing of fields.
    config.validate().map_err(|error| match error.what() {
        "endpoints" => error.within(named),
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
    /// The value. Set but empty is what an unset variable of a template leaves behind: it counts as unset.
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

    /// A truth value, as etcdctl reads it.
    fn truth(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        let Some(text) = self.get(name)? else { return Ok(None) };
        match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(ConfigError::new(name, text, "it is true or false")),
        }
    }

    /// The endpoints, and the variable that they are from.
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
            let rule = "endpoints are not looked up in the DNS: list them in ETCD_ENDPOINTS";
            return Err(ConfigError::new("ETCDCTL_DISCOVERY_SRV", domain, rule));
        }
        match self.get("ETCDCTL_ENDPOINTS")? {
            Some(list) => Ok((endpoints("ETCDCTL_ENDPOINTS", &list)?, "ETCDCTL_ENDPOINTS")),
            None => Ok((EtcdConfig::default().endpoints, "ETCD_ENDPOINTS")),
        }
    }

    fn tls(&self) -> Result<Option<Tls>, ConfigError> {
        if self.truth("ETCDCTL_INSECURE_SKIP_TLS_VERIFY")? == Some(true) {
            let rule =
                "the server's certificate is always verified: give the CA that it is of in ETCDCTL_CACERT";
            return Err(ConfigError::new("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", true, rule));
        }
        // True, etcdctl's default, forbids nothing there either.
        let wanted = self.truth("ETCDCTL_INSECURE_TRANSPORT")? == Some(false);
        let ca = self.get("ETCDCTL_CACERT")?;
        let identity = match (self.get("ETCDCTL_CERT")?, self.get("ETCDCTL_KEY")?) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(certificate), None) => {
                return Err(ConfigError::new("ETCDCTL_CERT", certificate, "it needs its key in ETCDCTL_KEY"));
            }
            (None, Some(key)) => {
                return Err(ConfigError::new("ETCDCTL_KEY", key, "it needs its certificate in ETCDCTL_CERT"));
            }
        };
        if !wanted && ca.is_none() && identity.is_none() {
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
                    let rule = "it is user:password, or the user alone with the password in ETCDCTL_PASSWORD";
                    Err(ConfigError::hidden("ETCDCTL_USER", rule))
                }
            },
            (None, Some(_)) => {
                Err(ConfigError::hidden("ETCDCTL_PASSWORD", "it needs the user in ETCDCTL_USER"))
            }
        }
    }

    fn ttl(&self) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.get("ETCD_TTL")? else { return Ok(None) };
        let digits = text.strip_suffix('s').unwrap_or(&text);
        let seconds = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        match seconds {
            Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
            None => {
                Err(ConfigError::new("ETCD_TTL", text, "it is a whole number of seconds, such as 15 or 15s"))
            }
        }
    }
}

/// The endpoints in a list with commas.
fn endpoints(name: &str, list: &str) -> Result<Vec<Endpoint>, ConfigError> {
    let wrong = |error: ConfigError| {
        let rule = format!("a list with commas, in which {}", error.rule());
        match list.contains('@') {
            // Perhaps a password.
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
    fn the_precedence_is_that_of_the_docs() {
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
    fn user_and_password_come_together_or_apart() {
        let of = |vars: &[(&str, &str)]| from(vars).unwrap().credentials;
        assert_eq!(of(&[("ETCDCTL_USER", "me:a:b")]), Some(Credentials::new("me", "a:b")));
        let apart = [("ETCDCTL_USER", "me:too"), ("ETCDCTL_PASSWORD", "pw")];
        assert_eq!(of(&apart), Some(Credentials::new("me:too", "pw")));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_rule() {
        for (vars, says) in [
            (
                [("ETCD_PORT", "99999")],
                "ETCD_PORT of \"99999\" cannot be used: a port is a number from 1 to 65535",
            ),
            ([("ETCD_HOST", "http://c")], "ETCD_HOST of \"http://c\" cannot be used: a host is a name"),
            ([("ETCD_ENDPOINTS", "a:1,,b:2")], "ETCD_ENDPOINTS of \"a:1,,b:2\" cannot be used: a list"),
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
    fn members_are_followed_unless_that_is_turned_off() {
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
            ("1", "ETCD_TTL of 1s cannot be used: etcd's leases live for 2 s at least"),
            ("0s", "ETCD_TTL of 0ns cannot be used: etcd's leases live for 2 s at least"),
            ("86401", "ETCD_TTL of 86401s cannot be used: it must be at most 1 day"),
            ("15m", "ETCD_TTL of \"15m\" cannot be used: it is a whole number of seconds"),
            ("s", "ETCD_TTL of \"s\" cannot be used: it is a whole number"),
            ("-15", "ETCD_TTL of \"-15\" cannot be used: it is a whole number"),
            ("15.5", "ETCD_TTL of \"15.5\" cannot be used: it is a whole number"),
            ("99999999999999999999", "ETCD_TTL of \"99999999999999999999\" cannot be used: it is a whole"),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }

    #[test]
    fn tls_is_from_the_variables_of_etcdctl() {
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
                format!("ETCDCTL_CERT of {cert:?} cannot be used: it needs its key"),
            ),
            (
                [("ETCDCTL_KEY", &key), ("", "")],
                format!("ETCDCTL_KEY of {key:?} cannot be used: it needs its cert"),
            ),
            (
                [("ETCDCTL_CACERT", &missing), ("", "")],
                format!("ETCDCTL_CACERT of {missing:?} cannot be used: the file"),
            ),
            (
                [("ETCDCTL_CACERT", &key), ("", "")],
                format!("ETCDCTL_CACERT of {key:?} cannot be used: it holds no"),
            ),
        ] {
            let error = from(&vars).unwrap_err().to_string();
            assert!(error.starts_with(&says), "{error}");
        }
        for (wrong, says) in [
            ((&key, &key), format!("ETCDCTL_CERT of {key:?} cannot be used: it holds no certificate")),
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
    fn what_would_be_ignored_to_the_users_harm_is_refused() {
        for (name, value, says) in [
            ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true", "the server's certificate is always verified"),
            ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "yes", "it is true or false"),
            ("ETCDCTL_INSECURE_TRANSPORT", "no", "it is true or false"),
            ("ETCDCTL_DISCOVERY_SRV", "example.com", "endpoints are not looked up in the DNS"),
        ] {
            let error = from(&[(name, value)]).unwrap_err();
            assert_eq!(error.what(), name, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
        // What changes nothing is fine.
        for vars in [
            [("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "false"), ("ETCD_HOST", "localhost")],
            [("ETCDCTL_INSECURE_TRANSPORT", "true"), ("ETCD_HOST", "localhost")],
            [("ETCDCTL_DISCOVERY_SRV", "example.com"), ("ETCD_HOST", "localhost")],
        ] {
            assert_eq!(from(&vars).unwrap(), EtcdConfig::default());
        }
    }

    #[test]
    fn a_wrong_user_is_named_but_not_shown() {
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
