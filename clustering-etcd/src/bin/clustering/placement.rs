use std::{collections::BTreeMap, process::ExitCode};

use clap::Args;
use clustering_etcd::{NodeName, Weight, placement};
use serde::Serialize;

use crate::{
    connection::Connection,
    failure::{Failure, NO, UNKNOWN},
    find::{existing, read_keys},
    output::{self, Format},
};

/// Show how keys spread over the nodes, now and with a node more or less: shares, and how many keys would move
///
/// Each line of the standard input is a key.
#[derive(Args, Debug)]
pub(crate) struct Placement {
    /// The node that comes, as NAME or NAME=WEIGHT; may be given more than once [default: one of weight 1]
    #[arg(long, value_name = "NAME")]
    add: Vec<Newcomer>,
    /// The node that goes; may be given more than once [default: each in its turn]
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    #[command(flatten)]
    format: Format,
}

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
                let weight = weight.parse().map_err(|_| format!("{weight:?} is no whole number"))?;
                (name, weight)
            }
        };
        let name = NodeName::parse(name).map_err(|error| error.to_string())?.to_string();
        Ok(Newcomer { name, weight })
    }
}

/// Nodes by name, with their weights.
type Members = BTreeMap<String, Weight>;

#[derive(Debug, Serialize)]
struct Spread {
    keys: usize,
    nodes: Vec<Share>,
    /// With nodes more.
    more: Change,
    /// With nodes less: those asked for, or each in its turn.
    less: Vec<Change>,
}

#[derive(Debug, Serialize)]
struct Share {
    name: String,
    weight: u32,
    keys: usize,
    /// Of all keys, in per cent.
    share: f64,
    /// What its weight entitles it to.
    fair: f64,
}

#[derive(Debug, Serialize)]
struct Change {
    nodes: Vec<String>,
    /// How many keys go to another node.
    moved: usize,
    /// The fewest and the most keys that a node that takes keys would have then.
    fewest: usize,
    most: usize,
}

impl Placement {
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let report = existing(connection).await?;
        let members: Members =
            report.nodes.iter().map(|node| (node.name.to_string(), node.weight())).collect();
        if members.values().all(|weight| weight.get() == 0) {
            return Err(Failure::new(NO, "no node takes keys: none is present, or all have weight 0"));
        }
        let keys = read_keys()?;
        if keys.is_empty() {
            let failure = Failure::new(UNKNOWN, "there are no keys: each line of the standard input is one");
            return Err(failure.hint("such as: seq -f 'device-%g' 1000 | clustering placement"));
        }
        let spread = self.spread(&members, &keys)?;
        match self.format.is_json() {
            true => output::json(&spread)?,
            false => output::lines(text(&spread)),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn spread(&self, members: &Members, keys: &[String]) -> Result<Spread, Failure> {
        let now = owners(members, keys);
        let counts = count(members, &now);
        let weights: u64 = members.values().map(|weight| u64::from(weight.get())).sum();
        let per_cent = |part: f64, whole: f64| 100.0 * part / whole;
        let share = |(name, weight): (&String, &Weight)| Share {
            name: name.clone(),
            weight: weight.get(),
            keys: counts[name.as_str()],
            share: per_cent(counts[name.as_str()] as f64, keys.len() as f64),
            fair: per_cent(f64::from(weight.get()), weights as f64),
        };
        let nodes = members.iter().map(share).collect();

        let mut with = members.clone();
        let mut more = self.add.clone();
        if more.is_empty() {
            let free = (1..).map(|number| format!("new-{number}")).find(|name| !members.contains_key(name));
            more.extend(free.map(|name| Newcomer { name, weight: Weight::default() }));
        }
        with.extend(more.iter().map(|new| (new.name.clone(), new.weight)));
        let more = change(more.into_iter().map(|new| new.name).collect(), &with, keys, &now);

        let without = |names: Vec<String>| {
            let mut rest = members.clone();
            rest.retain(|name, _| !names.contains(name));
            change(names, &rest, keys, &now)
        };
        let less = match self.remove.iter().find(|name| !members.contains_key(*name)) {
            Some(unknown) => {
                let present = members.keys().cloned().collect::<Vec<_>>().join(", ");
                return Err(Failure::new(NO, format!("no node {unknown} is present; there are {present}")));
            }
            None if self.remove.is_empty() => {
                members.keys().map(|name| without(vec![name.clone()])).collect()
            }
            None => vec![without(self.remove.clone())],
        };
        Ok(Spread { keys: keys.len(), nodes, more, less })
    }
}

/// The owner of each key.
fn owners<'a>(members: &'a Members, keys: &[String]) -> Vec<Option<&'a str>> {
    let names: Vec<_> = members.keys().collect();
    let placement = placement::Placement::new(members.iter().map(|(name, weight)| (name.as_str(), *weight)));
    keys.iter().map(|key| placement.find(key.as_bytes()).map(|index| names[index].as_str())).collect()
}

fn count<'a>(members: &'a Members, owners: &[Option<&str>]) -> BTreeMap<&'a str, usize> {
    let mut counts: BTreeMap<_, _> = members.keys().map(|name| (name.as_str(), 0)).collect();
    for owner in owners.iter().flatten() {
        if let Some(count) = counts.get_mut(*owner) {
            *count += 1;
        }
    }
    counts
}

fn change(nodes: Vec<String>, then: &Members, keys: &[String], now: &[Option<&str>]) -> Change {
    let owners = owners(then, keys);
    let moved = owners.iter().zip(now).filter(|(then, now)| then != now).count();
    let counts = count(then, &owners);
    let of_takers = || counts.iter().filter(|(name, _)| then[**name].get() > 0).map(|(_, count)| *count);
    let (fewest, most) = (of_takers().min().unwrap_or_default(), of_takers().max().unwrap_or_default());
    Change { nodes, moved, fewest, most }
}

fn text(spread: &Spread) -> Vec<String> {
    let rows: Vec<_> = spread.nodes.iter().map(row).collect();
    let mut lines = output::table(["NODE", "WEIGHT", "KEYS", "SHARE", "FAIR"], &rows);
    let say = |what: &str, change: &Change| {
        let share = 100.0 * change.moved as f64 / spread.keys as f64;
        let Change { nodes, moved, fewest, most } = change;
        let (nodes, keys) = (nodes.join(", "), spread.keys);
        format!("{what} {nodes}: {moved} of {keys} keys move ({share:.1} %), {fewest} to {most} keys a node")
    };
    lines.push(String::new());
    lines.push(say("with", &spread.more));
    lines.extend(spread.less.iter().map(|change| say("without", change)));
    lines
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
