//! The socket of crash detection, on the loopback interface and in real time: a node answers as its process from its
//! start to its end.

use std::net::SocketAddr;

use clustering_core::{
    Builder, Clustering, CrashDetection, Discovery, Endpoint, NodeName, StartError, Status,
};
use clustering_memory::{MemoryStore, Stats};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

use crate::common::{Cluster, Node, secs, soon};

fn local() -> CrashDetection {
    CrashDetection::new().listen("127.0.0.1:0".parse().unwrap()).advertise("127.0.0.1")
}

async fn start(cluster: &Cluster, name: &str, change: impl FnOnce(Builder) -> Builder) -> Node {
    cluster.start_with(name, |builder| change(builder.detect_crashes(local()))).await
}

fn endpoint(node: &Node) -> Endpoint {
    let own = node.nodes().into_iter().find(|own| own.name == *node.name()).unwrap();
    own.endpoint.clone().unwrap()
}

/// Connects and returns the connection, and the line that the process sends.
async fn hello(endpoint: &Endpoint) -> std::io::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect(&*endpoint.address).await?;
    let mut line = [0; 40];
    soon("the hello", stream.read_exact(&mut line)).await?;
    Ok((stream, String::from_utf8(line.to_vec()).unwrap()))
}

#[tokio::test]
async fn the_record_contains_the_endpoint_and_the_identity_of_the_process() {
    let cluster = Cluster::new();
    let node = start(&cluster, "a", |builder| builder).await;
    let endpoint = endpoint(&node);
    let address: SocketAddr = endpoint.address.parse().unwrap();
    assert!(address.ip().is_loopback() && address.port() != 0, "{address}");
    let (mut stream, line) = hello(&endpoint).await.unwrap();
    assert_eq!(line, format!("clustering/1 {}\n", endpoint.process));

    node.stop().await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "the connection is closed");
    assert!(hello(&endpoint).await.is_err(), "the port is closed when `stop` returns");
}

#[tokio::test]
async fn every_process_has_an_identity_of_its_own_that_outlives_its_sessions() {
    let cluster = Cluster::new();
    let node = start(&cluster, "a", |builder| builder).await;
    let other = start(&cluster, "b", |builder| builder).await;
    let own = endpoint(&node);
    assert_ne!(own.process, endpoint(&other).process);
    node.set_metadata([("zone".to_owned(), "1".to_owned())].into()).await.unwrap();
    node.unregister().await.unwrap();
    assert!(hello(&own).await.is_ok(), "the process is alive although its node has left");
    node.register().await.unwrap();
    assert_eq!(endpoint(&node), own);
    node.stop().await.unwrap();
    let restarted = start(&cluster, "a", |builder| builder.seed(2)).await;
    assert_ne!(endpoint(&restarted).process, own.process);
}

/// Otherwise other nodes would take a node that lets go of its keys for a crashed one.
#[tokio::test]
async fn a_node_that_leaves_answers_until_it_has_left() {
    let cluster = Cluster::new();
    let node = start(&cluster, "a", |builder| builder.exclusive(1)).await;
    let endpoint = endpoint(&node);
    let hold = soon("the hold", node.wait_hold("key")).await.unwrap();
    let stopping = tokio::spawn({
        let node = node.cluster.clone();
        async move { node.stop().await }
    });
    soon("the loss of the hold", hold.lost()).await;
    assert!(hello(&endpoint).await.is_ok());
    drop(hold);
    soon("the end", stopping).await.unwrap().unwrap();
    assert!(hello(&endpoint).await.is_err());
}

/// Two nodes that trust refused connections. The first one's runtime ends while the process works on a key.
#[test]
fn p12_nobody_takes_the_keys_of_a_process_that_works_on_them_after_the_end_of_its_runtime() {
    let (ending, lasting) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let store = MemoryStore::new();
    let trusting = |name: &str| {
        let builder = Clustering::builder(store.clone()).name(name).uri("http://host:80").ttl(secs(4));
        builder.exclusive(1).detect_crashes(local().trust_refused())
    };
    let first = ending.block_on(trusting("a").start()).unwrap();
    let hold = ending.block_on(async { soon("the hold", first.wait_hold("key")).await.unwrap() });
    let second = lasting.block_on(trusting("b").start()).unwrap();
    lasting.block_on(async {
        let is_watched = |status: &Status| {
            status.is_stable() && status.newest.as_ref().is_some_and(|view| view.len() == 2)
        };
        soon("the version", second.status().wait_for(is_watched)).await.unwrap();
        ending.shutdown_background();
        let is_alone = |status: &Status| status.newest.as_ref().is_some_and(|view| view.len() == 1);
        soon("the removal", second.status().wait_for(is_alone)).await.unwrap();
        drop(soon("the hold", second.wait_hold("key")).await.unwrap());
    });
    assert!(!hold.is_valid(), "two processes hold the key");
}

#[tokio::test]
async fn a_node_without_crash_detection_and_an_observer_name_no_address() {
    let cluster = Cluster::new();
    let _node = cluster.start("a").await;
    let observer = Discovery::observe(cluster.store.clone(), "cluster").await.unwrap();
    let node = observer.node(&NodeName::parse("a").unwrap()).unwrap();
    assert_eq!(node.endpoint, None);
}

#[tokio::test]
async fn a_port_that_is_in_use_is_a_clear_error_before_anything_is_sent() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = other.local_addr().unwrap();
    let cluster = Cluster::new();
    let (_line, builder) = cluster.builder("a");
    let error = builder.detect_crashes(local().listen(taken)).start().await.unwrap_err();
    assert!(matches!(error, StartError::Listen { address, .. } if address == taken), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&format!("cannot listen on {taken} for crash detection")), "{text}");
    assert!(text.contains("choose a port that no other program uses"), "{text}");
    assert_eq!(cluster.store.stats(), Stats::default());
}
