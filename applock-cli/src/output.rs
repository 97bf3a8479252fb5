//! What is written: answers to standard output, all else to standard error, a line each.

use std::io::Write as _;

use crate::exit::{self, Failure};

/// One line to standard error.
pub(crate) fn say(text: impl std::fmt::Display) {
    // Nobody may listen any more.
    let _ = writeln!(std::io::stderr(), "applock: {text}");
}

/// Some lines to standard error, as they are.
pub(crate) fn complain(text: impl std::fmt::Display) {
    let _ = write!(std::io::stderr(), "{text}");
}

/// To standard output. A reader that has heard enough (`| head`) is no failure.
pub(crate) fn print(text: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = write!(out, "{text}").and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            exit::FAILED,
            format!("the output can't be written: {error}"),
        )),
        _ => Ok(()),
    }
}

/// The same for a command that has no end of its own: when nobody reads any more, it ends.
pub(crate) fn print_on(text: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = write!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => std::process::exit(i32::from(exit::OK)),
        _ => Failure::new(
            exit::FAILED,
            format!("the output can't be written: {error}"),
        ),
    })
}
