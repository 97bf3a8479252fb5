//! Promise: a server that is out of memory (OOM) refuses new locks, and is reported as
//! unavailable, with the cause; locks that are held are renewed, kept and released (F20).

use crate::support::lease::{KEPT, LIMIT, outlives_its_ttl};
use crate::support::redis::RedisServer;
use crate::support::refusal::{assert_unavailable, is_taken, refusal, runs};
use applock::AppLocker;

#[test]
fn new_locks_are_refused_and_held_ones_are_kept() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("held").ttl(KEPT).wait(LIMIT);
    let held = lock.acquire_blocking().unwrap();
    let () = server.run("CONFIG SET maxmemory 1");
    assert_unavailable(&refusal(&locker), &["QUEUE:job", "out of memory"]);
    assert!(!is_taken(&server));
    outlives_its_ttl(&server, "QUEUE:held");
    assert!(held.verify_blocking().unwrap());
    held.release_blocking().unwrap();
    assert!(!server.run::<bool>("EXISTS QUEUE:held"));
    assert_unavailable(&refusal(&locker), &["out of memory"]);
    let () = server.run("CONFIG SET maxmemory 0");
    assert!(runs(&locker));
}
