use std::{env, path::PathBuf};

use super::{Etcd, EtcdError, EtcdServer, Given, binary};

/// The variable that says what to test on; see [`Source::from_env`].
pub const SOURCE_VARIABLE: &str = "CLUSTERING_TEST_ETCD";

/// Where the tests of a run have their etcd from. One place decides it for all: [`provide`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Servers that run already. Tests write to them and compact their history, and cannot pause or kill them.
    Given(Vec<String>),
    /// Each test starts this binary.
    Binary(PathBuf),
    /// Each test starts a container.
    #[cfg(feature = "container")]
    Container,
}

impl Source {
    /// What `CLUSTERING_TEST_ETCD` says:
    ///
    /// - a list of endpoints, `host:port,...`: these;
    /// - `binary`: the binary that `CLUSTERING_ETCD_BIN` names, else the `etcd` on the `PATH`;
    /// - `container`: a container;
    /// - `none`: no etcd. Whoever asks for one nevertheless gets an error: who sets this runs other tests only, and
    ///   says which they left out;
    /// - nothing, or if it is not set: a binary if there is one, else a container.
    ///
    /// # Errors
    ///
    /// If what it says cannot be had. The text says how to get it.
    pub fn from_env() -> Result<Self, EtcdError> {
        Self::choose(env::var(SOURCE_VARIABLE).ok().as_deref(), binary::find())
    }

    fn choose(wanted: Option<&str>, binary: Option<PathBuf>) -> Result<Self, EtcdError> {
        let what = "looking for an etcd to test on";
        match wanted.map(str::trim).unwrap_or_default() {
            "none" => Err(EtcdError::new(what, format!("{SOURCE_VARIABLE} says that there is none"))),
            "container" => container(),
            "binary" => binary.map(Self::Binary).ok_or_else(|| EtcdError::new(what, binary::HOW_TO_GET_ONE)),
            "" => match binary {
                Some(binary) => Ok(Self::Binary(binary)),
                None => container().map_err(|_| EtcdError::new(what, binary::HOW_TO_GET_ONE)),
            },
            endpoints => {
                let endpoints: Vec<_> =
                    endpoints.split(',').map(|endpoint| endpoint.trim().to_owned()).collect();
                match endpoints.iter().find(|endpoint| !endpoint.contains(':')) {
                    None => Ok(Self::Given(endpoints)),
                    Some(wrong) => Err(EtcdError::new(
                        what,
                        format!(
                            "{SOURCE_VARIABLE} is host:port,..., binary, container or none, but not {wrong:?}"
                        ),
                    )),
                }
            }
        }
    }
}

#[cfg(feature = "container")]
fn container() -> Result<Source, EtcdError> {
    Ok(Source::Container)
}

#[cfg(not(feature = "container"))]
fn container() -> Result<Source, EtcdError> {
    Err(EtcdError::new(
        "looking for an etcd to test on",
        format!("{SOURCE_VARIABLE} wants a container: turn on the feature `container` of clustering-testkit"),
    ))
}

/// An etcd for a test, from where the run has [its own](Source::from_env).
///
/// It belongs to the caller alone, except if the run was given endpoints: other tests work on those at the same time.
pub async fn provide() -> Result<Box<dyn Etcd>, EtcdError> {
    Ok(match Source::from_env()? {
        Source::Given(endpoints) => Box::new(Given::new(endpoints)),
        Source::Binary(binary) => Box::new(EtcdServer::builder().binary(binary).start().await?),
        #[cfg(feature = "container")]
        Source::Container => Box::new(super::EtcdContainer::start().await?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary() -> Option<PathBuf> {
        Some("/usr/bin/etcd".into())
    }

    #[test]
    fn the_variable_decides() {
        let given = Source::Given(vec!["a:1".into(), "http://b:2".into()]);
        assert_eq!(Source::choose(Some("a:1, http://b:2"), binary()).unwrap(), given);
        assert_eq!(Source::choose(Some("binary"), binary()).unwrap(), Source::Binary("/usr/bin/etcd".into()));
        #[cfg(feature = "container")]
        assert_eq!(Source::choose(Some("container"), binary()).unwrap(), Source::Container);
    }

    #[test]
    fn a_binary_is_taken_before_a_container() {
        for unset in [None, Some("")] {
            assert_eq!(Source::choose(unset, binary()).unwrap(), Source::Binary("/usr/bin/etcd".into()));
            #[cfg(feature = "container")]
            assert_eq!(Source::choose(unset, None).unwrap(), Source::Container);
            #[cfg(not(feature = "container"))]
            assert!(Source::choose(unset, None).unwrap_err().to_string().contains("apt-get install"));
        }
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        let error = |wanted, binary| Source::choose(Some(wanted), binary).unwrap_err().to_string();
        assert!(error("none", binary()).contains("CLUSTERING_TEST_ETCD says that there is none"));
        assert!(error("binary", None).contains("apt-get install etcd-server"));
        assert!(error("docker", binary()).contains("but not \"docker\""));
    }
}
