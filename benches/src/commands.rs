//! How many commands the clients sent, by `INFO commandstats`.
//!
//! The statistics count what a client sends, and what a script calls, alike. What all
//! libraries send is in [`SENT_BY_ALL`]: no script can call those. What else a library
//! sends is in its row of the table of contestants ([`sends`](crate::peers)); what is in
//! neither was called by a script.

use anyhow::Result;
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
}

impl Commands {
    /// Of this server.
    pub(crate) fn of(server: &RedisServer) -> Result<Self> {
        let connection = server.connect()?;
        Ok(Self { connection })
    }

    /// Forgets all keys, for the next to start anew.
    pub(crate) fn clear(&mut self) -> Result<()> {
        Ok(cmd("FLUSHALL").query(&mut self.connection)?)
    }

    /// Counts from now on.
    pub(crate) fn reset(&mut self) -> Result<()> {
        Ok(cmd("CONFIG").arg("RESETSTAT").query(&mut self.connection)?)
    }

    /// What was counted, for a library that `sends` this beside the usual.
    pub(crate) fn count(&mut self, sends: &[&str]) -> Result<Counts> {
        let info: String = cmd("INFO")
            .arg("commandstats")
            .query(&mut self.connection)?;
        let mut counts = Counts::default();
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
}

/// `cmdstat_evalsha:calls=2000,usec=…`
fn read(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
    Some((name, rest.split(',').next()?.parse().ok()?))
}
