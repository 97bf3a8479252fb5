//! One call of a script, written once, as it travels.

use std::io::Write as _;
use std::time::Duration;

use redis::{Arg, Cmd, RedisWrite as _};

use crate::key::{Key, Side};
use crate::store::OwnerId;

/// A script, and the hash that a server which has seen it knows it by.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(code: &'static str) -> Self {
        Self {
            code,
            hash: redis::Script::new(code).get_hash().to_owned(),
        }
    }
}

/// What stands before the keys: how to call, the script, how many keys.
const HEADER: usize = 3;

/// A call that is being written: first all of its keys, then the arguments.
pub(crate) struct ScriptCall {
    script: &'static Script,
    command: Cmd,
}

impl ScriptCall {
    /// Of so many keys, and about so many arguments.
    pub(super) fn new(script: &'static Script, keys: usize, arguments: usize) -> Self {
        let count = HEADER + keys + arguments;
        let mut command = Cmd::with_capacity(count, count * 32);
        command.arg("EVALSHA").arg(&*script.hash).arg(keys);
        Self { script, command }
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
            // Into memory: it can't fail.
            let _ = writer.write_all(part.as_bytes());
        }
        drop(writer);
        self
    }

    /// A lock, its fence, its line, and who waits.
    pub(super) fn sides(&mut self, key: &Key) -> &mut Self {
        self.lock(key)
            .side(key, Side::Fence)
            .side(key, Side::Queue)
            .side(key, Side::Waiters)
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.command.write_arg(text.as_bytes());
        self
    }

    pub(super) fn owner(&mut self, owner: OwnerId) -> &mut Self {
        self.text(owner.simple().encode_lower(&mut [0; 32]))
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.command.arg(number);
        self
    }

    pub(super) fn millis(&mut self, length: Duration) -> &mut Self {
        self.number(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
    }
}
