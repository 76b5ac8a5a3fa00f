//! Certificates for tests.

use std::path::PathBuf;

use clustering_etcd::{Pem, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

const NAME: &str = "CA of the tests";

/// A CA and the certificates that it issues, as files in a temporary directory.
pub(crate) struct Pki {
    directory: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// Files of a certificate and its key.
pub(crate) struct Issued {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Pki::named(NAME)
    }

    /// Creates a CA with this name.
    pub(crate) fn named(name: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let pki = Pki { directory, ca: authority(name) };
        pki.write("ca.crt", &pki.ca.as_ref().pem());
        pki
    }

    /// Replaces the CA and its file by a new CA with the same name.
    pub(crate) fn renew(&mut self) {
        self.ca = authority(NAME);
        self.write("ca.crt", &self.ca.as_ref().pem());
    }

    /// Returns the file of the CA's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// Issues a certificate for these names and addresses, and writes it to files with this name. The first name
    /// becomes the common name.
    pub(crate) fn issue(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("names of certificates");
        params.distinguished_name.push(DnType::CommonName, names[0].clone());
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.ca).expect("a certificate");
        Issued {
            cert: self.write(&format!("{file}.crt"), &certificate.pem()),
            key: self.write(&format!("{file}.key"), &key.serialize_pem()),
        }
    }

    /// Issues a certificate for a server on the loopback interface.
    pub(crate) fn server(&self) -> Issued {
        self.issue("server", &["localhost", "127.0.0.1"], |_| {})
    }

    /// Issues a certificate for a client with this common name.
    pub(crate) fn client(&self, name: &str) -> Issued {
        self.issue(name, &[name], |_| {})
    }

    /// Returns TLS settings that trust this CA.
    pub(crate) fn tls(&self) -> Tls {
        Tls::new().ca(Pem::file(self.ca()))
    }

    /// Returns TLS settings that trust this CA and present a client certificate.
    pub(crate) fn mutual(&self, client: &Issued) -> Tls {
        self.tls().identity(Pem::file(&client.cert), Pem::file(&client.key))
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).expect("the directory is writable");
        path
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}
