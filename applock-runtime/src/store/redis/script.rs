//! How a script call is written, and how it travels.
//!
//! A call is written once, straight into the command that is sent: keys first, then arguments,
//! no list between. It travels by the script's hash (40 bytes, not 10 KB); the same call can be
//! turned into one that brings the text, for a server that does not know the hash.
//!
//! What a script's keys and arguments mean is in `requests.rs`; when to send the text is the
//! store's. Danger: a key written after an argument is taken for an argument, so the caller
//! writes all keys first, as many as it announced.

use std::io::{self, Write as _};
use std::time::Duration;

use redis::{Arg, Cmd, RedisWrite as _};
use serde::Serialize;

use crate::key::{Key, Side};
use crate::store::OwnerId;

/// A script, and the hash that a server which has seen it knows it by.
pub(super) struct Script {
    code: &'static str,
    /// SHA-1 of `code` in hexadecimal digits: Redis's own name for it.
    hash: String,
}

impl Script {
    /// Hashes the script's text; done once for each script.
    pub(super) fn new(code: &'static str) -> Self {
        Self {
            code,
            hash: redis::Script::new(code).get_hash().to_owned(),
        }
    }
}

/// A length in whole milliseconds, the scripts' unit.
pub(super) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// How many words stand before the keys: the command, the script, the number of keys.
const HEADER: usize = 3;

/// A call that is being written: first all of its keys, then the arguments.
pub(crate) struct ScriptCall {
    script: &'static Script,
    command: Cmd,
    /// It tells the server that our process has subscribed there.
    pub(super) says_subscribed: bool,
    /// What it writes counts only once replicas have it, where the user has asked for that.
    pub(super) is_acknowledged: bool,
}

impl ScriptCall {
    /// Of exactly so many keys, and about so many arguments (which sizes the buffer).
    pub(super) fn new(script: &'static Script, keys: usize, arguments: usize) -> Self {
        let count = HEADER + keys + arguments;
        let mut command = Cmd::with_capacity(count, count * 32);
        command.arg("EVALSHA").arg(&*script.hash).arg(keys);
        Self {
            script,
            command,
            says_subscribed: false,
            is_acknowledged: false,
        }
    }

    /// The command that names the script by its hash.
    pub(crate) fn by_hash(&self) -> &Cmd {
        &self.command
    }

    /// The command that brings the script with it, for a server that does not know it.
    pub(crate) fn by_text(&self) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(self.script.code);
        for argument in self.command.args_iter().skip(HEADER - 1) {
            if let Arg::Simple(bytes) = argument {
                command.write_arg(bytes);
            }
        }
        command
    }

    /// The key of a lock.
    pub(super) fn lock(&mut self, key: &Key) -> &mut Self {
        self.text(&key.lock)
    }

    /// One of the keys beside a lock.
    pub(super) fn side(&mut self, key: &Key, side: Side) -> &mut Self {
        let mut writer = self.command.writer_for_next_arg();
        for part in key.side(side) {
            // Writing into memory can't fail.
            let _ = writer.write_all(part.as_bytes());
        }
        drop(writer);
        self
    }

    /// All four keys of a lock: the lock, its fence, its queue, its waiters.
    pub(super) fn sides(&mut self, key: &Key) -> &mut Self {
        self.lock(key)
            .side(key, Side::Fence)
            .side(key, Side::Queue)
            .side(key, Side::Waiters)
    }

    /// An argument, or a key, as it is.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.command.write_arg(text.as_bytes());
        self
    }

    /// The fields of a struct as JSON, to be put behind other fields: with a comma in place of the
    /// opening brace.
    pub(super) fn json_tail(&mut self, fields: &impl Serialize) -> &mut Self {
        let writer = CommaFirst {
            inner: self.command.writer_for_next_arg(),
            has_begun: false,
        };
        // Writing texts and numbers into memory can't fail.
        let _ = serde_json::to_writer(writer, fields);
        self
    }

    /// A struct as JSON.
    pub(super) fn json(&mut self, fields: &impl Serialize) -> &mut Self {
        let writer = self.command.writer_for_next_arg();
        // Writing texts and numbers into memory can't fail.
        let _ = serde_json::to_writer(writer, fields);
        self
    }

    /// An owner id: 32 hexadecimal digits, as the scripts compare it.
    pub(super) fn owner(&mut self, owner: OwnerId) -> &mut Self {
        self.text(owner.simple().encode_lower(&mut [0; 32]))
    }

    /// A number, in decimal digits.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.command.arg(number);
        self
    }

    /// The expiry of a fence: it outlives its lease by `remember`.
    pub(super) fn fence_ttl(&mut self, ttl: Duration, remember: Duration) -> &mut Self {
        self.number(millis(ttl).saturating_add(millis(remember)))
    }

    /// A length in whole milliseconds, the scripts' unit.
    pub(super) fn millis(&mut self, length: Duration) -> &mut Self {
        self.number(millis(length))
    }
}

/// Writes a comma in place of the first byte.
struct CommaFirst<W> {
    inner: W,
    has_begun: bool,
}

impl<W: io::Write> io::Write for CommaFirst<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_begun || bytes.is_empty() {
            return self.inner.write(bytes);
        }
        let written = self.inner.write(b",")?;
        self.has_begun = written > 0;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
