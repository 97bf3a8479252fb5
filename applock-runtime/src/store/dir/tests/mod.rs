//! What this store promises, each promise a test; and what those tests share.

mod boots;
mod files;
mod processes;
mod queue;
mod steps;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use uuid::Uuid;

use super::DirStore;
use super::boot_clock::{self, BootTime};
use super::nanos;
use crate::info::LockInfo;
use crate::key::Key;
use crate::store::{
    Acquire, Acquired, By, Identity, Inspection, Release, Renew, Store as _, StoreError,
    StoreErrorKind, StoreResult,
};

const TTL: Duration = Duration::from_secs(60);
/// Longer than any step takes, and a test may.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(40);

/// A store whose clock stands still, at the machine's time, until it is set ahead.
#[derive(Clone, Debug)]
struct Home {
    store: Arc<DirStore>,
    ahead: Arc<AtomicU64>,
}

impl Home {
    fn at(path: &Path) -> Self {
        Self::with_clock(path, |now| now)
    }

    /// By a clock that shows `change` of that.
    fn with_clock(
        path: &Path,
        change: impl Fn(BootTime) -> BootTime + Send + Sync + 'static,
    ) -> Self {
        let ahead = Arc::new(AtomicU64::new(0));
        let offset = Arc::clone(&ahead);
        let now = boot_clock::now();
        let clock = move || {
            let ahead = offset.load(Ordering::SeqCst);
            change(BootTime {
                up_ns: now.up_ns + ahead,
                wall_us: now.wall_us + ahead / 1_000,
                ..now
            })
        };
        Self {
            store: Arc::new(DirStore::with_clock(path.to_owned(), Arc::new(clock))),
            ahead,
        }
    }

    fn advance(&self, by: Duration) {
        self.ahead.fetch_add(nanos(by), Ordering::SeqCst);
    }

    fn store(&self) -> Arc<DirStore> {
        Arc::clone(&self.store)
    }

    async fn try_acquire(&self, key: &Key, owner: u128, within: Duration) -> StoreResult<Acquired> {
        let batch = vec![ask(key, owner)];
        self.store().acquire(batch, within).await.pop().unwrap()
    }

    /// The token, or who holds it.
    async fn acquire(&self, key: &Key, owner: u128) -> Result<u64, LockInfo> {
        match self.try_acquire(key, owner, LONG).await.unwrap() {
            Acquired::Granted { token, .. } => Ok(token),
            Acquired::Busy(info) => Err(info),
            other => panic!("a try does not wait: {other:?}"),
        }
    }

    async fn renew(&self, key: &Key, owner: u128) -> bool {
        let ask = Renew {
            token: 1,
            remember: std::time::Duration::from_secs(3_600),
            key: key.clone(),
            owner: Uuid::from_u128(owner),
            ttl: TTL,
        };
        let mut outcomes = self.store().renew(vec![ask], LONG).await;
        outcomes.pop().unwrap().unwrap()
    }

    async fn release(&self, key: &Key, owner: u128, keep: Option<Duration>) -> bool {
        let ask = Release {
            outcome: crate::protocol::Outcome::Released,
            token: None,
            remember: std::time::Duration::from_secs(3_600),
            key: key.clone(),
            owner: Uuid::from_u128(owner),
            keep,
        };
        let mut outcomes = self.store().release(vec![ask], LONG).await;
        outcomes.pop().unwrap().unwrap().ended
    }

    async fn inspect(&self, key: &Key) -> Inspection {
        self.store().inspect(key.clone(), LONG).await.unwrap()
    }
}

/// A directory for one test, in memory where the system has such a place: the disk of
/// a busy build machine takes minutes for a sync now and then.
pub(super) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn key(name: &str) -> Key {
    Key::whole(name).unwrap()
}

fn ask(key: &Key, owner: u128) -> Acquire {
    Acquire {
        due: None,
        key: key.clone(),
        owner: Uuid::from_u128(owner),
        ttl: TTL,
        remember: Duration::from_secs(3_600),
        notifications: None,
        ticket: None,
        identity: Arc::new(Identity {
            instance: "web-1".into(),
            host: "db7".into(),
            pid: std::process::id(),
        }),
    }
}

fn kind<T>(outcome: &StoreResult<T>) -> Option<StoreErrorKind> {
    outcome.as_ref().err().map(|error: &StoreError| error.kind)
}
