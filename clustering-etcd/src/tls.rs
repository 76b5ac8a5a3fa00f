//! What secures the connections: settings, and what is read of them for each new connection.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{PemObject, SectionKind},
    },
};

use crate::ConfigError;

/// How connections to etcd are secured. By default the server must have a certificate of a CA that the system trusts.
///
/// ```
/// use clustering_etcd::{EtcdConfig, Pem, Tls};
///
/// let tls = Tls::new()
///     .ca(Pem::file("/etc/etcd/ca.crt"))
///     .identity(Pem::file("/etc/etcd/client.crt"), Pem::file("/etc/etcd/client.key"));
/// let mut config = EtcdConfig::new(["etcd-1:2379", "etcd-2:2379", "etcd-3:2379"])?;
/// config.tls = Some(tls);
/// # Ok::<(), clustering_etcd::ConfigError>(())
/// ```
///
/// # Certificates that change
///
/// Files are read for every new connection, so a certificate that was renewed on disk is used from the next connection
/// on, without a restart. A connection that is open stays open: etcd does not ask again. If a file cannot be used then,
/// perhaps because it is just being written, the store says so in a warning and goes on with what it read last.
///
/// # What is checked
///
/// The server's certificate always is: its authority, its time, and that it is for the name or address, as an alternative
/// name (a common name is not enough). Lists of revoked certificates are not looked at. TLS is 1.2 or 1.3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// The certificates of the CAs that the server's may be of. `None`, the default, for those that the system trusts
    /// (where `SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded).
    pub ca: Option<Pem>,
    /// What the client proves its identity with, for an etcd with `--client-cert-auth`. If etcd has users and no
    /// [`Credentials`](crate::Credentials) are given, the certificate's common name is the user.
    pub identity: Option<Identity>,
    /// The name or IP address that the server's certificates must be for. `None`, the default, for the host of the
    /// endpoint.
    pub server_name: Option<String>,
}

/// A certificate and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, followed by those between it and the CA's if there are any.
    pub certificate: Pem,
    /// Its key: PKCS #8, PKCS #1 or SEC1, not encrypted.
    pub key: Pem,
}

/// Something in PEM: a file that holds it, or the bytes. Bytes show in no output, so a key is safe in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(Source);

#[derive(Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Tls {
    /// The defaults: the CAs that the system trusts, no certificate of the client's own.
    pub fn new() -> Self {
        Tls::default()
    }

    /// The CAs that the server's certificate may be of, instead of those that the system trusts.
    #[must_use]
    pub fn ca(mut self, certificates: Pem) -> Self {
        self.ca = Some(certificates);
        self
    }

    /// What the client proves its identity with.
    #[must_use]
    pub fn identity(mut self, certificate: Pem, key: Pem) -> Self {
        self.identity = Some(Identity { certificate, key });
        self
    }

    /// The name that the server's certificates must be for, instead of the host of the endpoint.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// What the certificate of the server at that host must be for.
    pub(crate) fn name_of(&self, host: &str) -> Result<ServerName<'static>, ConfigError> {
        let (what, name) = match &self.server_name {
            Some(name) => ("tls.server_name", name.as_str()),
            None => ("endpoints", host),
        };
        ServerName::try_from(name.to_owned()).map_err(|_| {
            ConfigError::new(what, name, "a certificate can only be for a DNS name or an IP address")
        })
    }

    /// Reads everything, as it is now.
    pub(crate) fn load(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        // The process' own provider, where it has chosen one (such as a certified one).
        let provider =
            CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::new("tls", self, error.to_string()))?
            .with_root_certificates(self.roots()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.load()?;
                builder.with_client_auth_cert(chain, key).map_err(|error| identity.unfit(&error))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, ConfigError> {
        const WHAT: &str = "tls.ca";
        let mut roots = RootCertStore::empty();
        let certificates = match &self.ca {
            Some(pem) => pem.certificates(WHAT)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let (_, ignored) = roots.add_parsable_certificates(certificates);
        match (&self.ca, roots.is_empty()) {
            (Some(pem), true) => {
                Err(pem.wrong(WHAT, "none of its certificates is a valid X.509 one of version 3"))
            }
            (None, true) => {
                let rule = "the system has no CA certificates: give those of etcd's CA, or install them \
                            (Debian: ca-certificates)";
                Err(ConfigError::new(WHAT, None::<Pem>, rule))
            }
            (Some(pem), false) if ignored > 0 => {
                tracing::warn!(ca = ?pem, ignored, "certificates that are not valid: left out");
                Ok(roots)
            }
            _ => Ok(roots),
        }
    }
}

impl Identity {
    const CERTIFICATE: &str = "tls.identity.certificate";
    const KEY: &str = "tls.identity.key";

    fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConfigError> {
        Ok((self.certificate.certificates(Self::CERTIFICATE)?, self.key.key(Self::KEY)?))
    }

    /// Why certificate and key, each one in itself, cannot be used together.
    fn unfit(&self, error: &rustls::Error) -> ConfigError {
        match error {
            rustls::Error::InconsistentKeys(_) => self
                .key
                .wrong(Self::KEY, format!("it is not the key of the certificate {:?}", self.certificate)),
            rustls::Error::InvalidCertificate(_) => self
                .certificate
                .wrong(Self::CERTIFICATE, "its first certificate is not a valid X.509 one of version 3"),
            _ => self.key.wrong(Self::KEY, "a key is RSA, ECDSA on P-256 or P-384, or Ed25519"),
        }
    }
}

impl Pem {
    /// What that file holds whenever a connection is made.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Pem(Source::File(path.into()))
    }

    /// Those bytes.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Pem(Source::Bytes(bytes.into()))
    }

    /// The file, if it is in one.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Source::File(path) => Some(path),
            Source::Bytes(_) => None,
        }
    }

    fn certificates(&self, what: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let found: Vec<_> = self
            .sections(what)?
            .into_iter()
            .filter(|(kind, _)| *kind == SectionKind::Certificate)
            .map(|(_, der)| CertificateDer::from(der))
            .collect();
        match found.is_empty() {
            true => Err(self.wrong(what, "it holds no certificate (-----BEGIN CERTIFICATE-----)")),
            false => Ok(found),
        }
    }

    fn key(&self, what: &str) -> Result<PrivateKeyDer<'static>, ConfigError> {
        let text = self.read(what)?;
        // The parser knows neither of the two ways to encrypt one, and finds nothing in it, or damage.
        let has = |mark: &str| text.windows(mark.len()).any(|part| part == mark.as_bytes());
        if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
            let rule = "the key is encrypted, and there is nobody to ask for its password: decrypt it (openssl pkey)";
            return Err(self.wrong(what, rule));
        }
        let mut sections = self.sections(what)?.into_iter();
        sections
            .find_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der))
            .ok_or_else(|| self.wrong(what, "it holds no private key (-----BEGIN PRIVATE KEY-----)"))
    }

    /// What it holds, of the kinds that are known.
    fn sections(&self, what: &str) -> Result<Vec<(SectionKind, Vec<u8>)>, ConfigError> {
        let text = self.read(what)?;
        if text.iter().all(u8::is_ascii_whitespace) {
            return Err(self.wrong(what, "it is empty"));
        }
        // The parser's own words show what it stumbled over, which may be a piece of a key.
        <(SectionKind, Vec<u8>)>::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|_| {
            self.wrong(what, "it is damaged: a section of PEM begins, but does not go on as one must")
        })
    }

    fn read(&self, what: &str) -> Result<Vec<u8>, ConfigError> {
        match &self.0 {
            Source::Bytes(bytes) => Ok(bytes.clone()),
            Source::File(path) => std::fs::read(path)
                .map_err(|error| self.wrong(what, format!("the file cannot be read: {error}"))),
        }
    }

    fn wrong(&self, what: &str, rule: impl Into<String>) -> ConfigError {
        match &self.0 {
            Source::File(path) => ConfigError::new(what, path, rule),
            Source::Bytes(_) => ConfigError::hidden(what, rule),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(path) => path.fmt(f),
            Source::Bytes(_) => f.write_str("Pem(hidden)"),
        }
    }
}

/// The settings with what was last read of them.
pub(crate) struct Security {
    tls: Tls,
    last: Mutex<Arc<ClientConfig>>,
}

impl Security {
    /// For settings that can be loaded.
    pub(crate) fn new(tls: Tls) -> Result<Self, ConfigError> {
        let last = Mutex::new(tls.load()?);
        Ok(Security { tls, last })
    }

    /// For a new connection: what the files hold now or, where that cannot be used, what they held before.
    pub(crate) async fn config(self: Arc<Self>) -> Arc<ClientConfig> {
        let before = Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner));
        // Reading files may block, and the system's CAs are many.
        let now = tokio::task::spawn_blocking(move || self.reload()).await;
        now.unwrap_or(before)
    }

    fn reload(&self) -> Arc<ClientConfig> {
        let loaded = self.tls.load();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Ok(config) => *last = config,
            Err(error) => {
                tracing::warn!(%error, "TLS goes on with the certificates read before");
            }
        }
        Arc::clone(&last)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Made {
        certificate: String,
        key: String,
    }

    fn made() -> Made {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["etcd".to_owned()]).unwrap().self_signed(&key).unwrap();
        Made { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn tls(certificate: &str, key: &str) -> Tls {
        Tls::new().ca(Pem::bytes(made().certificate)).identity(Pem::bytes(certificate), Pem::bytes(key))
    }

    #[track_caller]
    fn refused(tls: &Tls, what: &str, says: &str) {
        let error = tls.load().unwrap_err();
        assert_eq!(error.what(), what, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn what_is_right_is_loaded() {
        let Made { certificate, key } = made();
        tls(&certificate, &key).load().unwrap();
        // Both in one, as some tools write it.
        let both = format!("{certificate}{key}");
        tls(&both, &both).load().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named_and_not_shown() {
        let (Made { certificate, key }, other) = (made(), made());
        let (cert_field, key_field) = (Identity::CERTIFICATE, Identity::KEY);
        let cut = |pem: &str| pem[..pem.len() / 2].to_owned();
        let garbled = key.replacen("\nM", "\n?!", 1);
        assert_ne!(garbled, key);
        // The header of one thing on the content of another.
        let disguised = key.replace("PRIVATE KEY", "CERTIFICATE");
        let nonsense = "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n";
        for (certificate, key, what, says) in [
            (certificate.as_str(), "", key_field, "it is empty"),
            (" \n", &key, cert_field, "it is empty"),
            (&certificate, "hunter2", key_field, "holds no private key"),
            ("hunter2", &key, cert_field, "holds no certificate"),
            (&key, &key, cert_field, "holds no certificate"),
            (&certificate, &certificate, key_field, "holds no private key"),
            (&certificate, &cut(&key), key_field, "it is damaged"),
            (&cut(&certificate), &key, cert_field, "it is damaged"),
            (&certificate, &garbled, key_field, "it is damaged"),
            (&certificate, nonsense, key_field, "a key is RSA, ECDSA"),
            (&disguised, &key, cert_field, "not a valid X.509"),
            (&certificate, &other.key, key_field, "not the key of the certificate"),
            (
                &certificate,
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----\n",
                key_field,
                "the key is encrypted",
            ),
            (
                &certificate,
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\naHVudGVyMg==\n\
                 -----END RSA PRIVATE KEY-----\n",
                key_field,
                "the key is encrypted",
            ),
        ] {
            let tls = tls(certificate, key);
            refused(&tls, what, says);
            let error = tls.load().unwrap_err();
            let shown = format!("{error} {error:?} {tls:?}");
            for secret in key.lines().chain(certificate.lines()).filter(|line| line.len() > 5) {
                assert!(!shown.contains(secret) || secret.starts_with("-----"), "{shown} shows {secret}");
            }
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_ca_that_is_none_is_refused() {
        let Made { key, .. } = made();
        refused(&Tls::new().ca(Pem::bytes(key.as_str())), "tls.ca", "holds no certificate");
        let disguised = key.replace("PRIVATE KEY", "CERTIFICATE");
        refused(&Tls::new().ca(Pem::bytes(disguised)), "tls.ca", "none of its certificates is a valid");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        refused(
            &Tls::new().ca(Pem::file("/no/such/ca.crt")),
            "tls.ca",
            "tls.ca of \"/no/such/ca.crt\" cannot be used: the file cannot be read: No such file",
        );
    }

    #[tokio::test]
    async fn files_are_read_anew_and_a_bad_one_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        std::fs::write(&path, made().certificate).unwrap();
        let security = Arc::new(Security::new(Tls::new().ca(Pem::file(&path))).unwrap());
        let first = Arc::clone(&security).config().await;
        std::fs::write(&path, made().certificate).unwrap();
        let second = Arc::clone(&security).config().await;
        assert!(!Arc::ptr_eq(&first, &second), "the file was not read again");
        std::fs::write(&path, "half of it").unwrap();
        let third = Arc::clone(&security).config().await;
        assert!(Arc::ptr_eq(&second, &third), "what cannot be used was");
    }
}
