//! The command `clustering` for another store: an in-memory store with a cluster in the process of the command.
//!
//!     cargo run --package clustering-cli --example memory -- status

use std::{error::Error, process::ExitCode, sync::Arc};

use clustering_cli::{Connect, Failure, Purpose};
use clustering_core::{Status, store::CoordinationStore};
use clustering_memory::{Clustering, MemoryStore};
use futures_util::future::{join_all, try_join_all};
use tokio::sync::OnceCell;

#[derive(clap::Args, Clone, Debug)]
struct Memory {
    /// Number of nodes in the cluster
    #[arg(long, global = true, value_name = "N", default_value_t = 3)]
    size: u32,
    /// Number of slots of an exclusive cluster
    #[arg(long, global = true, value_name = "N")]
    slots: Option<u16>,
    /// The store with the cluster, once it is started: all connections of a command lead to the same one
    #[arg(skip)]
    started: Arc<OnceCell<MemoryStore>>,
}

impl Connect for Memory {
    const STORE: &'static str = "the memory store";

    async fn connect(&self, _: Purpose) -> Result<Arc<dyn CoordinationStore>, Failure> {
        let store = self.started.get_or_try_init(|| self.start()).await;
        let store = store.map_err(|error| Failure::unknown(error.to_string()))?;
        Ok(Arc::new(store.clone()))
    }
}

impl Memory {
    /// Starts the cluster in a new store.
    async fn start(&self) -> Result<MemoryStore, Box<dyn Error + Send + Sync>> {
        let store = MemoryStore::new();
        let start = |number| {
            let node = Clustering::builder(store.clone()).namespace("cluster").name(format!("node-{number}"));
            let node = node.uri("http://127.0.0.1:8080");
            match self.slots {
                Some(slots) => node.exclusive(slots).start(),
                None => node.start(),
            }
        };
        // The first node leads. The others join at once.
        let mut nodes = vec![start(1).await?];
        nodes.extend(try_join_all((2..=self.size).map(start)).await?);
        let mut status = nodes[0].status();
        let is_complete = |status: &Status| {
            status.is_stable() && status.newest.as_ref().is_some_and(|view| view.len() == nodes.len())
        };
        status.wait_for(is_complete).await?;
        tokio::spawn(async move { join_all(nodes.iter().map(Clustering::ended)).await });
        Ok(store)
    }
}

fn main() -> ExitCode {
    clustering_cli::main::<Memory>()
}
