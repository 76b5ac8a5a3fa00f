//! The server under test.

use clustering_etcd::EtcdConfig;

/// The variable that holds its endpoints: a list with commas, as for `ETCD_ENDPOINTS`.
const VARIABLE: &str = "CLUSTERING_TEST_ETCD";

/// The endpoints of the etcd to test against. The tests write to it and compact its history.
pub(crate) fn endpoints() -> Vec<String> {
    let list = std::env::var(VARIABLE).unwrap_or_else(|_| {
        panic!(
            "{VARIABLE} must hold the endpoints of an etcd for tests (host:port,...); scripts/test starts one"
        )
    });
    list.split(',').map(|endpoint| endpoint.trim().to_owned()).collect()
}

/// The configuration that leads there.
pub(crate) fn config() -> EtcdConfig {
    EtcdConfig::new(endpoints()).unwrap_or_else(|error| panic!("{VARIABLE}: {error}"))
}

/// A client of the server that knows nothing of the store under test.
pub(crate) async fn client() -> etcd_client::Client {
    etcd_client::Client::connect(endpoints(), None).await.expect("a client of the test server")
}
