//! Stores that can be tortured. A further store is a further implementation of [`Servers`], and a variant of [`Store`].

mod etcd;
mod postgres;

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use clustering_core::store::{CoordinationStore, Revision, StoreError};

use self::{etcd::Etcd, postgres::Postgres};
use crate::world::Failed;

/// Store on whose servers the nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Etcd,
    Postgres,
}

impl Store {
    pub(crate) const NAMED: [(&'static str, Store); 2] =
        [("etcd", Store::Etcd), ("postgres", Store::Postgres)];

    /// Returns the number of members, by default or as given, or an explanation if the store cannot have that many.
    pub(crate) fn members(self, given: Option<usize>) -> Result<usize, &'static str> {
        match (self, given) {
            (Store::Etcd, None) => Ok(3),
            (Store::Etcd, Some(members @ (1 | 3 | 5))) => Ok(members),
            (Store::Etcd, Some(_)) => Err("expected an odd number for etcd, 1, 3 or 5"),
            (Store::Postgres, None | Some(1)) => Ok(1),
            (Store::Postgres, Some(_)) => Err("expected 1 for PostgreSQL, whose nodes share one server"),
        }
    }

    pub(crate) async fn start(self, members: usize) -> Result<Box<dyn Servers>, Failed> {
        Ok(match self {
            Store::Etcd => Box::new(Etcd::start(members).await?),
            Store::Postgres => Box::new(Postgres::start().await?),
        })
    }
}

/// The servers of a store. Members are numbered from 0. A fault ends before the next one begins.
#[async_trait]
pub(crate) trait Servers: Send + Sync {
    /// Returns the name of the store and its version.
    fn version(&self) -> String;

    /// Returns the address of each member, as `host:port`, in the order of their numbers.
    fn addresses(&self) -> Vec<String>;

    /// Returns the endpoint at which a node finds a member, or a proxy for it, at this address.
    /// [`open`] recognizes the store by it.
    fn endpoint(&self, address: SocketAddr) -> String;

    /// Opens the store without proxies. Values must be sent as they are, so that a proxy finds the text in a commit whose
    /// answer it loses.
    fn open(&self) -> Result<Arc<dyn CoordinationStore>, StoreError>;

    /// Returns the number of the member that leads the others, if the store has such a member now.
    async fn leader(&self) -> Option<usize> {
        None
    }

    /// Makes another member the leader. Returns its number, or `None` if the store has no leader that can be moved.
    async fn move_leader(&self) -> Result<Option<usize>, Failed> {
        Ok(None)
    }

    /// Returns the smallest number of members without which the store does not work, or `None` if members don't replace
    /// each other.
    fn quorum_loss(&self) -> Option<usize> {
        None
    }

    async fn kill(&self, member: usize) -> Result<(), Failed>;

    /// Stops the member's processes with `SIGSTOP`.
    fn pause(&self, member: usize) -> Result<(), Failed>;

    fn resume(&self, member: usize) -> Result<(), Failed>;

    /// Starts killed members again, with their data, and waits until all members answer. None may be paused.
    async fn recover(&self) -> Result<(), Failed>;

    /// Deletes the history up to this revision, at a member.
    async fn compact(&self, member: usize, revision: Revision) -> Result<(), Failed>;

    /// Returns the name and the content of each member's log.
    fn logs(&self) -> Vec<(String, String)>;
}

/// Opens the store at endpoints that [`Servers::endpoint`] has returned.
pub(crate) fn open(endpoints: &[String]) -> Result<Arc<dyn CoordinationStore>, StoreError> {
    match endpoints {
        [one] if postgres::is_endpoint(one) => postgres::open(one),
        _ => etcd::open(endpoints),
    }
}
