//! A job that apalis schedules on two servers: it runs once for each time at which it fires, not
//! once on each server.
//!
//! apalis tells the job which tick it is, so the lock takes that: a server that comes late does not
//! run an old one.
//!
//! `cargo run -p applock-example-apalis` needs no server; `APPLOCK_URL=redis://127.0.0.1:6379` in front
//! of it does the same on Redis. It ends by itself after about four seconds.

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Result, anyhow};
use apalis::prelude::{BoxDynError, Data, WorkerBuilder};
use apalis_cron::{CronScheduler, Tick};
use applock::{AppLocker, Error, singleton};
use cron::Schedule;

const EVERY_SECOND: &str = "* * * * * *";

/// `fired_at`: in seconds since 1970, the same on both servers.
#[singleton(app = "apalis-example", ttl = 10, tick = fired_at, retry = failed, locker = server)]
async fn tidy_up(server: &AppLocker, fired_at: u64) -> Result<(), Error> {
    println!("{} tidies up at {fired_at}", server.instance_id());
    Ok(())
}

async fn fire(tick: Tick, server: Data<AppLocker>) -> Result<(), BoxDynError> {
    match tidy_up(&server, tick.get_timestamp()).await {
        // Another one has run it, or is at it.
        Err(Error::AlreadyRan(_) | Error::Busy(_)) => {
            println!("  {} leaves it", server.instance_id());
            Ok(())
        }
        ended => Ok(ended?),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let url = std::env::var(applock::URL_VARIABLE)
        .unwrap_or_else(|_| format!("dir:{}", directory.path().display()));

    let mut servers = Vec::new();
    for name in ["server-1", "server-2"] {
        let builder = AppLocker::builder().store(&url).instance(name);
        let server = builder.connect().await?;
        let worker = WorkerBuilder::new(name)
            .backend(CronScheduler::new(Schedule::from_str(EVERY_SECOND)?))
            .data(server.clone())
            .build(fire);
        let running = tokio::time::timeout(Duration::from_secs(4), worker.run());
        servers.push((server, tokio::spawn(running)));
    }
    for (server, running) in servers {
        // It goes on until its time is over.
        if let Ok(ended) = running.await? {
            ended.map_err(|error| anyhow!("{error}"))?;
        }
        // A run that has begun goes on without its scheduler; this ends it.
        server.shutdown(Duration::from_secs(1)).await?;
    }
    Ok(())
}
