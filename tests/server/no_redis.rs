//! Promise: a caller that waits on what can't serve it is told: at once where that can't mend
//! itself, by one warning where it may (F44).

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use applock::{AppLocker, Error};

use crate::support::log;
use crate::support::redis::RedisServer;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(20);

/// Answers whatever comes with these bytes, and hangs up.
fn answers_with(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut sent = [0; 4096];
            if client.read(&mut sent).is_ok() {
                let _ = client.write_all(answer);
            }
        }
    });
    url
}

#[test]
fn what_is_no_redis_is_told_at_once_and_in_one_line() {
    for answer in [
        &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..],
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example.com ESMTP\r\n",
    ] {
        let locker = AppLocker::builder()
            .store(answers_with(answer))
            .build()
            .unwrap();
        let error = locker
            .lock("job")
            .wait_forever()
            .acquire_blocking()
            .unwrap_err();
        let shown = error.to_string();
        eprintln!("{shown}");
        assert!(matches!(error, Error::Misconfigured(_)), "{shown}");
        assert!(
            shown.contains("no Redis") && !shown.contains('\n'),
            "{shown}"
        );
    }
}

#[test]
fn a_sentinels_port_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("sentinel.conf");
    std::fs::write(&config, "").unwrap();
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let mut sentinel = Command::new(program)
        .arg(&config)
        .args(["--port", &port.to_string(), "--sentinel"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait::until("the sentinel listens", SOON, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let url = format!("redis://127.0.0.1:{port}");
    let locker = AppLocker::builder().store(url).build().unwrap();
    let refused = locker.lock("job").wait_forever().acquire_blocking();
    let _ = sentinel.kill();
    let _ = sentinel.wait();
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    assert!(error.to_string().contains("sentinel"), "{error}");
}

#[test]
fn a_caller_that_waits_for_a_server_that_is_down_says_so_once_and_when_it_is_served() {
    log::keep();
    let mut server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    server.kill();
    let lock = locker.lock("awaited-server").wait_forever();
    let waiting = thread::spawn(move || lock.acquire_blocking());
    let waits = || log::lines(&["awaited-server", "waiting for a store that fails"]);
    wait::until("a warning", SOON, || !waits().is_empty());
    thread::sleep(Duration::from_secs(1));
    server.restart();
    waiting.join().unwrap().unwrap().release_blocking().unwrap();
    assert_eq!(waits().len(), 1);
    let served = log::lines(&["awaited-server", "the store answers again"]);
    assert_eq!(served.len(), 1);
}
