//! How many commands the clients sent, by `INFO commandstats`; and for how long the server's
//! main thread ran meanwhile, by the kernel's `schedstat`.
//!
//! The statistics count what a client sends, and what a script calls, alike. What all
//! libraries send is in [`SENT_BY_ALL`]: no script can call those. What else a library
//! sends is in its row of the table of contestants ([`sends`](crate::peers)); what is in
//! neither was called by a script.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use redis::{Connection, cmd};

use crate::support::redis::RedisServer;

/// With their subcommands (`client|setinfo`).
const SENT_BY_ALL: &[&str] = &[
    "evalsha",
    "eval",
    "script",
    "fcall",
    "hello",
    "auth",
    "select",
    "client",
    "ping",
    "info",
    "subscribe",
    "unsubscribe",
    "psubscribe",
    "multi",
    "exec",
    "watch",
    "quit",
];

/// Reads and resets the statistics, over a connection that was there before.
pub(crate) struct Commands {
    connection: Connection,
    schedstat: PathBuf,
    since: u64,
}

/// Since the last reset.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// By clients.
    pub(crate) sent: u64,
    /// By clients and by scripts.
    pub(crate) all: u64,
    /// Messages that were published, by clients and by scripts.
    pub(crate) published: u64,
    /// Run time of the server's main thread, in ns.
    pub(crate) server: u64,
}

impl Commands {
    /// Of this server.
    pub(crate) fn of(server: &RedisServer) -> Result<Self> {
        let connection = server.connect()?;
        let pid = server.info("process_id");
        Ok(Self {
            connection,
            schedstat: format!("/proc/{pid}/task/{pid}/schedstat").into(),
            since: 0,
        })
    }

    /// Forgets all keys, for the next to start anew.
    pub(crate) fn clear(&mut self) -> Result<()> {
        Ok(cmd("FLUSHALL").query(&mut self.connection)?)
    }

    /// How many keys there are now.
    pub(crate) fn keys(&mut self) -> Result<u64> {
        Ok(cmd("DBSIZE").query(&mut self.connection)?)
    }

    /// Counts from now on.
    pub(crate) fn reset(&mut self) -> Result<()> {
        cmd("CONFIG").arg("RESETSTAT").exec(&mut self.connection)?;
        self.since = self.run_time()?;
        Ok(())
    }

    /// What was counted, for a library that `sends` this beside the usual.
    pub(crate) fn count(&mut self, sends: &[&str]) -> Result<Counts> {
        let server = self.run_time()?.saturating_sub(self.since);
        let info: String = cmd("INFO")
            .arg("commandstats")
            .query(&mut self.connection)?;
        let mut counts = Counts {
            server,
            ..Counts::default()
        };
        for (name, calls) in info.lines().filter_map(read) {
            let command = name.split('|').next().unwrap_or(name);
            if command == "config" {
                continue;
            }
            counts.all += calls;
            if SENT_BY_ALL.contains(&command) || sends.contains(&command) {
                counts.sent += calls;
            }
            if command == "publish" {
                counts.published += calls;
            }
        }
        Ok(counts)
    }

    /// Bytes in the server's memory of each key but the one that a driver warms up with,
    /// and the longest time for which one of them still lives, in s.
    pub(crate) fn memory(&mut self) -> Result<(u64, f64)> {
        let (mut bytes, mut longest) = (0, 0.0_f64);
        let keys: Vec<String> = cmd("KEYS").arg("*").query(&mut self.connection)?;
        for key in keys.iter().filter(|key| !key.contains("-warm")) {
            let used: u64 = cmd("MEMORY")
                .arg("USAGE")
                .arg(key)
                .query(&mut self.connection)?;
            let left: i64 = cmd("PTTL").arg(key).query(&mut self.connection)?;
            bytes += used;
            let lives_on = if left == -1 {
                f64::INFINITY
            } else {
                left as f64 / 1e3
            };
            longest = longest.max(lives_on);
        }
        Ok((bytes, longest))
    }

    /// The first number is the time on a processor, in ns.
    fn run_time(&self) -> Result<u64> {
        let text = std::fs::read_to_string(&self.schedstat)?;
        let first = text.split(' ').next().context("an empty schedstat")?;
        Ok(first.parse()?)
    }
}

/// `cmdstat_evalsha:calls=2000,usec=…`
fn read(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
    Some((name, rest.split(',').next()?.parse().ok()?))
}
