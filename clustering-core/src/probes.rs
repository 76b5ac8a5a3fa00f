//! Probes for Kubernetes, load balancers and the like, as a router of [`axum`](https://docs.rs/axum): feature `probes`.
//!
//! | path | 200 while | for |
//! |---|---|---|
//! | `/livez` | the node has not ended | restarting the process |
//! | `/readyz` | it is a member, and ready at the newest version that it knows | sending it requests; going on with a rollout |
//! | `/leaderz` | it may act as leader now (P6) | sending requests to the leader alone |
//! | `/stablez` | the cluster is stable with this node in it | waiting until all have adapted; not for rollouts |
//! | `/metrics` | always, if [given](Probes::metrics) | Prometheus |
//!
//! The probes are independent of each other. A 503 gives the reason in one line. See
//! [`docs::operating`](crate::docs::operating#probes) for the exact meaning of each probe.
//!
//! ```no_run
//! use clustering_core::{Clustering, probes::Probes};
//!
//! # async fn example(builder: clustering_core::Builder) -> Result<(), Box<dyn std::error::Error>> {
//! // Before the start, which may wait for the store, or for the name: the process is alive meanwhile.
//! let probes = Probes::new();
//! # type Served = axum::Router;
//! let router: Served = probes.router();
//! // tokio::spawn(async { axum::serve(TcpListener::bind("[::]:8081").await?, router).await });
//! let cluster: Clustering = builder.start().await?;
//! probes.follow(&cluster);
//! # Ok(())
//! # }
//! ```

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{Router, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};

use crate::{
    machine::{FailingCall, Health, Phase, Status},
    runtime::{Clustering, Known},
};

/// Answers what probes ask. Cheap to clone; it does not keep the node alive.
#[derive(Clone, Default)]
pub struct Probes {
    node: Arc<RwLock<Option<Known>>>,
    render: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

/// The answer to a probe: yes, or why not, in a line.
pub type Answer = Result<String, String>;

impl Probes {
    /// Of a process whose node has not started yet: it is alive, and neither ready nor leading.
    pub fn new() -> Self {
        Probes::default()
    }

    /// Adds `/metrics`: what `render` returns, such as `PrometheusHandle::render` of `metrics-exporter-prometheus`.
    #[must_use]
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.render = Some(Arc::new(render));
        self
    }

    /// From now on answers for that node, all clones alike.
    pub fn follow(&self, cluster: &Clustering) {
        let known = Some(cluster.known());
        *self.node.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn ask(&self, answer: impl FnOnce(&Known) -> Answer) -> Option<Answer> {
        let node = self.node.read().unwrap_or_else(PoisonError::into_inner).clone();
        node.as_ref().map(answer)
    }

    /// Whether the process is to be left running: its node has not ended. A store that is away, a version that does not
    /// become stable, or a failing health check are no reasons to restart it.
    pub fn live(&self) -> Answer {
        let live = self.ask(|node| match &node.status().phase {
            Phase::Stopped(reason) => Err(format!("the node has ended: {reason}")),
            phase => Ok(format!("{phase:?}").to_lowercase()),
        });
        live.unwrap_or_else(|| Ok("starting".to_owned()))
    }

    /// Whether the node is a member, and ready at the newest version that it knows. It says nothing of the others.
    pub fn ready(&self) -> Answer {
        self.ask(ready).unwrap_or_else(|| Err("starting".to_owned()))
    }

    /// Whether the node may act as leader now.
    pub fn leader(&self) -> Answer {
        let leader = self.ask(|node| match node.term() {
            Some(term) => Ok(format!("leads, term {term}")),
            None => match node.status().leader.as_ref().and_then(|leader| leader.name.as_ref()) {
                Some(leader) => Err(format!("{leader} leads")),
                None => Err("nobody is known to lead".to_owned()),
            },
        });
        leader.unwrap_or_else(|| Err("starting".to_owned()))
    }

    /// Succeeds if the cluster is stable and this node is part of it: all nodes are ready at the newest version.
    pub fn stable(&self) -> Answer {
        self.ask(stable).unwrap_or_else(|| Err("starting".to_owned()))
    }

    /// The routes, to be served alone or merged into a router of the service.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let probe = |ask: fn(&Probes) -> Answer| {
            let probes = self.clone();
            get(move || std::future::ready(respond(ask(&probes))))
        };
        let router = Router::new()
            .route("/livez", probe(Probes::live))
            .route("/readyz", probe(Probes::ready))
            .route("/leaderz", probe(Probes::leader))
            .route("/stablez", probe(Probes::stable));
        let Some(render) = self.render.clone() else { return router };
        let text = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        router.route("/metrics", get(move || std::future::ready((text, render()))))
    }
}

/// Checks that the node is a member; the error gives the reason if it is not.
fn member(node: &Known) -> Result<(), String> {
    let status = &node.status();
    if !node.is_member() {
        return Err(match (&status.phase, &status.health) {
            (Phase::Stopped(reason), _) => format!("the node has ended: {reason}"),
            (_, Health::Unhealthy { reason }) => format!("not a member: unhealthy: {reason}"),
            (_, Health::Unknown) => "not a member: no health check has passed yet".to_owned(),
            _ if status.stale_since.is_some() => {
                format!("not a member: the store does not answer{}", failing(status))
            }
            _ => format!("not a member{}", failing(status)),
        });
    }
    Ok(())
}

fn stable(node: &Known) -> Answer {
    member(node)?;
    let status = &node.status();
    match (status.stable_version(), status.newest.as_ref()) {
        (Some(stable), _) => Ok(format!("stable at {stable}")),
        (None, Some(newest)) => Err(format!("{} is not stable{}", newest.version(), failing(status))),
        (None, None) => Err(format!("the newest version is not known{}", failing(status))),
    }
}

fn ready(node: &Known) -> Answer {
    member(node)?;
    let status = &node.status();
    let newest = status.newest.as_ref().map(|view| view.version());
    match (newest, status.cluster_version()) {
        (Some(newest), Some(own)) if newest == own => Ok(format!("ready at {newest}{}", failing(status))),
        (Some(newest), Some(own)) => Err(format!("adapting to {newest}, ready at {own}{}", failing(status))),
        (Some(newest), None) => Err(format!("adapting to {newest}{}", failing(status))),
        (None, _) => Err(format!("the newest version is not known{}", failing(status))),
    }
}

/// Lists the store calls that keep failing, as a suffix for an answer.
fn failing(status: &Status) -> String {
    let one = |failing: &FailingCall| format!("; {} keeps failing: {}", failing.call, failing.reason);
    status.failing.iter().map(one).collect()
}

fn respond(answer: Answer) -> impl IntoResponse {
    match answer {
        Ok(text) => (StatusCode::OK, text + "\n"),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text + "\n"),
    }
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").field("metrics", &self.render.is_some()).finish_non_exhaustive()
    }
}
