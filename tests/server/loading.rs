//! Promise: a server that loads its data (LOADING) is reported as unavailable, and used as
//! soon as it is done; a lock that is in the data is kept (F20).

use crate::support::fault::Fault;
use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
use crate::support::refusal::{assert_unavailable, refused_connection};
use applock::AppLocker;

const LOADING: Fault = Fault {
    // Once there are keys, it takes its time with each, and answers in between: after each key,
    // and before Redis 7 after each 2 MiB.
    server: || {
        RedisServer::with(&[
            "--key-load-delay",
            "2000",
            "--loading-process-events-interval-bytes",
            "1024",
            "--rdbcompression",
            "no",
        ])
    },
    begins: |server| {
        let fill = "local value = string.rep('x', 16384)
                    for i = 1, 2000 do redis.call('SET', i, value) end";
        let () = server.try_run(&["EVAL", fill, "0"]).unwrap();
        let () = server.run("SAVE");
        server.restart_loading();
    },
    reported: |_, error| assert_unavailable(error, &["QUEUE:job", "loading"]),
    ends: |_| (),
};

#[test]
fn a_lock_that_was_saved_is_kept_while_its_server_loads() {
    LOADING.passes();
}

#[test]
fn callers_learn_of_it_and_waiters_get_the_lock_when_it_is_loaded() {
    let mut server = (LOADING.server)();
    (LOADING.begins)(&mut server);
    assert_unavailable(&refused_connection(&server.url()), &["loading"]);
    let locker = AppLocker::builder().store(server.url()).build().unwrap();
    let lock = locker.lock("job").wait(LIMIT);
    assert!(lock.acquire_blocking().unwrap().is_held());
}
