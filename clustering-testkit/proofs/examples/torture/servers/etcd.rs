use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use clustering_core::store::{CoordinationStore, Revision, StoreError};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::etcd::{EtcdCluster, EtcdServer};

use super::Servers;
use crate::world::Failed;

pub(super) struct Etcd(EtcdCluster);

impl Etcd {
    pub(super) async fn start(members: usize) -> Result<Self, Failed> {
        Ok(Etcd(EtcdServer::builder().start_cluster(members).await?))
    }
}

#[async_trait]
impl Servers for Etcd {
    fn version(&self) -> String {
        format!("etcd {}", self.0[0].version())
    }

    fn addresses(&self) -> Vec<String> {
        let endpoints = self.0.endpoints();
        endpoints.iter().map(|endpoint| endpoint.trim_start_matches("http://").to_owned()).collect()
    }

    fn endpoint(&self, address: SocketAddr) -> String {
        format!("http://{address}")
    }

    fn open(&self) -> Result<Arc<dyn CoordinationStore>, StoreError> {
        Ok(Arc::new(EtcdStore::new(EtcdConfig::new(self.0.endpoints())?)?))
    }

    async fn leader(&self) -> Option<usize> {
        self.0.leader().await
    }

    async fn move_leader(&self) -> Result<Option<usize>, Failed> {
        match self.0.members().len() {
            1 => Ok(None),
            _ => Ok(Some(self.0.transfer_leader().await?)),
        }
    }

    fn quorum_loss(&self) -> Option<usize> {
        Some(self.0.members().len() / 2 + 1)
    }

    async fn kill(&self, member: usize) -> Result<(), Failed> {
        Ok(self.0[member].kill().await?)
    }

    fn pause(&self, member: usize) -> Result<(), Failed> {
        Ok(self.0[member].pause()?)
    }

    fn resume(&self, member: usize) -> Result<(), Failed> {
        Ok(self.0[member].resume()?)
    }

    async fn recover(&self) -> Result<(), Failed> {
        Ok(self.0.recover().await?)
    }

    async fn compact(&self, member: usize, revision: Revision) -> Result<(), Failed> {
        Ok(self.0[member].compact_to(revision).await?)
    }

    fn logs(&self) -> Vec<(String, String)> {
        self.0.members().iter().map(|member| (member.name().to_owned(), member.log())).collect()
    }
}

pub(super) fn open(endpoints: &[String]) -> Result<Arc<dyn CoordinationStore>, StoreError> {
    let mut config = EtcdConfig::new(endpoints)?;
    // The nodes must not bypass the proxies, whose connections the test breaks.
    config.member_refresh = Duration::ZERO;
    Ok(Arc::new(EtcdStore::new(config)?))
}
