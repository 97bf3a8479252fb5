//! Promise: what the library tells is told to users of `log` too: a function that can't run and
//! has no way to say so leaves a line there.

use std::io::Write as _;

use applock::{AppLocker, singleton};
use log::{LevelFilter, Log, Metadata, Record};

use crate::support::child::{self, ChildProcess};
use crate::support::ports::nowhere;

/// Says each line to the parent, as `env_logger` writes it.
struct Says;

impl Log for Says {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (level, target) = (record.level(), record.target());
        child::say(format_args!("{level} {target}: {}", record.args()));
    }

    fn flush(&self) {
        std::io::stdout().flush().ok();
    }
}

#[singleton(app = "silent", locker = locker)]
fn returns_nothing(locker: &AppLocker) {}

#[singleton(app = "silent", locker = locker)]
async fn returns_none(locker: &AppLocker) -> Option<u8> {
    Some(1)
}

#[test]
fn users_of_log_see_what_did_not_run_and_one_line_for_what_did() {
    if let Some(url) = child::part() {
        log::set_boxed_logger(Box::new(Says)).unwrap();
        log::set_max_level(LevelFilter::Info);
        let nowhere = AppLocker::builder().store(url).build().unwrap();
        returns_nothing(&nowhere);
        assert!(pollster::block_on(returns_none(&nowhere)).is_none());
        let here = AppLocker::in_memory();
        assert!(pollster::block_on(returns_none(&here)).is_some());
        return child::say("done");
    }
    let child = ChildProcess::start(
        child::name_of(users_of_log_see_what_did_not_run_and_one_line_for_what_did),
        &format!("redis://127.0.0.1:{}", nowhere()),
    );
    let mut lines: Vec<String> = std::iter::from_fn(|| Some(child.says()))
        .take_while(|line| line != "done")
        .collect();
    child.dismiss();
    // The connection has lines of its own.
    lines.retain(|line| line.contains("silent"));
    let [nothing, none, ended] = &lines[..] else {
        panic!("{lines:#?}");
    };
    for (line, function) in [(nothing, "returns_nothing"), (none, "returns_none")] {
        assert!(line.starts_with("ERROR applock"), "{line}");
        assert!(
            line.contains("not run: unavailable") && line.contains(function),
            "{line}"
        );
    }
    assert!(
        ended.starts_with("INFO applock") && ended.contains("ended: returned"),
        "{ended}"
    );
}
