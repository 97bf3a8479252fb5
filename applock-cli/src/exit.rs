//! How the command ends: its exit codes, and the one line that says why.
//!
//! The codes are those of sysexits(3), where a shell would look for them, and of timeout(1) for a
//! command that can't be run.

use applock_runtime::{Error, InvalidInput};

/// Nothing is wrong: also what `info` says of a lock that is held.
pub(crate) const OK: u8 = 0;
/// `info`: the lock is free. `release`: there was nothing to release.
pub(crate) const NO: u8 = 1;
/// The command line can't be understood (EX_USAGE).
pub(crate) const USAGE: u8 = 64;
/// The store can't be reached, or does not answer (EX_UNAVAILABLE).
pub(crate) const UNAVAILABLE: u8 = 69;
/// Another holder has the lock (EX_TEMPFAIL).
pub(crate) const BUSY: u8 = 75;
/// The lease was lost while the command ran (EX_PROTOCOL).
pub(crate) const LOST: u8 = 76;
/// The store refused us (EX_NOPERM).
pub(crate) const DENIED: u8 = 77;
/// A value that can't be used, or a store that is set up wrongly (EX_CONFIG).
pub(crate) const INVALID: u8 = 78;
/// The command's own machinery failed.
pub(crate) const FAILED: u8 = 125;
/// The program is there and can't be run.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// There is no such program.
pub(crate) const NOT_FOUND: u8 = 127;

/// What a shell is told of a process that a signal ended.
pub(crate) fn of_signal(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |signal| signal.saturating_add(128))
}

/// Why nothing came of it, in one line, and the code that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// A value that can't be used: which, why, and what to write.
    pub(crate) fn invalid(what: &str, value: &str, reason: &str, remedy: &str) -> Self {
        Self::new(
            INVALID,
            format!("invalid {what} {}: {reason}; {remedy}", quoted(value)),
        )
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Busy(_) | Error::AlreadyRan(_) => BUSY,
            Error::Lost { .. } | Error::NotHeld { .. } => LOST,
            Error::Unavailable(_) | Error::Closed { .. } => UNAVAILABLE,
            Error::Denied(_) => DENIED,
            Error::Misconfigured(_) | Error::Invalid(_) => INVALID,
            _ => FAILED,
        };
        let text = match &error {
            Error::Invalid(input) => in_our_words(input),
            // Of a script that is refused halfway, servers do not say which right it lacked.
            Error::Denied(_) if error.to_string().contains("lacks a right") => {
                format!("{error}; `applock doctor` says which")
            }
            error => error.to_string(),
        };
        Self::new(code, text)
    }
}

/// What the library says of a value, in terms of the command line: it speaks of the attribute's
/// arguments.
fn in_our_words(input: &InvalidInput) -> String {
    const ARGUMENTS: [(&str, &str); 10] = [
        ("app", "--app"),
        ("name", "--name"),
        ("key", "--key"),
        ("key_prefix", "--key-prefix"),
        ("ttl", "--ttl"),
        ("wait", "--wait"),
        ("every", "--every"),
        ("at_least", "--at-least"),
        ("at_most", "--at-most"),
        ("stale_after", "--stale"),
    ];
    let argument = |name: &str| ARGUMENTS.into_iter().find(|(known, _)| *known == name);
    let what = argument(input.what).map_or(input.what, |(_, ours)| ours);
    let translated = |text: &str| {
        // No store of one process is of use to a command.
        let mut text = text.replace(" or memory:", "");
        for (name, ours) in ARGUMENTS {
            let Some((before, after)) = text.split_once(&format!("{name} = \"")) else {
                continue;
            };
            if let Some((value, rest)) = after.split_once('"') {
                text = format!("{before}{ours} {value}{rest}");
            }
        }
        text.replace("at_least", "--at-least")
            .replace("at_most", "--at-most")
    };
    let (reason, remedy) = (translated(&input.reason), translated(&input.remedy));
    format!("invalid {what} {}: {reason}; {remedy}", input.value)
}

/// Text from outside, in quotation marks, escaped and shortened.
pub(crate) fn quoted(text: &str) -> String {
    applock_runtime::__private::shown_in_quotes(text)
}
