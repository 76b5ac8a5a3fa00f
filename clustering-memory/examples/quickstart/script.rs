use std::{collections::BTreeMap, error::Error, time::Duration};

use clustering_memory::{MemoryStore, Version, View};
use serde_json::json;

use crate::{
    node::{Node, TTL},
    screen::Screen,
};

/// Timeout of each act. It must be longer than the TTL, after which a crash is detected.
const PATIENCE: Duration = Duration::from_secs(5);

/// Number of keys to place on the nodes, as a service would place devices, tenants or partitions.
const KEYS: usize = 12;

/// Number of stabilize attempts that a node refuses.
const REFUSALS: u32 = 3;

/// Plays all acts. The error describes the first step that failed.
pub(crate) async fn play(nodes: usize, screen: &Screen) -> Result<(), String> {
    acts(nodes, screen).await.map_err(|error| error.to_string())
}

async fn acts(count: usize, screen: &Screen) -> Result<(), Box<dyn Error>> {
    let store = MemoryStore::new();
    screen.legend();

    screen.act(&format!("{count} nodes join"));
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(Node::start(number, &store, screen)?);
    }
    let first = stable(&nodes, screen).await?;
    let leader = the_leader(&nodes)?;
    let term = nodes[leader].cluster.term().ok_or("the leader has no term")?;
    show_placement(screen, None, &first);

    screen.act("one node leaves gracefully");
    let leaver = (0..nodes.len()).rev().find(|place| *place != leader).ok_or("there is no follower")?;
    let leaver = nodes.remove(leaver);
    let name = leaver.name.clone();
    leaver.leave()?;
    screen.gone(&name);
    let second = stable(&nodes, screen).await?;
    newer(&first, &second)?;
    show_placement(screen, Some(&first), &second);
    only_keys_of(&name, &first, &second)?;

    screen.act(&format!("the leader crashes: its lease expires within {} s", TTL.as_secs()));
    let crashed = nodes.remove(the_leader(&nodes)?);
    let name = crashed.name.clone();
    crashed.crash()?;
    screen.node_action(&name, "crashed", "crashes");
    screen.gone(&name);
    let third = stable(&nodes, screen).await?;
    newer(&second, &third)?;
    let next = the_leader(&nodes)?;
    let next_term = nodes[next].cluster.term().ok_or("the new leader has no term")?;
    expect(next_term > term, || {
        format!("term {next_term} is not above {term}, that of the leader that crashed")
    })?;
    show_placement(screen, Some(&second), &third);
    only_keys_of(&name, &second, &third)?;

    screen.act(&format!("a new version is requested, and a node refuses it {REFUSALS} times"));
    let refusing = (0..nodes.len()).find(|place| *place != next).ok_or("there is no follower")?;
    nodes[refusing].refuse(REFUSALS);
    let requested = nodes[next].cluster.request_version("manual rebalance").await?;
    let fourth = stable(&nodes, screen).await?;
    expect(fourth.version() == requested, || {
        format!("{} became stable instead of {requested}", fourth.version())
    })?;
    expect(!nodes[refusing].refuses(), || {
        format!("{requested} became stable although {} refused", nodes[refusing].name)
    })?;

    screen.act("all nodes leave");
    // The leader leaves last, so that no new leader has to be elected.
    let last = nodes.remove(next);
    for node in nodes {
        node.leave()?;
    }
    last.leave()?;
    let left = store.leases().len();
    expect(left == 0, || format!("{left} leases were not revoked"))
}

/// Waits until all nodes agree on one stable version that contains exactly these nodes.
async fn stable(nodes: &[Node], screen: &Screen) -> Result<View, Box<dyn Error>> {
    let mut views: BTreeMap<Version, (usize, View)> = BTreeMap::new();
    for node in nodes {
        let mut status = node.cluster.status();
        let all_in = status.wait_for(|status| {
            status.is_stable() && status.newest.as_ref().is_some_and(|view| view.len() == nodes.len())
        });
        let timed = tokio::time::timeout(PATIENCE, all_in).await;
        let reached =
            timed.map_err(|_| format!("{} saw no stable version of {} nodes", node.name, nodes.len()))??;
        let view = reached.newest.clone().ok_or("a stable version has a view")?;
        views.entry(view.version()).or_insert((0, view)).0 += 1;
    }
    match views.into_values().next_back() {
        Some((agreed, view)) if agreed == nodes.len() => {
            let announced = tokio::time::timeout(PATIENCE, screen.announced(view.version())).await;
            announced.map_err(|_| format!("on_stable was not called for {}", view.version()))?;
            Ok(view)
        }
        _ => Err("the nodes do not agree on one stable version".into()),
    }
}

/// Returns the index of the leader. It is an error if not exactly one node leads.
fn the_leader(nodes: &[Node]) -> Result<usize, Box<dyn Error>> {
    let leaders: Vec<_> = (0..nodes.len()).filter(|place| nodes[*place].cluster.is_leader()).collect();
    match leaders[..] {
        [leader] => Ok(leader),
        _ => Err(format!("expected one leader, found {}", leaders.len()).into()),
    }
}

fn newer(before: &View, after: &View) -> Result<(), Box<dyn Error>> {
    let (old, new) = (before.version(), after.version());
    expect(new > old, || format!("version {new} is not newer than {old}"))
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

fn owner(view: &View, key: &str) -> String {
    view.find(key).map_or_else(String::new, |node| node.name.to_string())
}

fn keys() -> impl Iterator<Item = String> {
    (1..=KEYS).map(|number| format!("device-{number}"))
}

/// Prints which node owns which keys, and marks the keys that moved.
fn show_placement(screen: &Screen, before: Option<&View>, view: &View) {
    let mut placed: BTreeMap<String, Vec<String>> =
        view.iter().map(|node| (node.name.to_string(), Vec::new())).collect();
    let mut moved = Vec::new();
    for key in keys() {
        let is = owner(view, &key);
        if before.is_some_and(|before| owner(before, &key) != is) {
            moved.push(key.clone());
        }
        placed.entry(is).or_default().push(key);
    }
    let mut text = format!("           {KEYS} keys placed");
    if before.is_some() {
        text += &format!(", {} moved (*)", moved.len());
    }
    for (node, keys) in &placed {
        let keys: Vec<_> = keys
            .iter()
            .map(|key| if moved.contains(key) { format!("{key}*") } else { key.clone() })
            .collect();
        text += &format!("\n           {node:<8} {}", keys.join(" "));
    }
    screen.say("placement", &text, json!({ "version": view.version(), "moved": moved, "placed": placed }));
}

/// Checks that exactly the keys of the departed node moved.
fn only_keys_of(gone: &str, before: &View, after: &View) -> Result<(), Box<dyn Error>> {
    for key in keys() {
        let (was, is) = (owner(before, &key), owner(after, &key));
        expect((was != is) == (was == gone), || format!("{key} moved from {was} to {is} when {gone} left"))?;
    }
    Ok(())
}
