//! A node process.

use std::{error::Error, io::Read, net::SocketAddr};

use clustering_core::{Clustering, CrashDetection};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::history::Clock;

use crate::{
    bare,
    process::{Kind, Spec, State, TTL},
};

/// Runs the node until the input ends.
pub(crate) async fn run(spec: &Spec) -> Result<(), Box<dyn Error>> {
    std::thread::spawn(|| {
        // The parent writes nothing to the input. An error means that the input has ended, too.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    match spec.kind {
        Kind::Bare => bare::run(spec).await,
        Kind::CrashDetection | Kind::Ttl => library(spec).await,
    }
}

async fn library(spec: &Spec) -> Result<(), Box<dyn Error>> {
    let store = EtcdStore::new(EtcdConfig::new([&spec.endpoint])?)?;
    let builder = Clustering::builder(store)
        .namespace(&spec.namespace)
        .name(&spec.name)
        .uri("http://127.0.0.1:8080")
        .ttl(TTL);
    let builder = match spec.kind {
        Kind::CrashDetection => builder.detect_crashes(detection()),
        _ => builder,
    };
    let node = builder.start().await?;
    let (clock, mut state, mut status) = (Clock::boot(), State::default(), node.status());
    loop {
        let now = status.get();
        let nodes = now.newest.as_ref().filter(|_| now.is_stable()).map(|view| view.len());
        state.update(&clock, nodes, node.is_leader());
        status.changed().await?;
    }
}

fn detection() -> CrashDetection {
    let mut detection = CrashDetection::default();
    detection.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    detection
}
