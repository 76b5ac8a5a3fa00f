//! `watch`: follows a cluster, on a screen or as lines.

mod app;
mod lines;
mod live;
mod screen;
mod wrap;

#[cfg(test)]
pub(crate) mod tests;

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use clap::Args;
use clustering_core::{Monitor, MonitorEvent, Report};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

pub(crate) use self::app::{App, Course, Period};
use crate::{
    connect::Purpose,
    context::Context,
    failure::Failure,
    output::Format,
    times::{Now, duration},
};

/// Follow the cluster live
///
/// Shows the nodes and their readiness, the versions with the time that each took to become stable, and all events.
///
/// On a terminal it shows a screen; q or Ctrl-C quits, and the arrow keys scroll the nodes. Otherwise it prints lines,
/// or with --json objects with the time `at_ms` in milliseconds since 1970. It also follows a cluster that does not
/// exist yet, and continues while the store is away. Exit codes: 0 ended by the user or after --for, 2 the store could
/// not be reached at the start, or refused.
#[derive(Args, Debug)]
pub(crate) struct Watch {
    /// Print a line for each event, even on a terminal
    #[arg(long)]
    lines: bool,
    #[command(flatten)]
    format: Format,
    /// End after this time [default: never]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    r#for: Option<Duration>,
}

/// New events, and the report on the cluster after them.
#[derive(Debug)]
pub(crate) struct Update {
    /// The time at which they were seen.
    pub(crate) at: Now,
    pub(crate) events: Vec<MonitorEvent>,
    pub(crate) report: Option<Report>,
}

impl Watch {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let operator = context.operator().await?;
        let monitor = context.quick(operator.monitor()).await?;
        let namespace = operator.keyspace().namespace().clone();
        let on_screen = std::io::stdout().is_terminal() && !self.lines && !self.format.is_json();
        let showing = async {
            if !on_screen {
                return lines::show(namespace, monitor, self.format.is_json()).await;
            }
            // Without a history, or the permission to read it, the timeline starts now.
            let store = context.store(Purpose::Operator).await?;
            let past = context.quick(clustering_core::history(&store, operator.keyspace())).await;
            let app = App::new(namespace, context.store_name, past.unwrap_or_default(), Now::read());
            live::show(app, follow(monitor)).await
        };
        let ended = async {
            match self.r#for {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = showing => done?,
            () = ended => {}
            _ = tokio::signal::ctrl_c() => {}
            () = terminated() => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits for SIGTERM. Handling the signal lets the terminal be restored.
pub(crate) async fn terminated() {
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => drop(signals.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// Follows the cluster in a separate task, so that a slow receiver does not delay the monitor.
pub(crate) fn follow(mut monitor: Monitor) -> mpsc::UnboundedReceiver<Update> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut update = Update { at: Now::read(), events: Vec::new(), report: monitor.report() };
        while sender.send(update).is_ok() {
            let events = monitor.next().await;
            update = Update { at: Now::read(), events, report: monitor.report() };
        }
    });
    receiver
}
