//! Discovery and placement, for nodes and for processes that only route requests.

use clustering_core::{
    Clustering, Discovery, Event,
    machine::{Phase, RequestError},
    runtime::EventsError,
    store::CoordinationStoreExt,
};
use clustering_testkit::faulty::{Call, FaultyStore};

use crate::common::{Cluster, leader, name, secs, soon, stable};

/// Waits until an observer's newest view has `nodes` nodes.
async fn sees(discovery: &Discovery, nodes: usize) {
    let mut status = discovery.status();
    let wait = status.wait_for(|status| status.newest.as_ref().is_some_and(|view| view.len() == nodes));
    soon("the view", wait).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_observer_follows_and_writes_nothing() {
    let cluster = Cluster::new();
    let line = FaultyStore::new(cluster.store.clone());
    // Before any node exists.
    let early = Discovery::observe(line.clone(), "cluster").await.unwrap();
    assert!(early.nodes().is_empty() && early.find("key").is_none() && early.find_n("key", 3).is_empty());
    assert!(early.leader_node().is_none() && early.newest().is_none());
    assert_eq!(early.status().get().phase, Phase::Observing);
    let mut changes = early.changes();
    let mut nodes = cluster.start_many(3).await;
    sees(&early, 3).await;
    // An observer that starts when the cluster already exists.
    let late = Discovery::observe(cluster.store.clone(), "cluster").await.unwrap();
    assert_eq!(late.nodes().len(), 3);
    assert!(
        late.newest().is_none(),
        "the view of a version that the observer did not see published is unknown"
    );
    assert_eq!(late.leader_node().map(|node| node.name.clone()), Some(leader(&nodes).name().clone()));
    let view = nodes[0].view().unwrap();
    for key in ["a", "b", "device-42", ""] {
        let owner = view.find(key).unwrap();
        for discovery in [&early, &late, &nodes[1].discovery()] {
            assert_eq!(discovery.find(key).unwrap().name, owner.name);
            assert_eq!(discovery.find_n(key, 2).len(), 2);
            assert_eq!(discovery.find_n(key, 9).iter().map(|node| &node.name).collect::<Vec<_>>().len(), 3);
            assert_eq!(discovery.find_n(key, 1)[0].name, owner.name);
        }
        let own: Vec<_> = nodes.iter().filter(|node| node.discovery().is_own_node(key)).collect();
        assert_eq!(own.len(), 1);
        assert_eq!(*own[0].name(), owner.name);
        assert!(own[0].owns(key) && !early.is_own_node(key) && !late.is_own_node(key));
    }
    let gone = nodes.pop().unwrap();
    gone.stop().await.unwrap();
    stable(&nodes).await;
    sees(&early, 2).await;
    sees(&late, 2).await;
    assert!(late.node(gone.name()).is_none() && late.node(nodes[0].name()).is_some());
    assert!(early.is_stable() && !early.status().get().is_stable());
    // The changes, in order.
    let mut kinds = Vec::new();
    while let Ok(event) = tokio::time::timeout(secs(1), changes.recv()).await {
        kinds.push(match &*event.unwrap() {
            Event::NodeUp { .. } => "up",
            Event::NodeDown { .. } => "down",
            Event::LeaderChanged { .. } => "leader",
            Event::VersionPublished { .. } => "version",
            other => panic!("{other}"),
        });
    }
    assert_eq!(kinds.iter().filter(|kind| **kind == "up").count(), 3);
    assert_eq!(kinds.last(), Some(&"version"));
    assert!(kinds.contains(&"down") && kinds.contains(&"leader"));
    for call in [Call::Grant, Call::Renew, Call::Revoke, Call::Commit] {
        assert_eq!(line.attempted(call), 0, "{call:?}");
    }
    assert_eq!(
        (early.register().await, early.unregister().await),
        (Err(RequestError::Observer), Err(RequestError::Observer))
    );
    assert_eq!(early.namespace().as_str(), "cluster");
    // The subscription ends with the observer's last clone.
    let clone = early.clone();
    drop(early);
    assert_eq!(clone.nodes().len(), 2);
    drop((clone, late));
    let ended = async { while changes.recv().await.is_ok() {} };
    soon("the end of the changes", ended).await;
    assert_eq!(changes.recv().await.unwrap_err(), EventsError::Ended);
    // Only the two nodes called the store to renew: observers have no lease.
    assert_eq!(cluster.store.open_watches(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_observer_survives_an_outage_and_a_compaction() {
    let cluster = Cluster::new();
    let line = FaultyStore::new(cluster.store.clone());
    let mut nodes = cluster.start_many(2).await;
    let observer = Discovery::observe(line.clone(), "cluster").await.unwrap();
    line.cut();
    nodes.push(cluster.start("late").await);
    let version = stable(&nodes).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(observer.nodes().len(), 2);
    assert!(observer.stale_for().is_some());
    cluster.store.compact(cluster.store.revision());
    let mut changes = observer.changes();
    line.heal();
    let change = soon("a change", changes.recv()).await.unwrap();
    assert!(matches!(&*change, Event::NodeUp { name, .. } if name == "late"), "{change}");
    assert_eq!(observer.nodes().len(), 3);
    let mut status = observer.status();
    soon("it is back", status.wait_for(|status| status.stale_since.is_none())).await.unwrap();
    assert!(observer.newest().is_none());
    assert!(observer.find("key").is_some(), "falls back to the nodes present");
    let next = nodes[0].cluster_change().await.unwrap();
    assert!(next > version);
    sees(&observer, 3).await;
    assert_eq!(observer.newest().unwrap().version(), next);
}

#[tokio::test(start_paused = true)]
async fn an_observer_waits_for_a_store_that_is_away() {
    let cluster = Cluster::new();
    let _node = cluster.start("a").await;
    let line = FaultyStore::new(cluster.store.clone());
    line.cut();
    let observing = tokio::spawn({
        let line = line.clone();
        async move { Discovery::observe(line, "cluster").await }
    });
    tokio::time::sleep(secs(100)).await;
    assert!(!observing.is_finished());
    line.heal();
    let observer = soon("it", observing).await.unwrap().unwrap();
    assert_eq!(observer.nodes().len(), 1);
    // An observer that is dropped while it waits leaves nothing behind.
    drop(observer);
    line.hang();
    let open = cluster.store.open_watches();
    assert!(tokio::time::timeout(secs(60), Discovery::observe(line.clone(), "cluster")).await.is_err());
    tokio::time::sleep(secs(10)).await;
    assert_eq!(cluster.store.open_watches(), open - 1);
}

#[tokio::test(start_paused = true)]
async fn weights_decide_the_share_of_keys() {
    let cluster = Cluster::new();
    let nodes = [
        cluster.start("one").await,
        cluster.start_with("three", |builder| builder.weight(3)).await,
        cluster.start_with("none", |builder| builder.weight(0)).await,
        cluster.start_with("two", |builder| builder.metadata("weight", "2")).await,
    ];
    stable(&nodes).await;
    let share = |discovery: &Discovery, of: &str| {
        (0..6_000).filter(|key: &u32| discovery.find(key.to_be_bytes()).unwrap().name == name(of)).count()
    };
    let discovery = nodes[2].discovery();
    let shares = ["one", "two", "three", "none"].map(|of| share(&discovery, of));
    assert_eq!((shares[3], shares.iter().sum::<usize>()), (0, 6_000));
    for (share, expected) in shares.into_iter().zip([1_000, 2_000, 3_000]) {
        assert!(share.abs_diff(expected) < 150, "{shares:?}");
    }
    assert_eq!(discovery.find_n("key", 9).len(), 3, "a node of weight 0 owns no keys");
    assert!((0..1_000_u32).all(|key| !nodes[2].owns(key.to_be_bytes())));
    // No node owns any keys.
    for node in &nodes[..] {
        node.set_metadata([("weight".to_owned(), "0".to_owned())].into()).await.unwrap();
    }
    tokio::time::sleep(secs(10)).await;
    stable(&nodes).await;
    assert!(discovery.find("key").is_none() && nodes.iter().all(|node| !node.owns("key")));
}

/// Ownership follows the acknowledged version; routing follows the newest version.
#[tokio::test(start_paused = true)]
async fn owning_and_routing_follow_different_versions() {
    let cluster = Cluster::new();
    let (node, gate) = cluster.start_gated("a", true).await;
    stable([&node]).await;
    gate.send(false).unwrap();
    let other = cluster.start("b").await;
    node.until("two", |status| status.newest.as_ref().unwrap().len() == 2).await;
    let key = (0..).map(|key| key.to_string()).find(|key| other.discovery().is_own_node(key)).unwrap();
    assert!(
        node.owns(&key) && node.view().unwrap().owns(&key),
        "the node still owns the key until it has adapted"
    );
    assert_eq!(node.discovery().find(&key).unwrap().name, name("b"));
    assert!(!node.discovery().is_own_node(&key));
    gate.send(true).unwrap();
    stable([&node, &other]).await;
    assert!(!node.owns(&key) && other.owns(&key));
}

#[tokio::test(start_paused = true)]
async fn services_lists_the_namespaces_that_have_nodes() {
    let cluster = Cluster::new();
    let mut kept = Vec::new();
    for namespace in ["telemetry/ingest", "telemetry/query", "billing", "telemetry"] {
        for node in ["a", "b"] {
            let builder = Clustering::builder(cluster.store.clone()).namespace(namespace).name(node);
            kept.push(builder.uri("http://host:80").seed(1).start().await.unwrap());
        }
    }
    for key in ["x/view/nodes/", "x/view/nodesa", "/view/nodes/a", "view/nodes/a", "x//view/nodes/a", "other"]
    {
        cluster.store.put(key, "{}".into(), None).await.unwrap();
    }
    let texts = |services: Vec<clustering_core::Namespace>| {
        services.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let all = Discovery::services(&cluster.store).await.unwrap();
    assert_eq!(texts(all), ["billing", "telemetry", "telemetry/ingest", "telemetry/query"]);
    let below = Discovery::services_below(&cluster.store, "telemetry/").await.unwrap();
    assert_eq!(texts(below), ["telemetry/ingest", "telemetry/query"]);
    kept.remove(0).stop().await.unwrap();
    kept.remove(0).stop().await.unwrap();
    let all = Discovery::services(&**kept[0].store()).await.unwrap();
    assert_eq!(texts(all), ["billing", "telemetry", "telemetry/query"]);
    // Each namespace is a cluster of its own.
    assert!(kept.iter().all(|node| node.nodes().len() == 2));
    assert_eq!(kept.iter().filter(|node| node.is_leader()).count(), 3);
}
