//! A driver: one process that uses one lock library as it is told on its command line,
//! and reports in one line of JSON.
//!
//! ```text
//! DRIVER --url URL --key KEY cycle   --seconds S
//! DRIVER --url URL --key KEY once    --seconds S
//! DRIVER --url URL --key KEY workers --workers W --seconds S --hold-us H [--pause-us P]
//! DRIVER --url URL --key KEY many    --locks N --seconds S
//! DRIVER --url URL --key KEY hold    --locks N --ttl-ms T --seconds S
//! ```
//!
//! It connects, takes and releases `KEY-warm` once, prints `ready`, and waits for a line
//! on its standard input. In the mode `hold` it prints `held` when it has all locks.

mod modes;
mod report;

use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

pub(crate) use modes::run;
pub(crate) use report::{Report, Section, monotonic};

use crate::options::{DriverOptions, Mode};

/// A lock library, as the drivers use it.
pub(crate) trait Peer: Clone + Send + 'static {
    /// By which it is known in the tables.
    const NAME: &'static str;
    /// The crate whose version is shown; none for a lock that is written here.
    const CRATE: Option<&'static str>;
    /// Whether it blocks its thread: each worker then gets a thread of its own.
    const BLOCKS: bool = false;

    /// The lock of one key.
    type Lock: Clone + Send + 'static;
    /// The proof of holding it.
    type Held;

    /// Connects to the server.
    async fn connect(url: &str, ttl: Duration) -> Result<Self>;

    /// Where the library can't do what the mode asks for: the reason.
    fn refuses(_mode: &Mode) -> Option<&'static str> {
        None
    }

    /// The lock of this key.
    fn lock(&self, key: &str) -> Result<Self::Lock>;

    /// Takes it, waiting for as long as it takes.
    async fn acquire(lock: &Self::Lock) -> Result<Self::Held>;

    /// Lets it go.
    async fn release(held: Self::Held) -> Result<()>;

    /// One acquire and release.
    async fn cycle(lock: &Self::Lock) -> Result<()> {
        let held = Self::acquire(lock).await?;
        Self::release(held).await
    }

    /// Takes it, for the library to keep it renewed until this process ends.
    async fn keep(lock: &Self::Lock) -> Result<()> {
        std::mem::forget(Self::acquire(lock).await?);
        Ok(())
    }
}

/// Runs one driver to its end, and reports.
pub(crate) fn main<P: Peer>(options: &DriverOptions) -> ExitCode {
    let outcome = match P::refuses(&options.mode) {
        Some(why) => Ok(Report {
            unsupported: Some(why.to_owned()),
            ..Report::default()
        }),
        None => run::<P>(options),
    };
    match outcome {
        Ok(report) => match report.tell(P::NAME) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says a word to the bench at once.
fn say(word: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}

/// Says `ready`, and waits for `go`.
fn ready() -> Result<()> {
    say("ready")?;
    let read = std::io::stdin().read_line(&mut String::new())?;
    anyhow::ensure!(read > 0, "the bench has gone away");
    Ok(())
}

/// On a runtime of this thread alone, as the raw baseline has it.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}
