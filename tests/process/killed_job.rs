//! Promise: the tick of a job whose process was killed (SIGKILL) in the middle of it is taken up
//! by another process that asks for that, and by no other (F49).

use std::time::Duration;

use crate::support::child::{self, ChildProcess};
use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
use crate::support::wait;
use applock::{AppLocker, Ending, Error, Lock};

const HOUR: Duration = Duration::from_secs(3_600);

/// By its period, and by its number.
fn jobs(url: &str) -> [Lock; 2] {
    let locker = AppLocker::connect_blocking(url).unwrap();
    let job = |name| locker.lock("job").name(name).ttl(Duration::from_secs(2));
    [job("every").every(HOUR), job("tick").tick(7)]
}

fn works_until_killed(url: &str) {
    let _begun = jobs(url).map(|job| job.acquire_blocking().unwrap());
    child::say("at work");
    child::until_dismissed();
}

#[test]
fn a_job_that_was_killed_in_its_tick_is_taken_up() {
    if let Some(url) = child::part() {
        return works_until_killed(&url);
    }
    let server = RedisServer::start();
    let mut child = ChildProcess::start(
        child::name_of(a_job_that_was_killed_in_its_tick_is_taken_up),
        &server.url(),
    );
    assert_eq!(child.says(), "at work");
    let jobs = jobs(&server.url());
    for job in &jobs {
        // It goes on.
        let refused = job.clone().acquire_blocking().unwrap_err();
        assert!(matches!(refused, Error::AlreadyRan(_)), "{refused}");
        let refused = job.clone().retry_failed().acquire_blocking().unwrap_err();
        assert!(matches!(refused, Error::Busy(_)), "{refused}");
    }
    child.kill();
    for job in jobs {
        let retried = job.clone().retry_failed();
        let mut taken = None;
        wait::until("its lease is over", LIMIT, || {
            taken = retried.try_acquire_blocking().unwrap();
            taken.is_some()
        });
        let taken = taken.unwrap();
        taken.mark_ok();
        taken.release_blocking().unwrap();
        let last = job.last_holding_blocking().unwrap().unwrap();
        assert_eq!(last.ending, Ending::Ok);
        for again in [job, retried] {
            let refused = again.acquire_blocking().unwrap_err();
            assert!(matches!(refused, Error::AlreadyRan(_)), "{refused}");
        }
    }
}
