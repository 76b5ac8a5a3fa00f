//! An HTTP service whose instances own devices, forward requests to the owner, and hand over on SIGTERM.
//!
//! ```text
//! cargo run -p clustering-etcd --example devices -- --name a --listen 127.0.0.1:8001
//! cargo run -p clustering-etcd --example devices -- --name b --listen 127.0.0.1:8002
//! curl -d on 127.0.0.1:8001/devices/7; curl 127.0.0.1:8002/devices/7
//! ```
//!
//! `service.rs` contains the service, and `devices.rs` its work on devices. With `--rolling-restart`, the program
//! measures failures and latencies of requests while five instances are restarted one after the other.

mod arguments;
mod devices;
mod load;
mod rolling;
mod service;
#[cfg(test)]
mod tests;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use arguments::{Arguments, Asked, Instance, StoreKind};
use clustering_core::{Clustering, store::CoordinationStore};
use clustering_etcd::EtcdStore;
use clustering_memory::MemoryStore;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match arguments::parse() {
        Ok(Asked::Run(arguments)) => arguments,
        Ok(Asked::Help) => {
            let _ = io::stdout().write_all(arguments::HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("devices: {error}\nTry `--help`.");
            return ExitCode::from(2);
        }
    };
    let result = match &arguments {
        Arguments::Instance(instance) => serve(instance).await.map(|()| true),
        Arguments::RollingRestart(plan) => rolling::run(plan).await,
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("devices: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs an instance until SIGTERM or SIGINT.
async fn serve(instance: &Instance) -> Result<(), BoxError> {
    let store = open(instance.store).await?;
    let listener = TcpListener::bind(&instance.listen).await?;
    let uri =
        instance.uri.clone().map_or_else(|| listener.local_addr().map(|at| format!("http://{at}")), Ok)?;
    println!("{} serves {uri}", instance.name);
    let node = Clustering::builder(store.clone()).name(&instance.name).uri(uri);
    service::run(node, store, listener, async {
        if let Err(error) = told_to_end().await {
            eprintln!("ends because it cannot wait for signals: {error}");
        }
    })
    .await
}

/// Waits for SIGTERM or SIGINT.
///
/// Until this is polled, which is after the node has started, either signal ends the process at once. Handlers that were
/// installed earlier would make a process ignore the signals for as long as its start waits for the store or its name.
async fn told_to_end() -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn open(store: StoreKind) -> Result<Arc<dyn CoordinationStore>, BoxError> {
    Ok(match store {
        StoreKind::Etcd => Arc::new(EtcdStore::from_env().await?),
        StoreKind::Memory => Arc::new(MemoryStore::new()),
    })
}
