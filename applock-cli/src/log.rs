//! What the library logs, on standard error: what a person wants to read beside the output of a
//! nightly job. Warnings, unless `APPLOCK_LOG` says otherwise.

use crate::output;
use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && metadata.target().starts_with("applock")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            output::say(format_args!(
                "{}: {}",
                record.level().as_str().to_lowercase(),
                record.args()
            ));
        }
    }

    fn flush(&self) {}
}

/// From now on. `quiet`: nothing, unless it is asked for.
pub(crate) fn to_stderr(quiet: bool) {
    let asked = std::env::var("APPLOCK_LOG").ok();
    let level = asked.and_then(|level| level.parse().ok());
    let usual = if quiet {
        LevelFilter::Off
    } else {
        LevelFilter::Warn
    };
    // A second time changes nothing.
    let _ = log::set_logger(&Stderr);
    log::set_max_level(level.unwrap_or(usual));
}
