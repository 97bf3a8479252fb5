//! Authorities and certificates for servers that speak TLS.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

pub type Authority = CertifiedIssuer<'static, KeyPair>;

pub fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Another one than the certificates have: OpenSSL takes them for self-signed otherwise.
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, "an authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a certificate"))
        .expect("a certificate")
}

/// A certificate for these names, as most servers have it.
pub fn for_names(names: &[&str]) -> CertificateParams {
    CertificateParams::new(
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )
    .expect("a certificate")
}

/// Files of one test.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a certificate"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a certificate");
        path.display().to_string()
    }

    /// `NAME.pem` and `NAME.key`, signed by this authority.
    pub fn certify(&self, name: &str, params: CertificateParams, by: &Authority) {
        let key = KeyPair::generate().expect("a certificate");
        let certificate = params.signed_by(&key, by).expect("a certificate");
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// What a server with `server.pem` and `ca.pem` is told of them, by the names of its options.
    pub fn of_server(&self) -> [(&'static str, String); 3] {
        [
            ("tls-cert-file", "server.pem"),
            ("tls-key-file", "server.key"),
            ("tls-ca-cert-file", "ca.pem"),
        ]
        .map(|(option, file)| (option, self.path(file).display().to_string()))
    }
}
