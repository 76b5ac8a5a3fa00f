//! The server under test.

use clustering_etcd::EtcdConfig;
use clustering_testkit::etcd::{self, Etcd};

/// The etcd of this test; of all tests, if `CLUSTERING_TEST_ETCD` holds endpoints.
pub(crate) async fn etcd() -> Box<dyn Etcd> {
    etcd::provide().await.unwrap_or_else(|error| panic!("{error}"))
}

/// The configuration that leads there.
pub(crate) fn config(etcd: &dyn Etcd) -> EtcdConfig {
    EtcdConfig::new(etcd.endpoints()).unwrap_or_else(|error| panic!("{:?}: {error}", etcd.endpoints()))
}
