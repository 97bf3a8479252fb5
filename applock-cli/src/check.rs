//! `applock check`: for monitors, by the convention of their plugins: a line, and 0, 1, 2 or 3.

use std::time::Duration;

use applock_runtime::{Ending, Error, LastHolding};

use crate::args::{CheckArgs, StoreArgs};
use crate::exit::Failure;
use crate::view::{ago, length};
use crate::{exit, input, output, view};

/// The plugin convention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

pub(crate) fn check(args: &CheckArgs, store: &StoreArgs) -> Result<u8, Failure> {
    let most = input::length("--max-age", &args.max_age)?;
    let locker = input::locker(store)?;
    let lock = input::lock(&locker, &args.lock);
    let newest = if args.must_succeed {
        lock.last_success_blocking()
    } else {
        lock.last_holding_blocking()
    };
    let (state, text) = match newest {
        Ok(last) => judge(last.as_ref(), most, args.must_succeed),
        // A mistake in the command line is no state of the job.
        Err(error @ Error::Invalid(_)) => return Err(error.into()),
        Err(error) => (State::Unknown, error.to_string()),
    };
    let word = match state {
        State::Ok => "OK",
        State::Warning => "WARNING",
        State::Critical => "CRITICAL",
        State::Unknown => "UNKNOWN",
    };
    output::print(format_args!("{word} - {text}\n"))?;
    Ok(state as u8)
}

fn judge(last: Option<&LastHolding>, most: Duration, must_succeed: bool) -> (State, String) {
    let Some(run) = last.filter(|run| view::is_date(run.from)) else {
        let text = if must_succeed {
            "no run that ended well is remembered"
        } else {
            "no run is remembered: it never ran, or longer ago than the store remembers"
        };
        return (State::Critical, text.to_owned());
    };
    let age = ago(run.from);
    // What follows the bar is for the monitor's curve.
    let curve = format!("age={}s;;{};0", age.as_secs(), most.as_secs());
    let kind = if must_succeed { "success" } else { "run" };
    let told = format!(
        "the last {} began {} ago: {}",
        kind,
        length(age),
        view::run(run)
    );
    if age > most {
        let text = format!("{told}; that is longer than {} | {curve}", length(most));
        return (State::Critical, text);
    }
    let state = match run.ending {
        Ending::Held | Ending::Ok | Ending::Released => State::Ok,
        _ => State::Warning,
    };
    (state, format!("{told} | {curve}"))
}

const _: () = assert!(State::Ok as u8 == exit::OK);
