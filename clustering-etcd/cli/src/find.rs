use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    io::{self, BufRead, Read},
    mem,
    path::Path,
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use clustering_core::{
    InvalidInput, Report, Weight,
    node::WEIGHT,
    placement::Placement,
    report::NodeReport,
    slots::{Slot, SlotCount},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    context::Context,
    failure::Failure,
    output::{self, Format},
};

/// Print the node that takes each key
///
/// Each line has the key, the node's name and its URI, separated by tabs, and in an exclusive cluster the slot of the
/// key. Uses the nodes that are present, as a router does, or the slots of the newest version. With --view, uses the
/// nodes of that version, as a hook must do. Exit codes: 0 every key has a node, 1 no node takes keys, 2 unknown.
#[derive(Args, Debug)]
pub(crate) struct Find {
    /// The keys; - stands for keys from the standard input, one per line [default: -]
    keys: Vec<String>,
    /// Number of nodes to print for each key: the node that takes it, and those next in line
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Print only the keys that this node takes
    #[arg(long, value_name = "NAME", conflicts_with = "count")]
    node: Option<String>,
    /// Use the view in this file, as hooks get it on their standard input, instead of asking the store; - for the
    /// standard input
    #[arg(long, value_name = "FILE")]
    view: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// The data of a node that placement needs and the command prints.
struct Place {
    name: String,
    uri: String,
    weight: Weight,
}

/// The nodes that take keys.
struct Takers {
    /// The nodes, sorted by name.
    places: Vec<Place>,
    /// The owners of the slots, if the cluster hands slots over.
    slots: Option<Slots>,
}

/// The owners of the slots of a version.
pub(crate) struct Slots {
    pub(crate) count: SlotCount,
    /// Index of the owner in the list of nodes, for each slot.
    pub(crate) owners: Vec<Option<usize>>,
    /// The slots that wait for absent nodes.
    pub(crate) kept: BTreeMap<Slot, String>,
}

/// The part of a hook's input that placement needs.
#[derive(Deserialize)]
struct View {
    nodes: Vec<Member>,
    #[serde(default)]
    slots: Option<ViewSlots>,
}

#[derive(Deserialize)]
struct ViewSlots {
    count: u16,
    /// The numbers of the slots that each node owns.
    owners: BTreeMap<String, Vec<u16>>,
    /// The numbers of the slots that wait for each absent node.
    #[serde(default)]
    kept: BTreeMap<String, Vec<u16>>,
}

#[derive(Deserialize)]
struct Member {
    name: String,
    uri: String,
    #[serde(default)]
    metadata: Map<String, Value>,
}

impl Find {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let takers = match &self.view {
            Some(file) => Takers::in_view(file)?,
            None => Takers::of(&existing(context).await?),
        };
        let places = &takers.places;
        let placement = Placement::new(places.iter().map(|place| (place.name.as_str(), place.weight)));
        for key in self.keys()? {
            let found = takers.find(&placement, &key, self.count as usize)?;
            let Some(owner) = found.first() else {
                let why = if places.is_empty() { "none is present" } else { "all have weight 0" };
                return Err(Failure::no(format!("no node takes {key:?}: {why}")));
            };
            if self.node.as_ref().is_none_or(|node| *node == owner.name) {
                let slot = takers.slots.as_ref().map(|slots| slots.count.slot_of(&key));
                self.print(&key, slot, &found)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, key: &str, slot: Option<Slot>, nodes: &[&Place]) -> Result<(), Failure> {
        if self.format.is_json() {
            let nodes = nodes.iter().map(|place| json!({ "name": place.name, "uri": place.uri }));
            let mut found = json!({ "key": key, "nodes": nodes.collect::<Vec<_>>() });
            if let Some(slot) = slot {
                found["slot"] = json!(slot);
            }
            return output::json(&found);
        }
        let slot = slot.map(|slot| slot.to_string());
        for place in nodes {
            let cells = [Some(key), Some(&place.name), Some(&place.uri), slot.as_deref()];
            output::cells(&cells.into_iter().flatten().collect::<Vec<_>>());
        }
        Ok(())
    }

    /// Returns the given keys, with each `-` replaced by the lines of the standard input.
    fn keys(&self) -> Result<Vec<String>, Failure> {
        let is_input = |text: &str| text == "-";
        if !self.keys.is_empty() && !self.keys.iter().any(|key| is_input(key)) {
            return Ok(self.keys.clone());
        }
        if self.view.as_ref().is_some_and(|file| file.as_os_str() == "-") {
            let text = "the standard input is already used for the view: give the keys as arguments";
            return Err(Failure::unknown(text));
        }
        let mut input = read_keys()?;
        if self.keys.is_empty() {
            return Ok(input);
        }
        let keys = self.keys.iter();
        Ok(keys
            .flat_map(|key| if is_input(key) { mem::take(&mut input) } else { vec![key.clone()] })
            .collect())
    }
}

impl Takers {
    fn of(report: &Report) -> Self {
        Takers { places: report.nodes.iter().map(Place::of).collect(), slots: Slots::of(report) }
    }

    /// Returns the node that takes the key, and the nodes next in line.
    fn find(&self, placement: &Placement, key: &str, count: usize) -> Result<Vec<&Place>, Failure> {
        let Some(slots) = &self.slots else {
            let found = placement.find_n(key.as_bytes(), count).into_iter();
            return Ok(found.map(|index| &self.places[index]).collect());
        };
        let slot = slots.count.slot_of(key);
        let owner = slots.owners.get(usize::from(slot.number())).copied().flatten();
        let owner = owner.ok_or_else(|| slots.unowned(key, slot))?;
        let next = placement.find_n(key.as_bytes(), count.saturating_add(1)).into_iter();
        let others = next.filter(|index| *index != owner);
        Ok([owner].into_iter().chain(others).take(count).map(|index| &self.places[index]).collect())
    }

    /// Reads the nodes of the view in the file.
    fn in_view(file: &Path) -> Result<Self, Failure> {
        let failure = |error: &dyn Display| {
            Failure::unknown(format!("--view {}: {error}", file.display()))
                .hint("the file must contain the JSON that hooks get on their standard input")
        };
        let mut text = String::new();
        match file.as_os_str() == "-" {
            true => drop(io::stdin().read_to_string(&mut text).map_err(|error| failure(&error))?),
            false => text = fs::read_to_string(file).map_err(|error| failure(&error))?,
        }
        let view: View = serde_json::from_str(&text).map_err(|error| failure(&error))?;
        let mut places: Vec<_> = view.nodes.into_iter().map(Place::from).collect();
        places.sort_by(|one, other| one.name.cmp(&other.name));
        let slots = view.slots.map(|slots| slots.among(&places));
        Ok(Takers { places, slots: slots.transpose().map_err(|error| failure(&error))? })
    }
}

impl Slots {
    /// Returns the owners of the slots in the newest version, if it hands slots over.
    pub(crate) fn of(report: &Report) -> Option<Self> {
        let slots = report.slots.as_ref().filter(|slots| slots.has_handover)?;
        let count = slots.count?;
        let mut owners = vec![None; count.get().into()];
        for (index, node) in report.nodes.iter().enumerate() {
            node.slots.iter().for_each(|slot| owners[usize::from(slot.number())] = Some(index));
        }
        let kept =
            slots.kept.iter().flat_map(|kept| kept.slots.iter().map(|slot| (slot, kept.name.to_string())));
        Some(Slots { count, owners, kept: kept.collect() })
    }

    /// Explains that no node takes the key, because its slot has no owner.
    fn unowned(&self, key: &str, slot: Slot) -> Failure {
        match self.kept.get(&slot) {
            None => Failure::no(format!("no node takes {key:?}: slot {slot} has no owner")),
            Some(name) => {
                Failure::no(format!("no node takes {key:?}: slot {slot} waits for {name} to come back"))
                    .hint(format!("to end the wait: clustering cordon {name}"))
            }
        }
    }
}

impl ViewSlots {
    fn among(self, places: &[Place]) -> Result<Slots, InvalidInput> {
        let count = SlotCount::new(self.count)?;
        let mut owners = vec![None; count.get().into()];
        for (name, numbers) in self.owners {
            let index = places.binary_search_by(|place| place.name.cmp(&name)).ok();
            for number in numbers {
                if let Some(owner) = owners.get_mut(usize::from(number)) {
                    *owner = index;
                }
            }
        }
        let slot = |number: u16| count.slot(number);
        let kept = self.kept.into_iter().flat_map(|(name, numbers)| {
            numbers.into_iter().filter_map(slot).map(move |slot| (slot, name.clone()))
        });
        Ok(Slots { count, owners, kept: kept.collect() })
    }
}

impl From<Member> for Place {
    fn from(member: Member) -> Self {
        let weight = || member.metadata.get(WEIGHT)?.as_str()?.parse().ok();
        Place { weight: weight().unwrap_or_default(), name: member.name, uri: member.uri }
    }
}

impl Place {
    fn of(node: &NodeReport) -> Self {
        Place { name: node.name.to_string(), uri: node.uri.to_string(), weight: node.weight() }
    }
}

/// Reads the report on the cluster. A cluster that does not exist is a failure.
pub(crate) async fn existing(context: &Context) -> Result<Report, Failure> {
    let operator = context.operator().await?;
    let report = context.quick(operator.report()).await?;
    report.ok_or_else(|| Failure::no_cluster(operator.keyspace().namespace()))
}

/// Reads the lines of the standard input that are not empty.
pub(crate) fn read_keys() -> Result<Vec<String>, Failure> {
    let lines: Result<Vec<_>, _> = io::stdin().lock().lines().collect();
    let lines =
        lines.map_err(|error| Failure::unknown(format!("cannot read the standard input: {error}")))?;
    Ok(lines.into_iter().filter(|line| !line.is_empty()).collect())
}
