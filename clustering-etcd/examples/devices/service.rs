//! A service whose instances own devices. Each device is worked on by one instance at a time, which keeps its state in
//! memory; the other instances forward requests to it.
//!
//! `GET /devices/{id}` returns the device, and `POST /devices/{id}` sets its state.

use std::{error::Error, fmt::Display, future::Future, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Method, Request, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use clustering_core::{
    Builder, Clustering, Discovery, Hold, Node, NotHeld, Release, RequestError, Stabilization, Version,
    probes::Probes, store::CoordinationStore,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use tokio::{net::TcpListener, time};

use crate::devices::Devices;

const NAMESPACE: &str = "device-service";
/// Header with the newest version that the sender of a forwarded request knows.
const VERSION: &str = "x-cluster-version";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
/// Time for which a request waits for a device that is on its way to an instance.
const WAIT: Duration = Duration::from_secs(10);
/// Number of times that a request is forwarded before it fails, and the growth of the pause with each attempt: 9 s in
/// total.
const ATTEMPTS: u32 = 60;
const PAUSE: Duration = Duration::from_millis(5);
/// Time for which an instance that has left continues to forward requests, until load balancers have noticed that it is
/// gone.
const DRAIN: Duration = Duration::from_secs(1);

/// Runs an instance until `ends` resolves or the node ends, for example because an operator drains it.
pub(crate) async fn run(
    node: Builder,
    store: Arc<dyn CoordinationStore>,
    listener: TcpListener,
    ends: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let observer = Discovery::observe(store.clone(), NAMESPACE).await?;
    let devices = Arc::new(Devices::new(store));
    let (loading, flushing) = (devices.clone(), devices.clone());
    let cluster = node
        .namespace(NAMESPACE)
        .exclusive(64)
        .stabilize(move |change: Stabilization| {
            let devices = loading.clone();
            async move { devices.load(change.gained()).await }
        })
        .release(move |change: Release| {
            let devices = flushing.clone();
            async move { devices.flush(&change).await }
        })
        .start()
        .await?;

    let probes = Probes::new();
    probes.follow(&cluster);
    let client = Client::builder(TokioExecutor::new()).build_http();
    let service = Service { cluster: cluster.clone(), observer, devices, client };
    let router = Router::new()
        .route("/devices/{id}", get(handle).post(handle))
        .with_state(Arc::new(service))
        .merge(probes.router());
    let shutdown = async move {
        tokio::select! {
            () = ends => {}
            _ = cluster.ended() => {}
        }
        // Hands over all devices. Meanwhile and afterwards this instance forwards requests to their new owners.
        if let Err(error) = cluster.stop().await {
            eprintln!("the devices move when the lease has expired: {error}");
        }
        time::sleep(DRAIN).await;
    };
    Ok(axum::serve(listener, router).with_graceful_shutdown(shutdown).await?)
}

/// State that the handlers share.
struct Service {
    cluster: Clustering,
    observer: Discovery,
    devices: Arc<Devices>,
    client: Client<HttpConnector, Body>,
}

type Failure = (StatusCode, String);

fn unavailable(error: impl Display) -> Failure {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

/// Answers a request: here if this instance holds the device, and otherwise through the instance that does.
async fn handle(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    (method, uri, headers): (Method, Uri, HeaderMap),
    body: String,
) -> Result<Response, Failure> {
    let mut version = version_in(&headers);
    let state = (method == Method::POST).then_some(body.as_str());
    let is_forwarded = version.is_some();
    for attempt in 0..ATTEMPTS {
        let owner = match service.hold(&id, version).await {
            Ok(hold) => match service.devices.work(&service.cluster, &hold, &id, state).await {
                Err(RequestError::NotHeld) => continue, // it moved before anything was written
                Err(error) => return Err(unavailable(error)),
                Ok(device) => return Ok((JSON, json!(device).to_string()).into_response()),
            },
            Err(NotHeld::Elsewhere { node, version }) => Some((node, version)),
            Err(NotHeld::Stopping | NotHeld::NoSession) => service.observed_owner(&id),
            Err(error) => return Err(unavailable(error)),
        };
        version = version.max(owner.as_ref().map(|(_, newest)| *newest));
        if is_forwarded {
            // The sender decides where to try next, once it knows this version.
            let version = version.map_or_else(String::new, |version| version.to_string());
            return Ok((StatusCode::MISDIRECTED_REQUEST, [(VERSION, version)]).into_response());
        }
        if let Some((node, newest)) = owner
            && let Some(answer) = service.forward(&node, newest, (&method, &uri, &body)).await?
        {
            if answer.status() != StatusCode::MISDIRECTED_REQUEST {
                return Ok(answer);
            }
            version = version.max(version_in(answer.headers()));
        }
        time::sleep(PAUSE * attempt).await;
    }
    Err(unavailable(format!("no instance held device {id}")))
}

fn version_in(headers: &HeaderMap) -> Option<Version> {
    headers.get(VERSION)?.to_str().ok()?.parse().ok()
}

impl Service {
    /// Waits until the device is here or known to be elsewhere, as of `version` or later.
    async fn hold(&self, id: &str, version: Option<Version>) -> Result<Hold, NotHeld> {
        let held = async {
            match version {
                None => self.cluster.wait_hold(id).await,
                Some(version) => self.cluster.wait_hold_at(id, version).await,
            }
        };
        time::timeout(WAIT, held).await.unwrap_or(Err(NotHeld::Moving))
    }

    /// Returns the owner of the device, if it is another instance, and the version that makes it the owner. This also
    /// works when the node of this instance has stopped.
    fn observed_owner(&self, id: &str) -> Option<(Arc<Node>, Version)> {
        let view = self.observer.newest()?;
        let owner = view.find(id).filter(|node| node.name != *self.cluster.name())?;
        Some((owner.clone(), view.version()))
    }

    /// Sends the request to another instance. Returns `None` if the request was not received there, or may be repeated.
    async fn forward(
        &self,
        node: &Node,
        version: Version,
        (method, uri, body): (&Method, &Uri, &str),
    ) -> Result<Option<Response>, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{}", node.uri.as_str().trim_end_matches('/'), uri.path()))
            .header(VERSION, version.to_string())
            .body(Body::from(body.to_owned()))
            .map_err(unavailable)?;
        match time::timeout(2 * WAIT, self.client.request(request)).await {
            Ok(Ok(answer)) => Ok(Some(answer.map(Body::new))),
            Ok(Err(error)) if error.is_connect() || method.is_safe() => Ok(None),
            Ok(Err(error)) => Err((StatusCode::BAD_GATEWAY, format!("{}: {error}", node.name))),
            Err(elapsed) => Err((StatusCode::GATEWAY_TIMEOUT, format!("{}: {elapsed}", node.name))),
        }
    }
}
