//! Linearizability of PostgreSQL through this store, with random concurrent calls, also if replies are
//! lost.

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

mod common;

use std::sync::Arc;

use clustering_core::store::CoordinationStore;
use clustering_testkit::{
    faulty::{Call, FaultyStore},
    linearizability::{Plan, play},
};

fn plan(seed: u64) -> Plan {
    Plan { seed, root: format!("linearizability/{seed}/"), ..Plan::default() }
}

#[tokio::test]
async fn a_server_is_linearizable() {
    let server = common::start().await;
    for seed in 0..10 {
        let open = async |_| Arc::new(common::store(&server)) as Arc<dyn CoordinationStore>;
        let history = play(&plan(seed), open).await;
        assert_eq!((history.operations.len(), history.unknown), (200, 0));
        history.judge().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[tokio::test]
async fn a_server_is_linearizable_although_replies_are_lost() {
    let server = common::start().await;
    let mut unknown = 0;
    for seed in 100..105 {
        let open = async |caller| {
            let faulty = FaultyStore::new(common::store(&server));
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
