use std::fmt;

use async_trait::async_trait;
use clustering_core::store::Revision;
use etcd_client::{Client, CompactionOptions, GetOptions};

use super::{EtcdError, EtcdServer, Metrics};

/// Operations on an etcd for a test, independent of where it runs.
///
/// Some implementations support fewer operations: servers that were [given](super::Source::Given) to the test run
/// cannot be stopped, and return an error.
#[async_trait]
pub trait Etcd: fmt::Debug + Send + Sync {
    /// Returns the client endpoints. They never change.
    fn endpoints(&self) -> Vec<String>;

    /// Connects an `etcd-client` that is independent of the code under test.
    async fn client(&self) -> Result<Client, EtcdError>;

    /// Reads the metrics of the server. Fails if there are several servers.
    async fn metrics(&self) -> Result<Metrics, EtcdError>;

    /// Freezes the server: connections stay open, but there are no replies.
    async fn pause(&self) -> Result<(), EtcdError>;

    /// Resumes the server after [`pause`](Self::pause).
    async fn resume(&self) -> Result<(), EtcdError>;

    /// Kills the server and waits until it has ended. Its data is kept.
    async fn kill(&self) -> Result<(), EtcdError>;

    /// Starts the server again with its data, and waits until it answers. Kills it first if it is still running.
    async fn restart(&self) -> Result<(), EtcdError>;

    /// Kills the server and starts it again without data. Revisions start over.
    async fn wipe(&self) -> Result<(), EtcdError>;

    /// Returns the current revision.
    async fn revision(&self) -> Result<Revision, EtcdError> {
        let what = || format!("asking {self:?} for its revision");
        // Only the header of the reply is needed, so count a key that is not used.
        let reply = self.client().await?.get("\0", Some(GetOptions::new().with_count_only())).await;
        let reply = reply.map_err(|error| EtcdError::new(what(), error))?;
        let revision = reply.header().and_then(|header| u64::try_from(header.revision()).ok());
        revision.map(Revision::new).ok_or_else(|| EtcdError::new(what(), "the reply has no revision"))
    }

    /// Compacts the history up to the current revision and returns that revision. A watch from an earlier revision ends
    /// with `Compacted`.
    async fn compact(&self) -> Result<Revision, EtcdError> {
        let revision = self.revision().await?;
        self.compact_to(revision).await?;
        Ok(revision)
    }

    /// Compacts the history up to and including a revision. Succeeds if it was compacted before.
    async fn compact_to(&self, revision: Revision) -> Result<(), EtcdError> {
        let what = || format!("compacting {self:?} up to {revision}");
        let number = i64::try_from(revision.get()).map_err(|error| EtcdError::new(what(), error))?;
        let options = CompactionOptions::new().with_physical();
        match self.client().await?.compact(number, Some(options)).await {
            Err(error) if !error.to_string().contains("has been compacted") => {
                Err(EtcdError::new(what(), error))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Etcd for EtcdServer {
    fn endpoints(&self) -> Vec<String> {
        self.endpoints()
    }
    async fn client(&self) -> Result<Client, EtcdError> {
        self.client().await
    }
    async fn metrics(&self) -> Result<Metrics, EtcdError> {
        self.metrics().await
    }
    async fn pause(&self) -> Result<(), EtcdError> {
        self.pause()
    }
    async fn resume(&self) -> Result<(), EtcdError> {
        self.resume()
    }
    async fn kill(&self) -> Result<(), EtcdError> {
        self.kill().await
    }
    async fn restart(&self) -> Result<(), EtcdError> {
        self.restart().await
    }
    async fn wipe(&self) -> Result<(), EtcdError> {
        self.wipe().await
    }
}
