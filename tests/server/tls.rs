//! `rediss://`: TLS works with the feature `tls` alone, and a server whose certificate
//! comes from an unknown authority is refused.

use std::process::{Command, Output};

use crate::support::child::name_of;
use crate::support::redis::{RedisServer, free_port};
use applock::{AppLocker, Error};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

/// Set: this process is the child that connects.
const URL: &str = "APPLOCK_TEST_TLS_URL";

struct TlsServer {
    _server: RedisServer,
    files: TempDir,
    url: String,
}

/// A server with a certificate by an authority of its own.
fn start() -> TlsServer {
    let files = tempfile::tempdir().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let path = |name: &str| files.path().join(name).display().to_string();
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    std::fs::write(path("server.pem"), certificate.pem()).unwrap();
    std::fs::write(path("server.key"), key.serialize_pem()).unwrap();
    let port = free_port();
    let server = RedisServer::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &path("server.pem"),
        "--tls-key-file",
        &path("server.key"),
        "--tls-ca-cert-file",
        &path("ca.pem"),
        "--tls-auth-clients",
        "no",
    ]);
    TlsServer {
        _server: server,
        url: format!("rediss://localhost:{port}"),
        files,
    }
}

/// This test alone, in a process of its own that trusts the given authority: which ones a
/// process trusts is read from its environment.
fn child(test: &str, server: &TlsServer, trust: bool) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", test, "--nocapture"])
        .env(URL, &server.url);
    if trust {
        child.env("SSL_CERT_FILE", server.files.path().join("ca.pem"));
    }
    child.output().unwrap()
}

#[track_caller]
fn succeeds(output: &Output) {
    let shown = String::from_utf8_lossy(&output.stdout);
    // A child that finds no test of the name succeeds, too.
    assert!(
        output.status.success() && shown.contains(" 1 passed"),
        "{shown}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_lock_is_taken_and_released_over_tls() {
    match std::env::var(URL) {
        Err(_) => succeeds(&child(
            name_of(a_lock_is_taken_and_released_over_tls),
            &start(),
            true,
        )),
        Ok(url) => {
            let locker = AppLocker::connect_blocking(&url).unwrap();
            let guard = locker.lock("tls").acquire_blocking().unwrap();
            assert!(guard.verify_blocking().unwrap());
            guard.release_blocking().unwrap();
        }
    }
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    match std::env::var(URL) {
        Err(_) => succeeds(&child(
            name_of(a_certificate_of_an_unknown_authority_is_refused),
            &start(),
            false,
        )),
        Ok(url) => match AppLocker::connect_blocking(&url) {
            Err(Error::Unavailable(fault)) => {
                assert!(fault.to_string().contains("ertificate"), "{fault}");
            }
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn a_server_without_tls_is_reported_and_does_not_hang() {
    let server = RedisServer::start();
    let url = format!("rediss://127.0.0.1:{}", server.port());
    let error = AppLocker::connect_blocking(url).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}
