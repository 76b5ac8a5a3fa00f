//! Finds the owner of a key without being a node, as a gateway does for each request.
//!
//! ```text
//! cargo run -p clustering-etcd --example router -- device-7 device-8     # prints two owners and exits
//! cargo run -p clustering-etcd --example router                          # reads keys from standard input
//! ```

mod arguments;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use arguments::{Arguments, Asked};
use clustering_core::Discovery;
use clustering_etcd::{EtcdConfig, EtcdStore};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match arguments::parse() {
        Ok(Asked::Run(arguments)) => arguments,
        Ok(Asked::Help) => {
            let _ = io::stdout().write_all(arguments::HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("router: {error}\nTry `--help`.");
            return ExitCode::from(2);
        }
    };
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("router: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns true if every key had an owner.
async fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let mut config = EtcdConfig::from_env()?;
    if !arguments.endpoints.is_empty() {
        config.endpoints = EtcdConfig::new(&arguments.endpoints)?.endpoints;
    }
    let store = EtcdStore::connect(config).await?;
    if !arguments.keys.is_empty() {
        // Fail if etcd is down. Without this check the router would wait for it.
        store.check().await?;
    }
    // The observer follows the cluster's log, so that each answer comes from memory and is up to date.
    let discovery = Discovery::observe(store, &arguments.namespace).await?;

    let mut all = true;
    if !arguments.keys.is_empty() {
        for key in &arguments.keys {
            all &= answer(&discovery, key, arguments)?;
        }
        return Ok(all);
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        all &= answer(&discovery, line.trim_end(), arguments)?;
    }
    Ok(all)
}

/// Prints the owner of the key and its successors. Returns true if there is an owner.
fn answer(discovery: &Discovery, key: &str, arguments: &Arguments) -> io::Result<bool> {
    let owners = discovery.find_n(key, arguments.n);
    let stale = discovery.stale_for();
    let mut out = io::stdout().lock();
    if arguments.json {
        let owners: Vec<_> =
            owners.iter().map(|node| json!({ "name": node.name, "uri": node.uri.as_str() })).collect();
        let stale = stale.map(|stale| stale.as_millis() as u64);
        writeln!(out, "{}", json!({ "key": key, "nodes": owners, "stale_ms": stale }))?;
    } else {
        let names: Vec<_> =
            owners.iter().map(|node| format!("{} {}", node.name, node.uri.as_str())).collect();
        let names =
            if names.is_empty() { "no owner: the cluster has no nodes".to_owned() } else { names.join(", ") };
        // Routing by the last known view is right, since nodes also keep their last view while etcd is down.
        let note = stale
            .map_or(String::new(), |stale| format!(" (etcd has not answered for {} s)", stale.as_secs()));
        writeln!(out, "{key}\t{names}{note}")?;
    }
    Ok(!owners.is_empty())
}
