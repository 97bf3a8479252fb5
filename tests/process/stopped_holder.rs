//! Promise: a process that was stopped (SIGSTOP) for longer than its lease, while others
//! took the lock, is lost when it goes on (SIGCONT): it makes no effect after a check, and
//! an async body is not polled again (F15, R4).

use std::time::Duration;

use crate::support::child::{self, ChildProcess};
use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
use applock::{AppLocker, Error, singleton};
use tokio::sync::mpsc;

/// What the lock protects: the holder writes its token here.
fn effect(url: &str, token: u64) {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut command = redis::cmd("RPUSH");
    command.arg("effects").arg(token);
    command.query::<()>(&mut connection).unwrap();
}

fn effects(server: &RedisServer) -> Vec<u64> {
    server.run("LRANGE effects 0 -1")
}

/// Stops the child in the middle of its holding, takes the lock when its lease has run
/// out, and lets it go on with a task that has come meanwhile. What it says then.
fn stopped(test: &str, app: &str) -> String {
    let server = RedisServer::start();
    let mut child = ChildProcess::start(test, &server.url());
    let token: u64 = child.says().parse().unwrap();
    child.tell("an effect");
    assert_eq!(child.says(), "done");
    assert_eq!(effects(&server), [token]);
    child.freeze();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let next = locker.lock(app).wait(LIMIT).acquire_blocking().unwrap();
    assert!(next.fencing_token() > token);
    child.tell("another effect");
    child.thaw();
    let answer = child.says();
    assert_eq!(effects(&server), [token], "an effect under a lost lock");
    // Its release found nothing of its own.
    child.dismiss();
    assert!(next.verify_blocking().unwrap());
    answer
}

/// The lease has to end: it may be short, if the first effect fits.
const TTL: Duration = Duration::from_secs(3);

fn checks_before_each_effect(url: &str) {
    let locker = AppLocker::connect_blocking(url).unwrap();
    let lock = locker.lock("checks").ttl(TTL).wait(LIMIT);
    let guard = lock.acquire_blocking().unwrap();
    child::say(guard.fencing_token());
    while child::hear().is_some() {
        match guard.ensure_held() {
            Ok(()) => {
                effect(url, guard.fencing_token());
                child::say("done");
            }
            Err(error) => child::say(error),
        }
    }
    assert!(matches!(guard.release_blocking(), Err(Error::Lost { .. })));
}

#[test]
fn a_holder_that_checks_before_each_effect_makes_none_after_its_lease() {
    if let Some(url) = child::part() {
        return checks_before_each_effect(&url);
    }
    let answer = stopped(
        child::name_of(a_holder_that_checks_before_each_effect_makes_none_after_its_lease),
        "checks",
    );
    assert!(answer.contains("QUEUE:checks"), "{answer}");
    assert!(answer.contains("lost"), "{answer}");
}

#[singleton(app = "body", ttl = "3s", locker = locker, guard = guard)]
async fn works_off(
    locker: &AppLocker,
    url: &str,
    mut tasks: mpsc::UnboundedReceiver<String>,
) -> Result<(), Error> {
    child::say(guard.fencing_token());
    while tasks.recv().await.is_some() {
        effect(url, guard.fencing_token());
        // By a task of this thread, so that the body is pending when it is stopped: it may
        // go on to the end of a poll that has begun.
        tokio::spawn(async { child::say("done") });
    }
    Ok(())
}

fn works_in_its_body(url: &str) {
    let (give, tasks) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while let Some(task) = child::hear() {
            give.send(task).ok();
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let locker = AppLocker::connect(url).await.unwrap();
        let error = works_off(&locker, url, tasks).await.unwrap_err();
        child::say(&error);
        assert!(matches!(error, Error::Lost { .. }), "{error}");
    });
}

#[test]
fn an_async_body_is_cancelled_instead_of_being_polled_again() {
    if let Some(url) = child::part() {
        return works_in_its_body(&url);
    }
    let answer = stopped(
        child::name_of(an_async_body_is_cancelled_instead_of_being_polled_again),
        "body",
    );
    assert!(answer.contains("lost"), "{answer}");
}
