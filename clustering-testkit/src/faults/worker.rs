use std::time::Duration;

use clustering_core::{Clustering, Hold};
use futures_util::future::join_all;
use tokio::time::sleep;

use crate::history::{Journal, Observation};

/// Number of keys. Every exclusive node tries to hold all of them, and there are enough for each node to own some.
const KEYS: u16 = 12;

/// Number of slots of an exclusive cluster.
pub(super) const SLOTS: u16 = 12;

pub(super) fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(|number| format!("key-{number}"))
}

/// Interval at which a worker checks whether its hold is valid, and records that it is.
const LOOK: Duration = Duration::from_millis(20);

/// Time for which a worker continues after its hold is lost.
const LINGERS: Duration = Duration::from_millis(50);

/// Works on all keys whenever the node holds them, and records the times at which the holds were certainly valid (P12).
pub(super) async fn work(journal: Journal, node: Clustering) {
    join_all(keys().map(|key| work_on(&journal, &node, key))).await;
}

async fn work_on(journal: &Journal, node: &Clustering, key: String) {
    loop {
        if let Ok(hold) = node.wait_hold(&key).await {
            let end = async {
                hold.lost().await;
                sleep(LINGERS).await;
            };
            tokio::select! {
                biased;
                () = until_void(journal, &hold, &key) => {}
                () = end => {}
            }
            journal.note(Observation::LetGo { key: key.clone() });
        }
        sleep(LOOK).await;
    }
}

/// Checks the hold again and again. Each time is taken before its check, so that the hold was valid at that time.
async fn until_void(journal: &Journal, hold: &Hold, key: &str) {
    let from = journal.clock().now();
    loop {
        sleep(LOOK).await;
        let at = journal.clock().now();
        if !hold.is_valid() {
            return;
        }
        // Extends the time that was recorded before.
        journal.note_at(from, Observation::Holds { key: key.to_owned(), until: Some(at) });
    }
}
