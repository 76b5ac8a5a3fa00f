//! Is etcd linearizable, seen through this store? Random calls of several callers at once, also while members of its cluster
//! are killed, paused and lose the lead.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod common;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchStream,
};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::{
    etcd::EtcdCluster,
    faulty::{Call, FaultyStore},
    linearizability::{Plan, play},
};
use tokio::sync::watch;

/// Under a root that no other run has: the server may be everybody's.
fn plan(seed: u64) -> Plan {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    Plan { seed, root: format!("linearizability/{now}-{seed}/"), ..Plan::default() }
}

#[tokio::test]
async fn a_server_is_linearizable() {
    let etcd = common::etcd().await;
    for seed in 0..10 {
        let open = async |_| {
            let store = EtcdStore::new(common::config(&*etcd)).unwrap();
            Arc::new(store) as Arc<dyn CoordinationStore>
        };
        let history = play(&plan(seed), open).await;
        assert_eq!((history.operations.len(), history.unknown), (200, 0));
        history.judge().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[tokio::test]
async fn a_server_whose_replies_get_lost_is_linearizable() {
    let etcd = common::etcd().await;
    let mut unknown = 0;
    for seed in 100..105 {
        let open = async |caller| {
            let line = FaultyStore::new(EtcdStore::new(common::config(&*etcd)).unwrap());
            if caller < Plan::default().callers {
                line.lose_replies(Call::Commit, 3 * caller);
            }
            Arc::new(line) as Arc<dyn CoordinationStore>
        };
        let history = play(&plan(seed), open).await;
        unknown += history.unknown;
        history.judge().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    assert!(unknown > 50, "only {unknown} replies were lost");
}

/// What is done to the members while the callers call.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    KillsLeader,
    KillsFollower,
    PausesLeader,
    PausesFollower,
    MovesTheLead,
    LosesTheMajority,
}

async fn plays_through(trouble: Trouble) {
    let etcd = EtcdCluster::start().await.unwrap();
    let (begun, has_begun) = watch::channel(false);
    let (over, is_over) = watch::channel(false);
    let endpoints = etcd.endpoints();
    let plan = Plan { calls: 120, ..plan(trouble as u64) };
    let open = async |caller| {
        let store = EtcdStore::new(EtcdConfig::new(&endpoints).unwrap()).unwrap();
        if caller == plan.callers {
            return Arc::new(Witness { store, begun: begun.clone(), over: is_over.clone() })
                as Arc<dyn CoordinationStore>;
        }
        // So that they have something to ask for as long as it takes.
        let line = FaultyStore::new(store);
        line.delay(Duration::from_millis(10));
        Arc::new(line) as Arc<dyn CoordinationStore>
    };
    let disturb = async {
        has_begun.clone().wait_for(|begun| *begun).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let leader = etcd.wait_for_leader().await.unwrap();
        let follower = (leader + 1) % 3;
        let a_while = || tokio::time::sleep(Duration::from_millis(1_500));
        match trouble {
            Trouble::KillsLeader | Trouble::KillsFollower => {
                let member = if matches!(trouble, Trouble::KillsLeader) { leader } else { follower };
                etcd[member].kill().await.unwrap();
                a_while().await;
                etcd[member].restart().await.unwrap();
            }
            Trouble::PausesLeader | Trouble::PausesFollower => {
                let member = if matches!(trouble, Trouble::PausesLeader) { leader } else { follower };
                etcd[member].pause().unwrap();
                a_while().await;
                etcd[member].resume().unwrap();
            }
            Trouble::MovesTheLead => drop(etcd.transfer_leader().await.unwrap()),
            Trouble::LosesTheMajority => {
                etcd.lose_quorum().await.unwrap();
                a_while().await;
                etcd.recover().await.unwrap();
            }
        }
        etcd.wait_healthy().await.unwrap();
        over.send_replace(true);
    };
    let (history, ()) = tokio::join!(play(&plan, open), disturb);
    println!("{trouble:?}: {} calls answered or seen, {} unknown", history.operations.len(), history.unknown);
    assert!(history.operations.len() > 200, "{trouble:?}: only {} calls", history.operations.len());
    history.judge().unwrap_or_else(|why| panic!("{trouble:?}: {why}"));
}

#[tokio::test]
async fn three_members_are_linearizable_while_the_leader_is_killed() {
    plays_through(Trouble::KillsLeader).await;
}

#[tokio::test]
async fn three_members_are_linearizable_while_a_follower_is_killed() {
    plays_through(Trouble::KillsFollower).await;
}

#[tokio::test]
async fn three_members_are_linearizable_while_the_leader_is_paused() {
    plays_through(Trouble::PausesLeader).await;
}

#[tokio::test]
async fn three_members_are_linearizable_while_a_follower_is_paused() {
    plays_through(Trouble::PausesFollower).await;
}

#[tokio::test]
async fn three_members_are_linearizable_while_the_lead_is_handed_over() {
    plays_through(Trouble::MovesTheLead).await;
}

#[tokio::test]
async fn three_members_are_linearizable_while_the_majority_is_lost() {
    plays_through(Trouble::LosesTheMajority).await;
}

/// Looks before the trouble begins, and then only when it is over.
struct Witness {
    store: EtcdStore,
    begun: watch::Sender<bool>,
    over: watch::Receiver<bool>,
}

impl Witness {
    async fn wait(&self) {
        if self.begun.send_replace(true) {
            self.over.clone().wait_for(|over| *over).await.unwrap();
        }
    }
}

#[async_trait]
impl CoordinationStore for Witness {
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.store.grant_lease(ttl).await
    }
    async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError> {
        self.store.renew_lease(id).await
    }
    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.store.revoke_lease(id).await
    }
    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.wait().await;
        self.store.read(prefix).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        self.wait().await;
        self.store.watch(prefix, after).await
    }
    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.store.commit(txn).await
    }
}
