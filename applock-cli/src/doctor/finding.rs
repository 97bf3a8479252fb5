//! What a finding is, and how the servers are asked.

use applock_runtime::__private::{ServerAnswer, ask_each_server, shown_text};
use applock_runtime::{AppLocker, Error};
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// Worth knowing, and right for some.
    Note,
    /// Locks work, and may be lost by what is told.
    Warning,
    /// Locks do not work as they should.
    Problem,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// The server; `None`: the store as a whole.
    pub(super) server: Option<String>,
    /// A word: `reach`, `version`, `eviction`…
    pub(super) about: &'static str,
    pub(super) what: String,
    /// What to do; empty where there is nothing to do.
    pub(super) remedy: String,
}

impl Finding {
    pub(super) fn new(level: Level, about: &'static str, what: impl Into<String>) -> Self {
        Self {
            level,
            server: None,
            about,
            what: what.into(),
            remedy: String::new(),
        }
    }

    pub(super) fn ok(about: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Ok, about, what)
    }

    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        let remedy = remedy.into();
        Self { remedy, ..self }
    }

    pub(super) fn at(self, server: &str) -> Self {
        let server = Some(server.to_owned());
        Self { server, ..self }
    }
}

/// What each server says to a command. A command that leaves out a server would be read as well:
/// where one can't be asked, that is the answer.
pub(super) fn ask(locker: &AppLocker, words: &[&str]) -> Result<Vec<ServerAnswer>, Error> {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    let mut said = ask_each_server(locker, words)?;
    // A server without a name of its own is the one of the URL.
    for one in &mut said {
        one.server = shown_text(&one.server);
    }
    Ok(said)
}

pub(super) fn brief(error: &Error) -> String {
    match error {
        Error::Unavailable(fault) | Error::Denied(fault) | Error::Misconfigured(fault) => {
            fault.what.to_string()
        }
        other => other.to_string(),
    }
}
