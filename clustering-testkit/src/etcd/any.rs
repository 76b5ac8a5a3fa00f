use std::fmt;

use async_trait::async_trait;
use clustering_core::store::Revision;
use etcd_client::{Client, CompactionOptions, GetOptions};

use super::{EtcdError, EtcdServer, Metrics};

/// An etcd for a test, wherever it runs: what tests can do to all of them.
///
/// Some can do less: servers that were [given](super::Source::Given) are not the test's to stop, and say so.
#[async_trait]
pub trait Etcd: fmt::Debug + Send + Sync {
    /// Where it serves clients. They stay the same whatever is done to it.
    fn endpoints(&self) -> Vec<String>;

    /// A client that knows nothing of the code under test.
    async fn client(&self) -> Result<Client, EtcdError>;

    /// The metrics of its one server.
    async fn metrics(&self) -> Result<Metrics, EtcdError>;

    /// Stops it in its tracks: connections stay open, nothing answers.
    async fn pause(&self) -> Result<(), EtcdError>;

    /// Lets it go on after [`pause`](Self::pause).
    async fn resume(&self) -> Result<(), EtcdError>;

    /// Kills it, and returns when it is gone. Its data stays.
    async fn kill(&self) -> Result<(), EtcdError>;

    /// Starts it again with its data, and returns when it answers. If it still runs it is killed first.
    async fn restart(&self) -> Result<(), EtcdError>;

    /// Kills it, and starts it again with nothing in it. Revisions begin anew.
    async fn wipe(&self) -> Result<(), EtcdError>;

    /// Its current revision.
    async fn revision(&self) -> Result<Revision, EtcdError> {
        let what = || format!("asking {self:?} for its revision");
        // No key is empty: this counts nothing.
        let reply = self.client().await?.get("\0", Some(GetOptions::new().with_count_only())).await;
        let reply = reply.map_err(|error| EtcdError::new(what(), error))?;
        let revision = reply.header().and_then(|header| u64::try_from(header.revision()).ok());
        revision.map(Revision::new).ok_or_else(|| EtcdError::new(what(), "the reply has none"))
    }

    /// Makes it forget its history up to the current revision, which it returns: a watch from before it ends with
    /// `Compacted`.
    async fn compact(&self) -> Result<Revision, EtcdError> {
        let revision = self.revision().await?;
        self.compact_to(revision).await?;
        Ok(revision)
    }

    /// Makes it forget its history up to and including that revision. It is no error if it has before.
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
