//! Promise: `rediss://` works with what the URL names; a certificate, a file or a parameter that is
//! wrong is told at once, in one line that names it, also to a caller that would wait for ever.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use applock::{AppLocker, Error, LockGuard};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, date_time_ymd};

use crate::support::certificates::{self, Authority, Files, authority, for_names};
use crate::support::child::name_of;
use crate::support::log;
use crate::support::ports::ReservedPort;
use crate::support::redis::RedisServer;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(20);

/// Set: this process is the child that connects.
const URL: &str = "APPLOCK_TEST_TLS_URL";

struct TlsServer {
    server: RedisServer,
    files: Files,
    authority: Authority,
    /// For TLS. With `tls-cluster` a node's bus is reckoned from this one: it is reserved, too.
    port: ReservedPort,
}

impl TlsServer {
    /// A server with such a certificate, by an authority of its own. In the files are `ca.pem`, and
    /// of another authority `other.pem`.
    fn with(params: CertificateParams, arguments: &[&str]) -> Self {
        let files = Files::new();
        let authority = authority();
        files.certify("server", params, &authority);
        files.write("ca.pem", &authority.pem());
        files.write("other.pem", &certificates::authority().pem());
        let port = ReservedPort::new();
        let mut all = vec!["--tls-port".to_owned(), port.number().to_string()];
        for (option, file) in files.of_server() {
            all.extend([format!("--{option}"), file]);
        }
        if !arguments.contains(&"--tls-auth-clients") {
            all.extend(["--tls-auth-clients".to_owned(), "no".to_owned()]);
        }
        all.extend(arguments.iter().map(|text| (*text).to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Self {
            server: RedisServer::with(&all),
            files,
            authority,
            port,
        }
    }

    fn start() -> Self {
        Self::with(for_names(&["localhost", "127.0.0.1"]), &[])
    }

    fn url(&self, rest: &str) -> String {
        format!("rediss://localhost:{}{rest}", self.port.number())
    }

    /// The URL with these files in its parameters.
    fn url_with(&self, parameters: &[(&str, &str)]) -> String {
        let parts: Vec<String> = parameters
            .iter()
            .map(|(name, file)| format!("{name}={}", self.files.path(file).display()))
            .collect();
        self.url(&format!("?{}", parts.join("&")))
    }
}

/// What a caller gets that would wait for ever, without a wait.
#[track_caller]
fn at_once(locker: &AppLocker) -> Result<LockGuard, Error> {
    let lock = locker.lock("job").wait_forever();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(lock.acquire_blocking()));
    told.recv_timeout(SOON).expect("an answer at once")
}

/// What a caller gets that would wait for ever: at once, in one line.
#[track_caller]
fn told(url: &str) -> String {
    let locker = AppLocker::builder().store(url).build().unwrap();
    let error = at_once(&locker).unwrap_err();
    let shown = error.to_string();
    assert!(matches!(error, Error::Misconfigured(_)), "{shown}");
    assert!(!shown.contains('\n') && shown.contains("; "), "{shown}");
    shown
}

#[track_caller]
fn says(shown: &str, parts: &[&str]) {
    for part in parts {
        assert!(shown.contains(part), "no {part:?} in: {shown}");
    }
}

/// This test alone, in a process of its own that trusts the given authority: which ones a
/// process trusts is read from its environment.
fn child(test: &str, url: &str, trusted: &Path) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(URL, url)
        .env("SSL_CERT_FILE", trusted)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap()
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
fn an_authority_that_the_machine_trusts_needs_no_parameter() {
    match std::env::var(URL) {
        Err(_) => {
            let server = TlsServer::start();
            let this = name_of(an_authority_that_the_machine_trusts_needs_no_parameter);
            succeeds(&child(this, &server.url(""), &server.files.path("ca.pem")));
        }
        Ok(url) => {
            let locker = AppLocker::connect_blocking(&url).unwrap();
            let guard = locker.lock("tls").acquire_blocking().unwrap();
            assert!(guard.verify_blocking().unwrap());
            guard.release_blocking().unwrap();
        }
    }
}

#[test]
fn an_authority_that_the_machine_does_not_trust_is_told() {
    match std::env::var(URL) {
        Err(_) => {
            let server = TlsServer::start();
            let this = name_of(an_authority_that_the_machine_does_not_trust_is_told);
            succeeds(&child(
                this,
                &server.url(""),
                &server.files.path("other.pem"),
            ));
            succeeds(&child(this, &server.url(""), Path::new("/nonexistent")));
        }
        Ok(url) => says(&told(&url), &["authorit", "?ca=/path/ca.pem"]),
    }
}

#[test]
fn locks_heartbeats_and_notifications_go_through_tls() {
    let server = TlsServer::start();
    let url = server.url_with(&[("ca", "ca.pem")]);
    let locker = AppLocker::connect_blocking(&url).unwrap();
    let guard = locker.lock("tls").acquire_blocking().unwrap();
    let other = AppLocker::connect_blocking(&url).unwrap();
    let lock = other.lock("tls").wait_forever();
    let waiting = thread::spawn(move || lock.acquire_blocking());
    wait::until("the waiter listens", SOON, || {
        let channels: Vec<String> = server.server.run("PUBSUB CHANNELS applock:*");
        !channels.is_empty()
    });
    assert!(guard.verify_blocking().unwrap());
    let clients: String = server.server.run("CLIENT LIST");
    let mut ours: Vec<&str> = clients.lines().collect();
    ours.retain(|line| line.contains(" name=applock:"));
    assert_eq!(ours.len(), 3, "{clients}");
    let through = format!(" laddr=127.0.0.1:{} ", server.port.number());
    assert!(ours.iter().all(|line| line.contains(&through)), "{clients}");
    guard.release_blocking().unwrap();
    waiting.join().unwrap().unwrap().release_blocking().unwrap();
}

#[test]
fn a_certificate_that_is_wrong_is_told_at_once_with_its_remedy() {
    let mut expired = for_names(&["localhost"]);
    expired.not_before = date_time_ymd(2019, 1, 1);
    expired.not_after = date_time_ymd(2020, 2, 3);
    let mut early = for_names(&["localhost"]);
    early.not_before = date_time_ymd(2999, 1, 1);
    early.not_after = date_time_ymd(3000, 1, 1);
    let mut of_authority = for_names(&["localhost"]);
    of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut of_client = for_names(&["localhost"]);
    of_client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (params, expected) in [
        (expired, &["expired, on 2020-02-03", "renew"][..]),
        (early, &["not valid yet, but from 2999-01-01", "clock"]),
        (
            for_names(&["redis.example", "*.internal", "10.0.0.9"]),
            &[
                "\"localhost\"",
                "redis.example, *.internal, 10.0.0.9",
                "in the URL",
            ],
        ),
        (
            for_names(&[]),
            &["\"localhost\"", "names no host", "subjectAltName"],
        ),
        (of_authority, &["CA:TRUE"]),
        (of_client, &["not one for servers", "serverAuth"]),
    ] {
        let server = TlsServer::with(params, &[]);
        says(&told(&server.url_with(&[("ca", "ca.pem")])), expected);
    }
    let server = TlsServer::start();
    let shown = told(&server.url_with(&[("ca", "other.pem")]));
    says(
        &shown,
        &["no authority in", "other.pem", "?ca=", "has issued"],
    );
}

#[test]
fn a_client_certificate_that_the_server_wants_is_asked_for() {
    for version in ["TLSv1.2", "TLSv1.3"] {
        let options = ["--tls-auth-clients", "yes", "--tls-protocols", version];
        let server = TlsServer::with(for_names(&["localhost"]), &options);
        let shown = told(&server.url_with(&[("ca", "ca.pem")]));
        says(&shown, &["wants a client certificate", "?cert=", "&key="]);

        // Of an authority that the server does not know.
        server
            .files
            .certify("client", for_names(&["job"]), &authority());
        let url = server.url_with(&[
            ("ca", "ca.pem"),
            ("cert", "client.pem"),
            ("key", "client.key"),
        ]);
        let locker = AppLocker::builder().store(&url).build().unwrap();
        let wait = || at_once(&locker);
        let error = wait().unwrap_err();
        let shown = error.to_string();
        assert!(matches!(error, Error::Misconfigured(_)), "{shown}");
        says(
            &shown,
            &["does not accept the client certificate", "client.pem"],
        );

        // A person puts the right one in its place: the same locker takes it.
        let own = &server.authority;
        server.files.certify("client", for_names(&["job"]), own);
        wait().unwrap().release_blocking().unwrap();
    }
}

#[test]
fn a_parameter_or_file_that_cannot_be_used_is_told_when_the_locker_is_built() {
    let files = Files::new();
    let own = authority();
    let ca = files.write("ca.pem", &own.pem());
    files.certify("one", for_names(&["one"]), &own);
    files.certify("two", for_names(&["two"]), &own);
    let path = |name: &str| files.path(name).display().to_string();
    let (cert, key, other) = (path("one.pem"), path("one.key"), path("two.key"));
    let text = files.write("text", "not PEM");
    let locked = files.write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\naGVsbG8=\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let odd = files.write(
        "odd.pem",
        "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
    );
    let pasted = std::fs::read_to_string(&key).unwrap();
    let secret = pasted.lines().nth(1).unwrap();
    let missing = path("missing.pem");
    let folder = files.path("").display().to_string();
    for (url, expected) in [
        (
            format!("redis://h?ca={ca}"),
            &["?ca=", "redis://", "rediss://"][..],
        ),
        (format!("rediss://h?cert={cert}"), &["?cert= without ?key="]),
        (format!("rediss://h?key={key}"), &["?key= without ?cert="]),
        (
            format!("rediss://h?ca={missing}"),
            &["?ca=", "missing.pem", "can't be read"],
        ),
        (format!("rediss://h?ca={folder}"), &["?ca=", "is no file"]),
        (
            format!("rediss://h?ca={text}"),
            &["?ca=", "no certificate", "PEM"],
        ),
        (
            format!("rediss://h?ca={key}"),
            &["?ca=", "no certificate", "PEM"],
        ),
        (
            format!("rediss://h?ca={odd}"),
            &["?ca=", "odd.pem", "can't be read"],
        ),
        (
            format!("rediss://h?cert={text}&key={key}"),
            &["?cert=", "no certificate"],
        ),
        (
            format!("rediss://h?cert={odd}&key={key}"),
            &["?cert=", "odd.pem"],
        ),
        (
            format!("rediss://h?cert={cert}&key={text}"),
            &["?key=", "no private key"],
        ),
        (
            format!("rediss://h?cert={cert}&key={locked}"),
            &["?key=", "passphrase"],
        ),
        (
            format!("rediss://h?cert={cert}&key={other}"),
            &["two.key", "is not that of", "one.pem"],
        ),
        ("rediss://h?ca=ca.pem".to_owned(), &["?ca=", "whole path"]),
        (format!("rediss://h?ca={ca}&ca={ca}"), &["?ca=", "twice"]),
        (format!("rediss://h?ca={ca}#insecure"), &["#insecure"]),
        // The key itself, where its file belongs.
        (
            format!("rediss://h?cert={cert}&key={secret}"),
            &["?key=", "whole path"],
        ),
        (
            format!("rediss://h?cert={cert}&key=/{secret}%0A"),
            &["?key=", "whole path"],
        ),
    ] {
        let error = AppLocker::builder().store(&url).build().unwrap_err();
        let shown = format!("{error}");
        assert!(matches!(error, Error::Invalid(_)), "{shown}");
        assert!(!shown.contains('\n'), "{shown}");
        assert!(!format!("{shown}{error:?}").contains(secret), "{shown}");
        says(&shown, expected);
    }
}

#[test]
fn insecure_checks_nothing_and_one_warning_says_so() {
    log::keep();
    let mut expired = for_names(&["elsewhere"]);
    expired.not_after = date_time_ymd(2020, 2, 3);
    let server = TlsServer::with(expired, &[]);
    let locker = AppLocker::builder()
        .store(server.url("#insecure"))
        .build()
        .unwrap();
    let guard = locker.lock("insecure").acquire_blocking().unwrap();
    let lock = locker.lock("insecure").wait_forever();
    let waiting = thread::spawn(move || lock.acquire_blocking());
    wait::until("the waiter listens", SOON, || {
        let channels: Vec<String> = server.server.run("PUBSUB CHANNELS applock:*");
        !channels.is_empty()
    });
    guard.release_blocking().unwrap();
    waiting.join().unwrap().unwrap().release_blocking().unwrap();
    assert_eq!(log::lines(&["#insecure", "is not checked"]).len(), 1);
}

#[test]
fn a_server_without_tls_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            if client.read(&mut [0; 4096]).is_ok() {
                // As Redis does where there is a line break in the handshake.
                let _ = client.write_all(b"-ERR unknown command\r\n");
            }
        }
    });
    let shown = told(&format!("rediss://127.0.0.1:{port}"));
    says(&shown, &["speaks no TLS", "write redis://"]);

    // Without a line break it waits for one.
    let server = RedisServer::start();
    let url = format!("rediss://127.0.0.1:{}", server.port());
    let error = AppLocker::connect_blocking(url).unwrap_err();
    assert!(
        matches!(error, Error::Unavailable(_) | Error::Misconfigured(_)),
        "{error}"
    );
    says(&error.to_string(), &["TLS", "write redis"]);
}

#[test]
fn a_server_that_wants_tls_is_guessed_where_it_hangs_up() {
    let server = TlsServer::start();
    let url = format!("redis://127.0.0.1:{}", server.port.number());
    let error = AppLocker::connect_blocking(url).unwrap_err();
    says(&error.to_string(), &["TLS", "write rediss://"]);
}

/// A cluster's nodes tell a client that speaks TLS the ports where they do, if they are set so.
#[test]
fn a_cluster_is_reached_through_tls_and_one_that_announces_its_other_ports_is_told() {
    let names = || for_names(&["localhost", "127.0.0.1"]);
    for is_announced in [true, false] {
        let mut options = vec!["--cluster-enabled", "yes"];
        if is_announced {
            options.extend(["--tls-cluster", "yes", "--tls-replication", "yes"]);
        }
        let server = TlsServer::with(names(), &options);
        let () = server.server.run("CLUSTER ADDSLOTSRANGE 0 16383");
        wait::until("the cluster is well", SOON, || {
            let info: String = server.server.run("CLUSTER INFO");
            info.contains("cluster_state:ok")
        });
        let url = server.url_with(&[("ca", "ca.pem")]);
        let url = url.replace("rediss://", "rediss+cluster://");
        if is_announced {
            let locker = AppLocker::connect_blocking(&*url).unwrap();
            let guard = at_once(&locker).unwrap();
            assert!(guard.verify_blocking().unwrap());
            guard.release_blocking().unwrap();
        } else {
            let error = AppLocker::connect_blocking(&*url).unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error}");
            let port = server.server.port().to_string();
            says(&error.to_string(), &[&port, "tls-cluster yes"]);
        }
    }
}
