use std::{env, path::PathBuf};

use super::{Etcd, EtcdError, EtcdServer, Given, binary};

/// Environment variable that selects the etcd to test on. See [`Source::from_env`].
pub const SOURCE_VARIABLE: &str = "CLUSTERING_TEST_ETCD";

/// The kind of etcd that a test run uses. [`provide`] applies it to all tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Servers that are already running. Tests write to them and compact their history, but cannot pause or kill them.
    Given(Vec<String>),
    /// A binary that each test starts.
    Binary(PathBuf),
    /// A container that each test starts.
    #[cfg(feature = "container")]
    Container,
}

impl Source {
    /// Reads the source from `CLUSTERING_TEST_ETCD`:
    ///
    /// - a list of endpoints, `host:port,...`: use these servers;
    /// - `binary`: use the binary named by `CLUSTERING_ETCD_BIN`, else the `etcd` on the `PATH`;
    /// - `container`: use a container;
    /// - `none`: there is no etcd, and tests that need one fail. Set this only for a run that leaves out these tests
    ///   and reports that it does;
    /// - empty or not set: use a binary if there is one, else a container.
    ///
    /// # Errors
    ///
    /// Returns an error if the selected source is not available. The text says how to get it.
    pub fn from_env() -> Result<Self, EtcdError> {
        Self::choose(env::var(SOURCE_VARIABLE).ok().as_deref(), binary::find())
    }

    fn choose(wanted: Option<&str>, binary: Option<PathBuf>) -> Result<Self, EtcdError> {
        let what = "looking for an etcd to test on";
        match wanted.map(str::trim).unwrap_or_default() {
            "none" => {
                Err(EtcdError::new(what, format!("{SOURCE_VARIABLE}=none excludes tests that need etcd")))
            }
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
                            "{SOURCE_VARIABLE} must be host:port,..., binary, container or none, but not {wrong:?}"
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
        format!(
            "{SOURCE_VARIABLE} selects a container: enable the feature `container` of clustering-testkit"
        ),
    ))
}

/// Provides an etcd for a test, from the [source](Source::from_env) of the test run.
///
/// Only the caller uses it, unless the run was given endpoints, which all tests use concurrently.
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
    fn the_environment_variable_selects_the_source() {
        let given = Source::Given(vec!["a:1".into(), "http://b:2".into()]);
        assert_eq!(Source::choose(Some("a:1, http://b:2"), binary()).unwrap(), given);
        assert_eq!(Source::choose(Some("binary"), binary()).unwrap(), Source::Binary("/usr/bin/etcd".into()));
        #[cfg(feature = "container")]
        assert_eq!(Source::choose(Some("container"), binary()).unwrap(), Source::Container);
    }

    #[test]
    fn a_binary_is_preferred_to_a_container() {
        for unset in [None, Some("")] {
            assert_eq!(Source::choose(unset, binary()).unwrap(), Source::Binary("/usr/bin/etcd".into()));
            #[cfg(feature = "container")]
            assert_eq!(Source::choose(unset, None).unwrap(), Source::Container);
            #[cfg(not(feature = "container"))]
            assert!(Source::choose(unset, None).unwrap_err().to_string().contains("apt-get install"));
        }
    }

    #[test]
    fn an_unavailable_source_is_reported_with_advice() {
        let error = |wanted, binary| Source::choose(Some(wanted), binary).unwrap_err().to_string();
        assert!(error("none", binary()).contains("CLUSTERING_TEST_ETCD=none"));
        assert!(error("binary", None).contains("apt-get install etcd-server"));
        assert!(error("docker", binary()).contains("but not \"docker\""));
    }
}
