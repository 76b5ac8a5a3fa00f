//! Health checks of the program.

use std::time::Duration;

use clap::{Args, value_parser};
use clustering_core::{Builder, HealthChecks};
use hyper::{Request, Uri, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::{hook::Hooks, log::Log, shortage::wait_out};
use crate::times::duration;

/// Health checks. Without any, the program counts as healthy for as long as it runs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Health")]
pub(crate) struct Health {
    /// Command that checks the program. Exit code 0 means healthy; otherwise the last line of its standard error is the
    /// reason
    #[arg(long, value_name = "COMMAND", group = "check")]
    health: Option<String>,
    /// URL that checks the program. A status from 200 to 299 means healthy; http only
    #[arg(long, value_name = "URL", value_parser = url, group = "check")]
    health_url: Option<Uri>,
    /// Interval of the checks [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "check")]
    health_interval: Option<Duration>,
    /// Time limit for a check [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "check")]
    health_deadline: Option<Duration>,
    /// Number of consecutive failures that make the program unhealthy; before the node has joined, one is enough
    /// [default: 3]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), requires = "check")]
    health_failures: Option<u32>,
}

fn url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text
        .parse()
        .map_err(|error| format!("{error}; expected a URL such as http://127.0.0.1:8080/health"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(_)) => Ok(uri),
        _ => Err("the URL must begin with http:// and a host; use --health with a command for anything else"
            .to_owned()),
    }
}

impl Health {
    /// Adds the health check to the builder of the node.
    pub(crate) fn describe(&self, builder: Builder, hooks: &Hooks) -> Builder {
        let builder = if let Some(command) = self.health.clone() {
            let hooks = hooks.clone();
            builder.health(move || {
                let (hooks, command) = (hooks.clone(), command.clone());
                async move { hooks.health(&command).await }
            })
        } else if let Some(uri) = self.health_url.clone() {
            let log = hooks.log.clone();
            builder.health(move || {
                let (log, uri) = (log.clone(), uri.clone());
                async move { get(&log, &uri).await }
            })
        } else {
            return builder;
        };
        builder.configure(|config| {
            let default = HealthChecks::default();
            config.health = Some(HealthChecks {
                interval: self.health_interval.unwrap_or(default.interval),
                deadline: self.health_deadline.unwrap_or(default.deadline),
                failures: self.health_failures.unwrap_or(default.failures),
            });
        })
    }
}

async fn get(log: &Log, uri: &Uri) -> Result<(), String> {
    let failure = |error: &dyn std::error::Error| format!("{uri}: {error}");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let connect = || TcpStream::connect((host, uri.port_u16().unwrap_or(80)));
    let stream = wait_out(log, "the health check", connect).await;
    let stream = TokioIo::new(stream.map_err(|error| failure(&error))?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| failure(&error))?;
    // Dropping the set ends the connection, even if the check is cancelled.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(HOST, uri.authority().map_or("", |authority| authority.as_str()));
    let request = request.body(String::new()).map_err(|error| failure(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failure(&error))?;
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("{uri}: {status}")),
    }
}
