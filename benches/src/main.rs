//! What a lock costs beside one written by hand, and beside other lock libraries, on a
//! redis-server that this starts for itself: `cargo run --release -p applock-benches`.
//!
//! | file | what is in it |
//! |---|---|
//! | `options` | the command line |
//! | `measure/` | the measurements, and the rounds in which all take their turn |
//! | `driver/` | a process that uses one library as its command line says, and reports |
//! | `peers/` | the libraries, each behind the same few functions |
//! | `process` | a driver from the outside |
//! | `commands` | what was sent to the server, and for how long it ran |
//! | `placement` | the cores on which the server and a driver run |
//! | `figures`, `report`, `plot`, `machine` | what is made of it |
//!
//! Each contestant is a process of its own, on the same empty server, one after the other,
//! in rounds forward and backward, so that all meet the same machine. What else runs on the
//! machine can only add to a time: so costs and latencies are the smallest of nine rounds,
//! and are compared with the baseline or the limit of the same run. Other figures are the
//! median of the rounds, with the smallest and the largest.

mod commands;
mod driver;
mod figures;
mod machine;
mod measure;
mod options;
mod peers;
mod placement;
mod plot;
mod process;
mod report;

/// The server that the tests start.
#[allow(dead_code, unreachable_pub, clippy::expect_used, reason = "tests")]
#[path = "../../tests/support"]
mod support {
    pub mod ports;
    pub mod redis;
    pub mod wait;
}

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::commands::Commands;
use crate::machine::Machine;
use crate::measure::{Bench, Found, Measurement, Plan};
use crate::options::Command;
use crate::peers::Role;
use crate::support::redis::RedisServer;

/// What stands above the figures in `docs/BENCHMARKS.md`.
const PREFACE: &str = include_str!("preface.md");

/// What stands below them.
const SERVER_TIME: &str = include_str!("server_time.md");

/// What the other bench found.
const FAILOVERS: &str = include_str!("failovers.md");

fn main() -> Result<ExitCode> {
    match options::parse()? {
        Command::Drive(peer, options) => return peers::drive(&peer, &options),
        Command::Bench(options) => bench(&options)?,
        Command::List => list(),
        Command::Help => println!("{}", options::HELP),
    }
    Ok(ExitCode::SUCCESS)
}

fn list() {
    println!("Measurements:");
    for one in measure::ALL {
        println!("  {:<20} {}", one.name, one.what);
    }
    println!("Peers:");
    for one in peers::all().iter().filter(|one| one.role == Role::Peer) {
        println!("  {:<20} {} {}", one.name, one.language, one.version);
    }
}

fn bench(options: &options::Bench) -> Result<()> {
    let (start, load) = (Instant::now(), machine::load());
    let chosen = chosen(options)?;
    let server = RedisServer::start();
    let mut contestants = peers::all();
    contestants.retain(|one| {
        let wanted = options.peers.is_empty() || options.peers.iter().any(|name| name == one.name);
        wanted || one.role != Role::Peer
    });
    let mut bench = Bench {
        commands: Commands::of(&server)?,
        server,
        contestants,
        plan: Plan::of(options),
    };
    let mut all = Found::default();
    for one in chosen {
        eprintln!("{}: {}", one.name, one.what);
        let found = (one.run)(&mut bench)?;
        all.tables.extend(found.tables);
        all.goals.extend(found.goals);
        all.curves.extend(found.curves);
    }
    let document = report::document(
        &Machine::read(&bench.server, &bench.contestants, &[load, machine::load()]),
        &all.goals,
        &all.tables,
    );
    println!("{document}");
    if options.is_full() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        plot::draw(&docs, &all.curves)?;
        let file = docs.join("BENCHMARKS.md");
        std::fs::write(
            &file,
            format!("{PREFACE}\n{document}\n{SERVER_TIME}\n{FAILOVERS}"),
        )
        .with_context(|| file.display().to_string())?;
    }
    eprintln!("done in {:.0?}", start.elapsed());
    Ok(())
}

fn chosen(options: &options::Bench) -> Result<Vec<&'static Measurement>> {
    for name in &options.only {
        let known = measure::ALL.iter().any(|one| one.name == name);
        ensure!(known, "there is no measurement {name}; --list names them");
    }
    let all = measure::ALL.iter();
    Ok(all
        .filter(|one| options.only.is_empty() || options.only.iter().any(|name| name == one.name))
        .collect())
}
