//! Instances in this process, requests to them, and a journal of the instances that worked on each device.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use clustering_core::{Clustering, store::CoordinationStore};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{self, MissedTickBehavior},
};
use tracing::{Subscriber, field, span};
use tracing_subscriber::{Layer, Registry, layer::Context, layer::SubscriberExt, registry::LookupSpan};

use crate::{BoxError, devices::Device, service};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A runtime that ends its tasks at their next await when it is dropped, without waiting for them.
struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// An instance with its own runtime. Dropping it crashes the instance.
pub(crate) struct Instance {
    pub(crate) uri: String,
    runtime: Background,
    end: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), BoxError>>,
}

impl Instance {
    pub(crate) async fn start(
        name: &str,
        store: Arc<dyn CoordinationStore>,
        ttl: Option<Duration>,
    ) -> Result<Self, BoxError> {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (end, ends) = oneshot::channel();
        let name = name.to_owned();
        let listener = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await??;
        let uri = format!("http://{}", listener.local_addr()?);
        let mut node = Clustering::builder(store.clone()).name(name).uri(&uri);
        if let Some(ttl) = ttl {
            node = node.ttl(ttl);
        }
        let ended = runtime.spawn(service::run(node, store, listener, async {
            let _ = ends.await;
        }));
        Ok(Instance { uri, runtime: Background(Some(runtime)), end, ended })
    }

    /// Begins to stop the instance, as SIGTERM does. The result waits for its end.
    pub(crate) fn stop(self) -> impl Future<Output = Result<(), BoxError>> {
        let _ = self.end.send(());
        async move {
            let result = self.ended.await;
            drop(self.runtime);
            result?
        }
    }
}

/// Sends requests to instances in turn, as a load balancer does.
pub(crate) struct Balancer {
    client: Client<HttpConnector, Body>,
    instances: Mutex<Vec<String>>,
}

impl Balancer {
    pub(crate) fn new() -> Arc<Self> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Arc::new(Balancer { client, instances: Mutex::default() })
    }

    pub(crate) fn add(&self, uri: &str) {
        lock(&self.instances).push(uri.to_owned());
    }

    pub(crate) fn remove(&self, uri: &str) {
        lock(&self.instances).retain(|other| other != uri);
    }

    /// Waits until a probe of the instance succeeds.
    pub(crate) async fn wait_for(&self, uri: &str, probe: &str) {
        while self.send(Method::GET, format!("{uri}/{probe}"), "").await.is_err() {
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends one request for a device to the instance whose turn it is.
    pub(crate) async fn ask(&self, turn: usize, device: &str, state: Option<&str>) -> Result<Device, String> {
        let instance = {
            let instances = lock(&self.instances);
            instances.get(turn % instances.len().max(1)).ok_or("no instance")?.clone()
        };
        let method = if state.is_some() { Method::POST } else { Method::GET };
        let answer =
            self.send(method, format!("{instance}/devices/{device}"), state.unwrap_or_default()).await?;
        serde_json::from_slice(&answer).map_err(|error| error.to_string())
    }

    async fn send(&self, method: Method, uri: String, body: &str) -> Result<Vec<u8>, String> {
        let failed = |error: &dyn fmt::Debug| format!("{uri}: {error:?}");
        let request = Request::builder().method(method).uri(&uri).body(Body::from(body.to_owned()));
        let request = request.map_err(|error| failed(&error))?;
        let answer = self.client.request(request).await.map_err(|error| failed(&error))?;
        let status = answer.status();
        let body = axum::body::to_bytes(Body::new(answer.into_body()), usize::MAX).await;
        let body = body.map_err(|error| failed(&error))?;
        if status == StatusCode::OK {
            Ok(body.to_vec())
        } else {
            Err(format!("{uri}: {status}: {}", String::from_utf8_lossy(&body)))
        }
    }
}

/// The result of many requests.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) latencies: Vec<Duration>,
    /// Errors of failed requests.
    pub(crate) failed: Vec<String>,
    /// Numbers of the acknowledged writes of each device.
    writes: BTreeMap<String, BTreeSet<u64>>,
    /// Number of writes that were acknowledged with the number of another write.
    doubled: usize,
}

impl Tally {
    fn add(&mut self, device: String, is_write: bool, took: Duration, result: Result<Device, String>) {
        match result {
            Ok(answer) => {
                self.latencies.push(took);
                if is_write && !self.writes.entry(device).or_default().insert(answer.writes) {
                    self.doubled += 1;
                }
            }
            Err(error) => self.failed.push(error),
        }
    }

    /// Returns the number of acknowledged writes.
    pub(crate) fn acknowledged(&self) -> usize {
        self.writes.values().map(BTreeSet::len).sum()
    }

    /// Returns the number of acknowledged writes that are missing from the devices.
    pub(crate) async fn lost_writes(&self, balancer: &Balancer) -> Result<usize, String> {
        let mut lost = self.doubled;
        for (device, numbers) in &self.writes {
            let stored = balancer.ask(0, device, None).await?;
            lost += numbers.range(stored.writes + 1..).count();
        }
        Ok(lost)
    }

    /// Returns the latency quantile for this share of the requests.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let place = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// Requests at a fixed rate, whether or not earlier ones were answered: reads and writes of each device in turn.
pub(crate) struct Load {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<Tally>,
}

impl Load {
    pub(crate) fn start(balancer: Arc<Balancer>, devices: Vec<String>, rate: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(send_all(balancer, devices, rate, is_over.clone()));
        Load { is_over, task }
    }

    /// Stops sending requests, and waits for the answers to those that were sent.
    pub(crate) async fn end(self) -> Result<Tally, BoxError> {
        self.is_over.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

async fn send_all(
    balancer: Arc<Balancer>,
    devices: Vec<String>,
    rate: u32,
    is_over: Arc<AtomicBool>,
) -> Tally {
    let mut ticks = time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut tally, mut running) = (Tally::default(), JoinSet::new());
    for number in 0.. {
        ticks.tick().await;
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let (balancer, round) = (balancer.clone(), number / devices.len());
        let device = devices[number % devices.len()].clone();
        running.spawn(async move {
            let began = Instant::now();
            let state = (round % 2 == 0).then(|| number.to_string());
            let result = balancer.ask(number + round, &device, state.as_deref()).await;
            (device, state.is_some(), began.elapsed(), result)
        });
        while let Some(Ok((device, is_write, took, result))) = running.try_join_next() {
            tally.add(device, is_write, took, result);
        }
    }
    while let Some(Ok((device, is_write, took, result))) = running.join_next().await {
        tally.add(device, is_write, took, result);
    }
    tally
}

/// A journal of which instance worked on which device, from the spans of the service.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<BTreeMap<String, Entry>>>);

#[derive(Clone, Debug, Default)]
struct Entry {
    /// Number of requests that each instance works on now.
    working: BTreeMap<String, usize>,
    /// The last instance that worked on the device, and the time.
    last: Option<(String, Instant)>,
    verdict: Verdict,
}

/// Statistics of one or more devices.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdict {
    /// Requests that were worked on while another instance worked on the same device.
    pub(crate) overlaps: usize,
    /// Number of times that the work on a device moved to another instance.
    pub(crate) moves: usize,
    /// Longest time between the last request for a device at one instance and the first request at the next instance.
    pub(crate) longest_gap: Duration,
}

impl Journal {
    /// Returns the journal of this process. Recording starts with the first call.
    pub(crate) fn of_process() -> Journal {
        static JOURNAL: OnceLock<Journal> = OnceLock::new();
        let start = || {
            let journal = Journal::default();
            let _ = tracing::subscriber::set_global_default(Registry::default().with(journal.clone()));
            journal
        };
        JOURNAL.get_or_init(start).clone()
    }

    pub(crate) fn verdict(&self, devices: &[String]) -> Verdict {
        let entries = lock(&self.0);
        let verdicts = devices.iter().filter_map(|device| entries.get(device)).map(|entry| entry.verdict);
        verdicts.fold(Verdict::default(), |all, one| Verdict {
            overlaps: all.overlaps + one.overlaps,
            moves: all.moves + one.moves,
            longest_gap: all.longest_gap.max(one.longest_gap),
        })
    }

    pub(crate) fn begin(&self, device: &str, instance: &str, now: Instant) {
        let mut entries = lock(&self.0);
        let Entry { working, last, verdict } = entries.entry(device.to_owned()).or_default();
        if working.iter().any(|(other, count)| other != instance && *count > 0) {
            verdict.overlaps += 1;
        }
        if let Some((_, when)) = last.as_ref().filter(|(other, _)| other != instance) {
            verdict.moves += 1;
            verdict.longest_gap = verdict.longest_gap.max(now.saturating_duration_since(*when));
        }
        *working.entry(instance.to_owned()).or_default() += 1;
        *last = Some((instance.to_owned(), now));
    }

    pub(crate) fn end(&self, device: &str, instance: &str, now: Instant) {
        let mut entries = lock(&self.0);
        let entry = entries.entry(device.to_owned()).or_default();
        if let Some(count) = entry.working.get_mut(instance) {
            *count -= 1;
        }
        entry.last = Some((instance.to_owned(), now));
    }
}

/// The fields of a span `work`.
#[derive(Default)]
struct Work {
    device: String,
    instance: String,
}

impl field::Visit for Work {
    fn record_str(&mut self, field: &field::Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        match field.name() {
            "device" => self.device = format!("{value:?}"),
            "instance" => self.instance = format!("{value:?}"),
            _ => {}
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_span() && metadata.name() == "work"
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut work = Work::default();
        attributes.record(&mut work);
        self.begin(&work.device, &work.instance, Instant::now());
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(work);
        }
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        if let Some(Work { device, instance }) = span.extensions().get() {
            self.end(device, instance, Instant::now());
        }
    }
}
