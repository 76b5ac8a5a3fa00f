//! The command `clustering` for another store: an in-memory store with a cluster in the process of the command.
//!
//!     cargo run --package clustering-cli --example memory -- status
//!
//! A command such as `run --page` connects twice. Only the first time, the nodes are started.

use std::{
    process::ExitCode,
    sync::{Arc, OnceLock},
};

use clustering_cli::{Connect, Failure, Purpose};
use clustering_core::store::CoordinationStore;
use clustering_memory::{Clustering, MemoryStore};

#[derive(clap::Args, Clone, Debug)]
struct Memory {
    /// Number of nodes in the cluster
    #[arg(long, global = true, value_name = "N", default_value_t = 3)]
    size: u32,
    #[arg(skip)]
    store: Arc<OnceLock<MemoryStore>>,
}

impl Connect for Memory {
    const STORE: &'static str = "the memory store";

    async fn connect(&self, _: Purpose) -> Result<Arc<dyn CoordinationStore>, Failure> {
        let missing = if self.store.get().is_none() { self.size } else { 0 };
        let store = self.store.get_or_init(MemoryStore::new);
        for number in 1..=missing {
            let node = Clustering::builder(store.clone()).namespace("cluster").name(format!("node-{number}"));
            let node = node.uri("http://127.0.0.1:8080").start().await;
            let node = node.map_err(|error| Failure::unknown(error.to_string()))?;
            node.wait_stable().await.map_err(|error| Failure::unknown(error.to_string()))?;
            tokio::spawn(async move { node.ended().await });
        }
        Ok(Arc::new(store.clone()))
    }
}

fn main() -> ExitCode {
    clustering_cli::main::<Memory>()
}
