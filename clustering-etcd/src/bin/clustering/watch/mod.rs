mod app;
mod lines;
mod live;
mod screen;
mod wrap;

#[cfg(test)]
mod tests;

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use clap::Args;
use clustering_etcd::{Monitor, MonitorEvent, Report};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    connection::Connection,
    failure::Failure,
    output::Format,
    times::{Now, duration},
};

/// Follow the cluster: nodes turning ready, versions with how long each took to become stable, everything that happens
///
/// On a terminal, shows a live screen: q or Ctrl-C ends it, the arrow keys scroll the nodes. Otherwise prints lines, or
/// with
/// --json objects with `at_ms`, milliseconds since 1970. Waits if the cluster does not exist yet, and while etcd is away.
/// Exit codes: 0 ended by the user or after its time, 2 etcd could not be reached at the start, or refuses.
#[derive(Args, Debug)]
pub(crate) struct Watch {
    /// Print a line for everything that happens, also on a terminal
    #[arg(long)]
    lines: bool,
    #[command(flatten)]
    format: Format,
    /// End after that time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    r#for: Option<Duration>,
}

/// Something happened, and this is how the cluster is since.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) sightings: Vec<MonitorEvent>,
    pub(crate) report: Option<Report>,
}

impl Watch {
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let operator = connection.operator()?;
        let monitor = connection.quick(operator.monitor()).await?;
        let namespace = operator.keyspace().namespace().clone();
        let on_screen = std::io::stdout().is_terminal() && !self.lines && !self.format.is_json();
        let showing = async {
            if !on_screen {
                return lines::show(namespace, monitor, self.format.is_json()).await;
            }
            // Without a history, or the right to read it, the timeline begins now.
            let store = connection.store()?;
            let past = connection.quick(clustering_etcd::history(&store, operator.keyspace())).await;
            let app = app::App::new(namespace, past.unwrap_or_default(), Now::read());
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

/// Waits for SIGTERM, so that the terminal is left as it was.
async fn terminated() {
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => drop(signals.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// Follows in a task of its own, so that nobody who looks holds it up.
pub(crate) fn follow(mut monitor: Monitor) -> mpsc::UnboundedReceiver<News> {
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut news = News { sightings: Vec::new(), report: monitor.report() };
        while tell.send(news).is_ok() {
            let sightings = monitor.next().await;
            news = News { sightings, report: monitor.report() };
        }
    });
    told
}
