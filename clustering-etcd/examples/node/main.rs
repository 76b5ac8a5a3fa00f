//! One node of a cluster as a process. Start it in several terminals to see a cluster.
//!
//! ```text
//! cargo run -p clustering-etcd --example node -- --name a
//! cargo run -p clustering-etcd --example node -- --name b
//! ```
//!
//! It shares 24 imaginary devices with the other nodes, and prints a timeline of events. Ctrl-C and SIGTERM make it
//! leave; `kill -9` shows how the other nodes see a crash.

mod arguments;
#[cfg(all(feature = "metrics", feature = "probes"))]
#[path = "../../cli/src/connections.rs"]
mod connections;
mod devices;
mod probes;
mod signals;
mod timeline;

use std::{error::Error, process::ExitCode};

use arguments::{Arguments, Asked};
use clustering_core::{EventsError, Stabilization, Stable};
use clustering_etcd::{EtcdConfig, EtcdStore};
use signals::Signals;
use timeline::Timeline;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match arguments::parse() {
        Ok(Asked::Run(arguments)) => arguments,
        Ok(Asked::Help) => {
            timeline::print(arguments::HELP.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("node: {error}\nTry `--help`.");
            return ExitCode::from(2);
        }
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("node: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut signals = Signals::new()?;
    let timeline = Timeline::new(arguments.json);
    // Probes come first, since the process is alive while it waits for etcd.
    let probes = match &arguments.probes {
        Some(address) => Some(probes::serve(address).await?),
        None => None,
    };
    let mut config = EtcdConfig::from_env()?;
    if !arguments.endpoints.is_empty() {
        config.endpoints = EtcdConfig::new(&arguments.endpoints)?.endpoints;
    }
    timeline.say("connecting", &format!("etcd at {}", endpoints(&config)));
    // This does not fail while etcd is down. The node waits for etcd, and emits an event.
    let store = EtcdStore::connect(config).await?;

    let mut builder = store
        .node()
        .namespace(&arguments.namespace)
        .uri(&arguments.uri)
        .stabilize({
            let timeline = timeline.clone();
            move |change: Stabilization| {
                let timeline = timeline.clone();
                // A real service would load the devices it gained and release those it lost before it returns.
                async move { timeline.devices(&devices::diff(&change)) }
            }
        })
        .on_stable({
            let timeline = timeline.clone();
            move |stable: Stable| {
                let text = format!("on_stable: {} nodes are ready, traffic may flow", stable.view().len());
                timeline.say("on_stable", &text);
                async {}
            }
        });
    if let Some(name) = &arguments.name {
        builder = builder.name(name);
    }
    if let Some(ttl) = arguments.ttl {
        builder = builder.ttl(ttl);
    }

    let mut events = builder.events();
    let printing = tokio::spawn({
        let timeline = timeline.clone();
        async move {
            loop {
                match events.recv().await {
                    Ok(event) => timeline.event(&event),
                    Err(EventsError::Missed(missed)) => {
                        timeline.say(
                            "missed",
                            &format!("{missed} events were dropped, since this terminal is too slow"),
                        );
                    }
                    Err(EventsError::Ended) => break,
                }
            }
        }
    });

    let cluster = tokio::select! {
        cluster = builder.start() => cluster?,
        // Dropping the future cancels the start.
        signal = signals.next() => {
            timeline.say("signal", &format!("{signal}: stopped before joining"));
            return Ok(());
        }
    };
    if let Some(probes) = &probes {
        probes.follow(&cluster);
    }
    let ended = tokio::select! {
        ended = cluster.ended() => Some(ended),
        signal = signals.next() => {
            timeline.say("signal", &format!("{signal}: leaving; send it again to end at once"));
            None
        }
    };
    if ended.is_none() {
        tokio::select! {
            stopped = cluster.stop() => stopped?,
            _ = signals.next() => return Err("ended at once: the others see this node until its TTL has passed".into()),
        }
    }
    printing.await?;
    // For example, another instance took over the name. The supervisor decides whether to restart this one.
    ended.map_or(Ok(()), |ended| Err(ended.map_or_else(Into::into, Into::into)))
}

fn endpoints(config: &EtcdConfig) -> String {
    let endpoints: Vec<_> = config.endpoints.iter().map(ToString::to_string).collect();
    endpoints.join(", ")
}
