use std::{
    fmt::Display,
    fs,
    io::{self, BufRead, Read},
    mem,
    path::Path,
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use clustering_core::{Report, Weight, node::WEIGHT, placement::Placement, report::NodeReport};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    context::Context,
    failure::Failure,
    output::{self, Format},
};

/// Print the node that takes each key
///
/// Each line has the key, the node's name and its URI, separated by tabs. Uses the nodes that are present, as a router
/// does. With --view, uses the nodes of that version, as a hook must do. Exit codes: 0 every key has a node, 1 no node
/// takes keys, 2 unknown.
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

/// The part of a hook's input that placement needs.
#[derive(Deserialize)]
struct View {
    nodes: Vec<Member>,
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
        let places = match &self.view {
            Some(file) => places_in(file)?,
            None => existing(context).await?.nodes.iter().map(Place::of).collect(),
        };
        let placement = Placement::new(places.iter().map(|place| (place.name.as_str(), place.weight)));
        for key in self.keys()? {
            let found = placement.find_n(key.as_bytes(), self.count as usize);
            let found: Vec<_> = found.into_iter().map(|index| &places[index]).collect();
            let Some(owner) = found.first() else {
                let why = if places.is_empty() { "none is present" } else { "all have weight 0" };
                return Err(Failure::no(format!("no node takes {key:?}: {why}")));
            };
            if self.node.as_ref().is_none_or(|node| *node == owner.name) {
                self.print(&key, &found)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, key: &str, nodes: &[&Place]) -> Result<(), Failure> {
        if self.format.is_json() {
            let nodes = nodes.iter().map(|place| json!({ "name": place.name, "uri": place.uri }));
            return output::json(&json!({ "key": key, "nodes": nodes.collect::<Vec<_>>() }));
        }
        nodes.iter().for_each(|place| output::cells(&[key, &place.name, &place.uri]));
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

impl Place {
    fn of(node: &NodeReport) -> Self {
        Place { name: node.name.to_string(), uri: node.uri.to_string(), weight: node.weight() }
    }
}

/// Reads the nodes of the view in the file, sorted by name.
fn places_in(file: &Path) -> Result<Vec<Place>, Failure> {
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
    let weight = |member: &Member| member.metadata.get(WEIGHT)?.as_str()?.parse().ok();
    let place = |member: Member| Place {
        weight: weight(&member).unwrap_or_default(),
        name: member.name,
        uri: member.uri,
    };
    let mut places: Vec<_> = view.nodes.into_iter().map(place).collect();
    places.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(places)
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
