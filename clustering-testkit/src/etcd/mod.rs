//! Etcd servers for tests.
//!
//! [`EtcdServer`] runs a local `etcd` binary: the one that `CLUSTERING_ETCD_BIN` names, else the one on the `PATH`. It
//! starts in about half a second, so each test can have its own, and do to it what a shared one must not suffer:
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
//!     // ... nobody leads, nobody crashes ...
//!     etcd.restart().await?;
//!     // ... somebody leads ...
//!
//!     etcd.client().await?.put("what/an/operator/did", "by hand", None).await?;
//!     println!("{:?}", etcd.metrics().await?.get("etcd_server_has_leader", &[]));
//!     Ok(())
//! }
//! ```
//!
//! | verb | what it stands for |
//! |---|---|
//! | [`pause`](EtcdServer::pause), [`resume`](EtcdServer::resume) | a server that hangs: connections stay open, nothing answers |
//! | [`kill`](EtcdServer::kill), [`stop`](EtcdServer::stop), [`restart`](EtcdServer::restart) | a crash, an orderly end, and the way back |
//! | [`compact`](EtcdServer::compact) | a reader that was away for too long (`Compacted`) |
//! | [`snapshot`](EtcdServer::snapshot), [`restore`](EtcdServer::restore) | recovery from a backup: revisions go back (`Rewound`) |
//! | [`wipe`](EtcdServer::wipe) | all data lost |
//! | [`client`](EtcdServer::client) | what somebody does by hand |
//!
//! [`EtcdCluster`] has several members, for elections and lost quorums:
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
//! Tests that run on any etcd ask [`provide`] for one. `CLUSTERING_TEST_ETCD` decides for the whole run what that is:
//! servers that run already, a local binary, or a container ([`Source::from_env`]).
//!
//! Nothing stays behind, neither processes nor files, also when the test fails, takes too long or is killed: see
//! [`process`](crate::process). Ports are taken from those that no other test has.
//!
//! Don't pause tokio's clock in these tests: time passes by itself outside of the process.

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
mod ports;
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
