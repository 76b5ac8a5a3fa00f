use std::sync::{Arc, Mutex};

use clustering_core::store::{CoordinationStore, Guard, Revision, Txn};
use clustering_memory::MemoryStore;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::{SECOND, batch, lease, shown, watch};

/// Twenty candidates contend for a key under leases that most of them do not renew, and twenty watches follow. Returns
/// a log of everything that happened.
async fn contention() -> Vec<String> {
    let store = MemoryStore::new();
    let start = Instant::now();
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20_u32 {
        let (store, log) = (store.clone(), log.clone());
        let mut watch = watch(&store, if n % 2 == 0 { "leader" } else { "" }, Revision::ZERO).await;
        tasks.spawn(async move {
            let candidate = async {
                let lease = lease(&store, (2 + n % 3) * SECOND).await;
                loop {
                    let claim =
                        Txn::new().guard(Guard::absent("leader")).put("leader", n.to_string(), lease.id);
                    let claimed = store.commit(claim.put(format!("claim/{n}"), "", None)).await;
                    log.lock().unwrap().push(format!("{:?} {n} {claimed:?}", start.elapsed()));
                    sleep(Duration::from_millis(700 + 13 * u64::from(n))).await;
                    if n % 5 == 0 && store.renew_lease(lease.id).await.is_err() {
                        return;
                    }
                }
            };
            let follower = async {
                loop {
                    let seen = shown(&batch(&mut watch).await);
                    log.lock().unwrap().push(format!("{:?} {n} sees {seen}", start.elapsed()));
                }
            };
            let both = async { tokio::join!(biased; candidate, follower) };
            assert!(timeout(20 * SECOND, both).await.is_err(), "neither loop ends by itself");
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let mut log = Arc::into_inner(log).unwrap().into_inner().unwrap();
    log.push(format!("{:?} {:?}", store.stats(), store.read("").await.unwrap()));
    log
}

#[tokio::test(start_paused = true)]
async fn two_runs_of_the_same_program_give_the_same_log() {
    let (first, second) = (contention().await, contention().await);
    assert!(first.len() > 500, "{} lines", first.len());
    assert_eq!(first, second);
}
