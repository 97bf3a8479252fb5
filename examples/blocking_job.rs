//! A blocking job: plain threads, plain functions, no async runtime.
//!
//! `cargo run --example blocking_job` needs no server;
//! `APPLOCK_URL=redis://127.0.0.1:6379` in front of it does the same on Redis.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use applock::{AppLocker, Error, singleton};

/// One server at a time runs this body; the others return at once.
#[singleton(app = "blocking-example", ttl = 10, locker = server, guard = lock)]
fn rebuild_index(server: &AppLocker) -> Result<u32, Error> {
    let mut pages = 0;
    for _ in 0..10 {
        // A thread can't be cancelled from outside, so it asks before each effect.
        lock.ensure_held()?;
        thread::sleep(Duration::from_millis(100));
        pages += 1;
    }
    Ok(pages)
}

fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let url = std::env::var(applock::URL_VARIABLE)
        .unwrap_or_else(|_| format!("dir:{}", directory.path().display()));

    let mut servers = Vec::new();
    for name in ["server-1", "server-2", "server-3"] {
        let builder = AppLocker::builder().store(&url).instance(name);
        servers.push(builder.connect_blocking()?);
    }
    thread::scope(|scope| {
        for server in &servers {
            scope.spawn(move || {
                let name = server.instance_id();
                match rebuild_index(server) {
                    Ok(pages) => println!("{name}: indexed {pages} pages"),
                    Err(error) => println!("{name}: {error}"),
                }
            });
        }
    });

    // The same without the attribute.
    let lock = servers[0].lock("blocking-example");
    let pages = lock.run_blocking(|| 1)?;
    println!("server-1: indexed {pages} page under a lock taken by hand");
    if let Some(last) = lock.last_holding_blocking()? {
        println!("{last}");
    }
    Ok(())
}
