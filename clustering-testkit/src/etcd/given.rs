use async_trait::async_trait;
use etcd_client::{Client, ConnectOptions};

use super::{Etcd, EtcdError, Metrics, SOURCE_VARIABLE, http, server::CALL_TIMEOUT};

/// Servers that were started before the tests and keep running after them.
#[derive(Debug)]
pub(super) struct Given {
    endpoints: Vec<String>,
}

impl Given {
    pub(super) fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints }
    }

    fn refuse(&self, what: &str) -> Result<(), EtcdError> {
        let why = format!(
            "these servers were given by {SOURCE_VARIABLE}, so tests must not stop them: unset the variable and use an \
             etcd binary ({})",
            super::binary::HOW_TO_GET_ONE
        );
        Err(EtcdError::new(format!("{what} {}", self.endpoints.join(",")), why))
    }
}

#[async_trait]
impl Etcd for Given {
    fn endpoints(&self) -> Vec<String> {
        self.endpoints.clone()
    }

    async fn client(&self) -> Result<Client, EtcdError> {
        let options = ConnectOptions::new().with_timeout(CALL_TIMEOUT).with_connect_timeout(CALL_TIMEOUT);
        let client = Client::connect(&self.endpoints, Some(options)).await;
        client.map_err(|error| EtcdError::new(format!("connecting to {}", self.endpoints.join(",")), error))
    }

    async fn metrics(&self) -> Result<Metrics, EtcdError> {
        let what = || format!("reading the metrics of {}", self.endpoints.join(","));
        let [endpoint] = &self.endpoints[..] else {
            return Err(EtcdError::new(
                what(),
                "each of several members has its own metrics, give one endpoint only",
            ));
        };
        let text = http::get(endpoint.trim_start_matches("http://"), "/metrics", CALL_TIMEOUT).await;
        Metrics::parse(&text.map_err(|error| EtcdError::new(what(), error))?)
            .map_err(|error| EtcdError::new(what(), error))
    }

    async fn pause(&self) -> Result<(), EtcdError> {
        self.refuse("pausing")
    }
    async fn resume(&self) -> Result<(), EtcdError> {
        self.refuse("resuming")
    }
    async fn kill(&self) -> Result<(), EtcdError> {
        self.refuse("killing")
    }
    async fn restart(&self) -> Result<(), EtcdError> {
        self.refuse("restarting")
    }
    async fn wipe(&self) -> Result<(), EtcdError> {
        self.refuse("wiping")
    }
}
