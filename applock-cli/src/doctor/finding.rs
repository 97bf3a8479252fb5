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

    /// An error, and what the library says is to be done about it.
    pub(super) fn of_error(about: &'static str, error: &Error) -> Self {
        let remedy = match error {
            Error::Unavailable(fault) | Error::Denied(fault) | Error::Misconfigured(fault) => {
                fault.remedy
            }
            _ => "",
        };
        let text = error.to_string();
        let what = text.strip_suffix(remedy).unwrap_or(&text);
        let what = what.strip_suffix("; ").unwrap_or(what);
        Self::new(Level::Problem, about, what).remedy(remedy)
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

/// The servers that have locks, asked one command after another.
pub(super) struct Servers<'a> {
    pub(super) locker: &'a AppLocker,
    /// Those that have left a question without an answer. They are asked no more: each question would
    /// take as long again.
    silent: Vec<String>,
}

impl<'a> Servers<'a> {
    pub(super) fn of(locker: &'a AppLocker) -> Self {
        Self {
            locker,
            silent: Vec::new(),
        }
    }

    /// What each of them says to a command. One that falls silent says so, once.
    pub(super) fn ask(&mut self, words: &[&str]) -> Result<Vec<ServerAnswer>, Error> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let mut said = ask_each_server(self.locker, words, self.silent.clone())?;
        for one in &mut said {
            // A server without a name of its own is the one of the URL.
            one.server = shown_text(&one.server);
            if !one.is_answered {
                self.silent.push(one.server.clone());
            }
        }
        Ok(said)
    }

    pub(super) fn is_silent(&self, server: &str) -> bool {
        self.silent.iter().any(|silent| silent == server)
    }
}

pub(super) fn brief(error: &Error) -> String {
    match error {
        Error::Unavailable(fault) | Error::Denied(fault) | Error::Misconfigured(fault) => {
            fault.what.to_string()
        }
        other => other.to_string(),
    }
}
