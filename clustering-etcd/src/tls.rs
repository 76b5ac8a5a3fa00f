//! TLS settings, and the certificates and keys that are loaded for each new connection.

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

/// TLS settings. By default, the server must have a certificate of a CA that the system trusts.
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
/// # Renewing certificates
///
/// Files are read for each new connection, so that a renewed certificate is used by the next connection, without a
/// restart. Open connections stay open, since etcd does not check certificates again. If a file cannot be used, perhaps
/// because it is being written, the store logs a warning and uses the contents that it read last.
///
/// # Verification
///
/// The server's certificate is always verified: its CA, its validity period, and its alternative names, one of which
/// must match the host (a common name does not suffice). Revocation lists are not checked. TLS versions are 1.2 and
/// 1.3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// Certificates of the CAs that are trusted to issue the server's certificate. `None`, the default, means those
    /// that the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are respected).
    pub ca: Option<Pem>,
    /// Client certificate, for an etcd with `--client-cert-auth`. If etcd has users and no
    /// [`Credentials`](crate::Credentials) are set, the certificate's common name is the user.
    pub identity: Option<Identity>,
    /// Name or IP address for which the server's certificate must be valid. `None`, the default, means the host of the
    /// endpoint.
    pub server_name: Option<String>,
}

/// A certificate and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, followed by intermediate certificates, if there are any.
    pub certificate: Pem,
    /// The private key, in PKCS #8, PKCS #1 or SEC1, not encrypted.
    pub key: Pem,
}

/// PEM data: the path of a file, or the bytes. `Debug` does not show bytes, which may contain a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(Source);

#[derive(Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Tls {
    /// Returns the defaults: the CAs that the system trusts, and no client certificate.
    pub fn new() -> Self {
        Tls::default()
    }

    /// Sets the trusted CAs, which replace those that the system trusts.
    #[must_use]
    pub fn ca(mut self, certificates: Pem) -> Self {
        self.ca = Some(certificates);
        self
    }

    /// Sets the client certificate and its private key.
    #[must_use]
    pub fn identity(mut self, certificate: Pem, key: Pem) -> Self {
        self.identity = Some(Identity { certificate, key });
        self
    }

    /// Sets the name for which the server's certificate must be valid, instead of the host of the endpoint.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Returns the name for which the certificate of the server at this host must be valid.
    pub(crate) fn name_of(&self, host: &str) -> Result<ServerName<'static>, ConfigError> {
        let (what, name) = match &self.server_name {
            Some(name) => ("tls.server_name", name.as_str()),
            None => ("endpoints", host),
        };
        ServerName::try_from(name.to_owned()).map_err(|_| {
            ConfigError::new(
                what,
                name,
                "it must be a DNS name or an IP address, since it is compared with the certificate",
            )
        })
    }

    /// Loads all certificates and keys.
    pub(crate) fn load(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        // Uses the default provider of the process, if it has set one, such as a certified one.
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
                Err(pem.wrong(WHAT, "none of its certificates is a valid X.509 v3 certificate"))
            }
            (None, true) => {
                let rule = "the system has no CA certificates: set tls.ca to those of etcd's CA, or install them \
                            (Debian: ca-certificates)";
                Err(ConfigError::new(WHAT, None::<Pem>, rule))
            }
            (Some(pem), false) if ignored > 0 => {
                tracing::warn!(ca = ?pem, ignored, "ignored invalid CA certificates");
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

    /// Explains why certificate and key cannot be used together.
    fn unfit(&self, error: &rustls::Error) -> ConfigError {
        match error {
            rustls::Error::InconsistentKeys(_) => self
                .key
                .wrong(Self::KEY, format!("it is not the key of the certificate {:?}", self.certificate)),
            rustls::Error::InvalidCertificate(_) => self
                .certificate
                .wrong(Self::CERTIFICATE, "its first certificate is not a valid X.509 v3 certificate"),
            _ => self.key.wrong(Self::KEY, "it must be an RSA, ECDSA (P-256 or P-384) or Ed25519 key"),
        }
    }
}

impl Pem {
    /// Refers to a file, which is read for each new connection.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Pem(Source::File(path.into()))
    }

    /// Contains the PEM data itself.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Pem(Source::Bytes(bytes.into()))
    }

    /// Returns the path, if this refers to a file.
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
            true => Err(self.wrong(what, "it contains no certificate (-----BEGIN CERTIFICATE-----)")),
            false => Ok(found),
        }
    }

    fn key(&self, what: &str) -> Result<PrivateKeyDer<'static>, ConfigError> {
        let text = self.read(what)?;
        // The parser does not recognise encrypted keys, so that its error would be misleading.
        let contains = |mark: &str| text.windows(mark.len()).any(|part| part == mark.as_bytes());
        if contains("BEGIN ENCRYPTED PRIVATE KEY") || contains("Proc-Type: 4,ENCRYPTED") {
            let rule = "the key is encrypted, which is not supported: decrypt it (openssl pkey)";
            return Err(self.wrong(what, rule));
        }
        let mut sections = self.sections(what)?.into_iter();
        sections
            .find_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der))
            .ok_or_else(|| self.wrong(what, "it contains no private key (-----BEGIN PRIVATE KEY-----)"))
    }

    /// Parses all sections of a known kind.
    fn sections(&self, what: &str) -> Result<Vec<(SectionKind, Vec<u8>)>, ConfigError> {
        let text = self.read(what)?;
        if text.iter().all(u8::is_ascii_whitespace) {
            return Err(self.wrong(what, "it is empty"));
        }
        // The parser's error is not shown, since it may contain a part of a key.
        <(SectionKind, Vec<u8>)>::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|_| self.wrong(what, "it is damaged: it contains an invalid PEM section"))
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

/// The settings, and the certificates and keys that were last loaded.
pub(crate) struct Security {
    tls: Tls,
    last: Mutex<Arc<ClientConfig>>,
}

impl Security {
    /// Loads the certificates and keys.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if they cannot be used.
    pub(crate) fn new(tls: Tls) -> Result<Self, ConfigError> {
        let last = Mutex::new(tls.load()?);
        Ok(Security { tls, last })
    }

    /// Returns the TLS configuration for a new connection: loads the files again, and falls back to their previous
    /// contents if they cannot be used.
    pub(crate) async fn config(self: Arc<Self>) -> Arc<ClientConfig> {
        let before = Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner));
        // Loading the system's CAs reads about a hundred files.
        let now = tokio::task::spawn_blocking(move || self.reload()).await;
        now.unwrap_or(before)
    }

    fn reload(&self) -> Arc<ClientConfig> {
        let loaded = self.tls.load();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Ok(config) => *last = config,
            Err(error) => {
                tracing::warn!(%error, "cannot load the TLS files; using their previous contents");
            }
        }
        Arc::clone(&last)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Pair {
        certificate: String,
        key: String,
    }

    fn new_pair() -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["etcd".to_owned()]).unwrap().self_signed(&key).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn tls(certificate: &str, key: &str) -> Tls {
        Tls::new().ca(Pem::bytes(new_pair().certificate)).identity(Pem::bytes(certificate), Pem::bytes(key))
    }

    #[track_caller]
    fn refused(tls: &Tls, what: &str, says: &str) {
        let error = tls.load().unwrap_err();
        assert_eq!(error.what(), what, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn a_valid_pair_is_loaded() {
        let Pair { certificate, key } = new_pair();
        tls(&certificate, &key).load().unwrap();
        // Some tools write both into one file.
        let both = format!("{certificate}{key}");
        tls(&both, &both).load().unwrap();
    }

    #[test]
    fn an_invalid_pair_is_reported_without_its_contents() {
        let (Pair { certificate, key }, other) = (new_pair(), new_pair());
        let (cert_field, key_field) = (Identity::CERTIFICATE, Identity::KEY);
        let cut = |pem: &str| pem[..pem.len() / 2].to_owned();
        let garbled = key.replacen("\nM", "\n?!", 1);
        assert_ne!(garbled, key);
        // A key with the header of a certificate.
        let disguised = key.replace("PRIVATE KEY", "CERTIFICATE");
        let nonsense = "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n";
        for (certificate, key, what, says) in [
            (certificate.as_str(), "", key_field, "it is empty"),
            (" \n", &key, cert_field, "it is empty"),
            (&certificate, "hunter2", key_field, "contains no private key"),
            ("hunter2", &key, cert_field, "contains no certificate"),
            (&key, &key, cert_field, "contains no certificate"),
            (&certificate, &certificate, key_field, "contains no private key"),
            (&certificate, &cut(&key), key_field, "it is damaged"),
            (&cut(&certificate), &key, cert_field, "it is damaged"),
            (&certificate, &garbled, key_field, "it is damaged"),
            (&certificate, nonsense, key_field, "it must be an RSA, ECDSA"),
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
    fn an_invalid_ca_is_rejected() {
        let Pair { key, .. } = new_pair();
        refused(&Tls::new().ca(Pem::bytes(key.as_str())), "tls.ca", "contains no certificate");
        let disguised = key.replace("PRIVATE KEY", "CERTIFICATE");
        refused(&Tls::new().ca(Pem::bytes(disguised)), "tls.ca", "none of its certificates is a valid");
    }

    #[test]
    fn an_unreadable_file_is_reported_with_its_path() {
        refused(
            &Tls::new().ca(Pem::file("/no/such/ca.crt")),
            "tls.ca",
            "tls.ca of \"/no/such/ca.crt\" cannot be used: the file cannot be read: No such file",
        );
    }

    #[tokio::test]
    async fn files_are_read_again_and_an_invalid_one_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        std::fs::write(&path, new_pair().certificate).unwrap();
        let security = Arc::new(Security::new(Tls::new().ca(Pem::file(&path))).unwrap());
        let first = Arc::clone(&security).config().await;
        std::fs::write(&path, new_pair().certificate).unwrap();
        let second = Arc::clone(&security).config().await;
        assert!(!Arc::ptr_eq(&first, &second), "the file was not read again");
        std::fs::write(&path, "half of it").unwrap();
        let third = Arc::clone(&security).config().await;
        assert!(Arc::ptr_eq(&second, &third), "the invalid file was used");
    }
}
