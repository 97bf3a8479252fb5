//! What `applock doctor` asks: the servers of a store one by one, and the keys of a lock. Not part of
//! the public interface.

use std::time::Duration;

use crate::blocking::block_on;
use crate::error::Result;
use crate::key::Side;

use super::lock::Lock;
use super::shared::AppLocker;

/// What one server of a store has answered.
#[derive(Debug)]
pub struct ServerAnswer {
    /// The server, as messages show it.
    pub server: String,
    /// How long it took.
    pub took: Duration,
    /// What it said, as JSON: texts, numbers, lists.
    pub answer: Result<serde_json::Value>,
}

/// Sends a command to each server that has locks of this locker: to none where the store has no
/// servers. Blocks, up to the command time-out.
///
/// # Errors
///
/// Where it is not known which servers there are.
pub fn ask_each_server(locker: &AppLocker, words: Vec<String>) -> Result<Vec<ServerAnswer>> {
    let said = block_on(locker.engine().ask_each(words))?;
    let answers = said.into_iter().map(|said| ServerAnswer {
        server: said.server.to_string(),
        took: said.took,
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
