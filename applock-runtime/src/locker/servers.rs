//! What the command `applock` asks beyond the public interface: the servers of a store one by one, the
//! keys of a lock, changes as they happen, a release for a reason.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::blocking::block_on;
use crate::error::Result;
use crate::key::Side;
use crate::pattern::{Pattern, Wanted};
use crate::store::Question;

use super::lock::Lock;
use super::shared::AppLocker;

/// What one server of a store has answered.
#[derive(Debug)]
pub struct ServerAnswer {
    /// The server, as messages show it.
    pub server: String,
    /// How long it took.
    pub took: Duration,
    /// It has said something, be it an error.
    pub is_answered: bool,
    /// What it said, as JSON: texts, numbers, lists.
    pub answer: Result<serde_json::Value>,
}

/// Sends a command to each server that has locks of this locker, but for those of `except`: to none
/// where the store has no servers. Blocks, up to the command time-out.
///
/// # Errors
///
/// Where it is not known which servers there are.
pub fn ask_each_server(
    locker: &AppLocker,
    words: Vec<String>,
    except: Vec<String>,
) -> Result<Vec<ServerAnswer>> {
    let question = Question { words, except };
    let said = block_on(locker.engine().ask_each(question))?;
    let answers = said.into_iter().map(|said| ServerAnswer {
        server: said.server.to_string(),
        took: said.took,
        is_answered: said.is_answered,
        answer: said
            .answer
            .map_err(|error| error.into_error(said.server, None)),
    });
    Ok(answers.collect())
}

/// The keys of a lock: its own, its fence, its queue, its waiters.
///
/// # Errors
///
/// Where the lock's names can't be used.
pub fn keys_of(lock: &Lock) -> Result<[String; 4]> {
    let key = lock.resolve()?;
    let side = |side| key.side(side).concat();
    Ok([
        key.lock.to_string(),
        side(Side::Fence),
        side(Side::Queue),
        side(Side::Waiters),
    ])
}

/// The keys of those locks that change, as they change, where the servers send notifications of
/// that. A hint to look: where it is silent, nothing is known.
///
/// # Errors
///
/// Where the pattern can't be used.
pub fn hear_changes(locker: &AppLocker, pattern: &str) -> Result<Receiver<String>> {
    let (heard, changes) = channel();
    let wanted = match Wanted::of(locker.prefix(), pattern)? {
        Wanted::One(key) => Pattern::only(&key),
        Wanted::Some(pattern) => pattern,
        Wanted::None => return Ok(changes),
    };
    locker.engine().hear(wanted, heard)?;
    Ok(changes)
}

/// How long a reason may be: what is remembered of a run stays short.
const LONGEST_REASON: usize = 200;

/// [`Lock::force_release_blocking`], for a reason that is remembered with who did it, shortened if it
/// is long.
///
/// # Errors
///
/// As [`Lock::force_release`].
pub fn force_release_for(lock: &Lock, reason: &str) -> Result<bool> {
    let key = lock.resolve()?;
    let reason = reason.trim().chars().take(LONGEST_REASON).collect();
    block_on(lock.locker().engine().force(key, None, reason))
}
