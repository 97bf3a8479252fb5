//! Promise: where Redis is several servers, `locks` lists those of all of them, or fails.

use applock::{AppLocker, Error, LockInfo};

use crate::support::cluster::Cluster;
use crate::support::sentinel::SentinelSet;

fn keys(holders: &[LockInfo]) -> Vec<&str> {
    holders.iter().map(LockInfo::key).collect()
}

#[tokio::test]
async fn the_locks_of_all_masters_of_a_cluster_are_listed_and_none_if_one_is_away() {
    let cluster = Cluster::start();
    let locker = AppLocker::connect(cluster.url()).await.unwrap();
    let mut guards = Vec::new();
    let mut expected = Vec::new();
    for master in 0..3 {
        for number in 0..3 {
            let guard = locker.lock(cluster.app(master, number)).acquire().await;
            let guard = guard.unwrap();
            expected.push(guard.info().key().to_owned());
            guards.push(guard);
        }
    }
    expected.sort();
    assert_eq!(keys(&locker.locks("*").await.unwrap()), expected);
    // One that has never spoken to the cluster.
    let other = AppLocker::builder().store(cluster.url()).build().unwrap();
    assert_eq!(keys(&other.locks("*").await.unwrap()), expected);
    assert_eq!(
        keys(&other.locks(&expected[0]).await.unwrap()),
        [&*expected[0]]
    );
    cluster.nodes[1].freeze();
    let error = locker.locks("*").await.unwrap_err();
    cluster.nodes[1].thaw();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn the_locks_of_the_master_that_sentinels_name_are_listed() {
    let set = SentinelSet::start();
    let locker = AppLocker::builder().store(set.url()).build().unwrap();
    assert_eq!(locker.locks("*").await.unwrap(), []);
    let _held = locker.lock("reports").acquire().await.unwrap();
    assert_eq!(keys(&locker.locks("*").await.unwrap()), ["QUEUE:reports"]);
}
