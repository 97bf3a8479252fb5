//! A fenced write: what the lock protects refuses tokens older than the newest it has
//! seen, so that a holder who was overtaken can't do harm, however late it writes.
//!
//! A lease makes overlap unlikely, not impossible: a process can stop between its last
//! check of the lease and its write. The token closes that gap, at the resource itself.
//!
//! `cargo run --example fenced_write` needs no server;
//! `APPLOCK_URL=redis://127.0.0.1:6379` in front of it does the same on Redis.

use anyhow::{Result, ensure};
use applock::AppLocker;

/// Stands for a table: in SQL, `UPDATE … WHERE fence <= $token`.
#[derive(Default)]
struct Balance {
    amount: i64,
    /// The largest token seen.
    fence: u64,
}

impl Balance {
    /// Refuses a writer whose token is older than one seen before.
    fn set(&mut self, amount: i64, token: u64) -> Result<()> {
        ensure!(
            token >= self.fence,
            "refused: token {token} is older than {}",
            self.fence
        );
        self.fence = token;
        self.amount = amount;
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let url = std::env::var(applock::URL_VARIABLE)
        .unwrap_or_else(|_| format!("dir:{}", directory.path().display()));
    let one = AppLocker::builder().store(&url).instance("server-1");
    let one = one.connect().await?;
    let two = AppLocker::builder().store(&url).instance("server-2");
    let two = two.connect().await?;

    let mut balance = Balance::default();
    let old = one.lock("fenced-example").acquire().await?;
    balance.set(100, old.fencing_token())?;
    println!("server-1 writes 100 with token {}", old.fencing_token());

    // An operator takes server-1 for dead.
    two.lock("fenced-example").force_release().await?;
    let new = two.lock("fenced-example").acquire().await?;
    balance.set(200, new.fencing_token())?;
    println!("released by force");
    println!("server-2 writes 200 with token {}", new.fencing_token());

    // server-1 does not know of it, and is about to write.
    match balance.set(101, old.fencing_token()) {
        Ok(()) => anyhow::bail!("an old token was taken"),
        Err(refused) => println!("server-1 writes 101: {refused}"),
    }
    println!("the balance is {}", balance.amount);

    // Its next heartbeat tells it; `verify` asks at once.
    ensure!(!old.verify().await?, "a lock released by force is held");
    if let Err(lost) = old.ensure_held() {
        println!("server-1 learns: {lost}");
    }
    new.release().await?;
    Ok(())
}
