//! The main job, on three processes at once: one runs it, the others are told by whom
//! it is held.
//!
//! `cargo run --example nightly_report` needs no server: the three share a directory.
//! `APPLOCK_URL=redis://127.0.0.1:6379 cargo run --example nightly_report` does the same
//! on Redis.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use applock::{AppLocker, singleton};

/// On the whole fleet, one instance at a time runs this body.
#[singleton(app = "reports", name = "nightly-{night}", ttl = 60)]
async fn nightly_report(night: &str) -> Result<u64, applock::Error> {
    let guard = applock::current().expect("a singleton runs under its guard");
    // Stands for the work. It is longer than the three processes are apart.
    tokio::time::sleep(Duration::from_millis(600)).await;
    guard.ensure_held()?;
    Ok(guard.fencing_token())
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("server") => server(),
        _ => fleet(),
    }
}

/// One of the fleet: says that it is ready, and fires its job whenever it is told to.
#[tokio::main(flavor = "current_thread")]
async fn server() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(2).unwrap_or_default();
    applock::init(AppLocker::builder().instance(&name).connect().await?);
    println!("ready");
    for night in std::io::stdin().lines() {
        match nightly_report(&night?).await {
            Ok(token) => println!("{name}: ran it, with fencing token {token}"),
            Err(error) => println!("{name}: {error}"),
        }
    }
    Ok(())
}

/// Three servers whose clocks strike at the same moment, two nights in a row.
fn fleet() -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("applock-example-{}", std::process::id()));
    let url = std::env::var(applock::URL_VARIABLE)
        .unwrap_or_else(|_| format!("dir:{}", directory.display()));
    println!(
        "three processes, one lock at {}\n",
        AppLocker::builder().store(&url).build()?.store()
    );

    let mut servers = Vec::new();
    for name in ["server-1", "server-2", "server-3"] {
        servers.push(Server::start(name, &url)?);
    }
    for (round, night) in ["first", "first"].into_iter().enumerate() {
        println!(
            "round {}: all three fire nightly_report({night:?}) at once",
            round + 1
        );
        for server in &mut servers {
            writeln!(server.stdin, "{night}")?;
        }
        for server in &mut servers {
            println!("  {}", server.line()?);
        }
    }
    println!(
        "\nThe second round's token is larger: whatever the job writes to can refuse older ones."
    );
    for server in servers {
        server.stop()?;
    }
    // Nothing was there before us.
    std::fs::remove_dir_all(&directory).ok();
    Ok(())
}

struct Server {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(name: &str, url: &str) -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["server", name])
            .env(applock::URL_VARIABLE, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = process.stdin.take().ok_or("no pipe to the server")?;
        let stdout = BufReader::new(process.stdout.take().ok_or("no pipe from the server")?);
        let mut server = Self {
            process,
            stdin,
            stdout,
        };
        match server.line()?.as_str() {
            "ready" => Ok(server),
            _ => Err("a server could not start; what it said stands above".into()),
        }
    }

    fn line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn stop(mut self) -> Result<(), Box<dyn Error>> {
        drop(self.stdin);
        self.process.wait()?;
        Ok(())
    }
}
