//! Etcd servers for tests.
//!
//! [`EtcdServer`] runs a local `etcd` binary: the one named by `CLUSTERING_ETCD_BIN`, else the one on the `PATH`. It
//! starts in about half a second, so each test can have its own server and do things to it that a shared server must
//! not suffer:
//!
//! ```no_run
//! use clustering_testkit::etcd::EtcdServer;
//!
//! #[tokio::test]
//! async fn my_service_survives_a_restart_of_etcd() -> Result<(), Box<dyn std::error::Error>> {
//!     let etcd = EtcdServer::start().await?;
//!     // ... start the service on etcd.endpoints() ...
//!
//!     etcd.kill().await?;
//!     // ... there is no leader, and no node crashes ...
//!     etcd.restart().await?;
//!     // ... there is a leader again ...
//!
//!     etcd.client().await?.put("what/an/operator/did", "by hand", None).await?;
//!     println!("{:?}", etcd.metrics().await?.get("etcd_server_has_leader", &[]));
//!     Ok(())
//! }
//! ```
//!
//! | method | simulates |
//! |---|---|
//! | [`pause`](EtcdServer::pause), [`resume`](EtcdServer::resume) | a hanging server: connections stay open, but there are no replies |
//! | [`kill`](EtcdServer::kill), [`stop`](EtcdServer::stop), [`restart`](EtcdServer::restart) | a crash, an orderly shutdown, and recovery |
//! | [`compact`](EtcdServer::compact) | a reader that was away for too long (`Compacted`) |
//! | [`snapshot`](EtcdServer::snapshot), [`restore`](EtcdServer::restore) | recovery from a backup, after which revisions are smaller (`Rewound`) |
//! | [`wipe`](EtcdServer::wipe) | loss of all data |
//! | [`client`](EtcdServer::client) | manual changes by an operator |
//!
//! [`EtcdCluster`] has several members, to test elections and the loss of the quorum:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use clustering_testkit::etcd::EtcdCluster;
//!
//! let etcd = EtcdCluster::start().await?;
//! let old = etcd.kill_leader().await?;
//! let new = etcd.wait_for_leader().await?;
//! assert_ne!(old, new);
//! etcd[old].restart().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Tests that run on any etcd call [`provide`]. `CLUSTERING_TEST_ETCD` selects the kind of etcd for a whole test run:
//! servers that are already running, a local binary, or a container ([`Source::from_env`]).
//!
//! No processes or files are left behind, even if a test fails, times out or is killed: see
//! [`process`](crate::process). Each test gets ports that no other test uses.
//!
//! Do not pause tokio's clock in these tests: time in the server passes independently of it.

mod any;
mod binary;
mod builder;
mod cluster;
#[cfg(feature = "container")]
mod container;
mod error;
mod given;
mod http;
mod metrics;
mod server;
mod source;

#[cfg(feature = "container")]
pub use self::container::{CONTAINER_LABEL, DEFAULT_IMAGE, EtcdContainer, IMAGE_VARIABLE};
use self::given::Given;
pub use self::{
    any::Etcd,
    binary::BINARY_VARIABLE,
    builder::EtcdBuilder,
    cluster::EtcdCluster,
    error::EtcdError,
    metrics::Metrics,
    server::{EtcdServer, Snapshot},
    source::{SOURCE_VARIABLE, Source, provide},
};
