//! The thin path: attribute, engine, Redis and back.

mod support;

use applock::{AppLocker, Error, singleton};
use support::redis::RedisServer;

#[singleton(app = "thin", ttl = 5, locker = locker)]
async fn job(locker: &AppLocker) -> Result<u64, Error> {
    Ok(applock::current().expect("a guard").fencing_token())
}

#[tokio::test]
async fn a_function_runs_under_its_lock_and_the_lock_is_free_afterwards() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let first = job(&locker).await.unwrap();
    assert_eq!(server.run::<i64>("EXISTS QUEUE:thin"), 0);
    let second = job(&locker).await.unwrap();
    assert!(second > first);
}
