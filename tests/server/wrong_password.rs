//! Promise: a login that the server refuses (a wrong password, none, a database that does
//! not exist) is reported as what it is, with the remedy; no message shows a password; and a
//! password changed under a holder costs no lock if it is set right in time (F20).

use std::time::Instant;

use crate::support::fault::Fault;
use crate::support::redis::RedisServer;
use crate::support::refusal::{
    PASSWORD, QUICKLY, assert_denied, assert_misconfigured, assert_says, assert_unavailable,
    is_taken, refusal, refused_connection, unconnected,
};
use applock::{AppLocker, Error};

#[test]
fn a_wrong_password_is_denied() {
    let server = RedisServer::with(&["--requirepass", "the-right-one"]);
    for user in ["", "default", "no-such-user"] {
        let url = format!("redis://{user}:{PASSWORD}@127.0.0.1:{}", server.port());
        let error = refused_connection(&url);
        assert_denied(&error, &["password", "redis://user:password@host"]);
    }
}

const CHANGED: Fault = Fault {
    server: || RedisServer::with(&["--requirepass", PASSWORD]),
    begins: |server| {
        let mut connection = server.connect().unwrap();
        for words in [
            &["CONFIG", "SET", "requirepass", "another"][..],
            &["CLIENT", "KILL", "TYPE", "normal"],
        ] {
            let mut command = redis::Cmd::new();
            command.arg(words);
            command.query::<redis::Value>(&mut connection).unwrap();
        }
    },
    reported: |_, error| assert_denied(error, &["QUEUE:job", "password"]),
    ends: |server| {
        let url = format!("redis://:another@127.0.0.1:{}", server.port());
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        let mut command = redis::cmd("CONFIG");
        command.arg(&["SET", "requirepass", PASSWORD]);
        command.query::<()>(&mut connection).unwrap();
    },
};

#[test]
fn a_lock_is_kept_if_a_changed_password_is_set_right_in_time() {
    CHANGED.passes();
}

#[test]
fn a_holder_learns_of_its_loss_in_time_if_it_is_not() {
    CHANGED.lasts();
}

#[test]
fn no_password_where_one_is_asked_for_is_denied() {
    let server = RedisServer::with(&["--requirepass", PASSWORD]);
    let url = format!("redis://127.0.0.1:{}", server.port());
    let start = Instant::now();
    let error = AppLocker::connect_blocking(&url).unwrap_err();
    assert!(start.elapsed() < QUICKLY, "{:?}", start.elapsed());
    assert_denied(&error, &["password", "the URL has none"]);
    // To commands as long as ours the server does not say NOAUTH, but 'unauthenticated
    // multibulk length'.
    let error = refusal(&unconnected(&url));
    assert_denied(&error, &["QUEUE:job", "the URL has none"]);
    assert!(!is_taken(&server));
}

#[test]
fn no_error_shows_the_right_password_either() {
    let mut server = RedisServer::with(&["--requirepass", PASSWORD]);
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    assert!(!format!("{locker:?} {}", locker.store()).contains(PASSWORD));
    let held = locker.lock("job").acquire_blocking().unwrap();
    let busy = refusal(&locker);
    assert!(matches!(busy, Error::Busy(_)));
    assert_says(&busy, &["QUEUE:job"]);
    assert!(!format!("{held:?}").contains(PASSWORD));
    drop(held);
    server.kill();
    assert_unavailable(&refusal(&locker), &[":***@127.0.0.1"]);
}

#[test]
fn a_database_that_does_not_exist_is_misconfigured() {
    let server = RedisServer::start();
    let error = refused_connection(&format!("{}/99", server.url()));
    assert_misconfigured(&error, &["database number"]);
}
