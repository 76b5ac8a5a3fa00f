//! HTTP probes for Kubernetes and load balancers, as an [`axum`](https://docs.rs/axum) router (feature `probes`).
//!
//! | path | 200 while | use it for |
//! |---|---|---|
//! | `/livez` | the node has not ended | restarting the process |
//! | `/readyz` | the node is a member and ready at the newest version that it knows | routing requests; continuing a rollout |
//! | `/leaderz` | the node may act as leader now (P6) | routing requests to the leader |
//! | `/stablez` | the cluster is stable and this node is part of it | waiting until all nodes have adapted; not for rollouts |
//! | `/ownz?key=…` | the node [holds](crate::Clustering::hold) the key | asking from a program in any language; see below |
//! | `/metrics` | always, if [configured](Probes::metrics) | Prometheus |
//!
//! The probes are independent of each other. A 503 gives the reason in one line. See
//! [`docs::operating`](crate::docs::operating#probes) for the exact meaning of each probe.
//!
//! `/ownz` answers in JSON. With 200, the process may work on the key now: `{"key": "device-42", "slot": 17, "token":
//! 1042}`; the token is the [fencing token](crate::Hold::token). The answer takes no hold, so it does not delay a
//! hand-over: ask again before each piece of work, and fence writes with the token. With 409, the process must not work
//! on the key, and `why` is one of the names of [`NotHeld::kind`](crate::NotHeld::kind), or `starting`: `{"key":
//! "device-42", "slot": 17, "why": "elsewhere", "message": …, "node": "ingest-2", "uri": "http://10.0.0.8:8080",
//! "version": "01ARZ…"}`. The answer contains node, URI and version only if the key is elsewhere. The key is taken from
//! the query as in a form (`%2F`, `+`); without one, the status is 400.
//!
//! ```no_run
//! use clustering_core::{Clustering, probes::Probes};
//!
//! # async fn example(builder: clustering_core::Builder) -> Result<(), Box<dyn std::error::Error>> {
//! // Serve the probes before the start, which may wait for the store or for the name.
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

use axum::{
    Router,
    extract::RawQuery,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;

use crate::{
    machine::{FailingCall, Health, Phase, Status},
    name::{NodeName, NodeUri},
    runtime::{Clustering, Known, NotHeld},
    version::Version,
};

/// Answers to probes of one node. Cheap to clone; it does not keep the node alive.
#[derive(Clone, Default)]
pub struct Probes {
    node: Arc<RwLock<Option<Known>>>,
    render: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

/// Answer of `/ownz` about a key that is held.
#[derive(Serialize)]
struct Held<'a> {
    key: &'a str,
    slot: u16,
    token: u64,
}

/// Answer of `/ownz` about a key that is not held.
#[derive(Serialize)]
struct Refused<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u16>,
    why: &'static str,
    message: String,
    #[serde(flatten)]
    elsewhere: Option<Elsewhere>,
}

#[derive(Serialize)]
struct Elsewhere {
    node: NodeName,
    uri: NodeUri,
    version: Version,
}

/// The answer to a probe: a description of the state if the probe succeeds, or the reason why it fails. One line each.
pub type Answer = Result<String, String>;

impl Probes {
    /// Creates probes for a node that has not started yet: it is live, but neither ready nor leading.
    pub fn new() -> Self {
        Probes::default()
    }

    /// Adds the route `/metrics`, which serves the text that `render` returns. Pass for example
    /// `PrometheusHandle::render` of `metrics-exporter-prometheus`.
    #[must_use]
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.render = Some(Arc::new(render));
        self
    }

    /// Makes these probes and all their clones answer for `cluster` from now on.
    pub fn follow(&self, cluster: &Clustering) {
        let known = Some(cluster.known());
        *self.node.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn ask(&self, answer: impl FnOnce(&Known) -> Answer) -> Option<Answer> {
        let node = self.node.read().unwrap_or_else(PoisonError::into_inner).clone();
        node.as_ref().map(answer)
    }

    /// Succeeds if the node has not ended. A store that does not answer, a version that does not become stable or a
    /// failing health check do not fail this probe, because a restart would not help.
    pub fn live(&self) -> Answer {
        let live = self.ask(|node| match &node.status().phase {
            Phase::Stopped(reason) => Err(format!("the node has ended: {reason}")),
            phase => Ok(format!("{phase:?}").to_lowercase()),
        });
        live.unwrap_or_else(|| Ok("starting".to_owned()))
    }

    /// Succeeds if the node is a member and ready at the newest version that it knows. Other nodes do not matter.
    pub fn ready(&self) -> Answer {
        self.ask(ready).unwrap_or_else(|| Err("starting".to_owned()))
    }

    /// Succeeds if the node may act as leader now.
    pub fn leader(&self) -> Answer {
        let leader = self.ask(|node| match node.term() {
            Some(term) => Ok(format!("leads, term {term}")),
            None => match node.status().leader.as_ref().and_then(|leader| leader.name.as_ref()) {
                Some(leader) => Err(format!("{leader} leads")),
                None => Err("no leader is known".to_owned()),
            },
        });
        leader.unwrap_or_else(|| Err("starting".to_owned()))
    }

    /// Succeeds if the cluster is stable and this node is part of it: all nodes are ready at the newest version.
    pub fn stable(&self) -> Answer {
        self.ask(stable).unwrap_or_else(|| Err("starting".to_owned()))
    }

    /// Returns the routes, to be served alone or merged into the service's own router.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let probe = |ask: fn(&Probes) -> Answer| {
            let probes = self.clone();
            get(move || std::future::ready(respond(ask(&probes))))
        };
        let router = Router::new()
            .route("/livez", probe(Probes::live))
            .route("/readyz", probe(Probes::ready))
            .route("/leaderz", probe(Probes::leader))
            .route("/stablez", probe(Probes::stable))
            .route("/ownz", self.own_route());
        let Some(render) = self.render.clone() else { return router };
        let text = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        router.route("/metrics", get(move || std::future::ready((text, render()))))
    }
}

impl Probes {
    fn own_route<S: Clone + Send + Sync + 'static>(&self) -> axum::routing::MethodRouter<S> {
        let probes = self.clone();
        get(move |RawQuery(query): RawQuery| {
            let key = query.as_deref().and_then(|query| parameter(query, "key"));
            std::future::ready(match key {
                Some(key) => probes.own(&key),
                None => (StatusCode::BAD_REQUEST, "name the key: /ownz?key=…\n").into_response(),
            })
        })
    }

    /// Answers whether the node holds the key at this moment.
    fn own(&self, key: &[u8]) -> Response {
        let node = self.node.read().unwrap_or_else(PoisonError::into_inner).clone();
        let text = &String::from_utf8_lossy(key);
        let slot = node.as_ref().and_then(|node| node.slot_of(key)).map(|slot| slot.number());
        let Some(node) = node else {
            let message = "the node has not started yet".to_owned();
            let answer = Refused { key: text, slot, why: "starting", message, elsewhere: None };
            return json(StatusCode::CONFLICT, &answer);
        };
        match node.hold_key(key) {
            Ok(hold) => {
                let (slot, token) = (hold.slot().number(), hold.token().get());
                json(StatusCode::OK, &Held { key: text, slot, token })
            }
            Err(error) => {
                let (why, message) = (error.kind(), error.to_string());
                let answer = Refused { key: text, slot, why, message, elsewhere: elsewhere(error) };
                json(StatusCode::CONFLICT, &answer)
            }
        }
    }
}

fn elsewhere(error: NotHeld) -> Option<Elsewhere> {
    match error {
        NotHeld::Elsewhere { node, version } => {
            Some(Elsewhere { node: node.name.clone(), uri: node.uri.clone(), version })
        }
        _ => None,
    }
}

fn json(status: StatusCode, answer: &impl Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => (status, [(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Returns the decoded value of a parameter of a query string.
fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(found, _)| decoded(found) == name.as_bytes());
    values.next().map(|(_, value)| decoded(value))
}

/// Decodes `+` and `%2F` as in a form. A percent sign that is not followed by two hexadecimal digits stands for itself.
fn decoded(text: &str) -> Vec<u8> {
    let (mut rest, mut bytes) = (text.as_bytes(), Vec::with_capacity(text.len()));
    while let [first, after @ ..] = rest {
        let escaped = after.first_chunk::<2>().filter(|_| *first == b'%').and_then(hexadecimal);
        bytes.push(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    bytes
}

fn hexadecimal(digits: &[u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()
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
