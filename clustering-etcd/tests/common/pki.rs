//! Certificates for tests.

use std::path::PathBuf;

use clustering_etcd::{Pem, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

/// An authority and what it signs, as files of a temporary folder.
pub(crate) struct Pki {
    folder: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Pki::named("the tests' authority")
    }

    /// With an authority of that name.
    pub(crate) fn named(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pki = Pki { folder, ca: authority(name) };
        pki.write("ca.crt", &pki.ca.as_ref().pem());
        pki
    }

    /// Another authority with the same files, which it writes anew.
    pub(crate) fn renew(&mut self) {
        self.ca = authority("the tests' authority");
        self.write("ca.crt", &self.ca.as_ref().pem());
    }

    /// The file with the authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A certificate for those names and addresses, with the first one as common name, in files of that name.
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

    /// A certificate for the server at loopback.
    pub(crate) fn server(&self) -> Issued {
        self.issue("server", &["localhost", "127.0.0.1"], |_| {})
    }

    /// A certificate for a client of that name.
    pub(crate) fn client(&self, name: &str) -> Issued {
        self.issue(name, &[name], |_| {})
    }

    /// TLS with this authority.
    pub(crate) fn tls(&self) -> Tls {
        Tls::new().ca(Pem::file(self.ca()))
    }

    /// And with a client's certificate.
    pub(crate) fn mutual(&self, client: &Issued) -> Tls {
        self.tls().identity(Pem::file(&client.cert), Pem::file(&client.key))
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("a file in the temporary folder");
        path
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}
