//! Promise: a caller that waits on what can't serve it is told: at once where that can't mend
//! itself, by one warning where it may (F44).

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use applock::{AppLocker, Error};

use crate::support::log;
use crate::support::redis::{self, RedisServer};
use crate::support::wait;

const SOON: Duration = Duration::from_secs(20);

/// What stands behind a port in place of a Redis.
#[derive(Clone, Copy)]
enum Other {
    /// Says this when it is connected to.
    Greets(&'static [u8]),
    /// Answers whatever comes with this, and hangs up.
    Answers(&'static [u8]),
    Echoes,
    /// Hangs up at once.
    Closes,
    /// Reads, and hangs up.
    ReadsAndCloses,
    /// Reads, and says nothing.
    IsSilent,
}

impl Other {
    fn serve(self, client: &mut TcpStream) -> std::io::Result<()> {
        let mut sent = [0; 4096];
        match self {
            Self::Greets(greeting) => {
                client.write_all(greeting)?;
                while client.read(&mut sent)? > 0 {}
            }
            Self::Answers(answer) => {
                if client.read(&mut sent)? > 0 {
                    client.write_all(answer)?;
                }
            }
            Self::Echoes => {
                while let count @ 1.. = client.read(&mut sent)? {
                    client.write_all(&sent[..count])?;
                }
            }
            Self::Closes => (),
            Self::ReadsAndCloses => drop(client.read(&mut sent)),
            Self::IsSilent => while client.read(&mut sent)? > 0 {},
        }
        Ok(())
    }

    /// Its address.
    fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                // A client that has gone.
                thread::spawn(move || drop(self.serve(&mut client)));
            }
        });
        address
    }
}

#[test]
fn what_is_no_redis_is_told_at_once_and_in_one_line() {
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    for (other, like) in [
        (Other::Answers(http), "a web server"),
        (
            Other::Answers(b"\x15\x03\x01\x00\x02\x02\x16"),
            "TLS; write rediss://",
        ),
        (Other::Answers(b"ERROR\r\n"), "memcached"),
        (
            Other::Answers(b"E\0\0\0\x40SFATAL\0VFATAL\0C0A000\0"),
            "PostgreSQL",
        ),
        (Other::Answers(b"AMQP\0\0\x09\x01"), "AMQP"),
        (
            Other::Answers(b"\0\0\0\x2a\0\0\0\x01\0\x23"),
            "another binary protocol",
        ),
        (
            Other::Answers(b"\x20\x02\x00\x01"),
            "another binary protocol",
        ),
        (Other::Answers(b"what?\n"), "another protocol of text"),
        (
            Other::Greets(b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0abcdefgh\0"),
            "MySQL or MariaDB",
        ),
        (
            Other::Greets(b"\x45\0\0\0\xff\x6a\x04Host is not allowed"),
            "MySQL or MariaDB",
        ),
        (Other::Greets(b"SSH-2.0-OpenSSH_9.2\r\n"), "an SSH server"),
        (
            Other::Greets(b"220 mail.example.com ESMTP\r\n"),
            "a mail or FTP server",
        ),
        (Other::Greets(b"+OK ready\r\n"), "a mail server (POP3)"),
        (
            Other::Greets(b"* OK [CAPABILITY IMAP4rev1] ready\r\n"),
            "a mail server (IMAP)",
        ),
        (Other::Greets(b"INFO {\"server_id\":\"N\"}\r\n"), "NATS"),
        (Other::Echoes, "echo"),
    ] {
        let address = other.start();
        for login in ["", ":hunter2@", "user:hunter2@"] {
            for rest in ["", "?protocol=resp3", "/3"] {
                let url = format!("redis://{login}{address}{rest}");
                let locker = AppLocker::builder().store(&url).build().unwrap();
                let lock = locker.lock("job").wait_forever();
                let (tell, told) = mpsc::channel();
                thread::spawn(move || tell.send(lock.acquire_blocking()));
                let error = told.recv_timeout(SOON).expect(like).unwrap_err();
                let shown = error.to_string();
                assert!(matches!(error, Error::Misconfigured(_)), "{shown}");
                assert!(shown.contains("there is no Redis"), "{shown}");
                assert!(shown.contains(like), "{like}: {shown}");
                assert!(!shown.contains('\n'), "{shown}");
                assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
            }
        }
    }
}

/// What a Redis without a password says to a client from another machine, and hangs up.
#[test]
fn a_redis_in_protected_mode_is_told_at_once_with_or_without_a_login() {
    let said = b"-DENIED Redis is running in protected mode because protected mode is enabled and no \
                 password is set for the default user. In this mode connections are only accepted from \
                 the loopback interface.\r\n";
    let address = Other::Greets(said).start();
    for login in ["", ":hunter2@", "user:hunter2@"] {
        for rest in ["", "?protocol=resp3", "/3"] {
            let url = format!("redis://{login}{address}{rest}");
            let locker = AppLocker::builder().store(&url).build().unwrap();
            let lock = locker.lock("job").wait_forever();
            let (tell, told) = mpsc::channel();
            thread::spawn(move || tell.send(lock.acquire_blocking()));
            let error = told.recv_timeout(SOON).expect("it is told").unwrap_err();
            let shown = error.to_string();
            assert!(matches!(error, Error::Misconfigured(_)), "{shown}");
            assert!(shown.contains("protected-mode no"), "{shown}");
        }
    }
}

/// It may as well be a Redis that is just ending, or hangs: only a person can tell.
#[test]
fn what_says_nothing_is_told_in_one_line() {
    for (other, what) in [
        (Other::Closes, "hung up without any answer"),
        // PostgreSQL, Kafka, MQTT and MongoDB do so.
        (Other::ReadsAndCloses, "hung up without any answer"),
        (Other::IsSilent, "no answer in time"),
    ] {
        for login in ["", ":hunter2@"] {
            let url = format!("redis://{login}{}", other.start());
            let locker = AppLocker::builder().store(&url).build().unwrap();
            let error = locker.lock("job").acquire_blocking().unwrap_err();
            let shown = error.to_string();
            assert!(matches!(error, Error::Unavailable(_)), "{shown}");
            // It may have hung up before the first command was sent.
            let what = [what, "hung up without any answer", "the connection failed"];
            let may_be = if let Other::IsSilent = other {
                &what[..1]
            } else {
                &what[..]
            };
            assert!(may_be.iter().any(|what| shown.contains(what)), "{shown}");
            assert!(shown.contains(" Redis") && !shown.contains('\n'), "{shown}");
        }
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
    let mut sentinel = Command::new(redis::program())
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
