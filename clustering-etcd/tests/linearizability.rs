//! Linearizability of etcd through this store, with random concurrent calls, also while members are killed or paused,
//! or lose the leadership.

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
use futures_util::StreamExt;
use tokio::sync::watch;

/// Returns a plan with a root that no other run uses, since tests may share the server.
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
async fn a_server_is_linearizable_although_replies_are_lost() {
    let etcd = common::etcd().await;
    let mut unknown = 0;
    for seed in 100..105 {
        let open = async |caller| {
            let faulty = FaultyStore::new(EtcdStore::new(common::config(&*etcd)).unwrap());
            if caller < Plan::default().callers {
                faulty.lose_replies(Call::Commit, 3 * caller);
            }
            Arc::new(faulty) as Arc<dyn CoordinationStore>
        };
        let history = play(&plan(seed), open).await;
        unknown += history.unknown;
        history.judge().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    assert!(unknown > 50, "only {unknown} replies were lost");
}

/// Fault of a member while calls are made.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillsLeader,
    KillsFollower,
    PausesLeader,
    PausesFollower,
    TransfersLeadership,
    LosesQuorum,
}

async fn check_during(fault: Fault) {
    let etcd = EtcdCluster::start().await.unwrap();
    let (started, has_started) = watch::channel(false);
    let (over, is_over) = watch::channel(false);
    let endpoints = etcd.endpoints();
    let plan = Plan { calls: 120, ..plan(fault as u64) };
    let open = async |caller| {
        let store = EtcdStore::new(EtcdConfig::new(&endpoints).unwrap()).unwrap();
        if caller == plan.callers {
            return Arc::new(Witness { store, started: started.clone(), over: is_over.clone() })
                as Arc<dyn CoordinationStore>;
        }
        // Slow calls down, so that they last as long as the fault.
        let faulty = FaultyStore::new(store);
        faulty.delay(Duration::from_millis(10));
        Arc::new(faulty) as Arc<dyn CoordinationStore>
    };
    let disturb = async {
        has_started.clone().wait_for(|started| *started).await.unwrap();
        // The fault starts while calls are made.
        let observer = EtcdStore::new(EtcdConfig::new(&endpoints).unwrap()).unwrap();
        let changes = observer.watch(&plan.root, Revision::ZERO).await.unwrap();
        assert_eq!(changes.take(20).count().await, 20);
        let leader = etcd.wait_for_leader().await.unwrap();
        let follower = (leader + 1) % 3;
        let a_while = || tokio::time::sleep(Duration::from_millis(1_500));
        match fault {
            Fault::KillsLeader | Fault::KillsFollower => {
                let member = if matches!(fault, Fault::KillsLeader) { leader } else { follower };
                etcd[member].kill().await.unwrap();
                a_while().await;
                etcd[member].restart().await.unwrap();
            }
            Fault::PausesLeader | Fault::PausesFollower => {
                let member = if matches!(fault, Fault::PausesLeader) { leader } else { follower };
                etcd[member].pause().unwrap();
                a_while().await;
                etcd[member].resume().unwrap();
            }
            Fault::TransfersLeadership => drop(etcd.transfer_leader().await.unwrap()),
            Fault::LosesQuorum => {
                etcd.lose_quorum().await.unwrap();
                a_while().await;
                etcd.recover().await.unwrap();
            }
        }
        etcd.wait_healthy().await.unwrap();
        over.send_replace(true);
    };
    let (history, ()) = tokio::join!(play(&plan, open), disturb);
    println!("{fault:?}: {} calls answered or seen, {} unknown", history.operations.len(), history.unknown);
    assert!(history.operations.len() > 200, "{fault:?}: only {} calls", history.operations.len());
    history.judge().unwrap_or_else(|why| panic!("{fault:?}: {why}"));
}

#[tokio::test]
async fn three_members_are_linearizable_while_the_leader_is_killed() {
    check_during(Fault::KillsLeader).await;
}

#[tokio::test]
async fn three_members_are_linearizable_while_a_follower_is_killed() {
    check_during(Fault::KillsFollower).await;
}

#[tokio::test]
async fn three_members_are_linearizable_while_the_leader_is_paused() {
    check_during(Fault::PausesLeader).await;
}

#[tokio::test]
async fn three_members_are_linearizable_while_a_follower_is_paused() {
    check_during(Fault::PausesFollower).await;
}

#[tokio::test]
async fn three_members_are_linearizable_while_leadership_is_transferred() {
    check_during(Fault::TransfersLeadership).await;
}

#[tokio::test]
async fn three_members_are_linearizable_while_the_quorum_is_lost() {
    check_during(Fault::LosesQuorum).await;
}

/// The store of the caller that reads and watches at the end: it signals the start of the run, and then waits until the
/// fault is over.
struct Witness {
    store: EtcdStore,
    started: watch::Sender<bool>,
    over: watch::Receiver<bool>,
}

impl Witness {
    async fn wait(&self) {
        if self.started.send_replace(true) {
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
