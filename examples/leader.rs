//! A leader: of three processes one leads for as long as it lives, and the others wait in
//! the queue.
//!
//! The first leader is killed, and its lease runs out: another leads within the ttl. The
//! second steps down, and the last one leads soon after. Each term has a larger fencing
//! token.
//!
//! `cargo run --example leader` needs no server; `APPLOCK_URL=redis://127.0.0.1:6379` in
//! front of it does the same on Redis. It ends by itself after a few seconds.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use applock::{AppLocker, Error, singleton};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

/// How soon a killed leader is replaced.
const TTL: Duration = Duration::from_secs(2);

/// Waits for the lock, then leads until it is asked to step down. If its lease is lost,
/// this future is dropped where it stands, and the caller gets `Error::Lost`.
#[singleton(app = "leader-example", ttl = TTL, wait = forever, guard = term)]
async fn lead() -> Result<()> {
    println!("{}", term.fencing_token());
    // Here the leader does its work. Our candidates step down when their input ends.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("candidate"), Some(name)) => candidate(&name).await,
        _ => election().await,
    }
}

async fn candidate(name: &str) -> Result<()> {
    applock::init(AppLocker::builder().instance(name).connect().await?);
    loop {
        match lead().await {
            // Cut off from the store for too long: back into the queue.
            Err(error) if matches!(error.downcast_ref(), Some(Error::Lost { .. })) => {
                eprintln!("{name}: {error}");
            }
            outcome => return outcome,
        }
    }
}

async fn election() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let url = std::env::var(applock::URL_VARIABLE)
        .unwrap_or_else(|_| format!("dir:{}", directory.path().display()));
    // Whether the store can be reached is better said once than by three processes.
    let locker = AppLocker::connect(&url).await?;
    println!("three candidates, one store: {}", locker.store());

    let (tell, mut terms) = mpsc::channel(8);
    let mut candidates = Vec::new();
    for number in 0..3 {
        candidates.push(Candidate::start(number, &url, tell.clone())?);
    }

    let first = next_term(&mut terms).await?;
    println!("{} leads, with token {}", first.name, first.token);

    candidates[first.candidate].process.kill().await?;
    println!("{} is killed", first.name);
    let killed = Instant::now();
    let second = next_term(&mut terms).await?;
    println!(
        "{} leads {:.1} s later, with token {}",
        second.name,
        killed.elapsed().as_secs_f32(),
        second.token
    );

    candidates[second.candidate].orders.take();
    println!("{} steps down", second.name);
    let third = next_term(&mut terms).await?;
    println!("{} leads, with token {}", third.name, third.token);

    ensure!(
        first.token < second.token && second.token < third.token,
        "the tokens ran backward"
    );
    Ok(())
}

/// A candidate leads.
struct Term {
    candidate: usize,
    name: String,
    token: u64,
}

async fn next_term(terms: &mut mpsc::Receiver<Term>) -> Result<Term> {
    let term = tokio::time::timeout(TTL + Duration::from_secs(10), terms.recv());
    term.await
        .context("no candidate leads")?
        .context("all candidates have ended; what they said stands above")
}

/// A process that wants to lead; killed when this is dropped.
struct Candidate {
    process: Child,
    /// Once it is closed, the candidate steps down.
    orders: Option<ChildStdin>,
}

impl Candidate {
    fn start(candidate: usize, url: &str, tell: mpsc::Sender<Term>) -> Result<Self> {
        let name = format!("candidate-{}", candidate + 1);
        let mut process = Command::new(std::env::current_exe()?)
            .args(["candidate", &name])
            .env(applock::URL_VARIABLE, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = process.stdin.take();
        let stdout = process.stdout.take().context("no pipe from a candidate")?;
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(token) = line.parse() else { continue };
                let name = name.clone();
                let term = Term {
                    candidate,
                    name,
                    token,
                };
                if tell.send(term).await.is_err() {
                    break;
                }
            }
        });
        Ok(Self { process, orders })
    }
}
