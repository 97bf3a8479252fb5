//! Promise: a password is shown nowhere: by no `Debug` of a public type, with and without its
//! server, in no error or its sources, no line of the log, and no panic. What a refused URL shows
//! is in the unit tests of `store/url.rs`, by every place of a URL.

use std::error::Error as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::support::log;
use crate::support::ports::nowhere;
use crate::support::redis::RedisServer;
use crate::support::refusal::PASSWORD;
use applock::{AppLocker, Error, StoreSource};

#[track_caller]
fn hides(text: &str) {
    assert!(!text.contains(PASSWORD), "{text}");
}

#[track_caller]
fn hides_in(error: Error) {
    hides(&format!("{error} {error:?}"));
    let mut source = error.source();
    while let Some(inner) = source {
        hides(&format!("{inner} {inner:?}"));
        source = inner.source();
    }
    let fail = || Err::<(), Error>(error.clone());
    let panic = catch_unwind(AssertUnwindSafe(|| fail().unwrap())).unwrap_err();
    hides(panic.downcast_ref::<String>().unwrap());
    hides(&format!("{:?}", std::io::Error::from(error)));
}

/// Every public type that comes from a locker of this URL.
fn go_through(url: &str) {
    let source = StoreSource::from(url);
    let builder = AppLocker::builder().store(source.clone()).instance("me");
    hides(&format!("{source:?} {builder:?} {builder:#?}"));
    match builder.clone().connect_blocking() {
        Ok(locker) => hides(&format!("{locker:?}")),
        Err(error) => hides_in(error),
    }
    let locker = builder.build().unwrap();
    let lock = locker.lock("job");
    hides(&format!(
        "{locker:?} {locker:#?} {} {lock:?}",
        locker.store()
    ));
    match lock.acquire_blocking() {
        Ok(guard) => {
            hides(&format!("{guard:?} {:?} {}", guard.info(), guard.info()));
            hides_in(lock.acquire_blocking().unwrap_err());
            hides(&format!("{:?}", lock.info_blocking()));
            assert!(lock.force_release_blocking().unwrap());
            assert!(!guard.verify_blocking().unwrap());
            hides(&format!("{guard:?}"));
            hides_in(guard.release_blocking().unwrap_err());
            hides(&format!("{:?}", lock.last_holding_blocking()));
        }
        Err(error) => hides_in(error),
    }
    for failed in [
        lock.info_blocking().map(drop),
        lock.clone()
            .wait(Duration::from_millis(50))
            .acquire_blocking()
            .map(drop),
        lock.force_release_if_stale_blocking(Duration::ZERO)
            .map(drop),
        locker.shutdown_blocking(Duration::from_secs(1)),
        lock.acquire_blocking().map(drop),
    ] {
        failed.err().into_iter().for_each(hides_in);
    }
}

#[test]
fn no_public_type_shows_a_password_with_and_without_its_server() {
    log::keep();
    let server = RedisServer::with(&["--requirepass", PASSWORD]);
    let port = server.port();
    for user in ["", "default", "nobody"] {
        go_through(&format!("redis://{user}:{PASSWORD}@127.0.0.1:{port}"));
    }
    for url in [
        format!("redis://{PASSWORD}@127.0.0.1:{port}"),
        format!("redis://{PASSWORD}:@127.0.0.1:{port}/0"),
        format!("redis://:{PASSWORD}@127.0.0.1:{port}/77"),
        format!("redis://:{PASSWORD}@127.0.0.1:{}", nowhere()),
        format!("unix:///no/such/socket?pass={PASSWORD}"),
    ] {
        go_through(&url);
    }
    // What a builder was given may be no URL at all.
    for url in [
        PASSWORD.to_owned(),
        format!("{PASSWORD}@host:6379"),
        format!("redis://host?{PASSWORD}"),
        format!("redis://host/0#{PASSWORD}"),
    ] {
        let builder = AppLocker::builder().store(&url);
        hides(&format!("{builder:?}"));
        hides_in(builder.build().unwrap_err());
    }
    assert_eq!(log::lines(&[PASSWORD]), []);
}

/// A server before version 6, and a proxy, repeat the arguments of a command that they do not know.
#[test]
fn a_server_that_repeats_the_login_does_not_bring_it_into_a_message() {
    log::keep();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut command = [0; 4096];
            let said = format!(
                "-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, \
                 `{PASSWORD}`, \r\n"
            );
            while stream.read(&mut command).is_ok_and(|length| length > 0)
                && stream.write_all(said.as_bytes()).is_ok()
            {}
        }
    });
    for protocol in ["resp2", "resp3"] {
        go_through(&format!(
            "redis://default:{PASSWORD}@127.0.0.1:{port}?protocol={protocol}"
        ));
    }
    assert_eq!(log::lines(&[PASSWORD]), []);
}
