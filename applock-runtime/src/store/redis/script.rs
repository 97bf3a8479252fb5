//! How a script call is written, and how it travels.
//!
//! A call is written once, straight into the command that is sent: keys first, then arguments,
//! no list between. It travels by the script's hash (40 bytes, not 10 KB); the same call can be
//! turned into one that brings the text, for a server that does not know the hash.
//!
//! What a script's keys and arguments mean is in `requests.rs`; when to send the text is the
//! store's. Danger: a key written after an argument is taken for an argument, so the caller
//! writes all keys first, as many as it announced.

use std::cell::Cell;
use std::io::{self, Write as _};
use std::time::Duration;

use redis::{Arg, Cmd, RedisWrite as _};
use serde::Serialize;

use crate::key::{Key, Side};
use crate::store::OwnerId;

/// A script, and the hash that a server which has seen it knows it by.
pub(super) struct Script {
    pub(super) code: &'static str,
    /// SHA-1 of `code` in hexadecimal digits: Redis's own name for it. A server does not know a wrong
    /// one, and then gets the text with each call.
    pub(super) hash: &'static str,
}

impl Script {
    pub(super) const fn new(code: &'static str, hash: &'static str) -> Self {
        Self { code, hash }
    }
}

/// A length in whole milliseconds, the scripts' unit.
pub(super) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// How many words stand before the keys: the command, the script, the number of keys.
const HEADER: usize = 3;

/// Calls of one or two locks are written into the buffers of the one before. Longer calls, and
/// those with long words, have their own: what is kept is never large.
const KEPT_WORDS: usize = 48;
const KEPT_BYTES: usize = 4_096;

thread_local! {
    /// The buffers of this thread's last call.
    static SPARE: Cell<Option<Cmd>> = const { Cell::new(None) };
}

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
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        let mut command = spare
            .filter(|_| count <= KEPT_WORDS)
            .unwrap_or_else(|| Cmd::with_capacity(count, count * 32));
        command.arg("EVALSHA").arg(script.hash).arg(keys);
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

    /// All keys of several locks by kind, the locks first: what a script asks for in one command stands
    /// side by side. A proxy that spreads keys sends a call by its first one, and all that is sent for a
    /// lock has to come to one server.
    pub(super) fn by_kind<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k Key> + Clone,
        sides: [Side; 3],
    ) {
        for key in keys.clone() {
            self.lock(key);
        }
        for side in sides {
            for key in keys.clone() {
                self.side(key, side);
            }
        }
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

    /// The fields of a struct as JSON, in the middle of a longer text: with what stands before and
    /// after them in place of the braces.
    pub(super) fn json_between(
        &mut self,
        before: &'static str,
        fields: &impl Serialize,
        after: &'static str,
    ) -> &mut Self {
        let mut writer = WithoutBraces {
            inner: self.command.writer_for_next_arg(),
            has_begun: false,
            last: None,
        };
        // Writing texts and numbers into memory can't fail.
        let _ = writer.inner.write_all(before.as_bytes());
        let _ = serde_json::to_writer(&mut writer, fields);
        let _ = writer.inner.write_all(after.as_bytes());
        drop(writer);
        self
    }

    /// A struct as JSON.
    pub(super) fn json(&mut self, fields: &impl Serialize) -> &mut Self {
        let writer = self.command.writer_for_next_arg();
        // Writing texts and numbers into memory can't fail.
        let _ = serde_json::to_writer(writer, fields);
        self
    }

    /// An owner id at the end of what stands before it in a text.
    pub(super) fn text_and_owner(&mut self, before: &'static str, owner: OwnerId) -> &mut Self {
        let mut writer = self.command.writer_for_next_arg();
        // Writing into memory can't fail.
        let _ = writer.write_all(before.as_bytes());
        let _ = writer.write_all(owner.simple().encode_lower(&mut [0; 32]).as_bytes());
        drop(writer);
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

impl Drop for ScriptCall {
    fn drop(&mut self) {
        let mut command = std::mem::take(&mut self.command);
        let bytes = command.args_iter().map(|argument| match argument {
            Arg::Simple(bytes) => bytes.len(),
            _ => 0,
        });
        let (words, bytes) = (command.args_iter().len(), bytes.sum::<usize>());
        if words <= KEPT_WORDS && bytes <= KEPT_BYTES {
            command.clear();
            // A thread that ends has no use for it.
            let _ = SPARE.try_with(|spare| spare.set(Some(command)));
        }
    }
}

/// Leaves the first byte out, and the last one.
struct WithoutBraces<W> {
    inner: W,
    has_begun: bool,
    /// The last byte so far.
    last: Option<u8>,
}

impl<W: io::Write> io::Write for WithoutBraces<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let rest = match bytes {
            [_, rest @ ..] if !self.has_begun => rest,
            all => all,
        };
        self.has_begun |= !bytes.is_empty();
        if let [most @ .., last] = rest {
            if let Some(before) = self.last.replace(*last) {
                self.inner.write_all(&[before])?;
            }
            self.inner.write_all(most)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SCRIPT: Script = Script::new("return 1", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");

    fn words(call: &ScriptCall) -> usize {
        call.by_hash().args_iter().len()
    }

    #[test]
    fn a_call_has_nothing_of_the_one_before_and_what_is_kept_is_never_large() {
        let is_kept = || {
            let kept = SPARE.take();
            let is_kept = kept.is_some();
            SPARE.set(kept);
            is_kept
        };
        let mut first = ScriptCall::new(&SCRIPT, 1, 1);
        first.text("key").text("argument");
        assert_eq!(words(&first), HEADER + 2);
        drop(first);
        assert!(is_kept());
        let mut second = ScriptCall::new(&SCRIPT, 1, 0);
        assert!(!is_kept());
        second.text("other");
        assert_eq!(words(&second), HEADER + 1);
        second.text(&"x".repeat(KEPT_BYTES));
        drop(second);
        assert!(!is_kept());
        let mut long = ScriptCall::new(&SCRIPT, 0, KEPT_WORDS);
        for _ in 0..KEPT_WORDS {
            long.text("x");
        }
        drop(long);
        assert!(!is_kept());
    }
}
