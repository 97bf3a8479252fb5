//! The main job, on three processes at once: one runs it, the others learn who holds the
//! lock, and since when.
//!
//! `cargo run --example nightly_report` needs no server: the three share a directory.
//! `APPLOCK_URL=redis://127.0.0.1:6379 cargo run --example nightly_report` does the same
//! on Redis.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use applock::{AppLocker, Error, singleton};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// On the whole fleet, one instance at a time runs this body.
#[singleton(app = "reports", ttl = 60, guard = lock)]
async fn nightly_report(night: &str) -> Result<u64, Error> {
    // Stands for the work.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Before each effect: is the lease ours still?
    lock.ensure_held()?;
    eprintln!("    (the report of {night} is written)");
    Ok(lock.fencing_token())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("server"), Some(name)) => server(&name).await,
        _ => fleet().await,
    }
}

/// One of the fleet: says that it is ready, and fires its job for each night that it reads.
async fn server(name: &str) -> Result<()> {
    applock::init(AppLocker::builder().instance(name).connect().await?);
    println!("ready");
    let mut nights = BufReader::new(tokio::io::stdin()).lines();
    while let Some(night) = nights.next_line().await? {
        match nightly_report(&night).await {
            Ok(token) => println!("ran it, with fencing token {token}"),
            Err(busy @ Error::Busy(_)) => println!("{busy}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Three servers whose clocks strike at the same moment, two nights in a row.
async fn fleet() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let url = std::env::var(applock::URL_VARIABLE)
        .unwrap_or_else(|_| format!("dir:{}", directory.path().display()));
    let locker = AppLocker::connect(&url).await?;
    println!("three processes, one store: {}", locker.store());

    let mut servers = Vec::new();
    for name in ["server-1", "server-2", "server-3"] {
        servers.push(Server::start(name, &url).await?);
    }
    let mut tokens = Vec::new();
    for night in ["1 March", "2 March"] {
        println!("\nnight of {night}: all three fire nightly_report at once");
        for server in &mut servers {
            let line = format!("{night}\n");
            server.stdin.write_all(line.as_bytes()).await?;
        }
        let mut ran = 0;
        for server in &mut servers {
            let answer = server.line().await?;
            println!("  {}: {answer}", server.name);
            if answer.starts_with("ran it") {
                ran += 1;
            }
        }
        ensure!(ran == 1, "{ran} of the three ran it; is the store shared?");
        let last = locker.lock("reports").last_holding().await?;
        tokens.push(last.context("the store knows of no holding")?.fencing_token);
    }
    ensure!(tokens.is_sorted(), "the tokens ran backward: {tokens:?}");
    println!("\nThe second night's token is the larger one, so what the job writes to can");
    println!("refuse whatever comes late from the first.");
    Ok(())
}

/// A process of the fleet; killed when this is dropped.
struct Server {
    name: &'static str,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Server {
    async fn start(name: &'static str, url: &str) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["server", name])
            .env(applock::URL_VARIABLE, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut server = Self {
            name,
            stdin: process.stdin.take().context("no pipe to the server")?,
            stdout: BufReader::new(process.stdout.take().context("no pipe from the server")?)
                .lines(),
            _process: process,
        };
        match server.line().await?.as_str() {
            "ready" => Ok(server),
            other => bail!("{name} said {other:?}"),
        }
    }

    async fn line(&mut self) -> Result<String> {
        let line = self.stdout.next_line().await?;
        line.with_context(|| format!("{} has ended; what it said stands above", self.name))
    }
}
