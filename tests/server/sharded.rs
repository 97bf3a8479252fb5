//! Promise: locks that are asked for at one moment exclude as each by itself does, also where one
//! server is several: a proxy that spreads keys, and a cluster whose only node has all slots.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use applock::{AppLocker, Error, LockGuard};
use futures_util::future::join_all;

use crate::support::cluster::{Cluster, Layout};
use crate::support::redis::RedisServer;
use crate::support::wait;

/// More than fit into one call.
const LOCKS: usize = 40;

const SOON: Duration = Duration::from_secs(20);

/// Twemproxy before two servers: each key has one of them.
struct Proxy {
    process: Child,
    url: String,
    servers: [RedisServer; 2],
    _directory: tempfile::TempDir,
}

impl Proxy {
    fn start() -> Self {
        // Another program may take a port between its choice and its use.
        (0..5)
            .find_map(|_| Self::try_start())
            .expect("twemproxy can't be started, with other ports either")
    }

    fn try_start() -> Option<Self> {
        let servers = [RedisServer::start(), RedisServer::start()];
        let directory = tempfile::tempdir().unwrap();
        // One for its statistics, too, which can't be turned off.
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, statistics] = listeners.map(|listener| listener.local_addr().unwrap().port());
        let [one, other] = [&servers[0], &servers[1]].map(RedisServer::port);
        let config = directory.path().join("nutcracker.yml");
        // Not fnv1a_64: keys that differ in their last letters only may all go to one server.
        let text = format!(
            "locks:\n  listen: 127.0.0.1:{port}\n  hash: md5\n  distribution: ketama\n  \
             redis: true\n  servers:\n   - 127.0.0.1:{one}:1\n   - 127.0.0.1:{other}:1\n"
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("nutcracker")
            .arg("--conf-file")
            .arg(&config)
            .args(["--stats-port", &statistics.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs twemproxy: apt-get install nutcracker (scripts/test does so)");
        let url = format!("redis://127.0.0.1:{port}");
        let mut proxy = Self {
            process,
            url,
            servers,
            _directory: directory,
        };
        let mut has_ended = false;
        wait::until("the proxy listens", SOON, || {
            has_ended = proxy.process.try_wait().unwrap().is_some();
            has_ended || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        (!has_ended).then_some(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn all_at_once(locker: &AppLocker) -> Vec<Result<LockGuard, Error>> {
    let locks = (0..LOCKS).map(|number| locker.lock("shard").name(number.to_string()));
    let locks: Vec<_> = locks.collect();
    join_all(locks.iter().map(|lock| lock.acquire())).await
}

/// Two lockers: what one has, the other finds busy, by itself and with others; and each
/// heartbeat and release reaches its lock.
async fn excludes(url: &str) {
    let ours = AppLocker::connect(url).await.unwrap();
    let theirs = AppLocker::connect(url).await.unwrap();
    for round in 0..2 {
        let guards = all_at_once(&ours).await;
        let guards: Vec<_> = guards.into_iter().map(Result::unwrap).collect();
        for (number, outcome) in all_at_once(&theirs).await.into_iter().enumerate() {
            assert!(
                matches!(outcome, Err(Error::Busy(_))),
                "round {round}, lock {number}: {outcome:?}"
            );
        }
        for number in 0..LOCKS {
            let lock = theirs.lock("shard").name(number.to_string());
            assert!(lock.try_acquire().await.unwrap().is_none(), "{number}");
        }
        let held = join_all(guards.iter().map(LockGuard::verify)).await;
        assert!(held.into_iter().all(|held| held.unwrap()));
        let released = join_all(guards.into_iter().map(LockGuard::release)).await;
        assert!(released.iter().all(Result::is_ok), "{released:?}");
    }
}

/// F33
#[tokio::test]
async fn locks_behind_a_proxy_that_spreads_keys_exclude_one_another_also_in_batches() {
    let proxy = Proxy::start();
    excludes(&proxy.url).await;
    for server in &proxy.servers {
        assert!(server.run::<i64>("DBSIZE") > 0, "one has nothing to do");
        let left: Vec<String> = server.run("KEYS QUEUE:*");
        assert!(left.is_empty(), "{left:?}");
    }
}

/// F33
#[tokio::test]
async fn locks_of_a_cluster_with_one_shard_are_taken_and_released_together() {
    let cluster = Cluster::with(&Layout {
        masters: 1,
        replicas_each: 0,
        ..Layout::default()
    });
    let server = &cluster.nodes[0];
    excludes(&server.url()).await;
    let left: Vec<String> = server.run("KEYS QUEUE:*");
    assert!(left.is_empty(), "{left:?}");
}
