//! The settings that the environment holds.

use std::ffi::OsString;

use crate::{ConfigError, Credentials, Endpoint, EtcdConfig, endpoint::parse_port};

/// The configuration that those variables make; the precedence stands in the docs of
/// [`EtcdStore::from_env`](crate::EtcdStore::from_env).
pub(crate) fn config(variable: impl Fn(&str) -> Option<OsString>) -> Result<EtcdConfig, ConfigError> {
    // Set but empty is what an unset variable of a template leaves behind: it counts as unset.
    let get = |name: &str| match variable(name) {
        None => Ok(None),
        Some(value) if value.is_empty() => Ok(None),
        Some(value) => match value.into_string() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(ConfigError::hidden(name, "it must be UTF-8")),
        },
    };

    let host = get("ETCD_HOST")?;
    let port = get("ETCD_PORT")?;
    let endpoints = if let Some(list) = get("ETCD_ENDPOINTS")? {
        endpoints("ETCD_ENDPOINTS", &list)?
    } else if host.is_some() || port.is_some() {
        let port = match port {
            None => Endpoint::DEFAULT_PORT,
            Some(text) => parse_port(&text)
                .ok_or_else(|| ConfigError::new("ETCD_PORT", &text, "a port is a number from 1 to 65535"))?,
        };
        let host = host.as_deref().unwrap_or("localhost");
        vec![Endpoint::at(host, port).map_err(|error| error.within("ETCD_HOST"))?]
    } else if let Some(list) = get("ETCDCTL_ENDPOINTS")? {
        endpoints("ETCDCTL_ENDPOINTS", &list)?
    } else {
        EtcdConfig::default().endpoints
    };

    let credentials = match (get("ETCDCTL_USER")?, get("ETCDCTL_PASSWORD")?) {
        (None, None) => None,
        (Some(user), Some(password)) => Some(Credentials::new(user, password)),
        (Some(both), None) => match both.split_once(':') {
            Some((user, password)) if !user.is_empty() => Some(Credentials::new(user, password)),
            _ => {
                let rule = "it is user:password, or the user alone with the password in ETCDCTL_PASSWORD";
                return Err(ConfigError::hidden("ETCDCTL_USER", rule));
            }
        },
        (None, Some(_)) => {
            return Err(ConfigError::hidden("ETCDCTL_PASSWORD", "it needs the user in ETCDCTL_USER"));
        }
    };
    Ok(EtcdConfig { endpoints, credentials, ..EtcdConfig::default() })
}

/// The endpoints in a list with commas.
fn endpoints(name: &str, list: &str) -> Result<Vec<Endpoint>, ConfigError> {
    let wrong = |error: ConfigError| {
        ConfigError::new(name, list, format!("a list with commas, in which {}", error.rule()))
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
        assert_eq!(urls(&all), ["http://a:1", "http://b:2"]);
        assert_eq!(urls(&all[1..]), ["http://c:3"]);
        assert_eq!(urls(&all[2..]), ["http://localhost:3"]);
        assert_eq!(urls(&all[3..]), ["http://d:4"]);
        assert_eq!(urls(&[("ETCD_HOST", "c"), ("ETCDCTL_ENDPOINTS", "d:4")]), ["http://c:2379"]);
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
            ([("ETCDCTL_ENDPOINTS", "https://a:1")], "ETCDCTL_ENDPOINTS of \"https://a:1\" cannot be used"),
        ] {
            let error = from(&vars).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }

    #[test]
    fn a_wrong_user_is_named_but_not_shown() {
        for vars in
            [[("ETCDCTL_USER", "hunter2")], [("ETCDCTL_USER", ":hunter2")], [("ETCDCTL_PASSWORD", "hunter2")]]
        {
            let error = from(&vars).unwrap_err().to_string();
            assert!(error.contains(vars[0].0) && !error.contains("hunter2"), "{error}");
        }
    }
}
