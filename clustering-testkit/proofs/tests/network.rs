//! Tests of networks that are cut and removed.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::{net::SocketAddr, time::Duration};

use clustering_proofs::network::Network;
use clustering_testkit::process::Process;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Longer than any step takes.
const LONG: Duration = Duration::from_secs(60);

/// Creates a network, or prints `NOT TESTED` and returns `None` if that is not possible here.
async fn network(untested: &str) -> Option<Network> {
    if let Some(why) = Network::unavailable() {
        println!("NOT TESTED: {untested}: {why}");
        return None;
    }
    Some(Network::new().await.unwrap())
}

/// Starts a process inside the network that sends a word ten times a second. Also returns the lines received from it.
async fn talking(network: &Network) -> (Process, Lines<BufReader<TcpStream>>) {
    let listener = TcpListener::bind(SocketAddr::new(network.host().into(), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "exec 3<>/dev/tcp/{}/{port} || exit 1; while :; do echo word >&3 || :; sleep 0.1; done",
        network.host()
    );
    let process = network.process("bash").args(["-c", &script]).spawn().unwrap();
    let (stream, _) = timeout(LONG, listener.accept()).await.unwrap().unwrap();
    (process, BufReader::new(stream).lines())
}

async fn hears(lines: &mut Lines<BufReader<TcpStream>>) {
    let line = timeout(LONG, lines.next_line()).await.expect("a word in time").unwrap();
    assert_eq!(line.as_deref(), Some("word"));
}

#[tokio::test]
async fn a_cut_or_unplugged_network_carries_data_again_after_mend() {
    let Some(network) = network("cutting networks").await else { return };
    let (_process, mut lines) = talking(&network).await;
    hears(&mut lines).await;
    for breaks in [Network::cut, Network::unplug] {
        breaks(&network).unwrap();
        let silence = async { while timeout(Duration::from_secs(1), lines.next_line()).await.is_ok() {} };
        timeout(LONG, silence).await.expect("no more words arrive");
        network.mend().unwrap();
        hears(&mut lines).await;
    }
}

#[tokio::test]
async fn a_dropped_network_is_removed() {
    let Some(network) = network("removal of networks").await else { return };
    let (process, mut lines) = talking(&network).await;
    hears(&mut lines).await;
    let host = network.host();
    let has_it = || {
        let shown = std::process::Command::new("ip").args(["-4", "-oneline", "addr"]).output().unwrap();
        String::from_utf8(shown.stdout).unwrap().contains(&format!(" {host}/"))
    };
    assert!(has_it());
    drop((network, process));
    let gone = async {
        while has_it() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, gone).await.expect("the network interface is removed");
}
