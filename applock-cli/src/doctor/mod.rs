//! `applock doctor`: is the store fit for locks? Each finding with its remedy.
//!
//! | file | what is looked at |
//! |---|---|
//! | here | whether the store can be reached and takes a lock; what is done with findings |
//! | `finding` | what a finding is, and how the servers are asked |
//! | `server` | what a server says of itself: version, role, eviction, persistence, replicas, memory |
//! | `rights` | each right that a lock needs, by a command that changes nothing that stays |
//!
//! It asks over the library's own connections, so what it reaches is what a program would reach:
//! also the master that sentinels name, and each master of a cluster.

mod finding;
mod rights;
mod server;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use applock_runtime::__private::{ServerAnswer, shown_text};
use applock_runtime::{AppLocker, Error};

use crate::args::{DoctorArgs, StoreArgs};
use crate::exit::{self, Failure};
use crate::view::{Paint, Tone};
use crate::{input, output, view};

use finding::{Finding, Level, Servers, brief};

/// How far a server's clock may be off without a word. Leases are judged by no client's wall clock;
/// what people read is.
const CLOCKS: Duration = Duration::from_secs(1);

/// An answer that takes so long is worth a word; a command has one second.
const SLOW: Duration = Duration::from_millis(20);
const TOO_SLOW: Duration = Duration::from_millis(200);

/// How often each server is asked, to see how long it takes.
const ASKED: usize = 20;

pub(crate) fn doctor(args: &DoctorArgs, store: &StoreArgs) -> Result<u8, Failure> {
    let mut store = store.clone();
    if args.store.is_some() {
        store.url.clone_from(&args.store);
    }
    let (about, findings, code) = match input::builder(&store, None)?.connect_blocking() {
        // A mistake in the command line is no finding.
        Err(error @ Error::Invalid(_)) => return Err(error.into()),
        Err(error) => unreached(error),
        Ok(locker) => match examine(&locker) {
            Err(error) => unreached(error),
            Ok(findings) => {
                let worst = findings.iter().map(|found| found.level).max();
                let is_well = worst.is_none_or(|worst| worst < Level::Warning);
                let code = if is_well { exit::OK } else { exit::NO };
                (locker.store(), findings, code)
            }
        },
    };
    if args.json {
        output::print(view::json(&findings)?)?;
    } else {
        output::print(told(&about, &findings))?;
    }
    Ok(code)
}

/// The store that could not be asked; the text of the error has the remedy.
fn unreached(error: Error) -> (String, Vec<Finding>, u8) {
    let store = match &error {
        Error::Unavailable(fault) | Error::Denied(fault) | Error::Misconfigured(fault) => {
            fault.store.to_string()
        }
        _ => String::new(),
    };
    let found = Finding::of_error("reach", &error);
    (store, vec![found], Failure::from(error).code)
}

fn told(store: &str, findings: &[Finding]) -> String {
    let paint = Paint::of_stdout();
    let mut text = paint.paint(Tone::Heading, &shown_text(store)) + "\n";
    let several = {
        let mut servers: Vec<_> = findings.iter().filter_map(|f| f.server.as_ref()).collect();
        servers.sort();
        servers.dedup();
        servers.len() > 1
    };
    for found in findings {
        let (tone, mark) = match found.level {
            Level::Ok => (Tone::Good, "ok"),
            Level::Note => (Tone::Plain, "note"),
            Level::Warning => (Tone::Warning, "warning"),
            Level::Problem => (Tone::Bad, "problem"),
        };
        let mark = paint.paint(tone, &format!("{mark:<8}"));
        let server = match &found.server {
            Some(server) if several => format!("{}: ", of_this_store(server, store)),
            _ => String::new(),
        };
        text.push_str(&format!(
            "{mark} {:<12} {server}{}\n",
            found.about, found.what
        ));
        if !found.remedy.is_empty() {
            text.push_str(&format!("{:<21} → {}\n", "", found.remedy));
        }
    }
    text
}

/// A node of the store that stands in the heading: its address is enough.
fn of_this_store<'a>(server: &'a str, store: &str) -> &'a str {
    let node = server.strip_suffix(&*shown_text(store));
    let node = node.and_then(|node| node.strip_suffix(" of "));
    node.unwrap_or(server)
}

fn examine(locker: &AppLocker) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let mut servers = Servers::of(locker);
    // Dialling is no part of how long an answer takes.
    let mut hello = servers.ask(&["TIME"])?;
    let is_reached = |said: &ServerAnswer| !matches!(said.answer, Err(Error::Unavailable(_)));
    if hello.is_empty() {
        locker.ping_blocking()?;
        findings.push(Finding::ok("reach", "a lock was taken and released"));
        findings.push(
            Finding::new(
                Level::Note,
                "topology",
                "a directory: it excludes the processes of this machine that name this path",
            )
            .remedy("for several machines: redis://host:6379"),
        );
        return Ok(findings);
    }
    for said in &hello {
        if let Err(error @ Error::Unavailable(_)) = &said.answer {
            let found = Finding::new(Level::Problem, "reach", brief(error));
            findings.push(
                found
                    .remedy("see whether it is up, and can be reached")
                    .at(&said.server),
            );
        }
    }
    hello.retain(is_reached);
    let store = locker.store();
    let names: Vec<&str> = hello
        .iter()
        .map(|said| of_this_store(&said.server, &store))
        .collect();
    findings.push(Finding::ok(
        "reach",
        match names.as_slice() {
            [one] => format!("{one} answers"),
            all => format!("{} masters answer: {}", all.len(), all.join(", ")),
        },
    ));
    findings.push(match locker.ping_blocking() {
        Ok(()) => Finding::ok("lock", "one was taken and released"),
        Err(error) => Finding::of_error("lock", &error),
    });
    let is_cluster = store.contains("cluster://");
    for said in servers.ask(&["INFO", "everything"])? {
        let found = match &said.answer {
            // That is told already.
            Err(Error::Unavailable(_)) => continue,
            Ok(answer) => server::judge(answer.as_str().unwrap_or_default(), is_cluster),
            Err(error) => vec![
                Finding::new(
                    Level::Note,
                    "info",
                    format!(
                        "what the server says of itself can't be read: {}",
                        brief(error)
                    ),
                )
                .remedy("give the user +info, or ask as one that has it"),
            ],
        };
        findings.extend(found.into_iter().map(|found| found.at(&said.server)));
    }
    findings.extend(clocks(&mut servers)?);
    findings.extend(latencies(&mut servers)?);
    findings.extend(rights::judge(&mut servers)?);
    for said in hello.iter().filter(|said| servers.is_silent(&said.server)) {
        let found = Finding::new(Level::Problem, "reach", "it answered, and then no more");
        let remedy = "see whether the server is overloaded, or the network is cut now and then";
        findings.push(found.remedy(remedy).at(&said.server));
    }
    Ok(findings)
}

/// How far each server's clock is from ours: half of the answer's time is its way back.
fn clocks(servers: &mut Servers<'_>) -> Result<Vec<Finding>, Error> {
    let begun = SystemTime::now();
    let said = servers.ask(&["TIME"])?;
    let found = said.iter().filter_map(|said| {
        let parts = said.answer.as_ref().ok()?.as_array()?;
        let number = |at: usize| parts.get(at)?.as_str()?.parse::<u64>().ok();
        let server = UNIX_EPOCH
            .checked_add(Duration::from_secs(number(0)?))?
            .checked_add(Duration::from_micros(number(1)?))?;
        let ours = begun.checked_add(said.took / 2)?;
        let (off, way) = match server.duration_since(ours) {
            Ok(ahead) => (ahead, "ahead of"),
            Err(behind) => (behind.duration(), "behind"),
        };
        Some(clock(off, way).at(&said.server))
    });
    Ok(found.collect())
}

fn clock(off: Duration, way: &str) -> Finding {
    if off <= CLOCKS {
        return Finding::ok("clock", "the server's and ours agree to the second");
    }
    Finding::new(
        Level::Warning,
        "clock",
        format!(
            "the server's is {} {way} this machine's: dates in messages are off by that; leases are not",
            view::length(off)
        ),
    )
    .remedy("let NTP set both")
}

fn latencies(servers: &mut Servers<'_>) -> Result<Vec<Finding>, Error> {
    let mut taken: Vec<(String, Vec<Duration>)> = Vec::new();
    for _ in 0..ASKED {
        let said = servers.ask(&["TIME"])?;
        for said in said.into_iter().filter(|said| said.answer.is_ok()) {
            match taken.iter_mut().find(|(server, _)| *server == said.server) {
                Some((_, times)) => times.push(said.took),
                None => taken.push((said.server, vec![said.took])),
            }
        }
    }
    let found = taken.into_iter().filter_map(|(server, mut times)| {
        times.sort();
        let (median, worst) = (*times.get(times.len() / 2)?, *times.last()?);
        Some(latency(median, worst).at(&server))
    });
    Ok(found.collect())
}

fn latency(median: Duration, worst: Duration) -> Finding {
    let shown = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
    let what = format!(
        "an answer takes {}, at worst {}",
        shown(median),
        shown(worst)
    );
    if worst < SLOW {
        return Finding::ok("latency", what);
    }
    let level = if worst < TOO_SLOW {
        Level::Note
    } else {
        Level::Warning
    };
    Finding::new(level, "latency", what).remedy(
        "a command may take a second, a heartbeat a quarter of the ttl: keep ttls at twenty times \
         that; SLOWLOG GET and LATENCY DOCTOR tell what the server is busy with",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_and_a_latency_are_judged_by_their_limits() {
        assert_eq!(clock(CLOCKS, "behind").level, Level::Ok);
        let off = clock(Duration::from_secs(90), "behind");
        assert_eq!(off.level, Level::Warning);
        assert!(off.what.contains("1m 30s behind"), "{}", off.what);
        let millis = Duration::from_millis;
        assert_eq!(latency(millis(1), millis(19)).level, Level::Ok);
        assert_eq!(latency(millis(1), millis(20)).level, Level::Note);
        assert_eq!(latency(millis(1), millis(200)).level, Level::Warning);
    }
}
