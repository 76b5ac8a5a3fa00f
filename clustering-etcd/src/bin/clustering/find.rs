use std::{
    fs,
    io::{self, BufRead, Read},
    mem,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use clustering_etcd::{Report, Weight, node::WEIGHT, placement::Placement};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    connection::Connection,
    failure::{Failure, NO, UNKNOWN},
    output::{self, Format},
};

/// Show which node takes each key: the key, its node and where that is reached, divided by tabs
///
/// By the nodes that are present, as a process that routes would; with --view by those of a certain version, as a hook has to.
/// Exit codes: 0 each key has a node, 1 no node takes keys, 2 it is not known.
#[derive(Args, Debug)]
pub(crate) struct Find {
    /// The keys; - reads them from standard input, one per line, which is also the default
    keys: Vec<String>,
    /// Also those next in line, so many nodes in all
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Only the keys that this node takes
    #[arg(long, value_name = "NAME", conflicts_with = "count")]
    node: Option<String>,
    /// Place by the view in this file, as hooks get it on their standard input, without asking etcd; - for the standard input
    #[arg(long, value_name = "FILE")]
    view: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// A node, as far as placement goes.
struct Place {
    name: String,
    uri: String,
    weight: Weight,
}

/// The fields of a view that the command reads.
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
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let places = match &self.view {
            Some(file) => in_view(file)?,
            None => present(&existing(connection).await?),
        };
        let placement = Placement::new(places.iter().map(|place| (place.name.as_str(), place.weight)));
        for key in self.keys()? {
            let found: Vec<_> = placement.find_n(key.as_bytes(), self.count as usize);
            let found: Vec<_> = found.into_iter().map(|index| &places[index]).collect();
            let Some(owner) = found.first() else {
                let why = if places.is_empty() { "none is present" } else { "all have weight 0" };
                return Err(Failure::new(NO, format!("no node takes {key:?}: {why}")));
            };
            if self.node.as_ref().is_some_and(|node| *node != owner.name) {
                continue;
            }
            if self.format.is_json() {
                let nodes: Vec<_> =
                    found.iter().map(|place| json!({ "name": place.name, "uri": place.uri })).collect();
                output::json(&json!({ "key": key, "nodes": nodes }))?;
            } else {
                found.iter().for_each(|place| output::cells(&[&key, &place.name, &place.uri]));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Find {
    /// Returns the given keys, with each `-` replaced by the lines of the standard input.
    fn keys(&self) -> Result<Vec<String>, Failure> {
        let is_input = |text: &str| text == "-";
        if !self.keys.is_empty() && !self.keys.iter().any(|key| is_input(key)) {
            return Ok(self.keys.clone());
        }
        if self.view.as_ref().is_some_and(|file| file.as_os_str() == "-") {
            let text = "the standard input is already used for the view: give the keys as arguments";
            return Err(Failure::new(UNKNOWN, text));
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

fn present(report: &Report) -> Vec<Place> {
    let place = |node: &clustering_etcd::report::NodeReport| Place {
        name: node.name.to_string(),
        uri: node.uri.to_string(),
        weight: node.weight(),
    };
    report.nodes.iter().map(place).collect()
}

/// The nodes of a view, by name.
fn in_view(file: &Path) -> Result<Vec<Place>, Failure> {
    let failure = |error: &dyn std::fmt::Display| {
        let failure = Failure::new(UNKNOWN, format!("--view {}: {error}", file.display()));
        failure.hint("it is the JSON that hooks get on their standard input")
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

/// The cluster; that there is none is a failure.
pub(crate) async fn existing(connection: &Connection) -> Result<Report, Failure> {
    let operator = connection.operator()?;
    let report = connection.quick(operator.report()).await?;
    report.ok_or_else(|| Failure::no_cluster(operator.keyspace().namespace()))
}

/// The lines of the standard input, without empty ones.
pub(crate) fn read_keys() -> Result<Vec<String>, Failure> {
    let lines: Result<Vec<_>, _> = io::stdin().lock().lines().collect();
    let lines = lines
        .map_err(|error| Failure::new(UNKNOWN, format!("the standard input cannot be read: {error}")))?;
    Ok(lines.into_iter().filter(|line| !line.is_empty()).collect())
}
