//! Crashes that other nodes detect by their connections to the process, and false alarms.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use clustering_core::{Cause, Keyspace, Namespace, NodeName, Version, history};
use clustering_proofs::{
    network::Network,
    node::{DetectionSpec, Node, NodeSpec},
};
use clustering_testkit::{
    etcd::EtcdServer,
    history::{Moment, Observation},
    proxy::Proxy,
};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::{
    owners::Owners,
    scenario::{Alone, LONG, SLACK, Scenario, secs, without},
};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// TTL of nodes whose crashes are noticed long before it ends.
const LONG_TTL: Duration = secs(15);

/// Time for a crash to be noticed and the next version to be stable, even on a machine that is building at the same
/// time.
const SOON: Duration = secs(5);

/// Local address of proxies, which is not that of the nodes.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn detecting(spec: NodeSpec) -> NodeSpec {
    NodeSpec { detects_crashes: Some(DetectionSpec::at(Ipv4Addr::LOCALHOST)), ..spec }
}

/// Like [`detecting`], with a TTL that no test waits for.
fn patient(spec: NodeSpec) -> NodeSpec {
    NodeSpec { ttl: LONG_TTL, ..detecting(spec) }
}

fn spawn(scenario: &Scenario, names: &[&str], change: impl Fn(NodeSpec) -> NodeSpec) -> Vec<Arc<Node>> {
    names.iter().map(|name| scenario.spawn(change(scenario.spec(name)))).collect()
}

/// Starts all nodes of a cluster, and waits until they are stable.
async fn start(scenario: &Scenario, names: &[&str], change: impl Fn(NodeSpec) -> NodeSpec) -> Vec<Arc<Node>> {
    let nodes = spawn(scenario, names, change);
    scenario.stable(names).await;
    nodes
}

/// Returns the causes of a version.
async fn causes(scenario: &Scenario, version: Version) -> Vec<Cause> {
    let keys = Keyspace::new(Namespace::parse(&scenario.namespace).unwrap());
    let entries = history(&scenario.store, &keys).await.unwrap();
    entries.into_iter().find(|entry| entry.version == version).unwrap().causes
}

fn crashed(node: &Node) -> Cause {
    Cause::Crashed(NodeName::parse(node.name()).unwrap())
}

fn ended(node: &Node) -> Cause {
    Cause::Ended(NodeName::parse(node.name()).unwrap())
}

/// Waits until the others are stable without the node, whose crash could not be detected before its lease ended.
async fn ends_by_its_ttl(scenario: &Scenario, names: &[&str], node: &Node, before: Version, since: Moment) {
    let after = scenario.stable_after(before, &without(names, node.name())).await;
    let took = scenario.measured("a crash that cannot be noticed", since);
    assert!(took < node.spec().ttl + SLACK, "{took:?}");
    let causes = causes(scenario, after).await;
    assert!(causes.contains(&ended(node)) && !causes.contains(&crashed(node)), "{causes:?}");
}

/// Returns a free port of the loopback interface.
fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A node that others reach through a proxy at the same port of another address.
fn behind_a_proxy(spec: NodeSpec, port: u16) -> NodeSpec {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let detection = DetectionSpec { listen, advertise: ELSEWHERE, trust_refused: false };
    NodeSpec { detects_crashes: Some(detection), ..spec }
}

async fn proxy_to(port: u16) -> Proxy {
    let target = format!("127.0.0.1:{port}");
    Proxy::between((ELSEWHERE, port).into(), &target).await.unwrap()
}

async fn killed(leader: bool) {
    let scenario = Alone::new().await;
    let nodes = start(&scenario, &NAMES, patient).await;
    let leading = scenario.leader().await.0;
    let node = match leader {
        true => leading,
        false => nodes.iter().find(|node| node.name() != leading.name()).unwrap().clone(),
    };
    let before = scenario.stable(&NAMES).await;
    let since = scenario.now();
    node.kill().await;
    let after = scenario.stable_after(before, &without(&NAMES, node.name())).await;
    let what = if leader { "the leader killed" } else { "a follower killed" };
    let took = scenario.measured(&format!("{what} with crash detection, TTL {LONG_TTL:?}"), since);
    assert!(took < SOON, "{took:?}");
    let causes = causes(&scenario, after).await;
    assert!(causes.contains(&crashed(&node)), "{causes:?}");
    scenario.check(&without(&NAMES, node.name())).await;
}

pub(crate) async fn p8_a_killed_follower_is_removed_long_before_its_ttl() {
    killed(false).await;
}

pub(crate) async fn p8_a_killed_leader_is_replaced_long_before_its_ttl() {
    killed(true).await;
}

/// Its slots move at once, because a refused connection is trusted here.
pub(crate) async fn p12_the_slots_of_a_crashed_process_are_held_by_others_at_once() {
    let owners = Owners::new().await;
    let trusting = |spec: NodeSpec| {
        let detection = DetectionSpec::at(Ipv4Addr::LOCALHOST);
        let detects_crashes = Some(DetectionSpec { trust_refused: true, ..detection });
        NodeSpec { ttl: LONG_TTL, detects_crashes, ..spec }
    };
    for name in NAMES {
        owners.join(trusting(owners.exclusive(name))).await;
    }
    owners.all_held(&NAMES).await;
    let leader = owners.leader().await.0;
    let node = owners.nodes().into_iter().find(|node| node.name() != leader.name()).unwrap();
    let before = owners.stable(&NAMES).await;
    let since = owners.now();
    node.kill().await;
    let rest = without(&NAMES, node.name());
    owners.stable_after(before, &rest).await;
    let took = owners.measured("an exclusive node killed, with trusted crash detection", since);
    assert!(took < SOON, "{took:?}");
    owners.all_held(&rest).await;
    owners.join(trusting(owners.exclusive(node.name()))).await;
    assert!(owners.check_all(&NAMES).await > 0);
}

/// Its own record is in the way of the restarted node until the others have removed it.
pub(crate) async fn p8_a_node_that_is_restarted_on_the_same_port_at_once_rejoins_before_the_ttl() {
    let scenario = Alone::new().await;
    let port = free_port();
    let fixed = |spec: NodeSpec| {
        let detection = DetectionSpec::at(Ipv4Addr::LOCALHOST);
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        NodeSpec { ttl: LONG_TTL, detects_crashes: Some(DetectionSpec { listen, ..detection }), ..spec }
    };
    scenario.spawn(fixed(scenario.spec("a")));
    spawn(&scenario, &NAMES[1..], patient);
    for _ in 0..3 {
        let before = scenario.stable(&NAMES).await;
        let since = scenario.now();
        scenario.nodes().iter().rfind(|node| node.name() == "a").unwrap().kill().await;
        scenario.spawn(fixed(scenario.spec("a")));
        scenario.stable_after(before, &NAMES).await;
        let took = scenario.measured("a node killed and restarted on the same port at once", since);
        assert!(took < SOON, "{took:?}");
    }
    scenario.check(&NAMES).await;
}

async fn many_die(dying: usize, nodes: usize) {
    let names: Vec<String> = (0..nodes).map(|number| format!("n{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let scenario = Alone::new().await;
    let nodes = start(&scenario, &names, patient).await;
    let before = scenario.stable(&names).await;
    let leader = scenario.leader().await.0;
    // The leader is among those that die.
    let others = nodes.iter().filter(|node| node.name() != leader.name()).take(dying - 1);
    let dead: Vec<_> = others.chain([&leader]).cloned().collect();
    let since = scenario.now();
    futures_util::future::join_all(dead.iter().map(|node| node.kill())).await;
    let rest: Vec<_> =
        names.iter().copied().filter(|name| dead.iter().all(|node| node.name() != *name)).collect();
    scenario.stable_after(before, &rest).await;
    let took = scenario
        .measured(&format!("{dying} of {} nodes killed at once, with crash detection", names.len()), since);
    assert!(took < LONG_TTL - secs(5), "{took:?}");
    scenario.check(&rest).await;
}

pub(crate) async fn p8_eight_of_twenty_processes_that_die_at_once_are_removed_long_before_their_ttl() {
    many_die(8, 20).await;
}

pub(crate) async fn p8_twenty_of_fifty_processes_that_die_at_once_are_removed_long_before_their_ttl() {
    many_die(20, 50).await;
}

/// A paused process keeps its connections, and does not answer at new ones.
pub(crate) async fn p8_a_paused_process_is_not_taken_for_crashed() {
    let scenario = Alone::new().await;
    let nodes = start(&scenario, &NAMES, detecting).await;
    let leader = scenario.leader().await.0;
    for node in [nodes.iter().find(|node| node.name() != leader.name()).unwrap(), &leader] {
        let before = scenario.stable(&NAMES).await;
        let since = scenario.now();
        node.pause();
        ends_by_its_ttl(&scenario, &NAMES, node, before, since).await;
        let before = scenario.stable(&without(&NAMES, node.name())).await;
        node.resume();
        scenario.stable_after(before, &NAMES).await;
    }
    scenario.check(&NAMES).await;
}

/// The other nodes are paused while the process dies and another program takes over its port, as if they had been too
/// slow to notice.
pub(crate) async fn p8_a_port_that_another_program_takes_over_does_not_look_like_a_crash() {
    let scenario = Alone::new().await;
    let port = free_port();
    let detection = DetectionSpec::at(Ipv4Addr::LOCALHOST);
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let detects_crashes = Some(DetectionSpec { listen, ..detection });
    let node = scenario.spawn(NodeSpec { detects_crashes, ..scenario.spec("a") });
    let others = spawn(&scenario, &NAMES[1..], detecting);
    let before = scenario.stable(&NAMES).await;
    others.iter().for_each(|other| other.pause());
    let since = scenario.now();
    node.kill().await;
    let program = TcpListener::bind(listen).await.unwrap();
    let program = tokio::spawn(async move {
        while let Ok((mut stream, _)) = program.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    others.iter().for_each(|other| other.resume());
    ends_by_its_ttl(&scenario, &NAMES, &node, before, since).await;
    program.abort();
    scenario.check(&without(&NAMES, "a")).await;
}

pub(crate) async fn p8_a_proxy_that_accepts_for_a_dead_process_hides_its_crash() {
    let scenario = Alone::new().await;
    let port = free_port();
    let proxy = proxy_to(port).await;
    let node = scenario.spawn(behind_a_proxy(scenario.spec("a"), port));
    spawn(&scenario, &NAMES[1..], detecting);
    let before = scenario.stable(&NAMES).await;
    assert!(proxy.received() > 0, "the others are connected through the proxy");
    let since = scenario.now();
    node.kill().await;
    ends_by_its_ttl(&scenario, &NAMES, &node, before, since).await;
    scenario.check(&without(&NAMES, "a")).await;
}

/// The closed port of the proxy answers with a reset, as a firewall may do.
pub(crate) async fn p7_a_live_process_whose_connections_are_refused_rejoins_once_and_stays() {
    let scenario = Alone::new().await;
    let port = free_port();
    let proxy = proxy_to(port).await;
    let node = scenario.spawn(NodeSpec { ttl: LONG_TTL, ..behind_a_proxy(scenario.spec("a"), port) });
    scenario.stable(&["a"]).await;
    spawn(&scenario, &NAMES[1..], patient);
    let before = scenario.stable(&NAMES).await;
    assert_eq!(scenario.leader().await.0.name(), "a", "a false alarm about the leader is the worst one");
    let since = scenario.now();
    drop(proxy);
    let told =
        |it: &Observation| matches!(it, Observation::Note { text } if text.contains("removed as crashed"));
    node.next("the false removal", LONG, told).await;
    node.next("a rejoin", LONG, |it| matches!(it, Observation::Rejoined { .. })).await;
    let after = scenario.stable_after(before, &NAMES).await;
    scenario.measured("a live leader refused connections", since);
    // Long enough for another alarm, if the others still watched it.
    tokio::time::sleep(secs(5)).await;
    assert_eq!(scenario.stable(&NAMES).await, after, "it does not flap");
    assert_eq!(node.count(told), 1);
    scenario.check(&NAMES).await;
}

pub(crate) async fn p8_a_cable_that_is_pulled_does_not_look_like_a_crash() {
    if let Some(why) = Network::unavailable() {
        println!("NOT TESTED: a watched node whose cable is pulled: {why}");
        return;
    }
    let network = Network::new().await.unwrap();
    let etcd = EtcdServer::builder().also_at(network.host()).start().await.unwrap();
    let scenario = Alone::on(etcd);
    let at = |spec: NodeSpec, address: Ipv4Addr| NodeSpec {
        detects_crashes: Some(DetectionSpec::at(address)),
        write_every: None,
        ..spec
    };
    let endpoints = vec![scenario.etcd.endpoint_at(network.host())];
    let spec = NodeSpec { endpoints, ..at(scenario.spec("a"), network.address()) };
    let node = scenario.keep(spec.spawn_in(&network).unwrap());
    spawn(&scenario, &NAMES[1..], |spec| at(spec, network.host()));
    for breaks in [Network::cut, Network::unplug] {
        let before = scenario.stable(&NAMES).await;
        let since = scenario.now();
        breaks(&network).unwrap();
        ends_by_its_ttl(&scenario, &NAMES, &node, before, since).await;
        let before = scenario.stable(&without(&NAMES, "a")).await;
        network.mend().unwrap();
        scenario.stable_after(before, &NAMES).await;
    }
    scenario.check(&NAMES).await;
}
