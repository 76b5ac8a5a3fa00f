use std::{collections::BTreeMap, process::ExitCode};

use clap::Args;
use clustering_core::{
    NodeName, Report, Weight, placement,
    report::NodeReport,
    slots::{Balanced, SlotCount},
};
use serde::Serialize;

use crate::{
    context::Context,
    failure::Failure,
    find::{Slots, existing, read_keys},
    output::{self, Format},
};

/// Show how keys are spread over the nodes
///
/// Also shows how many keys would move if a node were added or removed. Reads the keys from the standard input, one per
/// line. In an exclusive cluster, also shows how many slots each node owns, and how many would move with the default
/// assignor; keys are optional then. Slots that wait for an absent node do not move.
#[derive(Args, Debug)]
pub(crate) struct Placement {
    /// Node to add, as NAME or NAME=WEIGHT; can be repeated [default: one node of weight 1]
    #[arg(long, value_name = "NAME")]
    add: Vec<Newcomer>,
    /// Node to remove; can be repeated [default: each node in turn]
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    #[command(flatten)]
    format: Format,
}

/// A node that `--add` names.
#[derive(Clone, Debug)]
struct Newcomer {
    name: String,
    weight: Weight,
}

impl std::str::FromStr for Newcomer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = match text.rsplit_once('=') {
            None => (text, Weight::default()),
            Some((name, weight)) => {
                let weight =
                    weight.parse().map_err(|_| format!("the weight {weight:?} is not a whole number"))?;
                (name, weight)
            }
        };
        let name = NodeName::parse(name).map_err(|error| error.to_string())?.to_string();
        Ok(Newcomer { name, weight })
    }
}

/// Weights of nodes by name.
type Members = BTreeMap<String, Weight>;

/// The owners of slots, by slot number.
#[derive(Clone, Debug)]
struct SlotOwners {
    count: SlotCount,
    owners: Vec<Option<String>>,
    /// For each slot the absent node for which it waits.
    kept: Vec<Option<String>>,
}

#[derive(Debug, Serialize)]
struct Spread {
    keys: usize,
    /// Number of slots of an exclusive cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<u16>,
    nodes: Vec<Share>,
    /// Numbers of slots that wait for absent nodes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    kept: BTreeMap<String, usize>,
    /// The change if the nodes of `--add` were added.
    more: Change,
    /// The changes if the nodes of `--remove` were removed together, or without that option each node alone.
    less: Vec<Change>,
}

#[derive(Debug, Serialize)]
struct Share {
    name: String,
    weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<usize>,
    keys: usize,
    /// Percentage of all keys.
    share: f64,
    /// Percentage of all weights.
    fair: f64,
}

#[derive(Debug, Serialize)]
struct Change {
    nodes: Vec<String>,
    /// Number of slots that would go to another node.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_slots: Option<usize>,
    /// Number of keys that would go to another node.
    moved: usize,
    /// Minimum number of keys of a node with a weight.
    fewest: usize,
    /// Maximum number of keys of a node with a weight.
    most: usize,
}

impl Placement {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let report = existing(context).await?;
        let slots = SlotOwners::of(&report);
        let weight = |node: &NodeReport| match node.cordon.is_some() && slots.is_some() {
            true => Weight::new(0),
            false => node.weight(),
        };
        let members: Members =
            report.nodes.iter().map(|node| (node.name.to_string(), weight(node))).collect();
        if members.values().all(|weight| weight.get() == 0) {
            return Err(Failure::no("no node takes keys: none is present, or all have weight 0"));
        }
        let keys = read_keys()?;
        if keys.is_empty() && slots.is_none() {
            let failure =
                Failure::unknown("there are no keys: give them on the standard input, one per line");
            return Err(failure.hint("for example: seq -f 'device-%g' 1000 | clustering placement"));
        }
        let placed = Placed::new(&members, slots.as_ref(), &keys);
        let more = placed.with(self.newcomers(&members));
        let less = self.departures(&members)?.into_iter().map(|names| placed.without(names)).collect();
        let count = slots.as_ref().map(|slots| slots.count.get());
        let kept = slots.as_ref().map(SlotOwners::kept_counts).unwrap_or_default();
        let spread = Spread { keys: keys.len(), slots: count, nodes: placed.shares(), kept, more, less };
        match self.format.is_json() {
            true => output::json(&spread)?,
            false => output::lines(text(&spread)),
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the nodes to add, by default one with a name that is free.
    fn newcomers(&self, members: &Members) -> Vec<Newcomer> {
        if !self.add.is_empty() {
            return self.add.clone();
        }
        let free = (1..).map(|number| format!("new-{number}")).find(|name| !members.contains_key(name));
        free.map(|name| Newcomer { name, weight: Weight::default() }).into_iter().collect()
    }

    /// Returns the groups of nodes to remove.
    fn departures(&self, members: &Members) -> Result<Vec<Vec<String>>, Failure> {
        if let Some(unknown) = self.remove.iter().find(|name| !members.contains_key(*name)) {
            let present = members.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Failure::no(format!("no node {unknown} is present; there are {present}")));
        }
        Ok(match self.remove.is_empty() {
            true => members.keys().map(|name| vec![name.clone()]).collect(),
            false => vec![self.remove.clone()],
        })
    }
}

impl SlotOwners {
    /// Returns the owners in the newest version, if it hands slots over.
    fn of(report: &Report) -> Option<Self> {
        let Slots { count, owners, kept } = Slots::of(report)?;
        let name = |owner: &Option<usize>| owner.map(|index| report.nodes[index].name.to_string());
        Some(SlotOwners {
            count,
            owners: owners.iter().map(name).collect(),
            kept: count.iter().map(|slot| kept.get(&slot).cloned()).collect(),
        })
    }

    /// Returns the owners that the default assignor would choose for these members. It leaves slots alone that wait for
    /// absent nodes.
    fn among(&self, then: &Members) -> Self {
        let names: Vec<&String> = then.keys().collect();
        let index = |owner: &Option<String>| names.binary_search(&owner.as_ref()?).ok();
        let slots = || self.owners.iter().zip(&self.kept);
        let previous: Vec<_> =
            slots().filter(|(_, kept)| kept.is_none()).map(|(owner, _)| index(owner)).collect();
        let weights: Vec<Weight> = then.values().copied().collect();
        let mut assigned = Balanced::assign_by_weight(&previous, &weights).into_iter();
        let name = |owner: Option<usize>| owner.map(|index| names[index].clone());
        let owners = self.kept.iter().map(|kept| match kept {
            Some(_) => None,
            None => name(assigned.next().flatten()),
        });
        SlotOwners { count: self.count, owners: owners.collect(), kept: self.kept.clone() }
    }

    /// Returns the number of slots that wait for each absent node.
    fn kept_counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for name in self.kept.iter().flatten() {
            *counts.entry(name.clone()).or_default() += 1;
        }
        counts
    }

    fn owner_of(&self, key: &str) -> Option<&str> {
        self.owners[usize::from(self.count.slot_of(key).number())].as_deref()
    }

    fn count_of(&self, name: &str) -> usize {
        self.owners.iter().flatten().filter(|owner| *owner == name).count()
    }
}

/// Keys that are placed on the present nodes.
struct Placed<'a> {
    members: &'a Members,
    slots: Option<&'a SlotOwners>,
    keys: &'a [String],
    owners: Vec<Option<&'a str>>,
}

impl<'a> Placed<'a> {
    fn new(members: &'a Members, slots: Option<&'a SlotOwners>, keys: &'a [String]) -> Self {
        Placed { members, slots, keys, owners: owners(members, slots, keys) }
    }

    fn shares(&self) -> Vec<Share> {
        let counts = count(self.members, &self.owners);
        let weights: u64 = self.members.values().map(|weight| u64::from(weight.get())).sum();
        let percentage = |part: f64, whole: f64| if whole == 0.0 { 0.0 } else { 100.0 * part / whole };
        let share = |(name, weight): (&String, &Weight)| Share {
            name: name.clone(),
            weight: weight.get(),
            slots: self.slots.map(|slots| slots.count_of(name)),
            keys: counts[name.as_str()],
            share: percentage(counts[name.as_str()] as f64, self.keys.len() as f64),
            fair: percentage(f64::from(weight.get()), weights as f64),
        };
        self.members.iter().map(share).collect()
    }

    fn with(&self, newcomers: Vec<Newcomer>) -> Change {
        let mut then = self.members.clone();
        then.extend(newcomers.iter().map(|new| (new.name.clone(), new.weight)));
        self.change(newcomers.into_iter().map(|new| new.name).collect(), &then)
    }

    fn without(&self, names: Vec<String>) -> Change {
        let mut then = self.members.clone();
        then.retain(|name, _| !names.contains(name));
        self.change(names, &then)
    }

    /// Compares with the placement on the nodes `then`.
    fn change(&self, nodes: Vec<String>, then: &Members) -> Change {
        let slots = self.slots.map(|slots| slots.among(then));
        let owners = owners(then, slots.as_ref(), self.keys);
        let moved = owners.iter().zip(&self.owners).filter(|(then, now)| then != now).count();
        let moved_slots = self
            .slots
            .zip(slots.as_ref())
            .map(|(now, then)| now.owners.iter().zip(&then.owners).filter(|(now, then)| now != then).count());
        let counts = count(then, &owners);
        let of_takers = || counts.iter().filter(|(name, _)| then[**name].get() > 0).map(|(_, count)| *count);
        let (fewest, most) = (of_takers().min().unwrap_or_default(), of_takers().max().unwrap_or_default());
        Change { nodes, moved_slots, moved, fewest, most }
    }
}

/// Returns the owner of each key: the owner of the key's slot, or without slots the owner by rendezvous hashing.
fn owners<'a>(members: &'a Members, slots: Option<&'a SlotOwners>, keys: &[String]) -> Vec<Option<&'a str>> {
    if let Some(slots) = slots {
        return keys.iter().map(|key| slots.owner_of(key)).collect();
    }
    let names: Vec<_> = members.keys().collect();
    let placement = placement::Placement::new(members.iter().map(|(name, weight)| (name.as_str(), *weight)));
    keys.iter().map(|key| placement.find(key.as_bytes()).map(|index| names[index].as_str())).collect()
}

/// Counts the keys of each member.
fn count<'a>(members: &'a Members, owners: &[Option<&str>]) -> BTreeMap<&'a str, usize> {
    let mut counts: BTreeMap<_, _> = members.keys().map(|name| (name.as_str(), 0)).collect();
    for owner in owners.iter().flatten() {
        if let Some(count) = counts.get_mut(*owner) {
            *count += 1;
        }
    }
    counts
}

fn text(spread: &Spread) -> Vec<String> {
    let mut lines = table(spread);
    lines.push(String::new());
    lines.extend(spread.kept.iter().map(|(name, slots)| {
        let verb = if *slots == 1 { "slot waits" } else { "slots wait" };
        format!("{slots} {verb} for {name} to come back, and stay where they are")
    }));
    lines.push(line(spread, "with", &spread.more));
    lines.extend(spread.less.iter().map(|change| line(spread, "without", change)));
    lines
}

fn table(spread: &Spread) -> Vec<String> {
    let rows = spread.nodes.iter().map(row);
    if spread.slots.is_none() {
        return output::table(&["NODE", "WEIGHT", "KEYS", "SHARE", "FAIR"], &rows.collect::<Vec<_>>());
    }
    let with_slots = |([name, weight, keys, share, fair], node): ([String; 5], &Share)| {
        [name, weight, node.slots.unwrap_or_default().to_string(), keys, share, fair]
    };
    let rows: Vec<_> = rows.zip(&spread.nodes).map(with_slots).collect();
    output::table(&["NODE", "WEIGHT", "SLOTS", "KEYS", "SHARE", "FAIR"], &rows)
}

fn line(spread: &Spread, what: &str, change: &Change) -> String {
    let Change { nodes, moved_slots, moved, fewest, most } = change;
    let nodes = nodes.join(", ");
    let slots = moved_slots.zip(spread.slots).map(|(moved, slots)| format!("{moved} of {slots} slots move"));
    let keys = (spread.keys > 0).then(|| {
        let share = 100.0 * *moved as f64 / spread.keys as f64;
        format!("{moved} of {} keys move ({share:.1} %), {fewest} to {most} keys per node", spread.keys)
    });
    let parts: Vec<_> = [slots, keys].into_iter().flatten().collect();
    format!("{what} {nodes}: {}", parts.join("; "))
}

fn row(share: &Share) -> [String; 5] {
    [
        share.name.clone(),
        share.weight.to_string(),
        share.keys.to_string(),
        format!("{:.1} %", share.share),
        format!("{:.1} %", share.fair),
    ]
}
