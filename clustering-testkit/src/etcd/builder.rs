use std::{
    ffi::OsString,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{EtcdCluster, EtcdError, EtcdServer, binary};

/// How often a server tries other ports when a program that is no test was faster.
const TRIES: usize = 4;

/// How a test server is to run: [`EtcdServer::builder`].
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
    /// Runs this binary. By default it is the one that `CLUSTERING_ETCD_BIN` names, else the `etcd` on the `PATH`.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Adds arguments, which win over those that the fixture sets itself.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Serves clients at this address of the machine too, at the same port: see
    /// [`endpoint_at`](EtcdServer::endpoint_at). By default it is the loopback interface alone.
    pub fn also_at(mut self, address: impl Into<IpAddr>) -> Self {
        self.also_at.push(address.into());
        self
    }

    /// Serves clients over TLS with this certificate and key (PEM files). The endpoints begin with `https://` then. The
    /// certificate must be good for `127.0.0.1`, or for the name that the test connects to. Etcd reads the files anew
    /// for each connection.
    pub fn tls(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let client_ca = self.tls.and_then(|tls| tls.client_ca);
        self.tls = Some(Tls { cert: cert.into(), key: key.into(), client_ca });
        self
    }

    /// Demands a certificate of each client that this authority signed (a PEM file).
    ///
    /// # Panics
    ///
    /// Without [`tls`](Self::tls) before it.
    pub fn client_ca(mut self, ca: impl Into<PathBuf>) -> Self {
        let tls = self.tls.as_mut().expect("clients show certificates over TLS only: call `tls` first");
        tls.client_ca = Some(ca.into());
        self
    }

    /// Refuses writes when the data takes more bytes than this.
    pub fn quota(self, bytes: u64) -> Self {
        self.args([format!("--quota-backend-bytes={bytes}")])
    }

    /// How often a leader says that it lives, and how long the others wait before they elect another; by default etcd's
    /// own, 100 ms and 1 s. Shorter ones make elections faster, and leases too: etcd's smallest TTL is 1.5 times the
    /// election timeout, in whole seconds.
    pub fn elections(self, heartbeat: Duration, timeout: Duration) -> Self {
        self.args([
            format!("--heartbeat-interval={}", heartbeat.as_millis()),
            format!("--election-timeout={}", timeout.as_millis()),
        ])
    }

    /// Starts a server, and returns when it answers.
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

    /// Starts a cluster of so many members, and returns when all of them are healthy.
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
            EtcdError::new("looking for an etcd to test with", format!("none; {}", binary::HOW_TO_GET_ONE))
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
