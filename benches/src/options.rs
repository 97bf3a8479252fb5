//! The command line: of the bench, and of the drivers that it starts.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lexopt::{Arg, Parser, ValueExt as _};

/// What `--help` says.
pub(crate) const HELP: &str = "\
Measures applock beside a lock written by hand and beside its peers.

  cargo run --release -p applock-benches [-- OPTIONS]

  --only NAME    only this measurement; may be given more than once
  --peer NAME    only this library beside applock; may be given more than once
  --quick        seconds instead of minutes, a rough look
  --seconds N    how long one slice of a contended measurement lasts
  --list         the names of the measurements and of the peers
  --help         this

A run of everything writes docs/BENCHMARKS.md and its plots; any other only prints.";

/// What is to be done.
pub(crate) enum Command {
    /// Measure.
    Bench(Bench),
    /// Be a driver of the library of this name.
    Drive(String, DriverOptions),
    /// Say what there is.
    List,
    /// Say how to use it.
    Help,
}

/// Of the bench.
#[derive(Debug, Default)]
pub(crate) struct Bench {
    /// The measurements; all if empty.
    pub(crate) only: Vec<String>,
    /// The peers; all if empty.
    pub(crate) peers: Vec<String>,
    /// A rough look.
    pub(crate) quick: bool,
    /// Of a slice.
    pub(crate) seconds: Option<f64>,
}

impl Bench {
    /// Whether the figures are fit to be kept.
    pub(crate) fn is_full(&self) -> bool {
        self.only.is_empty() && self.peers.is_empty() && !self.quick && self.seconds.is_none()
    }
}

/// Of a driver.
#[derive(Debug)]
pub(crate) struct DriverOptions {
    /// The server.
    pub(crate) url: String,
    /// The lock, or the beginning of their names.
    pub(crate) key: String,
    /// How long.
    pub(crate) seconds: Duration,
    /// What.
    pub(crate) mode: Mode,
}

/// What a driver does.
#[derive(Debug)]
pub(crate) enum Mode {
    /// One caller takes and releases.
    Cycle,
    /// One caller acquires and releases one time.
    Once,
    /// Each of so many callers takes and releases a lock of its own.
    Many {
        /// So many.
        locks: u32,
    },
    /// Callers that wait for one another.
    Workers {
        /// So many.
        workers: u32,
        /// Between acquire and release.
        hold: Duration,
        /// Between release and acquire.
        pause: Duration,
    },
    /// Holds many locks.
    Hold {
        /// So many.
        locks: u32,
        /// Of each.
        ttl: Duration,
    },
}

/// Reads the command line of this process.
pub(crate) fn parse() -> Result<Command> {
    let mut parser = Parser::from_env();
    let mut bench = Bench::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Value(word) if word == "drive" => {
                let peer = parser.value()?.string()?;
                return Ok(Command::Drive(peer, driver(&mut parser)?));
            }
            Arg::Long("only") => bench.only.push(parser.value()?.string()?),
            Arg::Long("peer") => bench.peers.push(parser.value()?.string()?),
            Arg::Long("quick") => bench.quick = true,
            Arg::Long("seconds") => bench.seconds = Some(parser.value()?.parse()?),
            Arg::Long("list") => return Ok(Command::List),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Bench(bench))
}

fn driver(parser: &mut Parser) -> Result<DriverOptions> {
    let (mut url, mut key, mut mode) = (None, None, None);
    let (mut seconds, mut workers, mut locks, mut ttl_ms) = (1.0_f64, 1, 64, 10_000);
    let (mut hold_us, mut pause_us) = (1_000, 0);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("url") => url = Some(parser.value()?.string()?),
            Arg::Long("key") => key = Some(parser.value()?.string()?),
            Arg::Long("seconds") => seconds = parser.value()?.parse()?,
            Arg::Long("workers") => workers = parser.value()?.parse()?,
            Arg::Long("locks") => locks = parser.value()?.parse()?,
            Arg::Long("hold-us") => hold_us = parser.value()?.parse()?,
            Arg::Long("pause-us") => pause_us = parser.value()?.parse()?,
            Arg::Long("ttl-ms") => ttl_ms = parser.value()?.parse()?,
            Arg::Value(word) if mode.is_none() => mode = Some(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let mode = match mode.as_deref() {
        Some("cycle") => Mode::Cycle,
        Some("once") => Mode::Once,
        Some("many") => Mode::Many { locks },
        Some("workers") => Mode::Workers {
            workers,
            hold: Duration::from_micros(hold_us),
            pause: Duration::from_micros(pause_us),
        },
        Some("hold") => Mode::Hold {
            locks,
            ttl: Duration::from_millis(ttl_ms),
        },
        other => bail!("there is no mode {other:?}"),
    };
    Ok(DriverOptions {
        url: url.context("--url is missing")?,
        key: key.context("--key is missing")?,
        seconds: Duration::try_from_secs_f64(seconds)?,
        mode,
    })
}
