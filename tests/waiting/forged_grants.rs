//! Promise: a message on the channel of a process is a hint, and one that no script publishes is no
//! grant: a waiter does not begin on the word of another client.

use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::lease::LIMIT;
use crate::support::queue::{APP, KEY, until_queued};
use crate::support::redis::RedisServer;
use crate::support::steps::take;
use crate::support::wait;
use applock::AppLocker;

/// The channel of the one process that waits, once it listens there.
fn channel_of_the_waiter(server: &RedisServer) -> String {
    let mut found = None;
    wait::until("the waiter listens", LIMIT, || {
        let waiters: HashMap<String, String> = server.run(&format!("HGETALL {{{KEY}}}:waiters"));
        found = waiters
            .into_iter()
            .find(|(name, polled)| name.starts_with('@') && !polled.ends_with(" 0"))
            .map(|(name, _)| name[1..].to_owned());
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_grant_with_a_claim_or_a_token_that_no_script_gives_is_not_believed() {
    let minute = Duration::from_secs(60);
    // The waiter's ttl, the claim in ms, and what is added to the clock for the token.
    for (ttl, claim, above) in [
        (minute, 3_600_000, 1),
        (minute, 3_001, 1),
        (minute, 3_000, -1),
        (Duration::from_secs(2), 2_001, 1),
    ] {
        let server = RedisServer::start();
        let (ours, theirs) = (
            AppLocker::connect_blocking(server.url()).unwrap(),
            AppLocker::connect_blocking(server.url()).unwrap(),
        );
        let holder = take(&theirs.lock(APP).ttl(minute));
        let lock = ours.lock(APP).ttl(ttl).wait(LIMIT);
        let (granted, grants) = channel();
        let waiting = thread::spawn(move || granted.send(lock.acquire_blocking()));
        until_queued(&server, 1);
        let channel = channel_of_the_waiter(&server);
        let owners: Vec<String> = server.run(&format!("ZRANGE {{{KEY}}}:queue 0 0"));
        let micros = i64::try_from(server.time().as_micros()).unwrap();
        let message = format!("{} {} {micros} {claim} {KEY}", owners[0], micros + above);
        let received: i64 = server.try_run(&["PUBLISH", &channel, &message]).unwrap();
        assert_eq!(received, 1);
        let early = grants.recv_timeout(Duration::from_millis(300));
        assert!(early.is_err(), "{message} was believed: {early:?}");
        // It waits on, and has the lock when it is its turn.
        holder.release_blocking().unwrap();
        let guard = grants.recv_timeout(LIMIT).unwrap().unwrap();
        assert_eq!(guard.fencing_token(), server.token(KEY));
        waiting.join().unwrap().unwrap();
    }
}
