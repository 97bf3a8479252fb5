//! A scheduled job on two schedulers that fire at the same second: it runs once a
//! second, not twice.
//!
//! The job takes a moment only, so without `every` the scheduler whose clock is a
//! little behind would find the lock free again, and run the job a second time.
//!
//! `cargo run --example cron` needs no server; `APPLOCK_URL=redis://127.0.0.1:6379` in
//! front of it does the same on Redis. It ends by itself after about four seconds.

use std::time::Duration;

use anyhow::Result;
use applock::{AppLocker, Error, singleton};
use tokio_cron_scheduler::{Job, JobScheduler};

const EVERY_SECOND: &str = "* * * * * *";

#[singleton(app = "cron-example", ttl = 10, every = "1s", locker = server)]
async fn tidy_up(server: &AppLocker) -> Result<(), Error> {
    println!("{} tidies up", server.instance_id());
    Ok(())
}

async fn fire(server: AppLocker) {
    match tidy_up(&server).await {
        Ok(()) => (),
        Err(Error::AlreadyRan(run)) => println!(
            "  {} leaves it to {}",
            server.instance_id(),
            run.instance_id
        ),
        Err(Error::Busy(holder)) => println!(
            "  {} leaves it to {}",
            server.instance_id(),
            holder.instance_id()
        ),
        Err(error) => eprintln!("  {}: {error}", server.instance_id()),
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
        let scheduler = JobScheduler::new().await?;
        let locker = server.clone();
        let job = Job::new_async(EVERY_SECOND, move |_, _| Box::pin(fire(locker.clone())))?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        servers.push((scheduler, server));
    }

    tokio::time::sleep(Duration::from_secs(4)).await;
    for (mut scheduler, server) in servers {
        scheduler.shutdown().await?;
        // A run that has begun goes on without its scheduler; this ends it.
        server.shutdown(Duration::from_secs(1)).await?;
    }
    Ok(())
}
