//! Tests in real time and on several threads, for what paused time on one thread cannot show.

use std::sync::Arc;

use clustering_core::{Clustering, machine::Phase};
use clustering_memory::MemoryStore;

use crate::common::{audit, ms, secs};

/// For a second, nodes join and leave, change, request versions and resign, each in a task of its own. Then the newest
/// version becomes stable, and the history is in order.
#[test]
fn p8_churn_on_several_threads_ends_in_a_stable_version() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let store = MemoryStore::builder().history(1_000_000).build();
    let start = async |store: &MemoryStore, name: String| {
        let builder = Clustering::builder(store.clone()).name(name).uri("http://host:80").ttl(secs(2));
        let builder = builder.stabilize(|stabilization| async move {
            tokio::time::sleep(ms(stabilization.view().len() as u64)).await;
        });
        builder.start().await.unwrap()
    };
    runtime.block_on(async {
        let stop = Arc::new(tokio::sync::Semaphore::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..6_u32 {
            let (store, stop) = (store.clone(), stop.clone());
            tasks.spawn(async move {
                let mut node = start(&store, format!("n{number}")).await;
                let mut round = number;
                while stop.available_permits() == 0 {
                    round += 1;
                    match round % 5 {
                        0 => drop(node.cluster_change().await.unwrap()),
                        1 => {
                            let zone = ("zone".to_owned(), round.to_string());
                            node.set_metadata([zone].into()).await.unwrap();
                        }
                        // Refused on all nodes except the leader.
                        2 => drop(node.resign().await),
                        3 => {
                            node.stop().await.unwrap();
                            node = start(&store, format!("n{number}")).await;
                        }
                        _ => tokio::time::sleep(ms(u64::from(round % 20))).await,
                    }
                }
                node
            });
        }
        tokio::time::sleep(secs(1)).await;
        stop.add_permits(1);
        let nodes = tasks.join_all().await;
        let asked = nodes[0].cluster_change().await.unwrap();
        let all_at = async |version| {
            for node in &nodes {
                let mut status = node.status();
                let is = |status: &clustering_core::Status| {
                    let newest = status.newest.as_ref().map(|view| view.version());
                    status.phase == Phase::Member && status.is_stable() && newest >= Some(version)
                };
                status.wait_for(is).await.unwrap();
            }
        };
        tokio::time::timeout(secs(60), all_at(asked)).await.expect("stable");
        assert_eq!(nodes[0].nodes().len(), 6);
        for node in &nodes {
            node.stop().await.unwrap();
        }
        assert_eq!(store.lease_count(), 0);
        let audit = audit(&store, &[]).await;
        assert!(audit.versions().len() > 20, "{}", audit.versions().len());
    });
}
