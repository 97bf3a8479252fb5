//! Promise: whatever keeps Redis from giving a lock is told as what it is, quickly; the
//! body does not run, no half-made lock is left, and no message shows the password.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::error::Error as _;
use std::time::{Duration, Instant};

use applock::{AppLocker, Error, Result, singleton};
use support::redis::{RedisServer, free_port};
use support::{stall, wait};

const PASSWORD: &str = "hunter2-of-redis";

/// However long it takes to say no.
const QUICKLY: Duration = Duration::from_secs(2);

/// A machine that stood still for longer proves nothing about times.
const STALL: Duration = Duration::from_millis(200);

#[singleton(app = "job", locker = locker)]
async fn job(locker: &AppLocker, ran: &mut bool) -> Result<()> {
    *ran = true;
    Ok(())
}

#[singleton(app = "job", locker = locker)]
fn sync_job(locker: &AppLocker, ran: &mut bool) -> Result<()> {
    *ran = true;
    Ok(())
}

/// What an async and a sync function are told; neither ran, both quickly.
#[track_caller]
fn refusal(locker: &AppLocker) -> Error {
    let mut ran = false;
    let start = Instant::now();
    let error = pollster::block_on(job(locker, &mut ran)).unwrap_err();
    assert!(start.elapsed() < QUICKLY, "{:?}: {error}", start.elapsed());
    let start = Instant::now();
    let same = sync_job(locker, &mut ran).unwrap_err();
    assert!(start.elapsed() < QUICKLY, "{:?}: {same}", start.elapsed());
    assert!(!ran, "the body ran");
    assert_eq!(
        std::mem::discriminant(&error),
        std::mem::discriminant(&same),
        "{error} | {same}"
    );
    error
}

/// What connecting is told, quickly.
#[track_caller]
fn refused_connection(url: &str) -> Error {
    let start = Instant::now();
    let error = AppLocker::connect_blocking(url).unwrap_err();
    assert!(start.elapsed() < QUICKLY, "{:?}: {error}", start.elapsed());
    // One that connects on first use is told the same then.
    let locker = AppLocker::builder().store(url).build().unwrap();
    let later = refusal(&locker);
    assert_eq!(
        std::mem::discriminant(&error),
        std::mem::discriminant(&later),
        "{error} | {later}"
    );
    error
}

/// Says these words, and never the password, not even in its sources.
#[track_caller]
fn assert_says(error: &Error, words: &[&str]) {
    let mut all = format!("{error} {error:?}");
    for word in words {
        assert!(
            error.to_string().contains(word),
            "{word:?} is missing: {error}"
        );
    }
    let mut source = error.source();
    while let Some(inner) = source {
        all.push_str(&format!(" {inner} {inner:?}"));
        source = inner.source();
    }
    assert!(!all.contains(PASSWORD), "{all}");
}

#[track_caller]
fn assert_unavailable(error: &Error, words: &[&str]) {
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert_says(error, words);
}

#[track_caller]
fn assert_denied(error: &Error, words: &[&str]) {
    assert!(matches!(error, Error::Denied(_)), "{error}");
    assert_says(error, words);
}

#[track_caller]
fn assert_misconfigured(error: &Error, words: &[&str]) {
    assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    assert_says(error, words);
}

fn is_taken(server: &RedisServer) -> bool {
    server.run("EXISTS QUEUE:job")
}

// F7
#[test]
fn nothing_listening_is_unavailable() {
    stall::retried(STALL, || {
        let port = free_port();
        let url = format!("redis://:{PASSWORD}@127.0.0.1:{port}");
        let error = refused_connection(&url);
        assert_unavailable(&error, &["refused", &port.to_string(), "start Redis"]);
    });
}

// F7
#[test]
fn a_name_that_no_resolver_knows_is_unavailable() {
    let error = AppLocker::connect_blocking("redis://no-such-host.invalid:6379").unwrap_err();
    assert_unavailable(&error, &["no-such-host.invalid"]);
}

#[test]
fn a_server_that_was_killed_later_is_unavailable_and_used_again_when_it_is_back() {
    stall::retried(STALL, || {
        let mut server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let mut ran = false;
        sync_job(&locker, &mut ran).unwrap();
        server.kill();
        for _ in 0..3 {
            assert_unavailable(&refusal(&locker), &["QUEUE:job", "127.0.0.1"]);
        }
        server.restart();
        wait::until("it is used again", Duration::from_secs(10), || {
            sync_job(&locker, &mut ran).is_ok()
        });
    });
}

// F4, R6
#[test]
fn a_server_that_does_not_answer_is_unavailable_and_gets_its_lock_back() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let mut ran = false;
        sync_job(&locker, &mut ran).unwrap();
        server.freeze();
        assert_unavailable(&refusal(&locker), &["QUEUE:job", "no answer in time"]);
        server.thaw();
        // What was asked for unheard is carried out now, and released: long before its
        // ttl of 60 s.
        wait::until("the lock can be had", Duration::from_secs(20), || {
            sync_job(&locker, &mut ran).is_ok()
        });
        wait::until("the lock is free", Duration::from_secs(20), || {
            !is_taken(&server)
        });
    });
}

#[test]
fn a_frozen_server_is_unavailable_to_who_connects() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        server.freeze();
        let start = Instant::now();
        let error = AppLocker::connect_blocking(server.url()).unwrap_err();
        assert!(start.elapsed() < QUICKLY, "{:?}", start.elapsed());
        assert_unavailable(&error, &["no answer in time"]);
        server.thaw();
    });
}

// F20
#[test]
fn a_wrong_password_is_denied() {
    stall::retried(STALL, || {
        let server = RedisServer::with(&["--requirepass", "the-right-one"]);
        for user in ["", "default", "nobody"] {
            let url = format!("redis://{user}:{PASSWORD}@127.0.0.1:{}", server.port());
            let error = refused_connection(&url);
            assert_denied(&error, &["password", "redis://user:password@host"]);
        }
    });
}

#[test]
fn no_password_where_one_is_asked_for_is_denied() {
    stall::retried(STALL, || {
        let server = RedisServer::with(&["--requirepass", PASSWORD]);
        let url = format!("redis://127.0.0.1:{}", server.port());
        let start = Instant::now();
        let error = AppLocker::connect_blocking(url).unwrap_err();
        assert!(start.elapsed() < QUICKLY, "{:?}", start.elapsed());
        assert_denied(&error, &["password", "the URL has none"]);
        assert!(!is_taken(&server));
    });
}

#[test]
fn no_password_is_denied_also_where_the_locker_connects_on_first_use() {
    stall::retried(STALL, || {
        let server = RedisServer::with(&["--requirepass", PASSWORD]);
        let url = format!("redis://127.0.0.1:{}", server.port());
        let locker = AppLocker::builder().store(url).build().unwrap();
        // To commands as long as ours the server does not say NOAUTH, but 'unauthenticated
        // multibulk length'.
        assert_denied(&refusal(&locker), &["QUEUE:job", "the URL has none"]);
        assert!(!is_taken(&server));
    });
}

#[test]
fn no_error_shows_the_right_password_either() {
    stall::retried(STALL, || {
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
    });
}

#[test]
fn a_database_that_does_not_exist_is_misconfigured() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let error = refused_connection(&format!("{}/99", server.url()));
        assert_misconfigured(&error, &["database number"]);
    });
}

// F19
#[test]
fn a_key_of_another_type_is_busy_held_by_someone_else_and_never_changed() {
    stall::retried(STALL, || {
        for make in [
            "SET QUEUE:job somebody PX 60000",
            "RPUSH QUEUE:job one two",
            "SADD QUEUE:job one",
            "ZADD QUEUE:job 1 one",
            "XADD QUEUE:job * field value",
            "HSET QUEUE:job field value",
        ] {
            let server = RedisServer::start();
            let () = server.run(make);
            let dump: Vec<u8> = server.run("DUMP QUEUE:job");
            let locker = AppLocker::connect_blocking(server.url()).unwrap();
            let error = refusal(&locker);
            let holder = error.holder().unwrap_or_else(|| panic!("{make}: {error}"));
            assert!(holder.is_foreign(), "{make}: {error}");
            assert_says(&error, &["QUEUE:job", "held by someone else"]);
            assert_eq!(holder.remaining().is_some(), make.contains("PX"), "{make}");
            let info = locker.lock("job").info_blocking().unwrap().unwrap();
            assert!(info.is_foreign());
            assert!(locker.lock("job").try_acquire_blocking().unwrap().is_none());
            assert_eq!(server.run::<Vec<u8>>("DUMP QUEUE:job"), dump, "{make}");
            // Once the other program lets go, it is ours.
            let lock = locker.lock("job").wait(Duration::from_secs(20));
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| lock.acquire_blocking());
                let () = server.run("DEL QUEUE:job");
                assert!(waiting.join().unwrap().unwrap().is_held());
            });
        }
    });
}

// F19
#[test]
fn a_holder_whose_key_another_program_has_taken_over_is_lost_and_leaves_it_alone() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let guard = locker.lock("job").acquire_blocking().unwrap();
    let () = server.run("SET QUEUE:job somebody");
    assert!(!guard.verify_blocking().unwrap());
    assert!(matches!(guard.release_blocking(), Err(Error::Lost { .. })));
    let guard = locker.lock("other").acquire_blocking().unwrap();
    let () = server.run("SET QUEUE:other somebody");
    assert!(matches!(
        guard.release_blocking(),
        Err(Error::NotHeld { .. })
    ));
    for key in ["QUEUE:job", "QUEUE:other"] {
        assert_eq!(server.run::<String>(&format!("GET {key}")), "somebody");
        assert_eq!(server.run::<i64>(&format!("PTTL {key}")), -1);
    }
}

#[test]
fn a_fence_of_another_type_or_unreadable_is_misconfigured_and_no_lock_is_taken() {
    stall::retried(STALL, || {
        for make in [
            "SET {QUEUE:job}:fence 7",
            "RPUSH {QUEUE:job}:fence one",
            "HSET {QUEUE:job}:fence token rubbish",
            "HSET {QUEUE:job}:fence token -5",
            "HSET {QUEUE:job}:fence token 99999999999999999999",
        ] {
            let server = RedisServer::start();
            let () = server.run(make);
            let locker = AppLocker::connect_blocking(server.url()).unwrap();
            let error = refusal(&locker);
            assert_misconfigured(&error, &["QUEUE:job", "fenc"]);
            assert!(!is_taken(&server), "{make}");
            let () = server.run("DEL {QUEUE:job}:fence");
            assert!(locker.lock("job").acquire_blocking().unwrap().is_held());
        }
    });
}

// F20
#[test]
fn a_server_out_of_memory_is_unavailable_and_locks_that_are_held_are_kept() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let held = locker.lock("held").acquire_blocking().unwrap();
        let () = server.run("CONFIG SET maxmemory 1");
        assert_unavailable(&refusal(&locker), &["QUEUE:job", "out of memory"]);
        assert!(!is_taken(&server));
        assert!(held.verify_blocking().unwrap());
        held.release_blocking().unwrap();
        assert!(!server.run::<bool>("EXISTS QUEUE:held"));
    });
}

#[test]
fn a_read_only_replica_is_unavailable_whether_the_lock_is_free_or_held() {
    stall::retried(STALL, || {
        let master = RedisServer::with(&["--repl-diskless-sync-delay", "0"]);
        let replica = RedisServer::start();
        let () = replica.run(&format!("REPLICAOF 127.0.0.1 {}", master.port()));
        let at_master = AppLocker::connect_blocking(master.url()).unwrap();
        let _held = at_master.lock("held").acquire_blocking().unwrap();
        wait::until("the replica follows", Duration::from_secs(30), || {
            replica.run("EXISTS QUEUE:held")
        });
        let locker = AppLocker::connect_blocking(replica.url()).unwrap();
        assert_unavailable(&refusal(&locker), &["read-only replica", "master"]);
        assert!(!is_taken(&replica));
        // Not 'busy' either: a replica may remember what is long over.
        let error = locker.lock("held").acquire_blocking().unwrap_err();
        assert_unavailable(&error, &["read-only replica"]);
    });
}

#[test]
fn a_server_that_can_not_save_is_unavailable() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let () = server
            .try_run(&["CONFIG", "SET", "save", "3600 1"])
            .unwrap();
        let found: Vec<String> = server.run("CONFIG GET dir");
        std::fs::remove_dir_all(&found[1]).unwrap();
        let () = server.run("BGSAVE");
        wait::until("the save has failed", Duration::from_secs(20), || {
            let info: String = server.run("INFO persistence");
            info.contains("rdb_last_bgsave_status:err")
        });
        assert_unavailable(&refusal(&locker), &["can't save"]);
        assert!(!is_taken(&server));
    });
}

#[test]
fn a_server_without_enough_replicas_is_unavailable() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let () = server.run("CONFIG SET min-replicas-to-write 1");
        assert_unavailable(&refusal(&locker), &["replicas"]);
        assert!(!is_taken(&server));
    });
}

#[test]
fn a_server_with_too_many_clients_is_unavailable() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let () = server.run("CONFIG SET maxclients 1");
        let _only = wait_for_a_place(&server);
        let error = AppLocker::connect_blocking(server.url()).unwrap_err();
        assert_unavailable(&error, &["127.0.0.1"]);
    });
}

fn wait_for_a_place(server: &RedisServer) -> redis::Connection {
    let mut found = None;
    wait::until("a connection", Duration::from_secs(10), || {
        found = server.connect().ok().and_then(|mut connection| {
            let pong = redis::cmd("PING").query::<String>(&mut connection);
            pong.is_ok().then_some(connection)
        });
        found.is_some()
    });
    found.unwrap()
}

/// Ends with the test.
struct Loading(std::process::Child);

impl Drop for Loading {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_that_loads_its_data_is_unavailable_and_used_when_it_is_done() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let fill = "for i = 1, 20000 do redis.call('SET', i, i) end";
        let () = server.try_run(&["EVAL", fill, "0"]).unwrap();
        let () = server.run("SAVE");
        let found: Vec<String> = server.run("CONFIG GET dir");
        let home = tempfile::tempdir().unwrap();
        let dump = std::path::Path::new(&found[1]).join("dump.rdb");
        std::fs::copy(dump, home.path().join("dump.rdb")).unwrap();
        let port = free_port();
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        // 200 µs a key: four seconds.
        let _process = Loading(
            std::process::Command::new(program)
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no"])
                .args(["--key-load-delay", "200"])
                .args(["--loading-process-events-interval-bytes", "1024"])
                .arg("--dir")
                .arg(home.path())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap(),
        );
        let url = format!("redis://127.0.0.1:{port}");
        let client = redis::Client::open(&*url).unwrap();
        wait::until("it is loading", Duration::from_secs(10), || {
            client
                .get_connection()
                .and_then(|mut it| redis::cmd("PING").query::<String>(&mut it))
                .is_err_and(|error| error.code() == Some("LOADING"))
        });
        let error = AppLocker::connect_blocking(&url).unwrap_err();
        assert_unavailable(&error, &["loading"]);
        let locker = AppLocker::builder().store(&url).build().unwrap();
        assert_unavailable(&refusal(&locker), &["QUEUE:job", "loading"]);
        // Who waits gets it as soon as it can be had.
        let lock = locker.lock("job").wait(Duration::from_secs(60));
        assert!(lock.acquire_blocking().unwrap().is_held());
    });
}

#[tokio::test]
async fn an_unavailable_server_is_never_passed_off_as_busy() {
    #[singleton(app = "job", locker = locker, on_busy = skip)]
    async fn skips(locker: &AppLocker) -> Result<()> {
        panic!("the body ran")
    }
    #[singleton(app = "job", locker = locker, on_busy = Ok(7))]
    async fn gives(locker: &AppLocker) -> anyhow::Result<u32> {
        panic!("the body ran")
    }
    let url = format!("redis://127.0.0.1:{}", free_port());
    let locker = AppLocker::builder().store(url).build().unwrap();
    assert_unavailable(&skips(&locker).await.unwrap_err(), &["QUEUE:job"]);
    let told = gives(&locker).await.unwrap_err();
    assert_unavailable(told.downcast_ref().unwrap(), &["QUEUE:job"]);
    assert!(locker.lock("job").try_acquire().await.is_err());
}
