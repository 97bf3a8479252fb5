//! A service that is asked to end: SIGTERM, as every process manager sends it.
//!
//! The run that is under way may end, no new one begins, and the lock is free for the next
//! server at once. This example starts itself as the service, asks it to end in the middle of a
//! run, and takes the lock.
//!
//! `cargo run --example service` needs no server; `APPLOCK_URL=redis://127.0.0.1:6379` in front
//! of it does the same on Redis.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use applock::{AppLocker, Error, singleton};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

/// What the process has to end in is more: 30 seconds in Kubernetes.
const WITHIN: Duration = Duration::from_secs(25);

#[singleton(app = "service-example", ttl = 60)]
async fn import(number: u32) -> Result<(), Error> {
    println!("import {number} begins");
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("import {number} is done");
    Ok(())
}

/// One import after the other, until the process is asked to end.
async fn imports() -> Result<(), Error> {
    for number in 1.. {
        match import(number).await {
            Ok(()) => (),
            Err(Error::Busy(holder)) => println!("{holder}"),
            Err(Error::Closed { .. }) => {
                println!("import {number} is not begun");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a service does.
async fn service() -> Result<()> {
    let imports = tokio::spawn(imports());
    asked_to_end().await?;
    println!("asked to end");
    // What runs may end; what waits, and what comes, is refused.
    applock::drain(WITHIN).await?;
    imports.await??;
    println!("all is released");
    Ok(())
}

#[cfg(unix)]
async fn asked_to_end() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

#[cfg(not(unix))]
async fn asked_to_end() -> Result<()> {
    Ok(tokio::signal::ctrl_c().await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("service") {
        return service().await;
    }
    let directory = tempfile::tempdir()?;
    let url = std::env::var(applock::URL_VARIABLE)
        .unwrap_or_else(|_| format!("dir:{}", directory.path().display()));
    let next = AppLocker::connect(&url).await?;

    let mut process = Command::new(std::env::current_exe()?)
        .arg("service")
        .env(applock::URL_VARIABLE, &url)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = process.stdout.take().context("no pipe from the service")?;
    let mut says = BufReader::new(stdout).lines();
    until(&mut says, "begins").await?;
    let asked = Instant::now();
    terminate(&process)?;
    until(&mut says, "all is released").await?;
    ensure!(process.wait().await?.success(), "the service failed");

    let guard = next.lock("service-example").acquire().await?;
    println!(
        "the next server has the lock {:.1} s after SIGTERM, of a ttl of 60 s",
        asked.elapsed().as_secs_f32()
    );
    guard.release().await?;
    Ok(())
}

/// Shows what the service says, until it says that.
async fn until(says: &mut Lines<BufReader<ChildStdout>>, words: &str) -> Result<()> {
    loop {
        let line = says.next_line().await?.context("the service has ended")?;
        println!("service: {line}");
        if line.ends_with(words) {
            return Ok(());
        }
    }
}

#[cfg(unix)]
fn terminate(process: &tokio::process::Child) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    let id = process.id().context("the service has ended")?;
    let pid = Pid::from_raw(id.try_into()?).context("no process id")?;
    Ok(kill_process(pid, Signal::TERM)?)
}

#[cfg(not(unix))]
fn terminate(_: &tokio::process::Child) -> Result<()> {
    anyhow::bail!("press Ctrl-C")
}
