use std::{
    collections::HashMap,
    env, fmt,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use async_trait::async_trait;
use etcd_client::{Client, ConnectOptions};
use futures_util::StreamExt;
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    bollard::{
        Docker,
        models::{NetworkConnectRequest, NetworkDisconnectRequest, PortBinding},
        query_parameters::{KillContainerOptions, StartContainerOptions, WaitContainerOptions},
    },
    core::{IntoContainerPort, client::docker_client_instance},
    runners::AsyncRunner,
};

use super::{
    Etcd, EtcdError, Metrics, http,
    server::{CALL_TIMEOUT, INTERVAL, PATIENCE},
};
use crate::process::{FOLDER_PREFIX, Kept, Port, keep, random, release};

/// Environment variable with the image to run, as `name:tag`. An image that Docker already has is not pulled.
pub const IMAGE_VARIABLE: &str = "CLUSTERING_ETCD_IMAGE";

/// Upstream's image, used unless [`IMAGE_VARIABLE`] names another.
pub const DEFAULT_IMAGE: &str = "quay.io/coreos/etcd:v3.5.21";

/// Label of all containers started by tests. Its value is the folder for temporary files (`TMPDIR`, or `/tmp`), so that
/// a test run with its own temporary folder can identify its containers.
pub const CONTAINER_LABEL: &str = "clustering-testkit";

/// Network that Docker attaches containers to by default.
const NETWORK: &str = "bridge";
const CLIENT_PORT: u16 = 2379;

/// An etcd for a test in a container of the local Docker engine, with its own port on the loopback interface. The
/// container is removed when this is dropped, and also if the test process ends in any other way (then with the
/// `docker` command).
///
/// It supports the same operations as [`EtcdServer`](super::EtcdServer), through [`Etcd`], and can also be
/// [disconnected](Self::cut_off) from the network. It takes longer to start, about a second.
pub struct EtcdContainer {
    container: Mutex<Option<ContainerAsync<GenericImage>>>,
    docker: Docker,
    name: String,
    image: String,
    port: Port,
    kept: Kept,
}

impl EtcdContainer {
    /// Starts a server of the image named by `CLUSTERING_ETCD_IMAGE`, else of upstream's image, and waits until it
    /// answers.
    pub async fn start() -> Result<Self, EtcdError> {
        let named = env::var(IMAGE_VARIABLE).ok().filter(|image| !image.is_empty());
        Self::start_image(named.as_deref().unwrap_or(DEFAULT_IMAGE)).await
    }

    /// Starts a server of this image (`name:tag`), which must have etcd at `/usr/local/bin/etcd` like upstream's.
    pub async fn start_image(image: &str) -> Result<Self, EtcdError> {
        let what = || format!("starting a container of {image}");
        let name = format!("{FOLDER_PREFIX}{}-{:016x}", std::process::id(), random());
        let port = Port::reserve().map_err(|error| EtcdError::new(what(), error))?;
        let kept = Kept::Container(name.clone());
        keep(&kept).map_err(|error| EtcdError::new(what(), error))?;
        let docker = docker_client_instance().await.map_err(|error| no_engine(&what(), error))?;
        docker.ping().await.map_err(|error| no_engine(&what(), error))?;
        let etcd = Self { container: Mutex::default(), docker, name, image: image.to_owned(), port, kept };
        etcd.create().await?;
        etcd.wait_until_it_answers().await?;
        Ok(etcd)
    }

    async fn create(&self) -> Result<(), EtcdError> {
        let (name, tag) = self.image.rsplit_once(':').unwrap_or((&self.image, "latest"));
        let port = self.port.number();
        let binding = PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port.to_string()) };
        let created = GenericImage::new(name, tag)
            .with_exposed_port(CLIENT_PORT.tcp())
            .with_container_name(&self.name)
            .with_label(CONTAINER_LABEL, env::temp_dir().to_string_lossy())
            .with_host_config_modifier(move |config| {
                // Publish the port to this machine only, at the same number after each start.
                config.publish_all_ports = Some(false);
                let bindings = HashMap::from([(format!("{CLIENT_PORT}/tcp"), Some(vec![binding.clone()]))]);
                config.port_bindings = Some(bindings);
            })
            .with_cmd([
                "/usr/local/bin/etcd".to_owned(),
                "--data-dir=/etcd-data".to_owned(),
                format!("--listen-client-urls=http://0.0.0.0:{CLIENT_PORT}"),
                format!("--advertise-client-urls={}", self.endpoint()),
                "--logger=zap".to_owned(),
                "--log-level=info".to_owned(),
            ])
            .start()
            .await;
        let created = created.map_err(|error| {
            let why = format!(
                "{error}. If the image cannot be pulled, build one with scripts/etcd-image of the clustering \
                 repository and set {IMAGE_VARIABLE} to its name"
            );
            EtcdError::new(format!("starting {self:?}"), why)
        })?;
        *self.container.lock().unwrap_or_else(PoisonError::into_inner) = Some(created);
        Ok(())
    }

    async fn wait_until_it_answers(&self) -> Result<(), EtcdError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match http::get(&self.port.address(), "/version", left.max(INTERVAL)).await {
                Ok(_) => return Ok(()),
                Err(error) if left.is_zero() || !self.is_running().await? => {
                    return Err(self.error("starting", error).with_log(self.log().await));
                }
                Err(_) => tokio::time::sleep(INTERVAL).await,
            }
        }
    }

    async fn is_running(&self) -> Result<bool, EtcdError> {
        let container = self.docker.inspect_container(&self.name, None).await;
        let container = container.map_err(|error| self.error("inspecting", error))?;
        Ok(container.state.and_then(|state| state.running).unwrap_or_default())
    }

    async fn is_paused(&self) -> Result<bool, EtcdError> {
        let container = self.docker.inspect_container(&self.name, None).await;
        let container = container.map_err(|error| self.error("inspecting", error))?;
        Ok(container.state.and_then(|state| state.paused).unwrap_or_default())
    }

    /// Returns the client endpoint, such as `http://127.0.0.1:23456`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// Returns the name of the container.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns etcd's version, such as `3.5.1`.
    pub async fn version(&self) -> Result<String, EtcdError> {
        let what = "asking for the version of";
        let text = http::get(&self.port.address(), "/version", CALL_TIMEOUT).await;
        let text = text.map_err(|error| self.error(what, error))?;
        let says: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| self.error(what, format!("{error}: {text}")))?;
        let version = says["etcdserver"].as_str().map(str::to_owned);
        version.ok_or_else(|| self.error(what, format!("the reply has no version: {text}")))
    }

    /// Returns the last lines of the server's log.
    pub async fn log(&self) -> String {
        let output = std::process::Command::new("docker").args(["logs", "--tail", "20", &self.name]).output();
        match output {
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
            Err(error) => format!("docker logs: {error}"),
        }
    }

    /// Disconnects the container from its network: no traffic passes in either direction, and its port is closed. The
    /// server and its clock keep running.
    pub async fn cut_off(&self) -> Result<(), EtcdError> {
        let request = NetworkDisconnectRequest { container: self.name.clone(), force: Some(true) };
        let done = self.docker.disconnect_network(NETWORK, request).await;
        done.map_err(|error| self.error("cutting off", error))
    }

    /// Connects the container to its network again after [`cut_off`](Self::cut_off).
    pub async fn reconnect(&self) -> Result<(), EtcdError> {
        let request = NetworkConnectRequest { container: self.name.clone(), endpoint_config: None };
        let done = self.docker.connect_network(NETWORK, request).await;
        done.map_err(|error| self.error("reconnecting", error))?;
        self.wait_until_it_answers().await
    }

    async fn remove(&self) -> Result<(), EtcdError> {
        let container = self.container.lock().unwrap_or_else(PoisonError::into_inner).take();
        match container {
            None => Ok(()),
            Some(container) => container.rm().await.map_err(|error| self.error("removing", error)),
        }
    }

    fn error(&self, what: &str, why: impl fmt::Display) -> EtcdError {
        EtcdError::new(format!("{what} {self:?}"), why)
    }
}

#[async_trait]
impl Etcd for EtcdContainer {
    fn endpoints(&self) -> Vec<String> {
        vec![self.endpoint()]
    }

    async fn client(&self) -> Result<Client, EtcdError> {
        let options = ConnectOptions::new().with_timeout(CALL_TIMEOUT).with_connect_timeout(CALL_TIMEOUT);
        let client = Client::connect([self.port.address()], Some(options)).await;
        client.map_err(|error| self.error("connecting to", error))
    }

    async fn metrics(&self) -> Result<Metrics, EtcdError> {
        let what = "reading the metrics of";
        let text = http::get(&self.port.address(), "/metrics", CALL_TIMEOUT).await;
        let text = text.map_err(|error| self.error(what, error))?;
        Metrics::parse(&text).map_err(|error| self.error(what, error))
    }

    async fn pause(&self) -> Result<(), EtcdError> {
        self.docker.pause_container(&self.name).await.map_err(|error| self.error("pausing", error))
    }

    async fn resume(&self) -> Result<(), EtcdError> {
        self.docker.unpause_container(&self.name).await.map_err(|error| self.error("resuming", error))
    }

    async fn kill(&self) -> Result<(), EtcdError> {
        let what = "killing";
        if !self.is_running().await? {
            return Ok(());
        }
        // Docker does not kill a paused container.
        if self.is_paused().await? {
            self.resume().await?;
        }
        let killed = self.docker.kill_container(&self.name, None::<KillContainerOptions>).await;
        killed.map_err(|error| self.error(what, error))?;
        // A killed container ends with an exit code that is reported as an error. Only the fact that it has ended
        // matters.
        let _ = self.docker.wait_container(&self.name, None::<WaitContainerOptions>).next().await;
        match self.is_running().await? {
            false => Ok(()),
            true => Err(self.error(what, "it is still running")),
        }
    }

    async fn restart(&self) -> Result<(), EtcdError> {
        self.kill().await?;
        let started = self.docker.start_container(&self.name, None::<StartContainerOptions>).await;
        started.map_err(|error| self.error("restarting", error))?;
        self.wait_until_it_answers().await
    }

    async fn wipe(&self) -> Result<(), EtcdError> {
        self.remove().await?;
        self.create().await?;
        self.wait_until_it_answers().await
    }
}

impl Drop for EtcdContainer {
    fn drop(&mut self) {
        let container = self.container.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(container) = container else { return };
        let kept = self.kept.clone();
        // Use a separate runtime, because the current one may be shutting down, or there may be none.
        let removing = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let removed = runtime.is_ok_and(|runtime| runtime.block_on(container.rm()).is_ok());
            // If this fails, the guardian tries again.
            if removed {
                release(&kept);
            }
        });
        let _ = removing.join();
    }
}

impl fmt::Debug for EtcdContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} at {}", self.name, self.image, self.endpoint())
    }
}

fn no_engine(what: &str, error: impl fmt::Display) -> EtcdError {
    EtcdError::new(
        what,
        format!("the Docker engine does not answer ({error}): start it, or use a local etcd binary"),
    )
}
