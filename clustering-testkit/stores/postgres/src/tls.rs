use std::{path::Path, sync::Arc};

use clustering_core::store::StoreError;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::PostgresConfig;

/// TLS settings, with all files loaded. `sslmode` decides whether connections use TLS.
#[derive(Clone)]
pub(crate) struct Tls(pub(crate) MakeRustlsConnect);

impl Tls {
    /// Reads the certificates. Blocks the thread for as long as that takes.
    pub(crate) fn load(config: &PostgresConfig) -> Result<Self, StoreError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| StoreError::invalid(format!("TLS cannot be used: {error}")))?;
        let builder = builder.with_root_certificates(roots(config)?);
        let tls = match &config.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
                builder.with_client_auth_cert(chain, private).map_err(|error| unusable(certificate, error))?
            }
        };
        Ok(Tls(MakeRustlsConnect::new(tls)))
    }
}

fn roots(config: &PostgresConfig) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.root_certificates {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| unusable(path, error))?;
        }
    } else if config.server.get_ssl_mode() != SslMode::Disable {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| unusable(path, error))?;
    let found = read.collect::<Result<Vec<_>, _>>().map_err(|error| unusable(path, error))?;
    match found.is_empty() {
        true => Err(unusable(path, "it contains no certificate")),
        false => Ok(found),
    }
}

fn unusable(path: &Path, reason: impl std::fmt::Display) -> StoreError {
    StoreError::invalid(format!("the file {} cannot be used for TLS: {reason}", path.display()))
}
