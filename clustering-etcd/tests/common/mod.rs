//! The server under test.

use clustering_etcd::EtcdConfig;
use clustering_testkit::etcd::{self, Etcd};

/// Returns the etcd for this test. All tests share one if `CLUSTERING_TEST_ETCD` contains endpoints.
pub(crate) async fn etcd() -> Box<dyn Etcd> {
    etcd::provide().await.unwrap_or_else(|error| panic!("{error}"))
}

/// Returns a configuration for this etcd.
pub(crate) fn config(etcd: &dyn Etcd) -> EtcdConfig {
    EtcdConfig::new(etcd.endpoints()).unwrap_or_else(|error| panic!("{:?}: {error}", etcd.endpoints()))
}
