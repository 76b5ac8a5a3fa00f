//! A service whose instances own devices. Each device is worked on by one instance at a time, which keeps its state in
//! memory; the other instances forward requests to it.
//!
//! `GET /devices/{id}` returns the device, and `POST /devices/{id}` sets its state. A state is stored before it is
//! acknowledged. The number of reads is stored later, so a crash loses the newest ones.

use std::{collections::BTreeMap, error::Error, fmt::Display, future::Future, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Method, Request, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use clustering_core::{
    Builder, Clustering, Hold, Node, NotHeld, Release, RequestError, Stabilization, Version,
    probes::Probes,
    slots::{Slot, SlotSet},
    store::{CoordinationStore, CoordinationStoreExt, Entry, ErrorKind, Guard, Revision, StoreError, Txn},
};
use futures_util::future::try_join_all;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{net::TcpListener, sync::Mutex, time};

/// Carries the newest version that the sender of a forwarded request knows.
const VERSION: &str = "x-cluster-version";
/// How long a request waits for a device that is on its way to an instance.
const WAIT: Duration = Duration::from_secs(10);
/// How often a request is passed on before it fails, and the pause after the first attempt; each one is longer.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);
/// How long an instance that has left serves and forwards requests, until load balancers have noticed that it is gone.
const DRAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) state: String,
    pub(crate) writes: u64,
    pub(crate) reads: u64,
}

/// A device in memory.
#[derive(Clone, Default)]
struct Loaded {
    device: Device,
    /// Revision of the last write; `None` if the device is not stored yet.
    revision: Option<Revision>,
    has_unsaved_reads: bool,
}

impl Loaded {
    fn parse(entry: &Entry) -> Result<Self, StoreError> {
        let device = serde_json::from_slice(&entry.value).map_err(|error| StoreError::invalid(error.to_string()))?;
        Ok(Loaded { device, revision: Some(entry.modified), has_unsaved_reads: false })
    }

    /// Returns the transaction that stores the device, unless it was written since this instance last read or wrote it. So
    /// a write with an unknown outcome cannot be applied after a later one.
    fn txn(&self, key: &str) -> Txn {
        let guard = self.revision.map_or_else(|| Guard::absent(key), |revision| Guard::modified_at(key, revision));
        Txn::new().guard(guard).put(key, json!(self.device).to_string(), None)
    }
}

/// The devices of each slot, by key. `None` is read from the store at the next use.
type Devices = Mutex<BTreeMap<Slot, BTreeMap<String, Arc<Mutex<Option<Loaded>>>>>>;

fn prefix(slot: Slot) -> String {
    format!("devices/{slot}/")
}

/// Runs an instance until `ends` resolves or the node ends, for example because an operator drains it.
pub(crate) async fn run(
    node: Builder,
    store: Arc<dyn CoordinationStore>,
    listener: TcpListener,
    ends: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let devices = Arc::new(Devices::default());
    let (loading, flushing) = ((devices.clone(), store.clone()), (devices.clone(), store.clone()));
    let cluster = node
        .namespace("device-service")
        .exclusive(64)
        .stabilize(move |change: Stabilization| load(loading.clone(), change.gained().clone()))
        .release(move |change: Release| flush(flushing.clone(), change))
        .start()
        .await?;

    let probes = Probes::new();
    probes.follow(&cluster);
    let client = Client::builder(TokioExecutor::new()).build_http();
    let service = Service { cluster: cluster.clone(), store, devices, client };
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

/// Loads the devices of slots that this instance is about to hold. Their former owners have let go of them.
async fn load((devices, store): (Arc<Devices>, Arc<dyn CoordinationStore>), gained: SlotSet) -> Result<(), StoreError> {
    try_join_all(gained.iter().map(async |slot| {
        let stored = store.read(&prefix(slot)).await?;
        let loaded = stored.entries.iter().map(|entry| {
            Ok((entry.key.to_string(), Arc::new(Mutex::new(Some(Loaded::parse(entry)?)))))
        });
        let loaded = loaded.collect::<Result<_, StoreError>>()?;
        devices.lock().await.insert(slot, loaded);
        Ok(())
    }))
    .await
    .map(drop)
}

/// Stores what is only in memory of the slots that this instance lost, and forgets their devices.
async fn flush((devices, store): (Arc<Devices>, Arc<dyn CoordinationStore>), change: Release) -> Result<(), StoreError> {
    let mut lost = devices.lock().await.clone();
    lost.retain(|slot, _| change.lost().contains(*slot));
    try_join_all(lost.values().flatten().map(async |(key, device)| {
        // Waits for the request that works on the device. Later ones see that their hold is lost.
        let mut device = device.lock().await;
        let unsaved = device.take().filter(|device| device.has_unsaved_reads && change.still_held());
        let Some(unsaved) = unsaved else { return Ok(()) };
        match store.commit(unsaved.txn(key)).await {
            // An earlier write of this instance, whose outcome was unknown, was applied after all.
            Err(error) if error.kind() == ErrorKind::GuardFailed => Ok(()),
            Err(error) => {
                *device = Some(unsaved);
                Err(error)
            }
            Ok(_) => Ok(()),
        }
    }))
    .await?;
    devices.lock().await.retain(|slot, _| !lost.contains_key(slot));
    Ok(())
}

/// What the handlers share.
struct Service {
    cluster: Clustering,
    store: Arc<dyn CoordinationStore>,
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
    let is_forwarded = version.is_some();
    for attempt in 0..ATTEMPTS {
        let (node, newest) = match service.hold(&id, version).await {
            Ok(hold) => match service.work(&hold, &id, &method, &body).await {
                Err(RequestError::NotHeld) => continue, // it moved before anything was written
                Err(error) => return Err(unavailable(error)),
                Ok(device) => return Ok(([(CONTENT_TYPE, "application/json")], device).into_response()),
            },
            Err(NotHeld::Elsewhere { node, version }) => (node, version),
            // This instance does not learn any more where the device is, so it asks the others in turn.
            Err(NotHeld::Stopping | NotHeld::NoSession) => service.another(attempt).ok_or_else(|| unavailable("alone"))?,
            Err(error) => return Err(unavailable(error)),
        };
        version = version.max(Some(newest));
        if is_forwarded {
            // The sender decides where to try next, once it knows this version.
            return Ok((StatusCode::MISDIRECTED_REQUEST, [(VERSION, newest.to_string())]).into_response());
        }
        match service.forward(&node, newest, (&method, &uri, &body)).await? {
            Some(answer) if answer.status() != StatusCode::MISDIRECTED_REQUEST => return Ok(answer),
            Some(misdirected) => version = version.max(version_in(misdirected.headers())),
            None => {}
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

    /// Reads or changes a device, and returns it as JSON. Requests for the same device wait for each other.
    async fn work(&self, hold: &Hold, id: &str, method: &Method, body: &str) -> Result<String, RequestError> {
        let key = format!("{}{id}", prefix(hold.slot()));
        let entry = self.devices.lock().await.entry(hold.slot()).or_default().entry(key.clone()).or_default().clone();
        let mut entry = entry.lock().await;
        if hold.is_lost() {
            return Err(RequestError::NotHeld);
        }
        let _work = tracing::info_span!("work", device = id, instance = %self.cluster.name());
        // If the request fails or is cancelled, nothing is left in memory, and the next one reads the store.
        let mut loaded = match entry.take() {
            Some(loaded) => loaded,
            None => self.read(&key).await.map_err(RequestError::Store)?,
        };
        if method == Method::POST {
            let before = loaded.clone();
            loaded.device.state = body.to_owned();
            loaded.device.writes += 1;
            match self.cluster.commit_as_owner(hold, loaded.txn(&key)).await {
                Ok(revision) => (loaded.revision, loaded.has_unsaved_reads) = (Some(revision), false),
                Err(error) => {
                    *entry = Some(before).filter(|_| error == RequestError::NotHeld);
                    return Err(error);
                }
            }
        } else {
            loaded.device.reads += 1;
            loaded.has_unsaved_reads = true;
        }
        Ok(json!(entry.insert(loaded).device).to_string())
    }

    async fn read(&self, key: &str) -> Result<Loaded, StoreError> {
        self.store.get(key).await?.map_or_else(|| Ok(Loaded::default()), |stored| Loaded::parse(&stored))
    }

    /// Returns another instance and the newest version that is known here; a different one for each attempt.
    fn another(&self, attempt: u32) -> Option<(Arc<Node>, Version)> {
        let view = self.cluster.discovery().newest()?;
        let others: Vec<_> = view.iter().filter(|node| node.name != *self.cluster.name()).collect();
        let node = others.get(attempt as usize % others.len().max(1))?;
        Some((Arc::clone(node), view.version()))
    }

    /// Sends the request to another instance. Returns `None` if it was not received there, or may be repeated.
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
