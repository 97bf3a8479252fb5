//! Promise: a refusal names who holds the lock: the function too; that `at_least` keeps it, and
//! since when nothing runs under it; and an instance only by a name that a person gave.

use std::time::{Duration, SystemTime};

use crate::support::child::{self, ChildProcess};
use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
use crate::support::wait;
use applock::{AppLocker, Error, LockInfo, singleton};
use tokio::sync::oneshot;

const FUNCTION: &str = "lock::who_holds::waits";

#[singleton(app = "who", wait = forever, locker = locker)]
async fn waits(locker: &AppLocker, end: oneshot::Receiver<()>) -> Result<(), Error> {
    end.await.ok();
    Ok(())
}

/// A server, and a locker of each store.
async fn stores(directory: &tempfile::TempDir) -> (RedisServer, [AppLocker; 3]) {
    let server = RedisServer::start();
    let urls = [
        server.url(),
        format!("dir:{}", directory.path().display()),
        // Each test its own, for they run in one process.
        format!("memory:{}", directory.path().display()),
    ];
    let [redis, dir, memory] = urls.map(|url| AppLocker::builder().store(url).build().unwrap());
    (server, [redis, dir, memory])
}

/// The holder, once it is that one.
async fn until(holder: impl AsyncFn() -> Option<LockInfo>) -> LockInfo {
    let asking = async {
        loop {
            if let Some(holder) = holder().await {
                return holder;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, asking).await.expect("it comes")
}

#[tokio::test]
async fn the_function_that_holds_is_named_whether_it_was_granted_at_once_or_waited() {
    let home = tempfile::tempdir().unwrap();
    let (_server, lockers) = stores(&home).await;
    for locker in lockers {
        let lock = locker.lock("who");
        let by_hand = lock.acquire().await.unwrap();
        assert_eq!(lock.info().await.unwrap().unwrap().function(), None);
        let last = lock.last_holding().await.unwrap().unwrap();
        assert_eq!(last.function, None, "{}", locker.store());
        let runs = || {
            let (end, may_end) = oneshot::channel();
            let locker = locker.clone();
            let run = tokio::spawn(async move { waits(&locker, may_end).await });
            (end, run)
        };
        // It waits for the first time, and is granted the lock at once the second.
        let mut before = by_hand.info().owner_id().to_owned();
        let mut by_hand = Some(by_hand);
        for _ in 0..2 {
            let (end, run) = runs();
            if let Some(guard) = by_hand.take() {
                until(async || {
                    let holder = lock.info().await.unwrap();
                    holder.filter(|holder| holder.waiters() == Some(1))
                })
                .await;
                guard.release().await.unwrap();
            }
            let holder = until(async || {
                let holder = lock.info().await.unwrap();
                holder.filter(|holder| holder.owner_id() != before)
            })
            .await;
            before = holder.owner_id().to_owned();
            assert_eq!(holder.function(), Some(FUNCTION), "{}", locker.store());
            let error = lock.acquire().await.unwrap_err().to_string();
            let pid = std::process::id();
            let named = format!("(pid {pid}, function {FUNCTION})");
            // No instance id: it was drawn, and says nothing to a person.
            assert!(
                error.contains(&named) && !error.contains("instance"),
                "{error}"
            );
            end.send(()).unwrap();
            run.await.unwrap().unwrap();
            // Also when it is over.
            let last = lock.last_holding().await.unwrap().unwrap();
            assert_eq!(last.function.as_deref(), Some(FUNCTION), "{last}");
            let named = format!(", function {FUNCTION} from ");
            assert!(last.to_string().contains(&named), "{last}");
        }
    }
}

#[singleton(app = "kept", at_least = "1h", locker = locker, guard = guard)]
async fn short(locker: &AppLocker) -> Result<String, Error> {
    Ok(guard.info().function().unwrap().to_owned())
}

#[tokio::test]
async fn a_lock_that_at_least_keeps_says_so_and_when_its_run_ended() {
    let home = tempfile::tempdir().unwrap();
    let (_server, lockers) = stores(&home).await;
    for locker in lockers {
        let before = SystemTime::now() - Duration::from_secs(1);
        assert!(short(&locker).await.unwrap().ends_with("::short"));
        let holder = locker.lock("kept").info().await.unwrap().unwrap();
        let ended = holder.ended_at().unwrap();
        assert!(before < ended && ended < SystemTime::now() + Duration::from_secs(1));
        let error = short(&locker).await.unwrap_err().to_string();
        assert!(
            error.starts_with("busy: \"QUEUE:kept\" is kept until 20"),
            "{error}"
        );
        assert!(error.contains(" (at_least); its run on "), "{error}");
        assert!(
            error.contains("function lock::who_holds::short) ended at 20"),
            "{error}"
        );
        assert!(!error.contains("heartbeat"), "{error}");
        // One that runs still is held.
        let _guard = locker.lock("held").at_least(LIMIT).acquire().await.unwrap();
        let holder = locker.lock("held").info().await.unwrap().unwrap();
        assert_eq!(holder.ended_at(), None);
        assert!(holder.to_string().contains("is held by"), "{holder}");
    }
}

#[test]
fn the_environment_names_an_instance_and_what_is_wrong_with_the_name_is_told() {
    if child::part().is_some() {
        match AppLocker::builder().store("memory:").build() {
            Ok(locker) => {
                let _guard = locker.lock("x").acquire_blocking().unwrap();
                let error = locker.lock("x").acquire_blocking().unwrap_err();
                child::say(format_args!("{}: {error}", locker.instance_id()));
                let named = AppLocker::builder().store("memory:").instance("by-code");
                child::say(named.build().unwrap().instance_id());
            }
            Err(error) => child::say(error),
        }
        return;
    }
    let test =
        child::name_of(the_environment_names_an_instance_and_what_is_wrong_with_the_name_is_told);
    let start = |name: &str| ChildProcess::with(test, "", &[("APPLOCK_INSTANCE", name)]);
    let mut child = start("worker-7");
    let said = child.says();
    assert!(said.starts_with("worker-7: busy: "), "{said}");
    assert!(said.contains(", instance worker-7)"), "{said}");
    assert_eq!(child.says(), "by-code");
    wait::until("the process ends", LIMIT, || child.has_ended());
    for (name, part) in [("", "\"\""), (&*"x".repeat(257), "256 bytes")] {
        let said = start(name).says();
        assert!(said.starts_with("invalid APPLOCK_INSTANCE "), "{said}");
        assert!(
            said.contains(part) && said.contains("write one such as"),
            "{said}"
        );
    }
}
