//! Promise: sentinels and servers that speak TLS are followed as others are; sentinels that do, and
//! are asked without, are told so.

use std::time::{Duration, Instant};

use crate::after::{KEPT, STAYS, assert_soon, first_yes};
use crate::support::certificates::{Files, authority, for_names};
use crate::support::refusal::assert_unavailable;
use crate::support::sentinel::{Layout, SOON, SentinelSet};
use crate::support::steps::{give_back, impatient, is_taken, take};
use crate::support::wait;
use applock::AppLocker;

const APP: &str = "job";
const KEY: &str = "QUEUE:job";

#[test]
fn a_failover_of_sentinels_that_speak_tls_is_followed() {
    let files = Files::new();
    let authority = authority();
    files.certify("server", for_names(&["127.0.0.1"]), &authority);
    files.write("ca.pem", &authority.pem());
    let set = SentinelSet::with(&Layout {
        tls: &files.of_server(),
        ..Layout::default()
    });
    let ca = files.path("ca.pem");
    let url = set.url().replacen("redis", "rediss", 1);
    let secure = format!("{url}?ca={}", ca.display());
    let locker = impatient(&secure);
    let guard = take(&locker.lock(APP).ttl(KEPT));
    wait::until("the replicas have the lock", SOON, || {
        set.servers.iter().all(|server| is_taken(server, KEY))
    });
    let token = guard.fencing_token();
    let (new, at) = set.fail_over();
    wait::until("a heartbeat at the new master", SOON, || {
        set.servers[new].scripts() > 0
    });
    // Heard of it: the question a second would come later on the average.
    assert_soon("a heartbeat", at, Instant::now(), STAYS);
    first_yes(&guard);
    assert_eq!(set.servers[new].token(KEY), token);
    give_back(guard);

    // Without TLS to the sentinels, or without the authority.
    for (wrong, says) in [
        (format!("{secure}&sentinel_tls=no"), "no sentinel answers"),
        (set.url(), "no sentinel answers"),
    ] {
        let builder = AppLocker::builder().store(wrong);
        let locker = builder.command_timeout(Duration::from_secs(1)).build();
        let error = locker.unwrap().lock(APP).try_acquire_blocking();
        assert_unavailable(&error.unwrap_err(), &[says]);
    }
}
