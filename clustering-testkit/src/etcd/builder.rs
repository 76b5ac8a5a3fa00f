use std::{
    ffi::OsString,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{EtcdCluster, EtcdError, EtcdServer, binary};

/// Number of retries with other ports after another program has taken a reserved port.
const TRIES: usize = 4;

/// Options of a test server. Created by [`EtcdServer::builder`].
#[derive(Clone, Debug, Default)]
pub struct EtcdBuilder {
    binary: Option<PathBuf>,
    pub(super) args: Vec<OsString>,
    pub(super) also_at: Vec<IpAddr>,
    pub(super) tls: Option<Tls>,
}

#[derive(Clone, Debug)]
pub(super) struct Tls {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl EtcdBuilder {
    /// Sets the binary to run. The default is the one named by `CLUSTERING_ETCD_BIN`, else the `etcd` on the `PATH`.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Adds command-line arguments. They override the fixture's own.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Also serves clients at this address of the machine, at the same port: see
    /// [`endpoint_at`](EtcdServer::endpoint_at). By default the server listens on the loopback interface only.
    pub fn also_at(mut self, address: impl Into<IpAddr>) -> Self {
        self.also_at.push(address.into());
        self
    }

    /// Serves clients over TLS with this certificate and key (PEM files), so the endpoints start with `https://`. The
    /// certificate must be valid for `127.0.0.1`, or for the name that the test connects to. Etcd reads the files again
    /// for each connection.
    pub fn tls(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let client_ca = self.tls.and_then(|tls| tls.client_ca);
        self.tls = Some(Tls { cert: cert.into(), key: key.into(), client_ca });
        self
    }

    /// Requires clients to present a certificate signed by this authority (a PEM file).
    ///
    /// # Panics
    ///
    /// Panics unless [`tls`](Self::tls) was called before.
    pub fn client_ca(mut self, ca: impl Into<PathBuf>) -> Self {
        let tls = self.tls.as_mut().expect("client certificates require TLS: call `tls` first");
        tls.client_ca = Some(ca.into());
        self
    }

    /// Makes the server refuse writes once its data exceeds this many bytes.
    pub fn quota(self, bytes: u64) -> Self {
        self.args([format!("--quota-backend-bytes={bytes}")])
    }

    /// Sets the interval of the leader's heartbeats, and the time without a heartbeat after which the other members
    /// elect a new leader. The defaults are etcd's own, 100 ms and 1 s. Shorter times make elections faster and allow
    /// shorter leases: etcd's smallest TTL is 1.5 times the election timeout, in whole seconds.
    pub fn elections(self, heartbeat: Duration, timeout: Duration) -> Self {
        self.args([
            format!("--heartbeat-interval={}", heartbeat.as_millis()),
            format!("--election-timeout={}", timeout.as_millis()),
        ])
    }

    /// Starts a server and waits until it answers.
    pub async fn start(self) -> Result<EtcdServer, EtcdError> {
        let binary = self.found()?;
        let mut tries = TRIES;
        loop {
            match EtcdServer::launch(&self, &binary).await {
                Err(error) if error.is_port_taken() && tries > 0 => tries -= 1,
                done => return done,
            }
        }
    }

    /// Starts a cluster with this number of members and waits until all of them are healthy.
    pub async fn start_cluster(self, members: usize) -> Result<EtcdCluster, EtcdError> {
        let binary = self.found()?;
        let mut tries = TRIES;
        loop {
            match EtcdCluster::launch(&self, &binary, members).await {
                Err(error) if error.is_port_taken() && tries > 0 => tries -= 1,
                done => return done,
            }
        }
    }

    fn found(&self) -> Result<PathBuf, EtcdError> {
        let found = self.binary.clone().or_else(binary::find);
        found.ok_or_else(|| {
            EtcdError::new("looking for an etcd binary", format!("not found; {}", binary::HOW_TO_GET_ONE))
        })
    }
}

impl Tls {
    pub(super) fn args(&self) -> Vec<OsString> {
        let flag = |name: &str, path: &Path| {
            let mut flag = OsString::from(name);
            flag.push(path);
            flag
        };
        let mut args = vec![flag("--cert-file=", &self.cert), flag("--key-file=", &self.key)];
        if let Some(ca) = &self.client_ca {
            args.extend([flag("--trusted-ca-file=", ca), "--client-cert-auth".into()]);
        }
        args
    }
}
